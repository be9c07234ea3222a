//! Which keys were changed lately, in seq order: what a server that was away for a short while has to get.

use std::collections::VecDeque;

use star_core::{ids::Seq, key::Key};

/// The latest committed changes of one star, bounded by number.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    /// Each key at the seq of a change of it; the last change of a key is always among them.
    changes: VecDeque<(Seq, Key)>,
    /// Every change after this seq is known.
    forgotten: Seq,
}

impl Recent {
    /// Knows of no change up to `forgotten`.
    pub(crate) fn after(forgotten: Seq) -> Self {
        Self { forgotten, ..Self::default() }
    }

    /// Notes a change, the latest in seq order, and forgets the oldest over `max`, which is at least 1.
    pub(crate) fn push(&mut self, seq: Seq, key: Key, max: usize) {
        if self.changes.back().is_some_and(|(last, _)| *last >= seq) {
            return; // Known from another member.
        }
        // First, so that there is never room for more than `max`: it is some millions of bytes for each star.
        while self.changes.len() >= max
            && let Some((oldest, _)) = self.changes.pop_front()
        {
            self.forgotten = self.forgotten.max(oldest);
        }
        self.changes.push_back((seq, key));
    }

    /// Every change after this seq is known.
    pub(crate) fn forgotten(&self) -> Seq {
        self.forgotten
    }

    /// Not every change up to `seq` is known.
    pub(crate) fn forget_up_to(&mut self, seq: Seq) {
        self.forgotten = self.forgotten.max(seq);
    }

    /// The changes after `seq`, in order.
    pub(crate) fn after_seq(&self, seq: Seq) -> impl Iterator<Item = &(Seq, Key)> {
        let first = self.changes.partition_point(|(at, _)| *at <= seq);
        self.changes.iter().skip(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_changes_go_and_nothing_comes_twice() {
        let mut recent = Recent::default();
        for seq in [1, 2, 3, 5, 4, 5, 8] {
            recent.push(Seq(seq), Key::new(format!("k{seq}")), 3);
        }
        assert_eq!(recent.after_seq(Seq(3)).map(|(seq, _)| seq.0).collect::<Vec<_>>(), vec![5, 8]);
        assert_eq!(recent.after_seq(Seq(0)).count(), 3);
        assert_eq!(recent.forgotten(), Seq(2), "of 3, 5 and 8 all is known");
    }

    #[test]
    fn there_is_no_room_for_more_than_are_remembered() {
        let mut recent = Recent::default();
        (1..5000).for_each(|seq| recent.push(Seq(seq), Key::new(format!("k{seq}")), 1024));
        assert_eq!((recent.changes.len(), recent.changes.capacity()), (1024, 1024));
    }
}
