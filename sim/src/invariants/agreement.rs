//! Agreement on seq: in one epoch every server that took over its order has the same stamp at the same seq, and serving
//! members that have committed the same seqs hold the same objects, in whatever epoch, and remember the same results of
//! requests.
//!
//! A server that catches up takes objects from members that differ in how far they are, so what it holds is of no one
//! seq. What it takes is committed somewhere, so nothing in it is newer than the highest seq that any server has
//! committed when it begins to serve; once it has committed that seq itself, its objects are those of its seq.

use star_core::{
    collections::Map,
    ids::{Epoch, Seq, ServerId, StarId},
};

use super::Seen;
use crate::{
    random::mix,
    subject::{Glance, Stamped, Subject},
};

/// What is remembered is compared after each seq that this divides: it costs more than to look at objects.
const REMEMBERED_EVERY: u64 = 4;

/// What was seen first.
#[derive(Debug)]
pub(crate) struct Agreement {
    stamps: Map<(StarId, Epoch, Seq), (Stamped, ServerId)>,
    /// The hash of a star's objects after a seq of a foundation.
    objects: Map<(StarId, Epoch, Seq), (u64, ServerId)>,
    /// The digest of what is remembered of requests after a seq of a foundation, or of when it was resumed last.
    remembered: Map<(StarId, Epoch, Seq), (u64, ServerId)>,
    /// By star: the highest seq that any server has committed in the latest foundation, whose epoch is the first.
    committed: Vec<(Epoch, Seq)>,
    /// By server and star.
    followed: Vec<Vec<Followed>>,
    /// By star: the objects of the server that is being looked at, so far.
    hashes: Vec<u64>,
}

/// What is known of a star at a server.
#[derive(Clone, Debug, Default)]
struct Followed {
    /// From which seq on the objects of a serving member are of one seq; `None` while it does not serve.
    settled: Option<Seq>,
    /// In which foundation.
    founded: Epoch,
    /// Up to where its stamps were compared, and in which epoch.
    compared: (Epoch, Seq),
}

impl Agreement {
    pub(crate) fn new(stars: u16) -> Self {
        let stars = usize::from(stars);
        Self {
            stamps: Map::default(),
            objects: Map::default(),
            remembered: Map::default(),
            committed: vec![(Epoch(0), Seq(0)); stars],
            followed: Vec::new(),
            hashes: vec![0; stars],
        }
    }

    /// A server starts anew.
    pub(crate) fn forget(&mut self, server: ServerId) {
        let at = usize::from(server.0);
        if self.followed.len() <= at {
            self.followed.resize(at + 1, Vec::new());
        }
        self.followed[at] = vec![Followed::default(); self.committed.len()];
    }

    /// How far a server is, and whether it serves.
    pub(crate) fn note(&mut self, server: ServerId, star: StarId, glance: &Glance) {
        let highest = &mut self.committed[usize::from(star.0)];
        *highest = (glance.founded, glance.committed).max(*highest);
        let followed = &mut self.followed[usize::from(server.0)][usize::from(star.0)];
        if followed.founded != glance.founded {
            (followed.founded, followed.settled) = (glance.founded, None);
        }
        let is_latest = highest.0 == glance.founded;
        followed.settled = (glance.serving && is_latest).then(|| followed.settled.unwrap_or(highest.1));
    }

    /// The highest seq of a star that any server has committed in a foundation; 0 if that is not the latest.
    pub(crate) fn committed(&self, star: StarId, founded: Epoch) -> Seq {
        let (latest, committed) = self.committed[usize::from(star.0)];
        if latest == founded { committed } else { Seq(0) }
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
        let followed = &mut self.followed[usize::from(server.0)][usize::from(star.0)];
        let compared = if followed.compared.0 == epoch { followed.compared.1 } else { Seq(0) };
        let (mut last, mut result) = (compared, Ok(()));
        node.stamps(star, compared, &mut |seq, stamp| {
            if result.is_err() {
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
        followed.compared = (epoch, last);
        result
    }

    /// A look at all objects of a server begins.
    pub(crate) fn begin_objects(&mut self) {
        self.hashes.fill(0);
    }

    /// The next object of the look.
    pub(crate) fn add_object(&mut self, seen: &Seen<'_>, star: StarId) {
        let hash = &mut self.hashes[usize::from(star.0)];
        for number in [seen.key.hash(), seen.version.0, seen.hash] {
            *hash = mix(hash.rotate_left(7) ^ number);
        }
    }

    /// The look has shown all objects of a star at a server that has just committed something in it.
    pub(crate) fn end_objects(
        &mut self,
        server: ServerId,
        star: StarId,
        glance: &Glance,
        remembered: impl Fn() -> u64,
    ) -> Result<(), String> {
        let Glance { founded, committed, .. } = *glance;
        let followed = &self.followed[usize::from(server.0)][usize::from(star.0)];
        if followed.settled.is_none_or(|settled| committed < settled) {
            return Ok(());
        }
        let hash = self.hashes[usize::from(star.0)];
        let (first, other) = *self.objects.entry((star, founded, committed)).or_insert((hash, server));
        if first != hash {
            return Err(format!(
                "agreement: star {star} holds other objects at server {server} than at server {other}, though both have \
                 committed seq {committed}"
            ));
        }
        if !committed.0.is_multiple_of(REMEMBERED_EVERY) {
            return Ok(());
        }
        let remembered = remembered();
        let since = founded.max(glance.resumed);
        let (first, other) = *self.remembered.entry((star, since, committed)).or_insert((remembered, server));
        if first != remembered {
            return Err(format!(
                "agreement: star {star} remembers other results at server {server} than at server {other}, though both \
                 have committed seq {committed}"
            ));
        }
        Ok(())
    }
}
