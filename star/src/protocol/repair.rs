//! What heals lost messages: when nothing has moved for a while although something is unfinished, or when a link is new,
//! a server says again what may have been lost. All of it is idempotent.

use star_core::{
    ids::{Seq, ServerId},
    protocol::Effects,
    store::Store,
    time::Time,
};

use super::{
    context::Context,
    message::{Body, Message, WriteId},
    replica::Replica,
};

/// The most writes asked for in one message.
const WRITES_ASKED_MAX: usize = 256;

/// When something last moved in a replica.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    /// When `seen` was last different, or something was said again.
    pub(crate) since: Time,
    seen: (Seq, Seq, Seq),
}

impl Progress {
    /// Something has moved.
    pub(crate) fn touch(&mut self, now: Time) {
        self.since = now;
    }
}

impl Replica {
    /// Says again what may have been lost, if nothing has moved for long enough.
    pub(crate) fn repair<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>) {
        let seen = (self.log.last(), self.ready, self.committed);
        if self.is_idle() || self.progress.seen != seen {
            self.progress.seen = seen;
            self.progress.touch(cx.now);
            return;
        }
        if cx.now.since(self.progress.since) < cx.config.repair_after {
            return;
        }
        self.progress.touch(cx.now);
        cx.shared.counters.repairs += 1;
        if !self.view.is_member(cx.me()) {
            return;
        }
        if !self.installed {
            return self.report(cx);
        }
        for peer in self.peers.clone() {
            self.greet(cx, peer);
        }
        self.fetch_missing(cx);
        let leader = self.view.leader;
        if leader == cx.me() {
            self.stamp_waiting(cx, leader);
        } else {
            self.send_own(cx, &[leader]);
        }
        self.ask_under_way(cx);
        self.advance(cx);
        self.ask_reads_again(cx);
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
        self.ask_reads_again(cx);
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
        self.send(cx, from, Body::Ack { ready: self.ready });
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
            .take(WRITES_ASKED_MAX)
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
                .filter(|(id, write)| id.origin == *peer && write.seq.is_none())
                .map(|(id, _)| *id)
                .collect();
            writes.sort_unstable();
            writes.truncate(WRITES_ASKED_MAX);
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

    fn ask_reads_again<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>) {
        for (read, (_, key)) in &self.asked {
            self.send(cx, self.view.leader, Body::Read { read: *read, key: key.clone() });
        }
    }
}
