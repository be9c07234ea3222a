//! Which requests were done, and with which result: so that a repeated request takes effect once.
//!
//! Every member keeps the same table, because entries are added in seq order. It is bounded by number and by age; the
//! age is each member's own clock, so at its very edge two members may differ, which is why a retry is only safe within
//! the configured age.

use std::{collections::VecDeque, hash::BuildHasher, time::Duration};

use hashbrown::HashTable;
use rustc_hash::FxBuildHasher;
use star_core::{
    ids::{RequestId, Seq},
    time::Time,
};

use super::message::{DoneRequest, Outcome};

/// The results of the latest writes of one star.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    /// The requests in seq order, with the time they came in here.
    order: VecDeque<(Time, DoneRequest)>,
    /// How many were forgotten at the front: entry `n` of all is at `n - gone` in `order`.
    gone: u64,
    /// Finds a request in `order`: holds the numbers of all entries by their request ids, and so no id a second time.
    numbers: HashTable<u64>,
    /// Every request after this seq is remembered.
    forgotten: Seq,
}

fn hash(request: &RequestId) -> u64 {
    FxBuildHasher.hash_one(request)
}

impl Sessions {
    /// A table that knows nothing of what was done up to `forgotten`.
    pub(crate) fn after(forgotten: Seq) -> Self {
        Self { forgotten, ..Self::default() }
    }

    /// The result of a request, if it is remembered.
    pub(crate) fn get(&self, request: &RequestId) -> Option<Outcome> {
        let entry = |number: u64| &self.order[(number - self.gone) as usize].1;
        let number = self.numbers.find(hash(request), |number| entry(*number).request_id == *request)?;
        Some(entry(*number).outcome)
    }

    /// Remembers a request, the latest in seq order, and forgets the oldest over `max`.
    pub(crate) fn insert(&mut self, now: Time, done: DoneRequest, max: usize) {
        if self.order.back().is_some_and(|(_, last)| last.seq >= done.seq) {
            return;
        }
        let (order, gone) = (&self.order, self.gone);
        let number = gone + order.len() as u64;
        let rehash = |number: &u64| hash(&order[(*number - gone) as usize].1.request_id);
        self.numbers.insert_unique(hash(&done.request_id), number, rehash);
        self.order.push_back((now, done));
        while self.order.len() > max {
            self.forget_oldest();
        }
    }

    /// Forgets results older than `age_max`.
    pub(crate) fn expire(&mut self, now: Time, age_max: Duration) {
        while self.order.front().is_some_and(|(since, _)| now.since(*since) > age_max) {
            self.forget_oldest();
        }
    }

    /// Forgets the results after `seq`: those writes may not be done after all.
    pub(crate) fn cut_after(&mut self, seq: Seq) {
        while self.order.back().is_some_and(|(_, last)| last.seq > seq) {
            let (_, done) = self.order.pop_back().expect("looked at above");
            self.forget_number(&done.request_id, self.gone + self.order.len() as u64);
        }
    }

    /// How many are remembered.
    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    /// Every request after this seq is remembered.
    pub(crate) fn forgotten(&self) -> Seq {
        self.forgotten
    }

    /// Not every request up to `seq` is remembered.
    pub(crate) fn forget_up_to(&mut self, seq: Seq) {
        self.forgotten = self.forgotten.max(seq);
    }

    /// What was done after `seq`, in order.
    pub(crate) fn after_seq(&self, seq: Seq) -> impl Iterator<Item = &DoneRequest> {
        let first = self.order.partition_point(|(_, done)| done.seq <= seq);
        self.order.iter().skip(first).map(|(_, done)| done)
    }

    fn forget_oldest(&mut self) {
        if let Some((_, done)) = self.order.pop_front() {
            self.forget_number(&done.request_id, self.gone);
            self.gone += 1;
            self.forgotten = self.forgotten.max(done.seq);
        }
    }

    fn forget_number(&mut self, request: &RequestId, number: u64) {
        if let Ok(entry) = self.numbers.find_entry(hash(request), |known| *known == number) {
            entry.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use star_core::{Key, Version};

    use super::*;

    fn done(seq: u64) -> DoneRequest {
        let request_id = RequestId::Counted { client: 1, number: seq };
        DoneRequest { seq: Seq(seq), request_id, key: Key::new("k"), outcome: Outcome::Written(Version(seq)) }
    }

    fn known(sessions: &Sessions) -> Vec<u64> {
        (0..100).filter(|seq| sessions.get(&done(*seq).request_id).is_some()).collect()
    }

    #[test]
    fn the_oldest_go_by_number_and_age_and_the_latest_by_seq() {
        let mut sessions = Sessions::default();
        for seq in 1..=20 {
            sessions.insert(Time(seq), done(seq), 10);
        }
        assert_eq!(known(&sessions), (11..=20).collect::<Vec<_>>());
        assert_eq!(sessions.forgotten(), Seq(10));
        sessions.cut_after(Seq(17));
        assert_eq!(known(&sessions), (11..=17).collect::<Vec<_>>());
        sessions.expire(Time(20), Duration::from_nanos(6));
        assert_eq!(known(&sessions), (14..=17).collect::<Vec<_>>());
        assert_eq!(sessions.get(&done(15).request_id), Some(Outcome::Written(Version(15))));
        assert_eq!(sessions.after_seq(Seq(15)).map(|done| done.seq.0).collect::<Vec<_>>(), vec![16, 17]);
        sessions.insert(Time(21), done(18), 10);
        sessions.insert(Time(21), done(16), 10);
        assert_eq!(known(&sessions), (14..=18).collect::<Vec<_>>(), "an older one is known already");
    }
}
