//! What changed in a store lately, for those who watch. Pure, and bounded: who is slow misses some, and is told so.

use std::collections::VecDeque;

use compact_str::CompactString;
use star_core::{
    Incarnation, Version,
    message::{Notice, Position},
};

/// Changes that are remembered, and bytes of their keys.
const NOTICES_MAX: usize = 16 << 10;
const KEY_BYTES_MAX: usize = 4 << 20;

/// The latest changes of a store, while somebody wants to know them.
#[derive(Debug)]
pub(crate) struct Journal {
    life: u64,
    /// Changes in this life. Counted whether they are remembered or not, so that a gap shows.
    number: u64,
    /// The latest ones: the last is that of `number`.
    notices: VecDeque<Notice>,
    key_bytes: usize,
    is_watched: bool,
}

/// What came after a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// The changes that were asked for, in order.
    pub notices: Vec<Notice>,
    /// Whether there were others before them that are not remembered.
    pub missed: bool,
    /// Where to go on.
    pub next: Position,
}

impl Journal {
    pub(crate) fn new(incarnation: Incarnation) -> Self {
        Self { life: incarnation.0, number: 0, notices: VecDeque::new(), key_bytes: 0, is_watched: false }
    }

    /// From now on changes are remembered, or not any more.
    pub(crate) fn watch(&mut self, is_watched: bool) {
        self.is_watched = is_watched;
        if !is_watched {
            (self.notices, self.key_bytes) = (VecDeque::new(), 0);
        }
    }

    pub(crate) fn note(&mut self, key: &str, version: Version, value_bytes: Option<u64>) {
        self.number += 1;
        if !self.is_watched {
            return;
        }
        self.key_bytes += key.len();
        self.notices.push_back(Notice { key: CompactString::new(key), version, value_bytes });
        while self.notices.len() > NOTICES_MAX || self.key_bytes > KEY_BYTES_MAX {
            let Some(oldest) = self.notices.pop_front() else { break };
            self.key_bytes -= oldest.key.len();
        }
    }

    pub(crate) fn now(&self) -> Position {
        Position { life: self.life, number: self.number }
    }

    /// The changes of keys with this prefix after a position: as many as are wanted, or as there are.
    pub(crate) fn after(&self, position: Position, prefix: &str, limit: usize) -> Changes {
        let oldest = self.number - self.notices.len() as u64;
        let is_known = position.life == self.life && (oldest..=self.number).contains(&position.number);
        let mut next = if is_known { position.number } else { oldest };
        let mut notices = Vec::new();
        for notice in self.notices.range((next - oldest) as usize..) {
            if notices.len() >= limit {
                break;
            }
            next += 1;
            if notice.key.starts_with(prefix) {
                notices.push(notice.clone());
            }
        }
        Changes { notices, missed: !is_known, next: Position { life: self.life, number: next } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(changes: &Changes) -> Vec<&str> {
        changes.notices.iter().map(|notice| notice.key.as_str()).collect()
    }

    #[test]
    fn changes_come_in_order_and_by_prefix_and_once() {
        let mut journal = Journal::new(Incarnation(7));
        journal.note("before", Version(1), None);
        journal.watch(true);
        let mut at = journal.now();
        for (number, key) in ["a/1", "b/1", "a/2", "a/3"].into_iter().enumerate() {
            journal.note(key, Version(number as u64), Some(9));
        }
        let first = journal.after(at, "a/", 2);
        assert_eq!((keys(&first), first.missed), (vec!["a/1", "a/2"], false));
        at = first.next;
        let rest = journal.after(at, "a/", 2);
        assert_eq!((keys(&rest), rest.missed), (vec!["a/3"], false));
        assert!(journal.after(rest.next, "", 10).notices.is_empty());
        assert_eq!(rest.next, journal.now());
    }

    #[test]
    fn who_is_slow_is_told_and_goes_on_with_what_there_is() {
        let mut journal = Journal::new(Incarnation(7));
        journal.watch(true);
        let start = journal.now();
        for number in 0..NOTICES_MAX as u64 + 10 {
            journal.note("key", Version(number), None);
        }
        let changes = journal.after(start, "", 3);
        assert_eq!((changes.missed, changes.notices[0].version), (true, Version(10)), "the oldest that is known");
        let on = journal.after(changes.next, "", 1);
        assert_eq!((on.missed, on.notices[0].version), (false, Version(13)));
        let strange = Position { number: u64::MAX, ..start };
        for unknown in [Position { life: 6, ..start }, strange] {
            assert!(journal.after(unknown, "", 1).missed, "of another life, or not yet");
        }
    }

    #[test]
    fn what_is_remembered_is_bounded_and_forgotten_when_nobody_watches() {
        let mut journal = Journal::new(Incarnation(7));
        journal.watch(true);
        let start = journal.now();
        let long = "k".repeat(1024);
        (0..NOTICES_MAX as u64).for_each(|number| journal.note(&long, Version(number), None));
        assert!(journal.notices.len() * long.len() <= KEY_BYTES_MAX);
        journal.watch(false);
        assert!(journal.notices.is_empty() && journal.key_bytes == 0);
        journal.note("unseen", Version(1), None);
        journal.watch(true);
        let changes = journal.after(start, "", 10);
        assert!(changes.missed && changes.notices.is_empty() && changes.next == journal.now());
    }
}
