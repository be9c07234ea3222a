//! Which requests were done, and with which result: so that a repeated request takes effect once.
//!
//! Every member keeps the same table, because entries are added in seq order. It is bounded by number and by age; the
//! age is each member's own clock, so at its very edge two members may differ, which is why a retry is only safe within
//! the configured age.

use std::{collections::VecDeque, time::Duration};

use star_core::{
    collections::Map,
    ids::{RequestId, Seq},
    time::Time,
};

use super::message::{DoneRequest, Outcome};

/// The results of the latest writes of one star.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    results: Map<RequestId, Outcome>,
    /// The same requests in seq order, with the time they came in here.
    order: VecDeque<(Time, DoneRequest)>,
    /// Every request after this seq is remembered.
    forgotten: Seq,
}

impl Sessions {
    /// A table that knows nothing of what was done up to `forgotten`.
    pub(crate) fn after(forgotten: Seq) -> Self {
        Self { forgotten, ..Self::default() }
    }

    /// The result of a request, if it is remembered.
    pub(crate) fn get(&self, request: &RequestId) -> Option<Outcome> {
        self.results.get(request).copied()
    }

    /// Remembers a request, the latest in seq order, and forgets the oldest over `max`.
    pub(crate) fn insert(&mut self, now: Time, done: DoneRequest, max: usize) {
        if self.order.back().is_some_and(|(_, last)| last.seq >= done.seq) {
            return;
        }
        self.results.insert(done.request_id.clone(), done.outcome);
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
            self.results.remove(&done.request_id);
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
            self.results.remove(&done.request_id);
            self.forgotten = done.seq;
        }
    }
}
