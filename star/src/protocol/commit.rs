//! The third hop: a member that holds stamp and value marks the key dirty and acks; what all have acked is committed,
//! applied and answered.

use star_core::{
    collections::Map,
    error::ErrorCode,
    ids::{Seq, ServerId, Version},
    key::Key,
    message::ResponseBody,
    protocol::Effects,
    requests::charged_bytes,
    store::Store,
};

use super::{
    config::Bug,
    context::Context,
    message::{Message, Operation, Outcome, Stamp, WriteHead},
    replica::{Dirty, Replica},
};

impl Replica {
    /// Stamps from the leader.
    pub(crate) fn on_stamps<S: Store, E: Effects<Message>>(
        &mut self,
        cx: &mut Context<'_, S, E>,
        from: ServerId,
        first: Seq,
        stamps: &[Stamp],
    ) {
        if !self.installed || from != self.view.leader {
            return;
        }
        for (index, stamp) in stamps.iter().enumerate() {
            let seq = Seq(first.0 + index as u64);
            if seq == self.log.last().next() {
                self.add_stamp(*stamp);
            }
        }
        // The leader holds what it stamps: a stamp is also its ack.
        self.count_ack(from, Seq(first.0 + stamps.len() as u64 - u64::from(!stamps.is_empty())));
        self.advance(cx);
    }

    /// Adds the next stamp to the log and ties it to its write.
    pub(crate) fn add_stamp(&mut self, stamp: Stamp) {
        self.log.push(stamp);
        let seq = self.log.last();
        // A late copy of a write can be stamped once more, as a repeat. Its place stays the first: the other one may be
        // taken back, and the write with it.
        match self.buffer.get_mut(&stamp.write) {
            Some(write) => {
                write.seq.get_or_insert(seq);
            }
            None => {
                self.missing.entry(stamp.write).or_insert(seq);
            }
        }
    }

    /// Moves `ready` and `committed` as far as they go.
    pub(crate) fn advance<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>) {
        self.advance_ready(cx);
        self.advance_committed(cx);
    }

    /// Moves `ready` over stamps whose writes are here, marking their keys dirty.
    pub(crate) fn advance_ready<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>) {
        if !self.installed {
            return;
        }
        let before = self.ready;
        while let Some(stamp) = self.log.get(self.ready.next()).copied() {
            if !self.is_held(&stamp) || !self.make_ready(cx, self.ready.next(), &stamp) {
                break;
            }
            self.ready = self.ready.next();
            self.ack_is_awaited_by(stamp.write.origin);
        }
        if self.ready != before {
            self.ack_due = true;
            self.count_ack(cx.me(), self.ready);
        }
    }

    /// Whether what the stamp needs is here. What changes nothing and is not remembered needs nothing.
    pub(crate) fn is_held(&self, stamp: &Stamp) -> bool {
        stamp.repeat
            || stamp.outcome.is_refusal()
            || self.buffer.get(&stamp.write).is_some_and(super::replica::Buffered::is_complete)
    }

    /// Marks and remembers a write at its place; false if the store cannot mark its key now.
    fn make_ready<S: Store, E: Effects<Message>>(
        &mut self,
        cx: &mut Context<'_, S, E>,
        seq: Seq,
        stamp: &Stamp,
    ) -> bool {
        if !stamp.is_remembered() {
            return true;
        }
        let head = &self.buffer[&stamp.write].head;
        if let Some(version) = stamp.effect() {
            if !cx.config.has_bug(Bug::AckBeforeDirty) || self.view.leader == cx.me() {
                if cx.store.mark_dirty(&head.key).is_err() {
                    cx.shared.counters.no_space += 1;
                    return false;
                }
                note_dirty(&mut self.dirty, seq, head, version);
            }
            if head.operation == Operation::Delete {
                self.version_floor = self.version_floor.max(version);
            }
        }
        self.sessions.insert(cx.now, seq, head, stamp.outcome, cx.config.sessions_max);
        true
    }

    /// Finds the dirty keys again from the log, after its end was taken back.
    pub(crate) fn find_dirty(&mut self) {
        self.dirty.clear();
        for (seq, stamp) in self.log.after_seq(self.committed).take_while(|(seq, _)| *seq <= self.ready) {
            if let (Some(version), Some(write)) = (stamp.effect(), self.buffer.get(&stamp.write)) {
                note_dirty(&mut self.dirty, seq, &write.head, version);
            }
        }
    }

    /// Applies what every member has acked.
    fn advance_committed<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>) {
        if !self.installed {
            return;
        }
        let mut acks: Vec<Seq>;
        let lowest = if cx.config.has_bug(Bug::MajorityCommits) {
            acks = self.acked.iter().map(|(_, acked)| *acked).collect();
            acks.sort_unstable();
            acks.get(acks.len() / 2).copied()
        } else {
            self.acked.iter().map(|(_, acked)| *acked).min()
        };
        if let Some(lowest) = lowest {
            self.commit_to(cx, lowest.min(self.ready));
        }
    }

    /// Applies the writes up to `seq`, which this server holds and every member has, in order.
    pub(crate) fn commit_to<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>, seq: Seq) {
        let seq = seq.min(self.ready);
        if seq <= self.committed {
            return;
        }
        while self.committed < seq {
            let Some(stamp) = self.log.pop() else { break };
            self.committed = self.committed.next();
            self.apply(cx, self.committed, &stamp);
        }
        self.release_waiters(cx);
    }

    /// Applies one committed write and answers its client if this server is its origin.
    fn apply<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>, seq: Seq, stamp: &Stamp) {
        cx.shared.counters.committed += 1;
        self.missing.remove(&stamp.write);
        let Some(write) = self.buffer.remove(&stamp.write) else {
            debug_assert!(!stamp.is_remembered(), "what is ready is held");
            return;
        };
        if let Some(version) = stamp.effect() {
            self.note_bounds(cx);
            let key = &write.head.key;
            let after = (write.head.operation != Operation::Delete).then_some(version);
            cx.store.note_applying(self.star, seq, key, after);
            let more = self.dirty.get(key).is_some_and(|dirty| dirty.last > seq);
            match (write.head.operation, write.place) {
                (Operation::Set(_), Some(place)) => cx.store.publish(key, place, version, more),
                _ => cx.store.remove(key, more),
            }
            if !more {
                self.dirty.remove(key);
            }
        } else if let Some(place) = write.place {
            cx.store.discard(place);
        }
        self.note_settled(cx, &write.head, stamp);
        if stamp.is_remembered() {
            self.sessions.settle(seq, &write.head, stamp.outcome, cx.config.sessions_max);
        }
        if write.is_own {
            cx.shared.own_bytes -= charged_bytes(write.head.value_bytes);
        }
        if let Some(asker) = write.asker {
            cx.answer(asker, &result(stamp.outcome), &[]);
        }
        if stamp.effect().is_some() {
            self.recent.push(seq, write.head.key, cx.config.sessions_max);
        }
    }
}

/// The write at `seq` is the latest to its key.
fn note_dirty(dirty: &mut Map<Key, Dirty>, seq: Seq, head: &WriteHead, version: Version) {
    let after = if head.operation == Operation::Delete { Version(0) } else { version };
    dirty.insert(head.key.clone(), Dirty { last: seq, version: after });
}

/// What the client is told.
fn result(outcome: Outcome) -> ResponseBody {
    match outcome {
        Outcome::Written(version) => ResponseBody::Written { version },
        Outcome::Conflict(version) => ResponseBody::Conflict { version },
        Outcome::NotFound => ResponseBody::NotFound,
        Outcome::NoSpace => {
            let text = "the leader's store is nearly full; the write was not done; \
                        delete objects, or start the servers with a larger [store] capacity";
            ResponseBody::error(ErrorCode::NoSpace, text)
        }
        Outcome::Forgotten => {
            let text = "the star has forgotten this request, or its client, and does not do it: if it was sent before, \
                        it may or may not have been done then; ask as a new client";
            ResponseBody::error(ErrorCode::Forgotten, text)
        }
    }
}
