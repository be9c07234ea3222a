//! The part of a star's order that is not committed here yet: the stamps after `committed`, without a gap.

use std::collections::VecDeque;

use star_core::ids::Seq;

use super::message::Stamp;

/// Stamps in the order of their seqs.
#[derive(Debug, Default)]
pub(crate) struct Log {
    /// The seq before the first stamp held: all before are committed.
    base: Seq,
    stamps: VecDeque<Stamp>,
}

impl Log {
    /// An empty log after `base`.
    pub(crate) fn after(base: Seq) -> Self {
        Self { base, stamps: VecDeque::new() }
    }

    /// The seq of the last stamp (of the last one dropped, if none is held).
    pub(crate) fn last(&self) -> Seq {
        Seq(self.base.0 + self.stamps.len() as u64)
    }

    /// The seq before the first stamp held.
    pub(crate) fn base(&self) -> Seq {
        self.base
    }

    /// The stamp at `seq`.
    pub(crate) fn get(&self, seq: Seq) -> Option<&Stamp> {
        let index = seq.0.checked_sub(self.base.0 + 1)?;
        self.stamps.get(usize::try_from(index).ok()?)
    }

    /// Adds the next stamp.
    pub(crate) fn push(&mut self, stamp: Stamp) {
        self.stamps.push_back(stamp);
    }

    /// Takes the first stamp out.
    pub(crate) fn pop(&mut self) -> Option<Stamp> {
        let stamp = self.stamps.pop_front()?;
        self.base = self.base.next();
        Some(stamp)
    }

    /// Drops the stamps after `seq` and returns them in order.
    pub(crate) fn cut_after(&mut self, seq: Seq) -> Vec<Stamp> {
        let keep = usize::try_from(seq.0.saturating_sub(self.base.0)).unwrap_or(usize::MAX);
        if keep >= self.stamps.len() { Vec::new() } else { self.stamps.split_off(keep).into() }
    }

    /// The stamps after `seq`, with their seqs.
    pub(crate) fn after_seq(&self, seq: Seq) -> impl Iterator<Item = (Seq, &Stamp)> {
        let skip = usize::try_from(seq.0.saturating_sub(self.base.0)).unwrap_or(usize::MAX);
        let first = self.base.0 + 1;
        self.stamps.iter().enumerate().skip(skip).map(move |(index, stamp)| (Seq(first + index as u64), stamp))
    }
}

#[cfg(test)]
mod tests {
    use star_core::ids::{ServerId, Version};

    use super::*;
    use crate::protocol::message::{Outcome, WriteId};

    fn stamp(number: u64) -> Stamp {
        let write = WriteId { origin: ServerId(0), number };
        Stamp { write, outcome: Outcome::Written(Version(number)), repeat: false }
    }

    #[test]
    fn seqs_stay_with_their_stamps_when_the_front_and_the_end_go() {
        let mut log = Log::after(Seq(10));
        (11..=15).for_each(|number| log.push(stamp(number)));
        assert_eq!(log.last(), Seq(15));
        assert_eq!(log.get(Seq(10)), None);
        assert_eq!(log.get(Seq(11)), Some(&stamp(11)));
        assert_eq!(log.pop(), Some(stamp(11)));
        assert_eq!(log.get(Seq(11)), None);
        assert_eq!(log.cut_after(Seq(13)), vec![stamp(14), stamp(15)]);
        assert_eq!(log.last(), Seq(13));
        let rest: Vec<_> = log.after_seq(Seq(12)).collect();
        assert_eq!(rest, vec![(Seq(13), &stamp(13))]);
        assert_eq!(log.cut_after(Seq(99)), vec![]);
    }
}
