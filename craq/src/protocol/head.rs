//! The head gives each write its place in the order, its version and its outcome (§2.2, §2.3); test-and-set is decided
//! here as well (§4.1.1).

use std::collections::BTreeSet;

use bytes::Bytes;
use star_core::{
    ids::{Seq, Version},
    protocol::Effects,
    store::{Place, Store},
};

use super::{
    config::Bug,
    context::Context,
    log::Pending,
    message::{Entry, ForwardedWrite, Message, Operation, Outcome, WriteId},
    replica::Replica,
};

/// A write that the head is to order.
pub(crate) struct Write {
    pub(crate) id: WriteId,
    pub(crate) head: ForwardedWrite,
    pub(crate) value: Bytes,
}

/// Which writes of one origin need no decision any more. They come in order but for those that were lost.
#[derive(Debug, Default)]
pub(crate) struct Decided {
    /// Those with lower numbers.
    below: u64,
    /// Those among the others.
    after: BTreeSet<u64>,
}

impl Decided {
    /// The origin says that its writes below `oldest` are finished.
    pub(crate) fn finished_below(&mut self, oldest: u64) {
        if oldest > self.below {
            self.below = oldest;
            self.after = self.after.split_off(&oldest);
            self.close_up();
        }
    }

    /// Notes a write as decided; false if it was before.
    pub(crate) fn take(&mut self, number: u64) -> bool {
        if number < self.below || !self.after.insert(number) {
            return false;
        }
        self.close_up();
        true
    }

    fn close_up(&mut self) {
        while self.after.first() == Some(&self.below) {
            self.after.pop_first();
            self.below += 1;
        }
    }
}

impl Replica {
    /// Gives a write the next place. Only called at the head, once installed.
    pub(crate) fn decide<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>, write: Write) {
        let Write { id, head, value } = write;
        let known = if cx.config.has_bug(Bug::RequestIdForgotten) { None } else { self.requests.get(&head.request_id) };
        let mut place = None;
        let (outcome, repeat) = match known {
            Some(outcome) => (outcome, true),
            None => (self.judge(cx, &head, &value, &mut place), false),
        };
        let mut entry = Entry {
            epoch: self.view.epoch,
            write: id,
            request_id: head.request_id,
            key: head.key,
            operation: head.operation,
            outcome,
            repeat,
            value_bytes: 0,
        };
        if place.is_some() {
            entry.value_bytes = value.len() as u32;
            self.promised_bytes += u64::from(entry.value_bytes);
            cx.shared.promised_bytes += u64::from(entry.value_bytes);
        }
        let received_bytes = entry.value_bytes;
        cx.shared.counters.ordered += 1;
        self.enter(cx, Pending { entry, place, received_bytes, since: cx.now });
        self.down.keep_fresh(self.log.last(), 0, value);
        self.advance(cx);
    }

    /// What comes of a write that is next in the order. A value that is to be written gets its place in the store, and
    /// its key its mark: what cannot be kept here must not be ordered.
    fn judge<S: Store, E: Effects<Message>>(
        &self,
        cx: &mut Context<'_, S, E>,
        head: &ForwardedWrite,
        value: &[u8],
        place: &mut Option<Place>,
    ) -> Outcome {
        let committed = cx.store.get(&head.key).object.map_or(Version(0), |object| object.version);
        let latest = self.dirty.get(&head.key).map_or(committed, |dirty| dirty.version);
        if !head.condition.holds(latest) {
            return Outcome::Conflict(latest);
        }
        let base = if cx.config.has_bug(Bug::VersionReused) { committed } else { latest };
        if head.operation == Operation::Delete && latest == Version(0) {
            return Outcome::NotFound;
        }
        if let Operation::Set(encoding) = head.operation {
            if !self.has_room(cx, value.len() as u64) {
                return Outcome::NoSpace;
            }
            let Ok(room) = cx.store.place(&head.key, encoding, value.len()) else { return Outcome::NoSpace };
            cx.store.fill(room, 0, value);
            *place = Some(room);
        }
        if !cx.mark_dirty(&head.key) {
            if let Some(room) = place.take() {
                cx.store.discard(room);
            }
            return Outcome::NoSpace;
        }
        Outcome::Written(if base == Version(0) { self.version_floor.next() } else { base.next() })
    }

    /// Whether an object can be ordered, so that every node of the chain will have room for it. Heads of other chains
    /// give the same room away at the same time, so each has its part of what is free.
    fn has_room<S: Store, E: Effects<Message>>(&self, cx: &Context<'_, S, E>, value_bytes: u64) -> bool {
        let usage = cx.store.usage();
        let promised_bytes = cx.shared.promised_bytes;
        let free_bytes = usage.capacity_bytes.saturating_sub(usage.used_bytes) + promised_bytes;
        promised_bytes + value_bytes <= free_bytes / self.view.members.len().max(1) as u64
    }

    /// A value that this head ordered is applied or given up: its room is not promised any more.
    pub(crate) fn note_settled<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>, entry: &Entry) {
        let bytes = u64::from(entry.value_bytes).min(self.promised_bytes);
        self.promised_bytes -= bytes;
        cx.shared.promised_bytes -= bytes;
    }

    /// Finds anew what this server has promised as the head, and which writes it need not order again.
    pub(crate) fn begin_as_head<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>) {
        self.decided.clear();
        for (_, pending) in self.log.iter() {
            let id = pending.entry.write;
            self.decided.entry(id.origin).or_default().take(id.number);
        }
        self.promised_bytes = self.log.iter().map(|(_, pending)| u64::from(pending.entry.value_bytes)).sum();
        cx.shared.promised_bytes += self.promised_bytes;
    }

    /// This server may not be the head any more.
    pub(crate) fn end_as_head<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>) {
        self.decided.clear();
        cx.shared.promised_bytes -= std::mem::take(&mut self.promised_bytes);
    }

    /// The seqs of this server's own writes in the log, found anew.
    pub(crate) fn tie_own(&mut self, me: star_core::ServerId, entry: &Entry, seq: Seq) {
        if entry.write.origin == me
            && let Some(own) = self.own.get_mut(&entry.write.number)
        {
            own.seq = Some(seq);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_is_decided_once_whatever_the_order() {
        let mut decided = Decided::default();
        decided.finished_below(100);
        assert!(!decided.take(99), "finished before");
        assert!(decided.take(100) && decided.take(102) && !decided.take(102));
        assert_eq!((decided.below, decided.after.len()), (101, 1));
        assert!(decided.take(101) && !decided.take(101));
        assert_eq!((decided.below, decided.after.len()), (103, 0));
        assert!(decided.take(110));
        decided.finished_below(110);
        assert_eq!((decided.below, decided.after.len()), (111, 0));
    }
}
