//! What must hold between the servers at every moment, one property per file.
//!
//! After each turn the server that took it is looked at. What costs more is looked at when what a server has committed
//! has moved, which is when it can break.
//!
//! The few keys of a world are told apart by their hashes, and stars are numbered as bits: a world has at most 64.

mod agreement;
mod buffer_drains;
mod clean_is_latest;
mod committed_everywhere;
mod exactly_once;
pub(crate) mod lease_exclusion;
pub(crate) mod one_foundation;
mod version_monotone;

use star_core::{
    ids::{Epoch, Seq, ServerId, StarId, Version},
    key::Key,
};
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    subject::{Glance, Subject},
    world::{Book, Foundations, Server},
};

/// All invariants, with what each remembers.
#[derive(Debug)]
pub(crate) struct Checks {
    stars: u16,
    /// What each server had committed of each star when it was last looked at, and in which foundation.
    committed: Vec<Vec<(Epoch, Seq)>>,
    /// By star: the foundation in which the server is that is being looked at.
    founded: Vec<Epoch>,
    clean_is_latest: clean_is_latest::CleanIsLatest,
    agreement: agreement::Agreement,
    version_monotone: version_monotone::VersionMonotone,
    exactly_once: exactly_once::ExactlyOnce,
}

/// The world as the invariants see it.
pub(crate) struct Scene<'a, S: Subject> {
    pub(crate) servers: &'a [Server<S>],
    pub(crate) book: &'a Book,
    pub(crate) now: u64,
    pub(crate) stars: u16,
}

impl<S: Subject> Scene<'_, S> {
    /// A server that runs.
    pub(crate) fn node(&self, server: ServerId) -> Option<&S> {
        self.servers.get(usize::from(server.0))?.node.as_ref()
    }

    /// Whether a server may answer reads as far as its lease goes.
    pub(crate) fn holds_lease(&self, server: ServerId) -> bool {
        self.servers[usize::from(server.0)].holds_lease(self.now)
    }
}

/// A committed object of one server.
pub(crate) struct Seen<'a> {
    pub(crate) server: ServerId,
    /// In which foundation of the key's star the server is.
    pub(crate) founded: Epoch,
    pub(crate) key: &'a Key,
    pub(crate) version: Version,
    pub(crate) value: &'a [u8],
    /// XXH3 of the value.
    pub(crate) hash: u64,
    /// Whether a client that asks now is told of it without waiting.
    pub(crate) readable: bool,
}

impl Checks {
    pub(crate) fn new(stars: u16) -> Self {
        Self {
            stars,
            committed: Vec::new(),
            founded: vec![Epoch(0); usize::from(stars)],
            clean_is_latest: clean_is_latest::CleanIsLatest::default(),
            agreement: agreement::Agreement::new(stars),
            version_monotone: version_monotone::VersionMonotone::default(),
            exactly_once: exactly_once::ExactlyOnce::default(),
        }
    }

    /// A server starts anew: what its life before held says nothing about this one.
    pub(crate) fn forget(&mut self, server: ServerId) {
        let at = usize::from(server.0);
        if self.committed.len() <= at {
            self.committed.resize(at + 1, Vec::new());
        }
        self.committed[at] = vec![(Epoch(0), Seq(0)); usize::from(self.stars)];
        self.version_monotone.forget(server);
        self.clean_is_latest.forget(server);
        self.agreement.forget(server);
    }

    /// A server has taken a turn.
    pub(crate) fn after_turn<S: Subject>(
        &mut self,
        servers: &[Server<S>],
        book: &Book,
        foundations: &Foundations,
        now: u64,
        server: ServerId,
    ) -> Result<(), String> {
        let scene = Scene { servers, book, now, stars: self.stars };
        let Some(node) = scene.node(server) else { return Ok(()) };
        node.check().map_err(|what| format!("server {server}: {what}"))?;
        let (mut serving, mut moved, mut unknown) = (0, 0, 0);
        for star in (0..self.stars).map(StarId) {
            let glance: Glance = node.glance(star);
            let last = &mut self.committed[usize::from(server.0)][usize::from(star.0)];
            let before = if last.0 == glance.founded { last.1 } else { Seq(0) };
            // A server that does not serve may have to begin anew with nothing.
            if glance.committed < before && glance.serving {
                return Err(format!(
                    "server {server}, star {star}: committed fell from {before} to {}",
                    glance.committed
                ));
            }
            let star_moved = glance.committed > before;
            *last = (glance.founded, glance.committed);
            self.founded[usize::from(star.0)] = glance.founded;
            // What a server that begins to catch up holds may be of a foundation before.
            unknown |= u64::from(glance.committed == Seq(0) && foundations.latest_place(star) > 0) << star.0;
            self.agreement.stamps(node, server, star, &glance)?;
            self.agreement.note(server, star, &glance);
            if scene.holds_lease(server) {
                let committed = self.agreement.committed(star, glance.founded);
                committed_everywhere::check_reader(server, star, &glance, committed)?;
                if glance.serving && glance.founded > Epoch(0) {
                    one_foundation::check_reader(server, star, glance.founded, foundations.latest(star))?;
                }
            }
            serving |= u64::from(glance.serving) << star.0;
            if star_moved {
                moved |= 1 << star.0;
                committed_everywhere::check(&scene, server, star, &glance)?;
            }
        }
        if moved != 0 {
            self.look_at_objects(node, server, [serving, moved, unknown])?;
        }
        self.clean_is_latest.check(&scene, server, serving)
    }

    /// Nothing moves any more.
    pub(crate) fn at_end<S: Subject>(&self, servers: &[Server<S>], book: &Book, now: u64) -> Result<(), String> {
        let scene = Scene { servers, book, now, stars: self.stars };
        for server in (0..servers.len() as u16).map(ServerId) {
            clean_is_latest::check(&scene, server)?;
        }
        Ok(())
    }

    /// Whether nothing is left over anywhere; the error says what is.
    pub(crate) fn at_rest<S: Subject>(&self, servers: &[Server<S>], book: &Book, now: u64) -> Result<(), String> {
        let scene = Scene { servers, book, now, stars: self.stars };
        (0..servers.len() as u16).map(ServerId).try_for_each(|server| buffer_drains::check(&scene, server))
    }

    /// Looks at all committed objects of a server that has committed something in the stars of `moved`; the stars that
    /// it serves are those of `serving`; of those of `unknown` its objects say nothing; all as bits.
    fn look_at_objects<S: Subject>(
        &mut self,
        node: &S,
        server: ServerId,
        [serving, moved, unknown]: [u64; 3],
    ) -> Result<(), String> {
        let mut result = Ok(());
        self.agreement.begin_objects();
        node.objects(&mut |key, version, value| {
            let star = key.star(self.stars);
            if result.is_ok() && unknown >> star.0 & 1 == 0 {
                let founded = self.founded[usize::from(star.0)];
                let hash = xxh3_64(value);
                let readable = serving >> star.0 & 1 == 1 && !node.look_up(key).1;
                let seen = Seen { server, founded, key, version, value, hash, readable };
                self.agreement.add_object(&seen, star);
                result = self.version_monotone.check(&seen).and_then(|()| self.exactly_once.check(&seen));
            }
        });
        result?;
        (0..self.stars).filter(|star| moved >> star & 1 == 1).map(StarId).try_for_each(|star| {
            let glance = node.glance(star);
            self.agreement.end_objects(server, star, &glance, || node.remembered(star))
        })
    }
}
