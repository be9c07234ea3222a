//! What always holds at one server, whatever happened; checked after every step in tests and in the simulator.
//!
//! What must hold between servers is checked by the simulator, which sees them all.

use star_core::{
    ids::{Epoch, Seq, ServerId, StarId},
    key::Key,
    store::Store,
};

use super::{
    message::{Remembered, Stamp},
    node::StarNode,
    replica::Replica,
};

/// What one server holds of one star, as far as the checks between servers need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation<'a> {
    /// The star.
    pub star: StarId,
    /// The epoch that the server acts in.
    pub epoch: Epoch,
    /// The epoch in which the history that it knows of the star began.
    pub founded: Epoch,
    /// The epoch in which the star went on last with what a store held; 0 if it never did.
    pub resumed: Epoch,
    /// Whether it has taken over the order of that epoch.
    pub installed: bool,
    /// Whether it answers reads while its lease lasts.
    pub serving: bool,
    /// The members of its view.
    pub members: &'a [ServerId],
    /// See [`super::message::Body::Ack`].
    pub ready: Seq,
    /// What it has applied.
    pub committed: Seq,
    /// The last seq of the order with which it installed its view.
    pub base: Seq,
    /// Writes in its buffer.
    pub buffered: usize,
}

impl Replica {
    /// What this server holds of the star.
    pub fn observe(&self, me: ServerId) -> Observation<'_> {
        Observation {
            star: self.star,
            epoch: self.view.epoch,
            founded: self.view.founded,
            resumed: self.view.resumed.map_or(Epoch(0), |resumed| resumed.epoch),
            installed: self.installed,
            serving: self.serves(me),
            members: &self.view.members,
            ready: self.ready,
            committed: self.committed,
            base: self.base,
            buffered: self.buffer.len(),
        }
    }

    /// The stamps after `after` that are not committed, with their seqs.
    pub fn stamps_from(&self, after: Seq) -> impl Iterator<Item = (Seq, &Stamp)> {
        self.log.after_seq(after.max(self.committed))
    }

    /// What is remembered of typed clients as of `committed`: the same at every member.
    pub fn settled_results(&self) -> Vec<Remembered> {
        self.sessions.settled()
    }

    /// The keys with a change under way, and its seq.
    pub fn dirty_keys(&self) -> impl Iterator<Item = (&Key, Seq)> {
        self.dirty.iter().map(|(key, dirty)| (key, dirty.last))
    }

    /// What is wrong with this replica, if anything.
    fn check<S: Store>(&self, store: &S) -> Result<(), String> {
        let star = self.star;
        let (committed, ready, last) = (self.committed, self.ready, self.log.last());
        if !(committed <= ready && ready <= last) {
            return Err(format!("star {star}: committed {committed} <= ready {ready} <= last {last} does not hold"));
        }
        let mut changed = std::collections::BTreeMap::new();
        for (seq, stamp) in self.log.after_seq(committed).take_while(|(seq, _)| *seq <= ready) {
            if !stamp.is_remembered() {
                continue;
            }
            let Some(write) = self.buffer.get(&stamp.write).filter(|write| write.is_complete()) else {
                return Err(format!("star {star}: seq {seq} is ready, but its write {:?} is not here", stamp.write));
            };
            if stamp.effect().is_some() {
                changed.insert(&write.head.key, seq);
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
        for (id, write) in &self.buffer {
            if let Some(seq) = write.seq
                && self.log.get(seq).map(|stamp| stamp.write) != Some(*id)
            {
                return Err(format!("star {star}: write {id:?} says it is at {seq}, but the log does not"));
            }
            // Its origin says it again in this epoch, or is gone and nobody ever will: then it would stay for good.
            if self.installed && self.is_stale(write) {
                return Err(format!(
                    "the buffer drains: star {star}: write {id:?} has no stamp, came in epoch {} and is still here in \
                     epoch {}",
                    write.epoch, self.view.epoch
                ));
            }
        }
        if let Some((seq, _)) = self.waiting.first_key_value()
            && *seq <= committed
        {
            return Err(format!("star {star}: a read waits for seq {seq}, which is committed ({committed})"));
        }
        Ok(())
    }
}

impl<S: Store> StarNode<S> {
    /// What is wrong with this server, if anything.
    pub fn check(&self) -> Result<(), String> {
        self.replicas.iter().try_for_each(|replica| replica.check(&self.store))
    }
}
