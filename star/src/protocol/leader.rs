//! The second hop: the leader gives each write its place in the order, its version and its outcome.

use star_core::{
    ids::{ServerId, Version},
    protocol::Effects,
    store::Store,
};

use super::{
    config::Bug,
    context::Context,
    message::{Message, Operation, Outcome, Stamp, WriteId},
    replica::Replica,
};

/// The leader refuses objects once less than this part of its store is free: the rest is for writes that other origins
/// have already placed, so that no member runs out before the leader does.
const RESERVED_PART: u64 = 16;

impl Replica {
    /// Stamps a write that is complete here, unless it has a stamp. Only called at the leader, once installed.
    pub(crate) fn stamp<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>, id: WriteId) {
        let Some(write) = self.buffer.get(&id).filter(|write| write.seq.is_none()) else { return };
        let known =
            if cx.config.has_bug(Bug::RequestIdForgotten) { None } else { self.sessions.get(&write.head.request_id) };
        let stamp = match known {
            Some(outcome) => Stamp { write: id, outcome, repeat: true },
            None => Stamp { write: id, outcome: self.decide(cx, id), repeat: false },
        };
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
        match head.operation {
            Operation::Delete if latest == Version(0) => Outcome::NotFound,
            Operation::Set(_) if latest == Version(0) && base == Version(0) => {
                if store_is_full(cx) {
                    return Outcome::NoSpace;
                }
                Outcome::Written(self.version_floor.next())
            }
            Operation::Set(_) if store_is_full(cx) => Outcome::NoSpace,
            _ => Outcome::Written(base.next()),
        }
    }

    /// Stamps what came before this server could: at the leader, when it has installed its view.
    pub(crate) fn stamp_waiting<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>, me: ServerId) {
        let epoch = self.view.epoch;
        let mut waiting: Vec<WriteId> = self
            .buffer
            .iter()
            .filter(|(id, write)| {
                write.seq.is_none() && write.is_complete() && (write.epoch == epoch || id.origin == me)
            })
            .map(|(id, _)| *id)
            .collect();
        waiting.sort_unstable();
        for id in waiting {
            self.stamp(cx, id);
        }
    }
}

fn store_is_full<S: Store, E: Effects<Message>>(cx: &Context<'_, S, E>) -> bool {
    let usage = cx.store.usage();
    usage.capacity_bytes - usage.used_bytes.min(usage.capacity_bytes) < usage.capacity_bytes / RESERVED_PART
}
