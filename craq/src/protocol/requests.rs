//! Which requests were done, and with which result: so that a repeated request takes effect once.
//!
//! Every member keeps the same table, because entries are added in seq order and forgotten by number alone.

use std::{collections::VecDeque, hash::BuildHasher};

use hashbrown::HashTable;
use rustc_hash::FxBuildHasher;
use star_core::ids::{ClientId, RequestId, Seq};

use super::message::{DoneRequest, Outcome};

/// The results of the latest writes of one star.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    /// In seq order.
    order: VecDeque<DoneRequest>,
    /// How many were forgotten at the front: request `n` of all is at `n - gone` in `order`.
    gone: u64,
    /// Finds a request in `order` by its id; no id is in it twice.
    numbers: HashTable<u64>,
    /// Every request after this seq is remembered.
    forgotten: Seq,
}

/// What a request is found by: its id, without what its client says of earlier ones, which may be another when it is
/// sent again. `None`: its client sends it only once.
fn name(request: &RequestId) -> Option<(ClientId, u64, &str)> {
    match request {
        RequestId::Counted { client, number, .. } => Some((*client, *number, "")),
        RequestId::Text(text) => Some((ClientId::default(), 0, text)),
        RequestId::Unnamed => None,
    }
}

fn hash(name: (ClientId, u64, &str)) -> u64 {
    FxBuildHasher.hash_one(name)
}

impl Requests {
    /// A table that knows nothing of what was done up to `forgotten`.
    pub(crate) fn after(forgotten: Seq) -> Self {
        Self { forgotten, ..Self::default() }
    }

    /// The result of a request, if it is remembered.
    pub(crate) fn get(&self, request: &RequestId) -> Option<Outcome> {
        let done = |number: u64| &self.order[(number - self.gone) as usize];
        let wanted = name(request)?;
        let number = self.numbers.find(hash(wanted), |number| name(&done(*number).request_id) == Some(wanted))?;
        Some(done(*number).outcome)
    }

    /// Remembers a request, the latest in seq order, and forgets the oldest over `max`.
    pub(crate) fn insert(&mut self, done: DoneRequest, max: usize) {
        if self.order.back().is_some_and(|last| last.seq >= done.seq) {
            return;
        }
        let (order, gone) = (&self.order, self.gone);
        let number = gone + order.len() as u64;
        let rehash = |number: &u64| name(&order[(*number - gone) as usize].request_id).map_or(0, hash);
        if let Some(name) = name(&done.request_id) {
            self.numbers.insert_unique(hash(name), number, rehash);
        }
        self.order.push_back(done);
        while self.order.len() > max {
            self.forget_oldest();
        }
    }

    /// Forgets the results after `seq`: those writes may not be done after all.
    pub(crate) fn cut_after(&mut self, seq: Seq) {
        while self.order.back().is_some_and(|last| last.seq > seq) {
            if let Some(done) = self.order.pop_back() {
                self.forget_number(&done.request_id, self.gone + self.order.len() as u64);
            }
        }
    }

    /// How many are remembered.
    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    /// Every one of at most `max` requests after this seq is remembered.
    pub(crate) fn forgotten_of(&self, max: usize) -> Seq {
        let before = self.order.len().checked_sub(max.saturating_add(1));
        before.map_or(self.forgotten, |last| self.forgotten.max(self.order[last].seq))
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
        let first = self.order.partition_point(|done| done.seq <= seq);
        self.order.iter().skip(first)
    }

    fn forget_oldest(&mut self) {
        if let Some(done) = self.order.pop_front() {
            self.forget_number(&done.request_id, self.gone);
            self.gone += 1;
            self.forgotten = self.forgotten.max(done.seq);
        }
    }

    fn forget_number(&mut self, request: &RequestId, number: u64) {
        if let Some(name) = name(request)
            && let Ok(entry) = self.numbers.find_entry(hash(name), |known| *known == number)
        {
            entry.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use star_core::{Key, Version};

    use super::*;

    fn done(seq: u64) -> DoneRequest {
        // What it says of earlier ones does not name it.
        let request_id = RequestId::Counted { client: ClientId { born: 1, draw: 1 }, number: seq, behind: seq % 3 };
        DoneRequest { seq: Seq(seq), request_id, key: Key::new("k"), outcome: Outcome::Written(Version(seq)) }
    }

    fn known(requests: &Requests) -> Vec<u64> {
        (0..100).filter(|seq| requests.get(&done(*seq).request_id).is_some()).collect()
    }

    #[test]
    fn the_oldest_go_by_number_and_the_latest_by_seq() {
        let mut requests = Requests::default();
        (1..=20).for_each(|seq| requests.insert(done(seq), 10));
        assert_eq!((known(&requests), requests.forgotten()), ((11..=20).collect(), Seq(10)));
        requests.cut_after(Seq(17));
        assert_eq!(known(&requests), (11..=17).collect::<Vec<_>>());
        requests.insert(done(16), 10);
        requests.insert(done(18), 10);
        assert_eq!(known(&requests), (11..=18).collect::<Vec<_>>(), "an older one is known already");
        assert_eq!(requests.get(&done(15).request_id), Some(Outcome::Written(Version(15))));
        let RequestId::Counted { client, number, .. } = done(15).request_id else { unreachable!("made above") };
        let again = RequestId::Counted { client, number, behind: 7 };
        assert_eq!(requests.get(&again), Some(Outcome::Written(Version(15))), "sent again, from another floor");
        assert_eq!((requests.forgotten_of(3), requests.forgotten_of(99)), (Seq(15), Seq(10)));
        let unnamed = DoneRequest { request_id: RequestId::Unnamed, ..done(19) };
        requests.insert(unnamed, 10);
        assert_eq!(requests.get(&RequestId::Unnamed), None);
        requests.cut_after(Seq(18));
        assert_eq!(requests.after_seq(Seq(15)).map(|done| done.seq.0).collect::<Vec<_>>(), vec![16, 17, 18]);
    }
}
