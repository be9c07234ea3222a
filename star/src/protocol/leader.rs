//! The second hop: the leader gives each write its place in the order, its version and its outcome.

use star_core::{ids::Version, protocol::Effects, store::Store};

use super::{
    config::Bug,
    context::Context,
    message::{Message, Operation, Outcome, Stamp, WriteHead, WriteId},
    replica::Replica,
    sessions::Standing,
};

impl Replica {
    /// Stamps a write that is complete here, unless it has a stamp. Only called at the leader, once installed.
    pub(crate) fn stamp<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>, id: WriteId) {
        let Some(write) = self.buffer.get(&id).filter(|write| write.seq.is_none()) else { return };
        let stamp = match self.sessions.judge(&write.head, cx.config.bug) {
            Standing::Done(outcome) => Stamp { write: id, outcome, repeat: true },
            Standing::Forgotten => Stamp { write: id, outcome: Outcome::Forgotten, repeat: false },
            Standing::New => Stamp { write: id, outcome: self.decide(cx, id), repeat: false },
        };
        if stamp.effect().is_some() {
            self.promised_bytes += u64::from(write.head.value_bytes);
            cx.shared.promised_bytes += u64::from(write.head.value_bytes);
        }
        self.log.push(stamp);
        let seq = self.log.last();
        if let Some(write) = self.buffer.get_mut(&id) {
            write.seq = Some(seq);
        }
        cx.shared.counters.stamped += 1;
        self.stamps_due.push(stamp);
        // `ready` follows at once, because the decision about the next write rests on the dirty marks of this one.
        self.advance_ready(cx);
    }

    /// What comes of a write that is next in the order.
    fn decide<S: Store, E: Effects<Message>>(&self, cx: &mut Context<'_, S, E>, id: WriteId) -> Outcome {
        let head = &self.buffer[&id].head;
        let committed = cx.store.get(&head.key).object.map_or(Version(0), |object| object.version);
        let latest = self.dirty.get(&head.key).map_or(committed, |dirty| dirty.version);
        if !head.condition.holds(latest) {
            return Outcome::Conflict(latest);
        }
        let base = if cx.config.has_bug(Bug::VersionReused) { committed } else { latest };
        if head.operation == Operation::Delete && latest == Version(0) {
            return Outcome::NotFound;
        }
        // Marked at once: what cannot be marked here must not be stamped.
        if !self.has_room(cx, head) || cx.store.mark_dirty(&head.key).is_err() {
            return Outcome::NoSpace;
        }
        let forgets = cx.config.has_bug(Bug::VersionFloorForgotten);
        Outcome::Written(if base == Version(0) && !forgets { self.version_floor.next() } else { base.next() })
    }

    /// Whether an object can be stamped, so that every member will have room for it. Leaders of other stars give the
    /// same room away at the same time, so each has its part of what is free.
    fn has_room<S: Store, E: Effects<Message>>(&self, cx: &Context<'_, S, E>, head: &WriteHead) -> bool {
        if head.operation == Operation::Delete {
            return true;
        }
        let usage = cx.store.usage();
        let value_bytes = u64::from(head.value_bytes);
        let promised_bytes = cx.shared.promised_bytes + value_bytes;
        // The value itself is placed already, and so is everything that was promised.
        let free_bytes = usage.capacity_bytes.saturating_sub(usage.used_bytes) + promised_bytes;
        promised_bytes <= free_bytes / self.view.members.len().max(1) as u64
    }

    /// Refuses a write for which this leader has no room. Nobody needs its value for that.
    pub(crate) fn refuse_unheld<S: Store, E: Effects<Message>>(
        &mut self,
        cx: &mut Context<'_, S, E>,
        head: &WriteHead,
    ) {
        let stamp = match self.sessions.judge(head, cx.config.bug) {
            Standing::Done(outcome) => Stamp { write: head.id, outcome, repeat: true },
            Standing::Forgotten => Stamp { write: head.id, outcome: Outcome::Forgotten, repeat: false },
            Standing::New => Stamp { write: head.id, outcome: Outcome::NoSpace, repeat: false },
        };
        self.add_stamp(stamp);
        self.stamps_due.push(stamp);
        self.advance(cx);
    }

    /// A write that this leader stamped is applied: its room is not promised any more.
    pub(crate) fn note_settled<S: Store, E: Effects<Message>>(
        &mut self,
        cx: &mut Context<'_, S, E>,
        head: &WriteHead,
        stamp: &Stamp,
    ) {
        if stamp.effect().is_some() && self.promised_bytes > 0 {
            let bytes = u64::from(head.value_bytes).min(self.promised_bytes);
            self.promised_bytes -= bytes;
            cx.shared.promised_bytes -= bytes;
        }
    }

    /// Finds anew what this server has promised as the leader of this star; nothing if it is not.
    pub(crate) fn recount_promised<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>) {
        cx.shared.promised_bytes -= self.promised_bytes;
        self.promised_bytes = 0;
        if self.installed && self.leads(cx.me()) {
            let stamps = self.log.after_seq(self.committed).filter(|(_, stamp)| stamp.effect().is_some());
            let writes = stamps.filter_map(|(_, stamp)| self.buffer.get(&stamp.write));
            self.promised_bytes = writes.map(|write| u64::from(write.head.value_bytes)).sum();
            cx.shared.promised_bytes += self.promised_bytes;
        }
    }

    /// Stamps what came before this server could: at the leader, when it has installed its view.
    pub(crate) fn stamp_waiting<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>) {
        let epoch = self.view.epoch;
        let mut waiting: Vec<WriteId> = self
            .buffer
            .iter()
            .filter(|(_, write)| write.seq.is_none() && write.is_complete() && (write.epoch == epoch || write.is_own))
            .map(|(id, _)| *id)
            .collect();
        waiting.sort_unstable();
        for id in waiting {
            self.stamp(cx, id);
        }
    }
}
