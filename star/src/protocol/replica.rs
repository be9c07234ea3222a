//! One star at one server: its state, and where each input goes.

use std::collections::{BTreeMap, VecDeque};

use star_control::View;
use star_core::{
    collections::Map,
    ids::{Epoch, Seq, ServerId, StarId, Version},
    key::Key,
    protocol::Effects,
    requests::Asker,
    store::{Place, Store},
    time::Time,
};

use super::{
    catch_up::CatchUp,
    config::Bug,
    context::Context,
    log::Log,
    message::{Body, Message, Stamp, WriteHead, WriteId},
    recent::Recent,
    repair::Progress,
    resume::Noted,
    sessions::Sessions,
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
    /// The other members, if this server is one: who is sent what this server says to all.
    pub(crate) peers: Vec<ServerId>,
    /// Whether this server has taken over the order of this view: nothing is stamped, acked or counted before.
    pub(crate) installed: bool,

    /// The stamps in `(committed, last]`, without a gap.
    pub(crate) log: Log,
    /// This server holds every stamp and every value up to here, and has marked their keys dirty.
    /// `committed <= ready <= log.last()`.
    pub(crate) ready: Seq,
    /// Every member has every write up to here; they are applied here. Never falls.
    pub(crate) committed: Seq,
    /// What each member of the view, this server too, has acked in this epoch.
    pub(crate) acked: Vec<(ServerId, Seq)>,
    /// At the leader of a view that is not installed: `(ready, committed)` of each member that has reported.
    pub(crate) reports: BTreeMap<ServerId, (Seq, Seq)>,

    /// Writes that are not committed here, with and without a stamp.
    pub(crate) buffer: Map<WriteId, Buffered>,
    /// Stamps whose write is not here yet.
    pub(crate) missing: Map<WriteId, Seq>,
    /// The numbers of this server's own writes of this star that may be unfinished, in order.
    pub(crate) own: VecDeque<u64>,
    /// By origin: the number below which all of its writes of this star are finished.
    pub(crate) finished_below: BTreeMap<ServerId, u64>,
    /// The keys with a seq in `(committed, ready]` that changes them. The store's dirty marks are the same set.
    pub(crate) dirty: Map<Key, Dirty>,
    /// The highest version that a deleted key of this star ever had: a key that comes back goes on from here.
    pub(crate) version_floor: Version,
    pub(crate) sessions: Sessions,
    /// The keys that were changed lately, for servers that catch up.
    pub(crate) recent: Recent,
    /// Reads and lists that wait until a seq is committed.
    pub(crate) waiting: BTreeMap<Seq, Vec<Waiter>>,
    /// Reads for which the leader was asked.
    pub(crate) asked: BTreeMap<u64, (Asker, Key, Time)>,
    pub(crate) last_asked: u64,

    /// At the leader: bytes of the values that it has stamped and not applied; part of the server's sum.
    pub(crate) promised_bytes: u64,
    /// Stamps given in this turn, to be sent at its end; the last is at `log.last()`.
    pub(crate) stamps_due: Vec<Stamp>,
    /// Whether `ready` has changed in this turn.
    pub(crate) ack_due: bool,
    /// Whose clients wait for that ack: the origins of what has become ready in this turn, above all.
    pub(crate) ack_awaited_by: Vec<ServerId>,
    /// The members where reads wait for what is to be committed.
    pub(crate) hurried_by: Vec<ServerId>,
    /// Until when this server is one of them.
    pub(crate) hurries_until: Time,
    /// Messages of an epoch whose view this server does not have yet.
    pub(crate) early: VecDeque<(ServerId, Message)>,
    pub(crate) progress: Progress,
    /// The last seq of the order with which this server installed its view.
    pub(crate) base: Seq,
    pub(crate) catch_up: CatchUp,
    /// What this server has noted in its store.
    pub(crate) noted: Noted,
    /// Since when this server is asked to leave, if it is.
    pub(crate) leaving_since: Option<Time>,
    /// Whether it has nothing to wait for before it leaves.
    pub(crate) may_leave: bool,
}

/// A write that is not committed here.
#[derive(Debug)]
pub(crate) struct Buffered {
    pub(crate) head: WriteHead,
    /// Its value in the store; `None` for a delete.
    pub(crate) place: Option<Place>,
    /// How many bytes of the value have come, from its beginning on.
    pub(crate) received_bytes: u32,
    /// Its place in the order, once the stamp is known here.
    pub(crate) seq: Option<Seq>,
    /// The epoch in which it came.
    pub(crate) epoch: Epoch,
    /// Whether this life of this server took it from a client, and holds it against the buffer limit.
    pub(crate) is_own: bool,
    /// At the origin: who waits for it.
    pub(crate) asker: Option<Asker>,
    /// At the origin: when it was last sent, and how often before.
    pub(crate) said_at: Time,
    pub(crate) repeats: u32,
}

impl Buffered {
    pub(crate) fn is_complete(&self) -> bool {
        self.received_bytes == self.head.value_bytes
    }
}

/// What is known of a key with writes in `(committed, ready]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Dirty {
    /// The last of them.
    pub(crate) last: Seq,
    /// The key's version after it; 0 if it is a delete.
    pub(crate) version: Version,
}

/// Who waits for a seq to be committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Waiter {
    /// A read of a key that was dirty.
    Read(Asker, Key),
    /// A list, by its number at the node.
    List(u64),
    /// Another server's read of a key that was dirty here, at the leader.
    Remote { from: ServerId, read: u64 },
}

impl Replica {
    pub(crate) fn new(star: StarId) -> Self {
        Self {
            star,
            view: View { star, ..View::default() },
            peers: Vec::new(),
            installed: false,
            log: Log::default(),
            ready: Seq(0),
            committed: Seq(0),
            acked: Vec::new(),
            reports: BTreeMap::new(),
            buffer: Map::default(),
            missing: Map::default(),
            own: VecDeque::new(),
            finished_below: BTreeMap::new(),
            dirty: Map::default(),
            version_floor: Version(0),
            sessions: Sessions::default(),
            recent: Recent::default(),
            waiting: BTreeMap::new(),
            asked: BTreeMap::new(),
            last_asked: 0,
            promised_bytes: 0,
            stamps_due: Vec::new(),
            ack_due: false,
            ack_awaited_by: Vec::new(),
            hurried_by: Vec::new(),
            hurries_until: Time::ZERO,
            early: VecDeque::new(),
            progress: Progress::default(),
            base: Seq(0),
            catch_up: CatchUp::default(),
            noted: Noted::default(),
            leaving_since: None,
            may_leave: false,
        }
    }

    /// The epoch this server acts in.
    pub fn epoch(&self) -> Epoch {
        self.view.epoch
    }

    fn early_bytes(&self) -> usize {
        self.early.iter().map(|(_, message)| message.tail.len()).sum()
    }

    pub(crate) fn leads(&self, me: ServerId) -> bool {
        self.view.leader == me && self.view.is_member(me)
    }

    /// Whether this server may answer reads of this star while its lease lasts: it has every committed write.
    pub(crate) fn serves(&self, me: ServerId) -> bool {
        self.view.is_member(me) && !self.view.joining.contains(&me) && !self.view.leaving.contains(&me)
    }

    /// A message of another server.
    pub(crate) fn on_message<S: Store, E: Effects<Message>>(
        &mut self,
        cx: &mut Context<'_, S, E>,
        from: ServerId,
        message: Message,
    ) {
        if message.epoch > self.view.epoch {
            let early_bytes: usize = if message.tail.is_empty() { 0 } else { self.early_bytes() };
            if self.early.len() < EARLY_MESSAGES_MAX && early_bytes + message.tail.len() <= EARLY_BYTES_MAX {
                self.early.push_back((from, message));
            }
            return;
        }
        let counted_anyway = match message.body {
            Body::Ack { .. } => cx.config.has_bug(Bug::EpochMissingFromAcks),
            Body::Install { .. } => cx.config.has_bug(Bug::StaleInstallAccepted),
            _ => false,
        };
        if message.epoch < self.view.epoch && !counted_anyway {
            cx.shared.counters.ignored_old_epoch += 1;
            return;
        }
        if !self.view.is_member(from) && !self.view.learners.contains(&from) {
            cx.shared.counters.ignored_stranger += 1;
            return;
        }
        match message.body {
            Body::Write(head) => self.on_write(cx, from, head, &message.tail),
            Body::Piece { write, offset, pass_on } => self.on_piece(cx, (write, offset), pass_on, &message.tail),
            Body::Stamps { first, stamps } => self.on_stamps(cx, from, first, &stamps),
            Body::Ack { ready, hurry } => self.on_ack(cx, from, ready, hurry),
            Body::Fetch { writes } => self.on_fetch(cx, from, &writes),
            Body::Read { read, key } => self.on_read(cx, from, read, &key),
            Body::ReadAnswer { read, seq } => self.on_read_answer(cx, read, seq),
            Body::Report { ready, committed } => self.on_report(cx, from, ready, committed),
            Body::Install { from: base, stamps } => self.on_install(cx, from, base, &stamps),
            Body::AskUnderWay { writes } => self.on_ask_under_way(cx, from, writes),
            Body::Finished { writes } => self.on_finished(cx, &writes),
            Body::CatchUp { ask, since, kept } => self.on_catch_up(cx, from, ask, since, &kept),
            Body::Changes { ask, changes } => self.on_changes(cx, ask, changes, &message.tail),
            Body::TooOld { ask } => self.on_too_old(cx, ask),
            Body::Hello { installed, ready } => self.on_hello(cx, from, installed, ready),
            Body::Sounding { origin, number } => self.on_sounding(cx, from, origin, number),
            Body::SlowLinks { from: senders } => cx.shared.slow.on_told(cx.now, from, &senders),
        }
    }

    /// The end of a turn: says once what the turn's inputs gave cause to say.
    pub(crate) fn end_turn<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>) {
        if !self.stamps_due.is_empty() {
            let stamps = std::mem::take(&mut self.stamps_due);
            let first = Seq(self.log.last().0 + 1 - stamps.len() as u64);
            self.broadcast(cx, Body::Stamps { first, stamps });
            // The leader stamps what it holds, so its stamps are its acks.
            self.ack_due = self.ready != self.log.last();
        }
        if std::mem::take(&mut self.ack_due) && self.installed {
            self.ack(cx);
        }
        self.ack_awaited_by.clear();
        // Nothing of this turn has left yet.
        self.note_turn(cx);
    }

    pub(crate) fn send<S: Store, E: Effects<Message>>(&self, cx: &mut Context<'_, S, E>, to: ServerId, body: Body) {
        cx.effects.send(to, &self.message(body));
    }

    pub(crate) fn broadcast<S: Store, E: Effects<Message>>(&self, cx: &mut Context<'_, S, E>, body: Body) {
        cx.effects.broadcast(&self.peers, &self.message(body));
    }

    pub(crate) fn message(&self, body: Body) -> Message {
        Message { star: self.star, epoch: self.view.epoch, body, tail: bytes::Bytes::new() }
    }

    /// Whether nothing is unfinished here.
    pub(crate) fn is_idle(&self) -> bool {
        self.buffer.is_empty()
            && self.committed == self.log.last()
            && self.waiting.is_empty()
            && self.asked.is_empty()
            && (self.installed || !self.view.exists() || self.peers.is_empty())
    }

    /// Some time has passed.
    pub(crate) fn on_tick<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>) {
        self.sessions.expire(cx.now, cx.config.session_age_max);
        self.repair(cx);
        self.ask_reads_again(cx);
        self.tend_catch_up(cx);
        self.tend_leaving(cx);
    }
}
