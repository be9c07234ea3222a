//! One star at one server, which is one node of a chain: its state, and where each input goes.

use std::collections::{BTreeMap, VecDeque};

use star_control::View;
use star_core::{
    collections::Map,
    ids::{Epoch, Seq, ServerId, StarId, Version},
    key::Key,
    protocol::Effects,
    store::Store,
    time::Time,
};

use super::{
    catch_up::CatchUp,
    chain::Chain,
    config::Acks,
    context::Context,
    forward::OwnWrite,
    head::Decided,
    log::Log,
    message::{Body, Message},
    pass::Down,
    read::{Asked, Question, Waiter},
    repair::Progress,
    requests::Requests,
};

/// The most messages of a coming epoch that are kept until this server has its view; more are lost, and said again.
const EARLY_MESSAGES_MAX: usize = 4096;

/// The most bytes of values in them.
const EARLY_BYTES_MAX: usize = 16 << 20;

/// One star at one server.
#[derive(Debug)]
pub struct Replica {
    pub(crate) star: StarId,
    /// The view that this server acts on. Its epoch only grows.
    pub(crate) view: View,
    /// The view's members from the head to the tail.
    pub(crate) chain: Chain,
    /// The other members, if this server is one.
    pub(crate) peers: Vec<ServerId>,
    /// Whether this server has taken over the order of this view: nothing is passed on, committed or acked before.
    pub(crate) installed: bool,
    /// The last seq that the one before had when this server installed the view. All that was committed in the views
    /// before is in `(0, base]`.
    pub(crate) base: Seq,

    /// The writes after `committed`, without a gap. `committed <= log.ready() <= log.last()`.
    pub(crate) log: Log,
    /// The tail has every write up to here; they are applied here. Never falls within a foundation.
    pub(crate) committed: Seq,
    /// The keys that a write in the log changes. The store's dirty marks are the same set.
    pub(crate) dirty: Map<Key, Dirty>,
    /// The highest version that a deleted key of this star ever had: a key that comes back goes on from here.
    pub(crate) version_floor: Version,
    pub(crate) requests: Requests,

    /// Unfinished writes of this server's clients, by their numbers.
    pub(crate) own: BTreeMap<u64, OwnWrite>,
    pub(crate) last_own: u64,
    /// Those of them that go to the head at the end of this turn.
    pub(crate) forward_due: Vec<u64>,
    /// At the head: which writes of each origin were decided in this epoch, or were in the log when it began.
    pub(crate) decided: BTreeMap<ServerId, Decided>,
    /// At the head: bytes of the values that it has ordered and not applied; part of the server's sum.
    pub(crate) promised_bytes: u64,
    /// What the one after this has been sent.
    pub(crate) down: Down,
    /// Whether `committed` has changed in this turn.
    pub(crate) ack_due: bool,
    /// Whether something is missing here that the one before can send again.
    pub(crate) position_due: bool,
    /// The last seq here when something was found missing, so that it is said once.
    pub(crate) missed_after: Option<Seq>,

    /// Reads and lists that wait for the next question to the tail.
    pub(crate) readers: Vec<Waiter>,
    /// What the tail was asked and has not answered.
    pub(crate) asked: BTreeMap<u64, Asked>,
    pub(crate) last_asked: u64,
    /// At a tail that does not have all yet that was committed before its time: what it was asked.
    pub(crate) questions: Vec<Question>,

    /// Messages of an epoch whose view this server does not have yet.
    pub(crate) early: VecDeque<(ServerId, Message)>,
    pub(crate) progress: Progress,
    pub(crate) catch_up: CatchUp,
    /// Since when this server is asked to leave, if it is.
    pub(crate) leaving_since: Option<Time>,
    /// Whether it has nothing to wait for before it leaves.
    pub(crate) may_leave: bool,
}

/// What is known of a key with writes in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Dirty {
    /// The last of them.
    pub(crate) last: Seq,
    /// The key's version after it; 0 if it is a delete.
    pub(crate) version: Version,
}

impl Replica {
    /// `first_own`: below all numbers that this life gives to writes.
    pub(crate) fn new(star: StarId, first_own: u64) -> Self {
        Self {
            star,
            view: View { star, ..View::default() },
            chain: Chain::default(),
            peers: Vec::new(),
            installed: false,
            base: Seq(0),
            log: Log::default(),
            committed: Seq(0),
            dirty: Map::default(),
            version_floor: Version(0),
            requests: Requests::default(),
            own: BTreeMap::new(),
            last_own: first_own,
            forward_due: Vec::new(),
            decided: BTreeMap::new(),
            promised_bytes: 0,
            down: Down::default(),
            ack_due: false,
            position_due: false,
            missed_after: None,
            readers: Vec::new(),
            asked: BTreeMap::new(),
            last_asked: 0,
            questions: Vec::new(),
            early: VecDeque::new(),
            progress: Progress::default(),
            catch_up: CatchUp::default(),
            leaving_since: None,
            may_leave: false,
        }
    }

    /// The epoch this server acts in.
    pub fn epoch(&self) -> Epoch {
        self.view.epoch
    }

    /// The chain that this server acts in.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    pub(crate) fn is_head(&self, me: ServerId) -> bool {
        self.chain.head() == Some(me)
    }

    pub(crate) fn is_tail(&self, me: ServerId) -> bool {
        self.chain.tail() == Some(me)
    }

    /// Whether this server may answer reads of this star while its lease lasts: it has every committed write.
    pub(crate) fn serves(&self, me: ServerId) -> bool {
        self.view.is_member(me) && !self.view.joining.contains(&me) && !self.view.leaving.contains(&me)
    }

    /// The last seq up to which this server has all, values too.
    pub(crate) fn ready(&self) -> Seq {
        self.log.ready()
    }

    fn early_bytes(&self) -> usize {
        self.early.iter().map(|(_, message)| message.tail.len()).sum()
    }

    /// A message of another server.
    pub(crate) fn on_message<S: Store, E: Effects<Message>>(
        &mut self,
        cx: &mut Context<'_, S, E>,
        from: ServerId,
        message: Message,
    ) {
        if message.epoch > self.view.epoch {
            let early_bytes = if message.tail.is_empty() { 0 } else { self.early_bytes() };
            if self.early.len() < EARLY_MESSAGES_MAX && early_bytes + message.tail.len() <= EARLY_BYTES_MAX {
                self.early.push_back((from, message));
            }
            return;
        }
        if message.epoch < self.view.epoch {
            cx.shared.counters.ignored_old_epoch += 1;
            return;
        }
        if !self.view.is_member(from) && !self.view.learners.contains(&from) {
            cx.shared.counters.ignored_stranger += 1;
            return;
        }
        match message.body {
            Body::Forward { oldest, writes } => self.on_forward(cx, from, oldest, writes, message.tail),
            Body::Writes { first, entries } => self.on_writes(cx, from, first, entries, message.tail),
            Body::Piece { seq, offset } => self.on_piece(cx, from, seq, offset, message.tail),
            Body::Ack { committed } => self.on_ack(cx, from, committed),
            Body::Ask { ask } => self.on_question(cx, Question { from, ask, key: None }),
            Body::Answer { ask, committed } => self.on_answer(cx, ask, committed),
            Body::Read { ask, key } => self.on_question(cx, Question { from, ask, key: Some(key) }),
            Body::ReadAnswer { ask, body } => self.on_read_answer(cx, ask, &body, &message.tail),
            Body::Position(position) => self.on_position(cx, from, position),
            Body::AskPosition => self.on_ask_position(cx, from),
            Body::Install { from: same, base } => self.on_install(cx, from, same, base),
            Body::CatchUp { ask, since } => self.on_catch_up(cx, from, ask, since),
            Body::Changes { ask, changes } => self.on_changes(cx, ask, changes, &message.tail),
            Body::TooOld { ask } => self.on_too_old(cx, ask),
        }
    }

    /// The end of a turn: says once what the turn's inputs gave cause to say.
    pub(crate) fn end_turn<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>) {
        self.send_forwards(cx);
        self.send_down(cx);
        if std::mem::take(&mut self.ack_due) && self.installed {
            self.send_acks(cx);
        }
        if std::mem::take(&mut self.position_due) {
            self.send_position(cx);
        }
        self.send_questions(cx);
    }

    fn send_acks<S: Store, E: Effects<Message>>(&self, cx: &mut Context<'_, S, E>) {
        let me = cx.me();
        let ack = Body::Ack { committed: self.acknowledged(cx) };
        match cx.config.acks {
            Acks::Chain => {
                if let Some(before) = self.chain.predecessor(me) {
                    self.send(cx, before, ack);
                }
            }
            Acks::Direct if self.is_tail(me) => cx.effects.broadcast(&self.peers, &self.message(ack)),
            Acks::Direct => {}
        }
    }

    pub(crate) fn send<S: Store, E: Effects<Message>>(&self, cx: &mut Context<'_, S, E>, to: ServerId, body: Body) {
        cx.effects.send(to, &self.message(body));
    }

    pub(crate) fn message(&self, body: Body) -> Message {
        Message { star: self.star, epoch: self.view.epoch, body, tail: bytes::Bytes::new() }
    }

    /// Whether nothing is unfinished here.
    pub(crate) fn is_idle(&self) -> bool {
        self.own.is_empty()
            && self.committed == self.log.last()
            && self.readers.is_empty()
            && self.asked.is_empty()
            && (self.installed || !self.view.exists() || self.peers.is_empty())
    }

    /// Some time has passed.
    pub(crate) fn on_tick<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>) {
        self.repair(cx);
        self.tend_catch_up(cx);
        self.tend_leaving(cx);
    }
}
