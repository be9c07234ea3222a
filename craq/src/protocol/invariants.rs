//! What always holds at one server, whatever happened; checked after every step in tests and in the simulator.
//!
//! What must hold between servers is checked by the simulator, which sees them all.

use star_core::{
    collections::Map,
    ids::{Epoch, Seq, ServerId, StarId},
    key::Key,
    store::Store,
};

use super::{message::Entry, node::CraqNode, replica::Replica};

/// What one server holds of one star, as far as the checks between servers need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation<'a> {
    /// The star.
    pub star: StarId,
    /// The epoch that the server acts in.
    pub epoch: Epoch,
    /// The epoch in which the history that it knows of the star began.
    pub founded: Epoch,
    /// Whether it has taken over the order of that epoch.
    pub installed: bool,
    /// Whether it answers reads while its lease lasts.
    pub serving: bool,
    /// The members of its view.
    pub members: &'a [ServerId],
    /// It holds every write up to here.
    pub ready: Seq,
    /// What it has applied.
    pub committed: Seq,
    /// All that was committed in the views before is not after this.
    pub base: Seq,
    /// Pending writes, and unfinished ones of its own clients.
    pub unfinished: usize,
}

impl Replica {
    /// What this server holds of the star.
    pub fn observe(&self, me: ServerId) -> Observation<'_> {
        Observation {
            star: self.star,
            epoch: self.view.epoch,
            founded: self.view.founded,
            installed: self.installed,
            serving: self.serves(me),
            members: &self.view.members,
            ready: self.ready(),
            committed: self.committed,
            base: self.base,
            unfinished: self.log.len() + self.own.len(),
        }
    }

    /// The pending writes after `after`, with their seqs.
    pub fn pending_after(&self, after: Seq) -> impl Iterator<Item = (Seq, &Entry)> {
        self.log.iter_after(after).map(|(seq, pending)| (seq, &pending.entry))
    }

    /// What is wrong with this replica, if anything.
    fn check<S: Store>(&self, store: &S, me: ServerId) -> Result<(), String> {
        let star = self.star;
        if self.committed != self.log.base() {
            return Err(format!("star {star}: committed {} is not where the log begins", self.committed));
        }
        let mut changed: Map<&Key, Seq> = Map::default();
        for (seq, pending) in self.log.iter() {
            let entry = &pending.entry;
            if !pending.is_complete() && seq != self.log.last() {
                return Err(format!("star {star}: seq {seq} lacks bytes, but there is more after it"));
            }
            if pending.received_bytes > entry.value_bytes || (entry.value_bytes > 0 && pending.place.is_none()) {
                return Err(format!("star {star}: seq {seq} has bytes without a place"));
            }
            if entry.effect().is_some() {
                changed.insert(&entry.key, seq);
            }
            let is_own = entry.write.origin == me;
            if is_own && self.own.get(&entry.write.number).is_some_and(|own| own.seq != Some(seq)) {
                return Err(format!("star {star}: own write {:?} does not know that it is at {seq}", entry.write));
            }
        }
        for (key, seq) in &changed {
            if self.dirty.get(*key).map(|dirty| dirty.last) != Some(*seq) {
                return Err(format!("star {star}: key {key:?} is changed by seq {seq}, but not noted as dirty"));
            }
            if !store.get(key).dirty {
                return Err(format!("star {star}: key {key:?} is changed by seq {seq}, but clean in the store"));
            }
        }
        if self.dirty.len() != changed.len() {
            return Err(format!("star {star}: {} keys are dirty, {} have changes", self.dirty.len(), changed.len()));
        }
        if self.installed && self.is_tail(me) && self.committed != self.ready() {
            return Err(format!("star {star}: the tail has {} and has applied {}", self.ready(), self.committed));
        }
        let placed = |seq: &Seq| *seq > self.committed && *seq <= self.log.last();
        match self.own.iter().find(|(_, own)| own.seq.is_some_and(|seq| !placed(&seq))) {
            Some((number, own)) => Err(format!("star {star}: own write {number} is at {:?}, not pending", own.seq)),
            None => Ok(()),
        }
    }
}

impl<S: Store> CraqNode<S> {
    /// What is wrong with this server, if anything.
    pub fn check(&self) -> Result<(), String> {
        self.replicas.iter().try_for_each(|replica| replica.check(&self.store, self.config.me))
    }
}
