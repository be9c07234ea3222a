//! Agreement on seq: in one epoch every server that took over its order has the same stamp at the same seq, and serving
//! members that have committed the same seqs hold the same objects, in whatever epoch.
//!
//! A server that catches up takes objects from members that differ in how far they are, so what it holds is of no one
//! seq. What it takes is committed somewhere, so nothing in it is newer than the highest seq that any server has
//! committed when it begins to serve; once it has committed that seq itself, its objects are those of its seq.

use std::collections::BTreeMap;

use star_core::{
    collections::Map,
    ids::{Epoch, Seq, ServerId, StarId},
};
use xxhash_rust::xxh3::Xxh3;

use crate::subject::{Glance, Stamped, Subject};

/// What was seen first.
#[derive(Debug, Default)]
pub(crate) struct Agreement {
    stamps: Map<(StarId, Epoch, Seq), (Stamped, ServerId)>,
    /// The hash of a star's objects after a seq.
    objects: Map<(StarId, Seq), (u64, ServerId)>,
    /// The highest seq that any server has committed.
    committed: BTreeMap<StarId, Seq>,
    /// From which seq on the objects of a serving member are of one seq; absent while it does not serve.
    settled: BTreeMap<(ServerId, StarId), Seq>,
    /// Up to where each server's stamps were compared, by epoch.
    compared: BTreeMap<(ServerId, StarId), (Epoch, Seq)>,
}

impl Agreement {
    /// A server starts anew.
    pub(crate) fn forget(&mut self, server: ServerId) {
        self.settled.retain(|(one, _), _| *one != server);
        self.compared.retain(|(one, _), _| *one != server);
    }

    /// How far a server is, and whether it serves.
    pub(crate) fn note(&mut self, server: ServerId, star: StarId, glance: &Glance) {
        let highest = self.committed.entry(star).or_default();
        *highest = glance.committed.max(*highest);
        if glance.serving {
            self.settled.entry((server, star)).or_insert(*highest);
        } else {
            self.settled.remove(&(server, star));
        }
    }

    /// The stamps of a server that are not committed.
    pub(crate) fn stamps<S: Subject>(
        &mut self,
        node: &S,
        server: ServerId,
        star: StarId,
        glance: &Glance,
    ) -> Result<(), String> {
        if !glance.installed {
            return Ok(());
        }
        let epoch = glance.epoch;
        let (compared_epoch, compared) = self.compared.get(&(server, star)).copied().unwrap_or_default();
        let compared = if compared_epoch == epoch { compared } else { Seq(0) };
        let (mut last, mut result) = (compared, Ok(()));
        node.stamps(star, &mut |seq, stamp| {
            if seq <= compared || result.is_err() {
                return;
            }
            let (first, other) = *self.stamps.entry((star, epoch, seq)).or_insert((stamp, server));
            if first != stamp {
                result = Err(format!(
                    "agreement: star {star}, epoch {epoch}, seq {seq} is {first:?} at server {other} and {stamp:?} at \
                     server {server}"
                ));
            }
            last = seq;
        });
        self.compared.insert((server, star), (epoch, last));
        result
    }

    /// The objects of a star at a server that has just committed something.
    pub(crate) fn objects<S: Subject>(
        &mut self,
        node: &S,
        server: ServerId,
        star: StarId,
        stars: u16,
        glance: &Glance,
    ) -> Result<(), String> {
        if self.settled.get(&(server, star)).is_none_or(|settled| glance.committed < *settled) {
            return Ok(());
        }
        let mut hash = Xxh3::new();
        node.objects(&mut |key, version, value| {
            if key.star(stars) == star {
                hash.update(&key.hash().to_le_bytes());
                hash.update(&version.0.to_le_bytes());
                hash.update(&(value.len() as u64).to_le_bytes());
                hash.update(value);
            }
        });
        let hash = hash.digest();
        let committed = glance.committed;
        let (first, other) = *self.objects.entry((star, committed)).or_insert((hash, server));
        if first != hash {
            return Err(format!(
                "agreement: star {star} holds other objects at server {server} than at server {other}, though both have \
                 committed seq {committed}"
            ));
        }
        Ok(())
    }
}
