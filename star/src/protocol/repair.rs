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
    message::{Body, Message, WriteId},
    replica::Replica,
};

/// The most writes asked for, or sent again, at a time.
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
    seen: Obstacle,
}

/// As long as this stays the same, nothing moves. What merely comes in on top does not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Obstacle {
    committed: Seq,
    /// The write that `ready` waits for, and how much of it has come.
    lacks: Option<(Seq, u32)>,
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
    fn obstacle(&self) -> Obstacle {
        let lacks = self.log.get(self.ready.next()).map(|stamp| {
            let received_bytes = self.buffer.get(&stamp.write).map_or(0, |write| write.received_bytes);
            (self.ready, received_bytes)
        });
        Obstacle { committed: self.committed, lacks }
    }

    /// Says again what may have been lost, if nothing has moved for long enough.
    pub(crate) fn repair<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>) {
        if !self.view.is_member(cx.me()) {
            return;
        }
        self.repair_own(cx);
        let obstacle = self.obstacle();
        if self.is_idle() || self.progress.seen != obstacle {
            self.progress.seen = obstacle;
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
        if !self.installed {
            return self.report(cx);
        }
        for peer in self.peers.clone() {
            self.greet(cx, peer);
        }
        self.fetch_missing(cx);
        if self.leads(cx.me()) {
            self.stamp_waiting(cx);
        }
        self.ask_under_way(cx);
        self.advance(cx);
    }

    /// Sends this server's own writes again that have been without a stamp for long: others may go on meanwhile, so
    /// that the star as a whole does move.
    fn repair_own<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>) {
        let (me, leader) = (cx.me(), self.view.leader);
        if !self.installed || leader == me || cx.config.has_bug(Bug::OwnWritesNotResent) {
            return;
        }
        let unstamped = |id: &WriteId| self.buffer.get(id).is_some_and(|write| write.seq.is_none());
        let own = self.own.iter().map(|number| WriteId { origin: me, number: *number }).filter(unstamped);
        let own: Vec<WriteId> = own.take(WRITES_AT_A_TIME).collect();
        for id in own {
            let Some(write) = self.buffer.get_mut(&id) else { continue };
            let patience = patience(cx.config.repair_after, write.repeats, write.head.value_bytes);
            if cx.now.since(write.said_at) >= patience {
                write.said_at = cx.now;
                write.repeats += 1;
                self.send_again(cx, &[leader], id);
            }
        }
    }

    /// The link to a server is new: what was sent before may be lost.
    pub(crate) fn on_link_up<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>, peer: ServerId) {
        if !self.peers.contains(&peer) || !self.view.is_member(cx.me()) {
            return;
        }
        if !self.installed {
            if peer == self.view.leader {
                self.report(cx);
            }
            return;
        }
        self.greet(cx, peer);
        self.send_own(cx, &[peer]);
    }

    /// Tells a server where this one stands, so that it says what is missing.
    fn greet<S: Store, E: Effects<Message>>(&self, cx: &mut Context<'_, S, E>, peer: ServerId) {
        self.send(cx, peer, Body::Hello { installed: self.installed, ready: self.ready });
        if self.leads(cx.me()) {
            self.bring_up(cx, peer);
        }
    }

    /// At the leader: sends a server the stamps that it may lack. INSTALL also does for one that has installed.
    fn bring_up<S: Store, E: Effects<Message>>(&self, cx: &mut Context<'_, S, E>, peer: ServerId) {
        let behind = self.acked.iter().any(|(member, acked)| *member == peer && *acked < self.ready);
        if behind {
            self.send_install(cx, peer);
        }
    }

    pub(crate) fn on_hello<S: Store, E: Effects<Message>>(
        &mut self,
        cx: &mut Context<'_, S, E>,
        from: ServerId,
        installed: bool,
        ready: Seq,
    ) {
        if installed {
            self.count_ack(from, ready);
            self.advance(cx);
        }
        if !self.installed {
            return;
        }
        if self.leads(cx.me()) && (!installed || ready < self.ready) {
            self.send_install(cx, from);
        }
        self.send(cx, from, Body::Ack { ready: self.ready, hurry: self.hurries(cx.now) });
    }

    /// Asks the leader for the values of stamps that wait for them.
    pub(crate) fn fetch_missing<S: Store, E: Effects<Message>>(&self, cx: &mut Context<'_, S, E>) {
        if self.leads(cx.me()) {
            return;
        }
        let writes: Vec<WriteId> = self
            .log
            .after_seq(self.ready)
            .filter(|(_, stamp)| !self.is_held(stamp))
            .map(|(_, stamp)| stamp.write)
            .take(WRITES_AT_A_TIME)
            .collect();
        if !writes.is_empty() {
            cx.shared.counters.fetches += 1;
            self.send(cx, self.view.leader, Body::Fetch { writes });
        }
    }

    /// Asks the origins of writes that have been here long without a stamp whether they are still under way.
    fn ask_under_way<S: Store, E: Effects<Message>>(&self, cx: &mut Context<'_, S, E>) {
        for peer in &self.peers {
            let mut writes: Vec<WriteId> = self
                .buffer
                .iter()
                .filter(|(id, write)| id.origin == *peer && write.seq.is_none() && !write.is_own)
                .map(|(id, _)| *id)
                .collect();
            writes.sort_unstable();
            writes.truncate(WRITES_AT_A_TIME);
            if !writes.is_empty() {
                self.send(cx, *peer, Body::AskUnderWay { writes });
            }
        }
    }

    pub(crate) fn on_ask_under_way<S: Store, E: Effects<Message>>(
        &mut self,
        cx: &mut Context<'_, S, E>,
        from: ServerId,
        mut writes: Vec<WriteId>,
    ) {
        writes.retain(|id| id.origin == cx.me() && !self.buffer.contains_key(id));
        if !writes.is_empty() {
            self.send(cx, from, Body::Finished { writes });
        }
    }

    /// An origin says that these writes are not under way. One that is committed has its stamp here already, because
    /// this server acked it: what is here without a stamp is a late copy.
    pub(crate) fn on_finished<S: Store, E: Effects<Message>>(
        &mut self,
        cx: &mut Context<'_, S, E>,
        writes: &[WriteId],
    ) {
        for id in writes {
            if self.buffer.get(id).is_some_and(|write| write.seq.is_none() && id.origin != cx.me()) {
                self.drop_write(cx, *id);
            }
        }
    }

    /// Asks the leader again about reads that it has not answered for long: their question may be lost.
    pub(crate) fn ask_reads_again<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>) {
        if !self.installed {
            return; // They are looked at anew once the view is installed, by whoever leads then.
        }
        let mut due = Vec::new();
        for (read, (_, key, said_at)) in &mut self.asked {
            if cx.now.since(*said_at) >= cx.config.repair_after {
                *said_at = cx.now;
                due.push(Body::Read { read: *read, key: key.clone() });
            }
        }
        for body in due {
            self.send(cx, self.view.leader, body);
        }
    }
}
