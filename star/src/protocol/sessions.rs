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

use super::message::Outcome;

/// The results of the latest writes of one star.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    results: Map<RequestId, Outcome>,
    /// The same requests in seq order, with the time they came in here.
    order: VecDeque<(Seq, Time, RequestId)>,
}

impl Sessions {
    /// The result of a request, if it is remembered.
    pub(crate) fn get(&self, request: &RequestId) -> Option<Outcome> {
        self.results.get(request).copied()
    }

    /// Remembers the result of the write at `seq`, and forgets the oldest over `max`.
    pub(crate) fn insert(&mut self, seq: Seq, now: Time, request: RequestId, outcome: Outcome, max: usize) {
        self.results.insert(request.clone(), outcome);
        self.order.push_back((seq, now, request));
        while self.order.len() > max {
            self.forget_oldest();
        }
    }

    /// Forgets results older than `age_max`.
    pub(crate) fn expire(&mut self, now: Time, age_max: Duration) {
        while self.order.front().is_some_and(|(_, since, _)| now.since(*since) > age_max) {
            self.forget_oldest();
        }
    }

    /// Forgets the results after `seq`: those writes may not be done after all.
    pub(crate) fn cut_after(&mut self, seq: Seq) {
        while self.order.back().is_some_and(|(last, _, _)| *last > seq) {
            let (_, _, request) = self.order.pop_back().expect("looked at above");
            self.results.remove(&request);
        }
    }

    /// How many are remembered.
    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    fn forget_oldest(&mut self) {
        if let Some((_, _, request)) = self.order.pop_front() {
            self.results.remove(&request);
        }
    }
}
