//! What must hold between the servers at every moment, one property per file.
//!
//! After each turn the server that took it is looked at. What costs more is looked at when what a server has committed
//! has moved, which is when it can break.

mod agreement;
mod buffer_drains;
mod clean_is_latest;
mod committed_everywhere;
mod exactly_once;
pub(crate) mod lease_exclusion;
mod version_monotone;

use star_core::{
    ids::{Seq, ServerId, StarId, Version},
    key::Key,
};

use crate::{
    subject::{Glance, Subject},
    world::{Book, Server},
};

/// All invariants, with what each remembers.
#[derive(Debug)]
pub(crate) struct Checks {
    stars: u16,
    /// What each server had committed of each star when it was last looked at.
    committed: Vec<Vec<Seq>>,
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
    pub(crate) key: &'a Key,
    pub(crate) version: Version,
    pub(crate) value: &'a [u8],
    /// Whether a client that asks now is told of it without waiting.
    pub(crate) readable: bool,
}

impl Checks {
    pub(crate) fn new(stars: u16) -> Self {
        Self {
            stars,
            committed: Vec::new(),
            agreement: agreement::Agreement::default(),
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
        self.committed[at] = vec![Seq(0); usize::from(self.stars)];
        self.version_monotone.forget(server);
        self.agreement.forget(server);
    }

    /// A server has taken a turn.
    pub(crate) fn after_turn<S: Subject>(
        &mut self,
        servers: &[Server<S>],
        book: &Book,
        now: u64,
        server: ServerId,
    ) -> Result<(), String> {
        let scene = Scene { servers, book, now, stars: self.stars };
        let Some(node) = scene.node(server) else { return Ok(()) };
        node.check().map_err(|what| format!("server {server}: {what}"))?;
        let mut moved = false;
        for star in (0..self.stars).map(StarId) {
            let glance: Glance = node.glance(star);
            let before = &mut self.committed[usize::from(server.0)][usize::from(star.0)];
            // A server that does not serve may have to begin anew with nothing.
            if glance.committed < *before && glance.serving {
                return Err(format!(
                    "server {server}, star {star}: committed fell from {before} to {}",
                    glance.committed
                ));
            }
            let star_moved = glance.committed > *before;
            *before = glance.committed;
            self.agreement.stamps(node, server, star, &glance)?;
            self.agreement.note(server, star, &glance);
            if star_moved {
                moved = true;
                committed_everywhere::check(&scene, server, star, &glance)?;
                self.agreement.objects(node, server, star, self.stars, &glance)?;
            }
        }
        if moved {
            self.look_at_objects(node, server)?;
        }
        clean_is_latest::check(&scene, server)
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

    fn look_at_objects<S: Subject>(&mut self, node: &S, server: ServerId) -> Result<(), String> {
        let serving: Vec<bool> = (0..self.stars).map(|star| node.glance(StarId(star)).serving).collect();
        let mut result = Ok(());
        node.objects(&mut |key, version, value| {
            if result.is_ok() {
                let serving = serving[usize::from(key.star(self.stars).0)];
                let seen = Seen { server, key, version, value, readable: serving && !node.look_up(key).1 };
                result = self.version_monotone.check(&seen).and_then(|()| self.exactly_once.check(&seen));
            }
        });
        result
    }
}
