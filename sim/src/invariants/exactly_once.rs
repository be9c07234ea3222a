//! Exactly once: every write of the workload has a value of its own, so a value under two versions of its key is a
//! request that took effect twice.

use star_core::{
    collections::Map,
    ids::{Epoch, Version},
};

use super::Seen;

/// The version of each value that was ever committed, by foundation and the hashes of key and value.
#[derive(Debug, Default)]
pub(crate) struct ExactlyOnce {
    versions: Map<(Epoch, u64, u64), Version>,
}

impl ExactlyOnce {
    pub(crate) fn check(&mut self, seen: &Seen<'_>) -> Result<(), String> {
        let version = *self.versions.entry((seen.founded, seen.key.hash(), seen.hash)).or_insert(seen.version);
        if version == seen.version {
            return Ok(());
        }
        let value = String::from_utf8_lossy(seen.value);
        Err(format!(
            "exactly once: key {}: {value:?} was written as version {version} and again as version {} (seen at server {})",
            seen.key, seen.version, seen.server
        ))
    }
}
