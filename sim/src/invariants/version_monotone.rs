//! Version monotone: at one server the version that readers can see of a key never falls, not even across a delete or an
//! absence of the server from its views; and one version is one object at all servers, learners too.
//!
//! Readers see what a serving server calls clean. A learner begins anew where it must, and a joining member may hold
//! objects from beyond its own `committed`, which its order then goes through once more; nobody reads them meanwhile.

use star_core::{
    collections::Map,
    ids::{ServerId, Version},
    key::Key,
};
use xxhash_rust::xxh3::xxh3_64;

use super::Seen;

/// What was seen so far.
#[derive(Debug, Default)]
pub(crate) struct VersionMonotone {
    highest: Vec<Map<Key, Version>>,
    values: Map<(Key, Version), u64>,
}

impl VersionMonotone {
    pub(crate) fn forget(&mut self, server: ServerId) {
        if let Some(highest) = self.highest.get_mut(usize::from(server.0)) {
            highest.clear();
        }
    }

    pub(crate) fn check(&mut self, seen: &Seen<'_>) -> Result<(), String> {
        let Seen { server, key, version, value, readable } = *seen;
        let hash = xxh3_64(value);
        if *self.values.entry((key.clone(), version)).or_insert(hash) != hash {
            return Err(format!("version monotone: key {key}: version {version} has another value at server {server}"));
        }
        if !readable {
            return Ok(());
        }
        let at = usize::from(server.0);
        if self.highest.len() <= at {
            self.highest.resize_with(at + 1, Map::default);
        }
        let highest = self.highest[at].entry(key.clone()).or_default();
        if version < *highest {
            return Err(format!("version monotone: server {server}, key {key}: version {highest} became {version}"));
        }
        *highest = version;
        Ok(())
    }
}
