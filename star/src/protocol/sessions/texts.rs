//! The results of requests that are named by a text, in seq order: bounded by number and by age.
//!
//! The age is each member's own clock, so at its very edge two members may differ, which is why a retry is only safe
//! within the configured age.

use std::{collections::VecDeque, hash::BuildHasher, time::Duration};

use hashbrown::HashTable;
use rustc_hash::FxBuildHasher;
use star_core::{ids::Seq, time::Time};

use crate::protocol::message::{DoneText, Outcome};

/// The results of the latest requests with a text.
#[derive(Debug, Default)]
pub(super) struct Texts {
    /// The requests in seq order, with the time they came in here.
    order: VecDeque<(Time, DoneText)>,
    /// How many were forgotten at the front: entry `n` of all is at `n - gone` in `order`.
    gone: u64,
    /// Finds a request in `order`: holds the numbers of all entries by their texts, and so no text a second time.
    numbers: HashTable<u64>,
}

fn hash(request: &str) -> u64 {
    FxBuildHasher.hash_one(request)
}

impl Texts {
    /// The result of a request, if it is remembered.
    pub(super) fn get(&self, request: &str) -> Option<Outcome> {
        let entry = |number: u64| &self.order[(number - self.gone) as usize].1;
        let number = self.numbers.find(hash(request), |number| entry(*number).request_id == request)?;
        Some(entry(*number).outcome)
    }

    /// Remembers a request, the latest in seq order, and forgets the oldest over `max`.
    pub(super) fn insert(&mut self, now: Time, done: DoneText, max: usize) {
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
    pub(super) fn expire(&mut self, now: Time, age_max: Duration) {
        while self.order.front().is_some_and(|(since, _)| now.since(*since) > age_max) {
            self.forget_oldest();
        }
    }

    /// Forgets the results after `seq`: those writes may not be done after all.
    pub(super) fn cut_after(&mut self, seq: Seq) {
        while self.order.back().is_some_and(|(_, last)| last.seq > seq) {
            let (_, done) = self.order.pop_back().expect("looked at above");
            self.forget_number(&done.request_id, self.gone + self.order.len() as u64);
        }
    }

    /// How many are remembered.
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    /// What was done after `seq`, in order.
    pub(super) fn after_seq(&self, seq: Seq) -> impl Iterator<Item = &DoneText> {
        let first = self.order.partition_point(|(_, done)| done.seq <= seq);
        self.order.iter().skip(first).map(|(_, done)| done)
    }

    fn forget_oldest(&mut self) {
        if let Some((_, done)) = self.order.pop_front() {
            self.forget_number(&done.request_id, self.gone);
            self.gone += 1;
        }
    }

    fn forget_number(&mut self, request: &str, number: u64) {
        if let Ok(entry) = self.numbers.find_entry(hash(request), |known| *known == number) {
            entry.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use star_core::Version;

    use super::*;

    fn done(seq: u64) -> DoneText {
        DoneText { seq: Seq(seq), request_id: format!("r{seq}").into(), outcome: Outcome::Written(Version(seq)) }
    }

    fn known(texts: &Texts) -> Vec<u64> {
        (0..100).filter(|seq| texts.get(&done(*seq).request_id).is_some()).collect()
    }

    #[test]
    fn the_oldest_go_by_number_and_age_and_the_latest_by_seq() {
        let mut texts = Texts::default();
        for seq in 1..=20 {
            texts.insert(Time(seq), done(seq), 10);
        }
        assert_eq!(known(&texts), (11..=20).collect::<Vec<_>>());
        texts.cut_after(Seq(17));
        assert_eq!(known(&texts), (11..=17).collect::<Vec<_>>());
        texts.expire(Time(20), Duration::from_nanos(6));
        assert_eq!(known(&texts), (14..=17).collect::<Vec<_>>());
        assert_eq!(texts.get(&done(15).request_id), Some(Outcome::Written(Version(15))));
        assert_eq!(texts.after_seq(Seq(15)).map(|done| done.seq.0).collect::<Vec<_>>(), vec![16, 17]);
        texts.insert(Time(21), done(18), 10);
        texts.insert(Time(21), done(16), 10);
        assert_eq!(known(&texts), (14..=18).collect::<Vec<_>>(), "an older one is known already");
    }
}
