//! Version monotone: at one server the version that readers can see of a key never falls, not even across a delete or an
//! absence of the server from its views; and one version is one object at all servers, learners too.
//!
//! Readers see what a serving server calls clean. A learner begins anew where it must, and a joining member may hold
//! objects from beyond its own `committed`, which its order then goes through once more; nobody reads them meanwhile.

use star_core::{
    collections::Map,
    ids::{Epoch, ServerId, Version},
};

use super::Seen;

/// What was seen so far.
#[derive(Debug, Default)]
pub(crate) struct VersionMonotone {
    /// By server, foundation and hash of the key.
    highest: Vec<Map<(Epoch, u64), Version>>,
    /// By foundation and hash of the key.
    values: Map<(Epoch, u64, Version), u64>,
}

impl VersionMonotone {
    pub(crate) fn forget(&mut self, server: ServerId) {
        if let Some(highest) = self.highest.get_mut(usize::from(server.0)) {
            highest.clear();
        }
    }

    pub(crate) fn check(&mut self, seen: &Seen<'_>) -> Result<(), String> {
        let Seen { server, founded, key, version, hash, readable, .. } = *seen;
        if *self.values.entry((founded, key.hash(), version)).or_insert(hash) != hash {
            return Err(format!("version monotone: key {key}: version {version} has another value at server {server}"));
        }
        if !readable {
            return Ok(());
        }
        let at = usize::from(server.0);
        if self.highest.len() <= at {
            self.highest.resize_with(at + 1, Map::default);
        }
        let highest = self.highest[at].entry((founded, key.hash())).or_default();
        if version < *highest {
            return Err(format!("version monotone: server {server}, key {key}: version {highest} became {version}"));
        }
        *highest = version;
        Ok(())
    }
}
