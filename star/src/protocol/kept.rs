//! Objects that a server holds from an earlier time, when it catches up: what is the same at the source is not sent.
//!
//! Nothing is taken on trust. The objects of an earlier life, or of a membership long ago, say nothing about the order. They
//! are offered by version and digest of what their bytes are now; what the source holds otherwise is replaced, and what
//! it does not hold is removed, part by part: after each part its range is as if all of it had been sent.

use compact_str::CompactString;
use star_core::{
    collections::{Map, Set},
    ids::StarId,
    key::Key,
    store::{Object, Store},
};

use super::{
    config::{Bug, NodeConfig},
    message::{Changed, Kept},
};

/// How many parts' worth of bytes are offered at a time: to make digests is faster than to send.
const PARTS_OFFERED: usize = 16;

/// What an asker holds of the part that it asks for.
pub(crate) struct Offer {
    kept: Map<u64, Kept>,
    /// How many of them are not found to be the same; 0, too, if nothing was offered.
    left: usize,
    compares: bool,
}

impl Offer {
    pub(crate) fn new(kept: &[Kept], config: &NodeConfig) -> Self {
        let compares = !config.has_bug(Bug::KeptUncompared);
        Self { kept: kept.iter().map(|one| (one.key_hash, *one)).collect(), left: kept.len(), compares }
    }

    /// Whether the asker holds this object.
    pub(crate) fn has(&mut self, key: &Key, object: &Object<'_>) -> bool {
        let Some(kept) = self.kept.get(&key.hash()) else { return false };
        let is_same = !self.compares || (kept.version == object.version && kept.digest == object.digest());
        self.left -= usize::from(is_same && self.left > 0);
        is_same
    }

    /// Whether something was offered, and all of it was found to be the same.
    pub(crate) fn is_used_up(&self) -> bool {
        self.left == 0 && !self.kept.is_empty()
    }
}

/// What a server holds of a star after a key, as much as it offers at a time.
pub(crate) fn offer(store: &impl Store, config: &NodeConfig, star: StarId, after: Option<&str>) -> Vec<Kept> {
    let (mut kept, mut bytes) = (Vec::new(), 0);
    store.list(star, "", after, &mut |key| {
        if kept.len() >= config.part_entries || bytes >= config.part_bytes.saturating_mul(PARTS_OFFERED) {
            return false;
        }
        let key = Key::new(key);
        if let Some(object) = store.get(&key).object {
            bytes += object.value.len();
            kept.push(Kept { key_hash: key.hash(), version: object.version, digest: object.digest() });
        }
        true
    });
    kept
}

/// Whether what a source says to be kept is here. It always is, but for two keys of the same hash.
pub(crate) fn are_here(store: &impl Store, config: &NodeConfig, objects: &[Changed]) -> bool {
    let is_here = |one: &Changed| {
        one.object.as_ref().filter(|object| object.is_kept).is_none_or(|object| {
            let version = store.get(&one.key).object.map(|here| here.version);
            version == Some(object.version) || config.has_bug(Bug::KeptUncompared)
        })
    };
    objects.iter().all(is_here)
}

/// Removes what a server holds in a range of keys and its source does not; `range`: after the first, up to the second.
pub(crate) fn remove_others(
    store: &mut impl Store,
    config: &NodeConfig,
    star: StarId,
    range: (Option<&str>, Option<&str>),
    objects: &[Changed],
) {
    if config.has_bug(Bug::KeptThoughDeleted) {
        return;
    }
    let (after, end) = range;
    let named: Set<&str> = objects.iter().map(|one| one.key.as_str()).collect();
    let mut others: Vec<CompactString> = Vec::new();
    store.list(star, "", after, &mut |key| {
        let is_in_range = end.is_none_or(|end| key <= end);
        if is_in_range && !named.contains(key) {
            others.push(key.into());
        }
        is_in_range
    });
    others.into_iter().for_each(|key| store.remove(&Key::new(key), false));
}
