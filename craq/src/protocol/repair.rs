//! What heals lost messages: when nothing has moved for a while although something is unfinished, or when a link is new,
//! a server says again what may have been lost. All of it is idempotent.

use std::time::Duration;

use star_core::{
    ids::{Seq, ServerId},
    protocol::Effects,
    store::Store,
    time::Time,
};

use super::{
    config::Bug,
    context::Context,
    message::{Body, Message},
    replica::Replica,
};

/// The most own writes sent again at a time.
const WRITES_AT_A_TIME: usize = 256;

/// How fast a value surely travels, in bytes a second: it is not sent again before it must have arrived.
const BYTES_PER_SECOND_MIN: u64 = 20_000_000;

/// How often the wait before saying something again doubles at the most.
const DOUBLINGS_MAX: u32 = 5;

/// What keeps a replica from finishing what it has begun, and what was done about it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    /// When something last moved, or was said again.
    said_at: Time,
    /// How often something was said again since something moved.
    repeats: u32,
    /// What is applied, and how much has come of a value that is not here as a whole. What merely comes in on top does
    /// not count.
    seen: (Seq, u32),
}

impl Progress {
    /// Something has moved.
    pub(crate) fn touch(&mut self, now: Time) {
        *self = Self { said_at: now, repeats: 0, seen: self.seen };
    }
}

/// How long to wait for the effect of something that was said `repeats` times before.
pub(crate) fn patience(repair_after: Duration, repeats: u32, value_bytes: u32) -> Duration {
    let travel = Duration::from_nanos(u64::from(value_bytes) * 1_000_000_000 / BYTES_PER_SECOND_MIN);
    (repair_after + travel) * 2_u32.pow(repeats.min(DOUBLINGS_MAX))
}

impl Replica {
    /// Says again what may have been lost, if nothing has moved for long enough.
    pub(crate) fn repair<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>) {
        if !self.view.is_member(cx.me()) {
            return;
        }
        self.forward_again(cx);
        self.ask_again(cx);
        let last = self.log.last();
        let part = self.log.get(last).filter(|pending| !pending.is_complete());
        let seen = (self.committed, part.map_or(0, |pending| pending.received_bytes));
        let is_done = self.installed && self.committed == last && self.missed_after != Some(last);
        if is_done || self.progress.seen != seen {
            self.progress.seen = seen;
            self.progress.touch(cx.now);
            return;
        }
        let patience = patience(cx.config.repair_after, self.progress.repeats, 0);
        if cx.now.since(self.progress.said_at) < patience {
            return;
        }
        self.progress.said_at = cx.now;
        self.progress.repeats += 1;
        cx.shared.counters.repairs += 1;
        self.missed_after = None;
        self.send_position(cx);
        self.ask_successor(cx);
    }

    /// Asks the one after what it has: the answer acknowledges what it knows to be committed, and shows what it lacks.
    fn ask_successor<S: Store, E: Effects<Message>>(&self, cx: &mut Context<'_, S, E>) {
        if self.installed
            && let Some(after) = self.chain.successor(cx.me())
        {
            self.send(cx, after, Body::AskPosition);
        }
    }

    /// Sends this server's own writes to the head again that have been without a place for long.
    fn forward_again<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>) {
        if self.own.is_empty() || self.is_head(cx.me()) || cx.config.has_bug(Bug::OwnWritesNotResent) {
            return;
        }
        let repair_after = cx.config.repair_after;
        let homeless = self.own.values_mut().filter(|own| own.seq.is_none()).take(WRITES_AT_A_TIME);
        for own in homeless {
            if cx.now.since(own.said_at) >= patience(repair_after, own.repeats, own.head.value_bytes) {
                own.repeats += 1;
                self.forward_due.push(own.head.number);
            }
        }
    }

    /// Asks the tail again what it has not answered for long.
    fn ask_again<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>) {
        let Some(tail) = self.chain.tail().filter(|_| self.installed) else { return };
        let mut due = Vec::new();
        for asked in self.asked.values_mut() {
            if cx.now.since(asked.at) >= cx.config.repair_after {
                asked.at = cx.now;
                due.push(asked.body.clone());
            }
        }
        for body in due {
            self.send(cx, tail, body);
        }
    }

    /// The link to a server is new: what was sent before may be lost.
    pub(crate) fn on_link_up<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>, peer: ServerId) {
        let me = cx.me();
        if !self.peers.contains(&peer) {
            return;
        }
        if self.chain.predecessor(me) == Some(peer) {
            self.send_position(cx);
        }
        if self.chain.successor(me) == Some(peer) {
            self.ask_successor(cx);
        }
        if self.chain.head() == Some(peer) {
            self.send_own(cx);
        }
        if self.chain.tail() == Some(peer) && self.installed {
            let questions: Vec<Body> = self.asked.values().map(|asked| asked.body.clone()).collect();
            questions.into_iter().for_each(|body| self.send(cx, peer, body));
        }
    }
}
