//! Where a server keeps its objects: the trait that the protocols drive, and an implementation in plain memory.
//!
//! A value is *placed* once, when it arrives, and invisible until a commit *publishes* it: moving a pointer, not bytes.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::{
    collections::Map,
    ids::{Seq, StarId, Version},
    key::Key,
    note::Note,
    time::Time,
};

/// How an object's bytes came in, so that they can go out the same way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Encoding {
    /// Bytes; shown to JSON clients as a string where they are UTF-8.
    #[default]
    Raw,
    /// The text of a JSON value other than a string; shown to JSON clients as that value.
    Json,
}

/// Room for one object in a store, from [`Store::place`] until it is published or discarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place(pub u64);

/// The store has no room for an object of this size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no room for {wanted_bytes} bytes: {free_bytes} bytes are free")]
pub struct NoSpace {
    /// Bytes asked for, with the store's own overhead.
    pub wanted_bytes: u64,
    /// Bytes free in all (they may be in pieces).
    pub free_bytes: u64,
}

/// What a store knows of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The latest committed object: its bytes, encoding and version.
    pub object: Option<Object<'a>>,
    /// True while a write to the key is under way that may be committed elsewhere.
    pub dirty: bool,
}

/// A committed object, in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Object<'a> {
    /// The object's bytes.
    pub value: &'a [u8],
    /// How the bytes came in.
    pub encoding: Encoding,
    /// The object's version.
    pub version: Version,
}

impl Object<'_> {
    /// A digest of its bytes and of how they came in, the same at every server.
    pub fn digest(&self) -> u64 {
        xxh3_64_with_seed(self.value, self.encoding as u64)
    }
}

/// The dictionary of a server. Single-threaded: only the server's own thread changes it.
///
/// Order of calls for a write: `place`, `fill` until all bytes are there, `mark_dirty`, then `publish` (or `remove` for a
/// delete) when it is committed; or `discard` if it never will be.
pub trait Store {
    /// Room for an object of `value_bytes` bytes under `key`, invisible to readers. The bytes are undefined until filled.
    fn place(&mut self, key: &Key, encoding: Encoding, value_bytes: usize) -> Result<Place, NoSpace>;

    /// Copies `bytes` to `offset` of a placed value.
    fn fill(&mut self, place: Place, offset: usize, bytes: &[u8]);

    /// A placed value with all of its bytes. A store that has lent these very bytes, in a room that was sealed, keeps them
    /// where they are.
    fn place_value(&mut self, key: &Key, encoding: Encoding, value: &Bytes) -> Result<Place, NoSpace> {
        let place = self.place(key, encoding, value.len())?;
        self.fill(place, 0, value);
        Ok(place)
    }

    /// The bytes of a placed value.
    fn placed(&self, place: Place) -> &[u8];

    /// Gives a placed value's room back.
    fn discard(&mut self, place: Place);

    /// Marks a key dirty, so that no reader takes its value for the latest; a key that is new gets a placeholder.
    fn mark_dirty(&mut self, key: &Key) -> Result<(), NoSpace>;

    /// Takes the mark back without a change of the object (the write had no effect, or was dropped at a takeover).
    fn mark_clean(&mut self, key: &Key);

    /// Makes a placed value the key's object. `dirty`: whether a later write to the key is under way.
    fn publish(&mut self, key: &Key, place: Place, version: Version, dirty: bool);

    /// Removes the key's object. `dirty`: whether a later write to the key is under way.
    fn remove(&mut self, key: &Key, dirty: bool);

    /// What the store knows of a key.
    fn get(&self, key: &Key) -> Entry<'_>;

    /// These keys are about to be looked at: whatever makes that faster may be done. Changes nothing.
    fn expect<'k>(&self, _keys: impl Iterator<Item = &'k Key> + Clone) {}

    /// Calls `visit` for the keys of `star` that begin with `prefix` and sort after `after`, in order, until it
    /// returns false. Only keys that have an object are visited.
    fn list(&self, star: StarId, prefix: &str, after: Option<&str>, visit: &mut dyn FnMut(&str) -> bool);

    /// Until when readers of this store may answer by themselves; [`Time::ZERO`] for not at all.
    fn set_lease(&mut self, until: Time);

    /// Whether readers of this store may answer for keys of `star` by themselves.
    fn set_serving(&mut self, star: StarId, serving: bool);

    /// Bytes in use and bytes in all, with the store's own overhead.
    fn usage(&self) -> Usage;

    /// Replaces what is noted of a star: whoever opens the store after a crash finds this note or the one before, whole.
    fn note(&mut self, star: StarId, note: &Note);

    /// Notes how far the star has come in the epoch of its note. In this order: `ready`, then `committed`.
    fn note_progress(&mut self, star: StarId, ready: Seq, committed: Seq);

    /// The write at `seq` is applied next: its key gets this version, or none. Whoever reads the store by himself may be told of
    /// it before the next [`Store::note_progress`], so a store that has such readers remembers it.
    fn note_applying(&mut self, _star: StarId, _seq: Seq, _key: &Key, _version: Option<Version>) {}

    /// Raises the bounds of a star's note, before what makes them higher is applied.
    fn note_bounds(&mut self, star: StarId, version_floor: Version, youngest: u64);

    /// What is noted of a star.
    fn noted(&self, star: StarId) -> Option<Note>;
}

/// How full a store is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Objects that readers can see.
    pub objects: u64,
    /// Bytes in use, with the store's own overhead.
    pub used_bytes: u64,
    /// Bytes in all.
    pub capacity_bytes: u64,
}

/// A store in plain memory: for the simulator, for tests, and as the reference that other stores are compared with.
#[derive(Debug)]
pub struct MemoryStore {
    stars: u16,
    capacity_bytes: u64,
    used_bytes: u64,
    objects: u64,
    changes: u64,
    places: Map<u64, Placed>,
    next_place: u64,
    entries: BTreeMap<Key, Slot>,
    /// What the last [`Store::set_lease`] said.
    pub lease_until: Time,
    /// The stars that readers may answer for.
    pub serving: std::collections::BTreeSet<StarId>,
    notes: BTreeMap<StarId, Note>,
}

#[derive(Debug)]
struct Placed {
    encoding: Encoding,
    value: Vec<u8>,
}

#[derive(Debug, Default)]
struct Slot {
    object: Option<(u64, Version)>,
    dirty: bool,
}

impl MemoryStore {
    /// A store for a cluster of `stars` stars that holds at most `capacity_bytes` bytes of keys and values.
    pub fn new(stars: u16, capacity_bytes: u64) -> Self {
        Self {
            stars,
            capacity_bytes,
            used_bytes: 0,
            objects: 0,
            changes: 0,
            places: Map::default(),
            next_place: 0,
            entries: BTreeMap::new(),
            lease_until: Time::ZERO,
            serving: std::collections::BTreeSet::new(),
            notes: BTreeMap::new(),
        }
    }

    /// What a crash leaves of it: the published objects, clean, for nobody to read by himself, and what is noted.
    #[must_use]
    pub fn after_crash(mut self) -> Self {
        self.entries.retain(|_, slot| slot.object.is_some());
        self.entries.values_mut().for_each(|slot| slot.dirty = false);
        let published: std::collections::BTreeSet<u64> =
            self.entries.values().filter_map(|slot| slot.object.map(|(place, _)| place)).collect();
        self.places.retain(|place, _| published.contains(place));
        self.used_bytes = self.places.values().map(|placed| placed.value.len() as u64).sum();
        (self.lease_until, self.serving) = (Time::ZERO, std::collections::BTreeSet::new());
        self
    }

    /// All committed objects in the order of their keys: what two servers must agree on.
    pub fn objects(&self) -> impl Iterator<Item = (&Key, Version, &[u8])> {
        self.entries.iter().filter_map(|(key, slot)| {
            let (place, version) = slot.object?;
            Some((key, version, self.places[&place].value.as_slice()))
        })
    }

    /// Grows with every change of an object or of a dirty mark: what was looked at is the same while it stands.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// The version of a key's object and whether the key is dirty, without its bytes.
    pub fn look_up(&self, key: &Key) -> (Option<Version>, bool) {
        let slot = self.entries.get(key);
        slot.map_or((None, false), |slot| (slot.object.map(|(_, version)| version), slot.dirty))
    }

    /// The keys that are marked dirty.
    pub fn dirty_keys(&self) -> impl Iterator<Item = &Key> {
        self.entries.iter().filter(|(_, slot)| slot.dirty).map(|(key, _)| key)
    }

    /// How many values are placed but not published.
    pub fn unpublished(&self) -> usize {
        self.places.len() - self.entries.values().filter(|slot| slot.object.is_some()).count()
    }

    fn replace(&mut self, key: &Key, object: Option<(u64, Version)>, dirty: bool) {
        self.changes += 1;
        let slot = self.entries.entry(key.clone()).or_default();
        slot.dirty = dirty;
        self.objects += u64::from(object.is_some());
        let old = std::mem::replace(&mut slot.object, object);
        self.objects -= u64::from(old.is_some());
        if slot.object.is_none() && !dirty {
            self.entries.remove(key);
        }
        if let Some((place, _)) = old {
            self.discard(Place(place));
        }
    }
}

impl Store for MemoryStore {
    fn place(&mut self, _key: &Key, encoding: Encoding, value_bytes: usize) -> Result<Place, NoSpace> {
        let wanted_bytes = value_bytes as u64;
        if self.used_bytes + wanted_bytes > self.capacity_bytes {
            return Err(NoSpace { wanted_bytes, free_bytes: self.capacity_bytes - self.used_bytes });
        }
        self.used_bytes += wanted_bytes;
        self.next_place += 1;
        self.places.insert(self.next_place, Placed { encoding, value: vec![0; value_bytes] });
        Ok(Place(self.next_place))
    }

    fn fill(&mut self, place: Place, offset: usize, bytes: &[u8]) {
        let placed = self.places.get_mut(&place.0).expect("a place is filled while it is held");
        placed.value[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    fn placed(&self, place: Place) -> &[u8] {
        &self.places[&place.0].value
    }

    fn discard(&mut self, place: Place) {
        let placed = self.places.remove(&place.0).expect("a place is given back once");
        self.used_bytes -= placed.value.len() as u64;
    }

    fn mark_dirty(&mut self, key: &Key) -> Result<(), NoSpace> {
        self.changes += 1;
        self.entries.entry(key.clone()).or_default().dirty = true;
        Ok(())
    }

    fn mark_clean(&mut self, key: &Key) {
        self.changes += 1;
        if let Some(slot) = self.entries.get_mut(key) {
            slot.dirty = false;
            if slot.object.is_none() {
                self.entries.remove(key);
            }
        }
    }

    fn publish(&mut self, key: &Key, place: Place, version: Version, dirty: bool) {
        self.replace(key, Some((place.0, version)), dirty);
    }

    fn remove(&mut self, key: &Key, dirty: bool) {
        self.replace(key, None, dirty);
    }

    fn get(&self, key: &Key) -> Entry<'_> {
        let Some(slot) = self.entries.get(key) else { return Entry { object: None, dirty: false } };
        let object = slot.object.map(|(place, version)| {
            let placed = &self.places[&place];
            Object { value: &placed.value, encoding: placed.encoding, version }
        });
        Entry { object, dirty: slot.dirty }
    }

    fn list(&self, star: StarId, prefix: &str, after: Option<&str>, visit: &mut dyn FnMut(&str) -> bool) {
        let start = after.map_or(prefix, |after| after.max(prefix));
        for (key, slot) in self.entries.range(Key::new(start)..) {
            if !key.as_str().starts_with(prefix) {
                // Keys that sort before the prefix cannot come: the range begins at it.
                break;
            }
            let wanted = slot.object.is_some() && key.star(self.stars) == star && Some(key.as_str()) != after;
            if wanted && !visit(key.as_str()) {
                break;
            }
        }
    }

    fn set_lease(&mut self, until: Time) {
        self.lease_until = until;
    }

    fn set_serving(&mut self, star: StarId, serving: bool) {
        if serving {
            self.serving.insert(star);
        } else {
            self.serving.remove(&star);
        }
    }

    fn usage(&self) -> Usage {
        Usage { objects: self.objects, used_bytes: self.used_bytes, capacity_bytes: self.capacity_bytes }
    }

    fn note(&mut self, star: StarId, note: &Note) {
        self.notes.insert(star, *note);
    }

    fn note_progress(&mut self, star: StarId, ready: Seq, committed: Seq) {
        if let Some(note) = self.notes.get_mut(&star) {
            (note.ready, note.committed) = (ready, committed);
        }
    }

    fn note_bounds(&mut self, star: StarId, version_floor: Version, youngest: u64) {
        if let Some(note) = self.notes.get_mut(&star) {
            (note.version_floor, note.youngest) = (version_floor, youngest);
        }
    }

    fn noted(&self, star: StarId) -> Option<Note> {
        self.notes.get(&star).filter(|note| note.epoch.0 > 0).copied()
    }
}
