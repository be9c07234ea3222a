//! The part of a star's order that is pending here: the writes after `committed`, without a gap.

use std::collections::VecDeque;

use star_core::{ids::Seq, store::Place, time::Time};

use super::message::Entry;

/// A write that is not committed here.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) entry: Entry,
    /// Its value in the store; `None` where it has none.
    pub(crate) place: Option<Place>,
    /// How many bytes of the value have come, from its beginning on.
    pub(crate) received_bytes: u32,
    /// When it came.
    pub(crate) since: Time,
}

impl Pending {
    pub(crate) fn is_complete(&self) -> bool {
        self.received_bytes == self.entry.value_bytes
    }
}

/// Pending writes in the order of their seqs. Only the last can lack bytes of its value.
#[derive(Debug, Default)]
pub(crate) struct Log {
    /// The seq before the first write held: all up to it are committed.
    base: Seq,
    writes: VecDeque<Pending>,
}

impl Log {
    /// An empty log after `base`.
    pub(crate) fn after(base: Seq) -> Self {
        Self { base, writes: VecDeque::new() }
    }

    /// The seq of the last write (of the last one taken out, if none is held).
    pub(crate) fn last(&self) -> Seq {
        Seq(self.base.0 + self.writes.len() as u64)
    }

    /// The last seq up to which all is here, values too.
    pub(crate) fn ready(&self) -> Seq {
        let lacks = self.writes.back().is_some_and(|last| !last.is_complete());
        Seq(self.last().0 - u64::from(lacks))
    }

    /// The seq before the first write held.
    pub(crate) fn base(&self) -> Seq {
        self.base
    }

    fn index(&self, seq: Seq) -> Option<usize> {
        usize::try_from(seq.0.checked_sub(self.base.0 + 1)?).ok()
    }

    /// The write at `seq`.
    pub(crate) fn get(&self, seq: Seq) -> Option<&Pending> {
        self.writes.get(self.index(seq)?)
    }

    /// The write at `seq`, to be changed.
    pub(crate) fn get_mut(&mut self, seq: Seq) -> Option<&mut Pending> {
        let index = self.index(seq)?;
        self.writes.get_mut(index)
    }

    /// Adds the next write.
    pub(crate) fn push(&mut self, pending: Pending) {
        self.writes.push_back(pending);
    }

    /// Takes the first write out.
    pub(crate) fn pop(&mut self) -> Option<Pending> {
        let first = self.writes.pop_front()?;
        self.base = self.base.next();
        Some(first)
    }

    /// Takes the writes after `seq` out and returns them in order.
    pub(crate) fn cut_after(&mut self, seq: Seq) -> Vec<Pending> {
        let keep = usize::try_from(seq.0.saturating_sub(self.base.0)).unwrap_or(usize::MAX);
        if keep >= self.writes.len() { Vec::new() } else { self.writes.split_off(keep).into() }
    }

    /// How many writes are held.
    pub(crate) fn len(&self) -> usize {
        self.writes.len()
    }

    /// The writes with their seqs.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Seq, &Pending)> {
        self.iter_after(self.base)
    }

    /// The writes after `seq`, with their seqs.
    pub(crate) fn iter_after(&self, seq: Seq) -> impl Iterator<Item = (Seq, &Pending)> {
        let skip = usize::try_from(seq.0.saturating_sub(self.base.0)).unwrap_or(usize::MAX);
        let first = self.base.0 + 1;
        self.writes.iter().enumerate().skip(skip).map(move |(index, pending)| (Seq(first + index as u64), pending))
    }
}

#[cfg(test)]
mod tests {
    use star_core::{
        ids::{Epoch, RequestId, ServerId, Version},
        key::Key,
        store::Encoding,
    };

    use super::*;
    use crate::protocol::message::{Operation, Outcome, WriteId};

    fn pending(number: u64, received_bytes: u32) -> Pending {
        let entry = Entry {
            epoch: Epoch(1),
            write: WriteId { origin: ServerId(0), number },
            request_id: RequestId::Unnamed,
            key: Key::new("k"),
            operation: Operation::Set(Encoding::Raw),
            outcome: Outcome::Written(Version(number)),
            repeat: false,
            value_bytes: 3,
        };
        Pending { entry, place: None, received_bytes, since: Time::ZERO }
    }

    #[test]
    fn seqs_stay_with_their_writes_when_the_front_and_the_end_go() {
        let mut log = Log::after(Seq(10));
        (11..=15).for_each(|number| log.push(pending(number, 3)));
        log.push(pending(16, 1));
        assert_eq!((log.last(), log.ready()), (Seq(16), Seq(15)));
        let number = |log: &Log, seq: u64| log.get(Seq(seq)).map(|pending| pending.entry.write.number);
        assert_eq!([number(&log, 10), number(&log, 11), number(&log, 17)], [None, Some(11), None]);
        assert_eq!(log.pop().map(|pending| pending.entry.write.number), Some(11));
        assert_eq!((number(&log, 11), number(&log, 12), log.base()), (None, Some(12), Seq(11)));
        assert_eq!(log.cut_after(Seq(13)).len(), 3);
        assert_eq!((log.last(), log.ready()), (Seq(13), Seq(13)));
        assert_eq!(log.iter().map(|(seq, _)| seq.0).collect::<Vec<_>>(), vec![12, 13]);
        assert!(log.cut_after(Seq(99)).is_empty());
    }
}
