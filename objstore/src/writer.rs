//! The server's side: [`MappedStore`], the only writer of its file.

use std::{
    collections::BTreeSet,
    fmt,
    fs::OpenOptions,
    ops::Bound,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use compact_str::CompactString;
use star_core::{
    Key, StarId, Time, Version,
    ids::Seq,
    note::Note,
    store::{Encoding, Entry, NoSpace, Object, Place, Store, Usage},
};
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    alloc::Allocator,
    block::{Block, LARGE_BYTES, Shape},
    checksum::{self, Arriving},
    error::OpenError,
    file::{self, Locked, NewFile, OldFile, failed},
    header::Header,
    index::{Index, Position, Slot},
    layout::{Geometry, Options},
    memory::Memory,
    notes::{Applying, Notes},
    notices::Journal,
    pins::{self, Limbo},
    recover::{Parts, Recovered, adopt_pinned, recover},
    rooms::Rooms,
};

/// How much of an expected object is asked for: its head, its key and a short value.
const EXPECTED_BYTES: usize = 128;

/// A server's dictionary in a mapped file that other processes read.
///
/// Dropping it ends its readers' lease and keeps the objects: [`MappedStore::open`] finds them again, as it does after
/// a crash of the server. What a crash of the *machine* leaves is only what the system had written to disk by then.
pub struct MappedStore {
    /// Shared with what is being sent from it.
    memory: Arc<Memory>,
    geometry: Geometry,
    index: Index,
    allocator: Allocator,
    /// Room for marks, which no object takes away.
    marks: Allocator,
    /// The keys that have an object, by star, in order.
    keys: Vec<BTreeSet<CompactString>>,
    /// Blocks that are nobody's object any more, and pinned.
    limbo: Limbo,
    /// Where producers write, or may still write.
    rooms: Rooms,
    /// What changed, for those who watch.
    journal: Journal,
    arriving: Arriving,
    /// Bytes that were moved to make room in one piece.
    moved_bytes: u64,
    /// Objects that are published; equal to the number of `keys`.
    objects: u64,
    /// Values that are placed and neither published nor discarded; the header has the same number.
    placed: u64,
    path: PathBuf,
    /// Holds the lock that keeps other writers away.
    file: Locked,
}

impl MappedStore {
    /// Makes an empty store. An old one at the path is replaced, and its readers are told; any other file is refused.
    /// The old one's room is free again when its last reader has let go, so there must be room for both.
    pub fn create(options: &Options) -> Result<Self, OpenError> {
        let path = options.path.as_path();
        let geometry = Geometry::of_options(options)?;
        let boot = file::boot_id()?;
        let old = OldFile::claim(path)?;
        let new = NewFile::create(path, geometry.file_bytes, options.group)?;
        let memory = Memory::writable(new.file.as_ref().expect("not installed yet"), geometry.file_bytes)
            .map(Arc::new)
            .map_err(failed("map", path))?;
        if options.huge_pages {
            memory.make_huge();
        }
        let header = Header(&memory);
        header.begin_life();
        header.set_writer(options.incarnation, std::process::id(), boot);
        header.describe(&geometry, &options.cluster);
        header.end_change();
        if let Some(old) = &old {
            old.supersede();
        }
        let file = new.install(path)?;
        pins::show_writer(&file, &geometry);
        Ok(Self {
            index: Index::empty(&memory, &geometry),
            allocator: Allocator::new(geometry.area_bytes),
            marks: Allocator::new(geometry.marks_bytes),
            keys: vec![BTreeSet::new(); usize::from(geometry.stars)],
            limbo: Limbo::new(&geometry),
            rooms: Rooms::new(options.incarnation),
            journal: Journal::new(options.incarnation),
            arriving: Arriving::default(),
            moved_bytes: 0,
            objects: 0,
            placed: 0,
            path: path.to_path_buf(),
            file,
            memory,
            geometry,
        })
    }

    /// Opens the store that a server left, by a clean stop or a crash. All its published objects are there, checked;
    /// no key is dirty; nothing is placed; readers have no lease and no star is served until the caller says so.
    pub fn open(options: &Options) -> Result<(Self, Recovered), OpenError> {
        let path = options.path.as_path();
        let wanted = Geometry::of_options(options)?;
        let boot = file::boot_id()?;
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(failed("open", path))?;
        let file = Locked::take(file, path)?;
        let geometry = file::inspect(&file, path)?;
        let memory = Memory::writable(&file, geometry.file_bytes).map(Arc::new).map_err(failed("map", path))?;
        let header = Header(&memory);
        agree(path, "cluster", &options.cluster, &header.cluster().unwrap_or_default())?;
        agree(path, "stars", &wanted.stars, &geometry.stars)?;
        agree(path, "capacity_bytes", &wanted.area_bytes, &geometry.area_bytes)?;
        agree(path, "entries_max", &wanted.entries_max, &geometry.entries_max)?;
        file::permit(&file, path, options.group)?;
        if options.huge_pages {
            memory.make_huge();
        }
        header.begin_life();
        let Parts { index, mut allocator, keys, recovered } = recover(&memory, &geometry);
        let notes = Notes::new(&memory, &geometry);
        if header.boot() != boot {
            notes.clear();
        } else if recovered.torn > 0 {
            notes.deny_whole();
        }
        let mut limbo = Limbo::new(&geometry);
        limbo.recover(&memory, &file, |at| adopt_pinned(&memory, &geometry, at, &mut allocator));
        header.set_writer(options.incarnation, std::process::id(), boot);
        // After the new incarnation: a producer that locks its room only now sees that one, and lets go.
        let mut rooms = Rooms::new(options.incarnation);
        rooms.recover(&file, &geometry, &mut allocator).map_err(failed("find the rooms of", path))?;
        header.end_change();
        pins::show_writer(&file, &geometry);
        let store = Self {
            index,
            allocator,
            marks: Allocator::new(geometry.marks_bytes),
            keys,
            limbo,
            rooms,
            journal: Journal::new(options.incarnation),
            arriving: Arriving::default(),
            moved_bytes: 0,
            objects: recovered.objects,
            placed: 0,
            path: path.to_path_buf(),
            file,
            memory,
            geometry,
        };
        store.finish_notes();
        Ok((store, recovered))
    }

    /// Finds out of each star's last write whether it was applied: a reader may have seen it.
    fn finish_notes(&self) {
        let notes = Notes::new(&self.memory, &self.geometry);
        for star in (0..self.geometry.stars).map(StarId) {
            let Some(Applying { seq, key_hash, version }) = notes.applying(star) else { continue };
            let mut keys = self.keys[usize::from(star.0)].iter().map(|key| Key::new(key.as_str()));
            let key = keys.find(|key| key.hash() == key_hash);
            let is_applied = key.and_then(|key| self.get(&key).object.map(|object| object.version)) == version;
            notes.finish_applying(star, is_applied.then_some(seq));
        }
    }

    /// The file that readers open.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the file.
    pub fn file_bytes(&self) -> u64 {
        self.geometry.file_bytes as u64
    }

    /// Bytes of the file that lie in huge pages; 0 where the system has none for it. Asks the system.
    pub fn huge_bytes(&self) -> u64 {
        self.memory.huge_bytes()
    }

    fn header(&self) -> Header<'_> {
        Header(&self.memory)
    }

    fn find(&self, key: &Key) -> Option<(Position, Slot, Block)> {
        let mut found = None;
        let (position, slot) = self.index.table.find(&*self.memory, key.hash(), |slot| {
            found = Block::read(&self.memory, &self.geometry, slot.block_at())
                .filter(|block| block.has_key(&self.memory, key.as_str()));
            found.is_some()
        })?;
        Some((position, slot, found?))
    }

    fn no_space(&self, wanted_bytes: usize) -> NoSpace {
        NoSpace { wanted_bytes: wanted_bytes as u64, free_bytes: self.allocator.free_bytes() }
    }

    fn block_of(&self, place: Place) -> Block {
        // What stands in a page that a producer can write is not believed.
        if let Some(block) = self.rooms.block_at(place.0 as usize) {
            return block;
        }
        Block::read(&self.memory, &self.geometry, place.0 as usize).expect("a place is used while it is held")
    }

    fn set_placed(&mut self, placed: u64) {
        self.placed = placed;
        self.header().set_placed(placed);
    }

    #[allow(unsafe_code, reason = "only the writer can know that nobody writes")]
    fn value_of(&self, block: Block) -> &[u8] {
        // SAFETY: this is the only writer of the file, and every method that stores to the area takes `&mut self`,
        // which the slice's borrow of `self` excludes.
        unsafe { self.memory.bytes(block.value_at(), block.shape.value_bytes()) }
    }

    #[allow(unsafe_code, reason = "only the writer can know that nobody writes")]
    fn key_of(&self, block: Block) -> &[u8] {
        let (at, bytes) = block.key_range();
        // SAFETY: as for `value_of`.
        unsafe { self.memory.bytes(at, bytes) }
    }

    /// Adds a slot that only marks the key dirty.
    fn insert_mark(&mut self, key: &Key) -> Result<(), NoSpace> {
        let shape = Shape::new(key.len(), 0).ok_or_else(|| self.no_space(key.len()))?;
        let block = match self.marks.allocate(shape.total()) {
            Some(offset) => Block::create(&self.memory, self.geometry.marks_at + offset, key, Encoding::Raw, shape),
            None => self.new_block(key, Encoding::Raw, 0)?,
        };
        self.insert(key, Slot::new(key.hash(), block.at, false, true));
        Ok(())
    }

    /// Adds a slot for a key that has none, for which there is room.
    fn insert(&mut self, key: &Key, slot: Slot) {
        let (memory, geometry, mut name) = (&*self.memory, &self.geometry, Vec::new());
        self.index.insert(memory, key.hash(), slot);
        self.index.grow(memory, |slot| {
            let block = Block::read(memory, geometry, slot.block_at()).expect("a slot leads to a block");
            block.copy_key(memory, &mut name);
            xxh3_64(&name)
        });
    }

    fn names(&mut self, key: &Key) -> &mut BTreeSet<CompactString> {
        &mut self.keys[usize::from(key.star(self.geometry.stars).0)]
    }
}

/// What readers hold of objects that are not there any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pinned {
    /// How many they are.
    pub objects: u64,
    /// Bytes that they take, with their keys.
    pub bytes: u64,
}

impl Store for MappedStore {
    fn place(&mut self, key: &Key, encoding: Encoding, value_bytes: usize) -> Result<Place, NoSpace> {
        if !self.has_entry_for(key) {
            return Err(self.no_space(value_bytes));
        }
        let block = self.new_block(key, encoding, value_bytes)?;
        if value_bytes >= LARGE_BYTES {
            self.arriving.start(block.at as u64);
        }
        self.set_placed(self.placed + 1);
        Ok(Place(block.at as u64))
    }

    fn fill(&mut self, place: Place, offset: usize, bytes: &[u8]) {
        let block = self.block_of(place);
        let value_bytes = block.shape.value_bytes();
        assert!(
            offset.checked_add(bytes.len()).is_some_and(|end| end <= value_bytes),
            "{} bytes at {offset} do not fit a value of {value_bytes} bytes",
            bytes.len()
        );
        self.memory.write(block.value_at() + offset, bytes);
        if value_bytes >= LARGE_BYTES {
            self.arriving.fill(place.0, offset, bytes);
        }
    }

    fn place_value(&mut self, key: &Key, encoding: Encoding, value: &Bytes) -> Result<Place, NoSpace> {
        if let Some(place) = self.take_room(key, encoding, value) {
            return Ok(place);
        }
        let place = self.place(key, encoding, value.len())?;
        self.fill(place, 0, value);
        Ok(place)
    }

    fn placed(&self, place: Place) -> &[u8] {
        self.value_of(self.block_of(place))
    }

    fn discard(&mut self, place: Place) {
        let block = self.block_of(place);
        if block.shape.value_bytes() >= LARGE_BYTES {
            self.arriving.finish(place.0, 0);
        }
        self.free_block(block);
        self.set_placed(self.placed - 1);
    }

    fn mark_dirty(&mut self, key: &Key) -> Result<(), NoSpace> {
        match self.find(key) {
            Some((_, slot, _)) if slot.is_dirty() => Ok(()),
            Some((position, slot, _)) => {
                Index::replace(&*self.memory, position, slot.with_dirty(true));
                Ok(())
            }
            None if self.index.has_room_for_mark(self.placed) => self.insert_mark(key),
            None => Err(self.no_space(0)),
        }
    }

    fn mark_clean(&mut self, key: &Key) {
        match self.find(key) {
            Some((position, slot, _)) if slot.has_object() => {
                Index::replace(&*self.memory, position, slot.with_dirty(false));
            }
            Some((position, _, block)) => {
                self.index.clear(&*self.memory, position);
                self.free_block(block);
            }
            None => {}
        }
    }

    fn publish(&mut self, key: &Key, place: Place, version: Version, dirty: bool) {
        let block = self.block_of(place);
        let value_bytes = block.shape.value_bytes();
        let hash = (value_bytes >= LARGE_BYTES).then(|| self.arriving.finish(place.0, value_bytes)).flatten();
        let hash = hash.unwrap_or_else(|| checksum::of_value(self.value_of(block)));
        block.seal(&self.memory, version, key.hash(), hash);
        let new = Slot::new(key.hash(), block.at, true, dirty);
        let old = self.find(key);
        match old {
            Some((position, _, old_block)) => {
                Index::replace(&*self.memory, position, new);
                self.free_block(old_block);
            }
            None => self.insert(key, new),
        }
        self.set_placed(self.placed - 1);
        self.journal.note(key.as_str(), version, Some(value_bytes as u64));
        if old.is_none_or(|(_, old, _)| !old.has_object()) {
            self.objects += 1;
            self.names(key).insert(CompactString::new(key.as_str()));
        }
    }

    fn remove(&mut self, key: &Key, dirty: bool) {
        let Some((position, slot, block)) = self.find(key) else {
            if dirty {
                // By the order of calls the later write has marked the key already, so this is a key with a slot.
                self.mark_dirty(key).expect("a key with a write under way was marked dirty, which made room for this");
            }
            return;
        };
        if slot.has_object() {
            self.objects -= 1;
            self.names(key).remove(key.as_str());
            self.journal.note(key.as_str(), block.version(&self.memory), None);
        }
        if dirty {
            // The block stays for its key; this cannot fail for want of room, as a block of its own for the mark could.
            Index::replace(&*self.memory, position, slot.without_object().with_dirty(true));
        } else {
            self.index.clear(&*self.memory, position);
            self.free_block(block);
        }
    }

    fn get(&self, key: &Key) -> Entry<'_> {
        let Some((_, slot, block)) = self.find(key) else { return Entry { object: None, dirty: false } };
        let object = slot.has_object().then(|| Object {
            value: self.value_of(block),
            encoding: block.encoding().unwrap_or_default(),
            version: block.version(&self.memory),
        });
        Entry { object, dirty: slot.is_dirty() }
    }

    /// With many keys each bucket and each block lies in a page of its own, and to come to them takes longer than all else
    /// that is done for a small object. So all buckets are asked for first, and then the blocks that they name.
    fn expect<'k>(&self, keys: impl Iterator<Item = &'k Key> + Clone) {
        keys.clone().for_each(|key| self.index.table.prefetch(&self.memory, key.hash()));
        for slot in keys.filter_map(|key| self.index.table.guess(&self.memory, key.hash())) {
            self.memory.prefetch(slot.block_at(), EXPECTED_BYTES);
        }
    }

    fn list(&self, star: StarId, prefix: &str, after: Option<&str>, visit: &mut dyn FnMut(&str) -> bool) {
        let Some(keys) = self.keys.get(usize::from(star.0)) else { return };
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        for key in keys.range::<str, _>((start, Bound::Unbounded)) {
            if !key.starts_with(prefix) || !visit(key) {
                break;
            }
        }
    }

    fn set_lease(&mut self, until: Time) {
        self.header().set_lease(until);
    }

    fn set_serving(&mut self, star: StarId, serving: bool) {
        assert!(star.0 < self.geometry.stars, "star {star} of a cluster of {} stars", self.geometry.stars);
        self.header().set_serving(star, serving);
    }

    fn usage(&self) -> Usage {
        Usage {
            objects: self.objects,
            used_bytes: self.allocator.used_bytes(),
            capacity_bytes: self.geometry.area_bytes as u64,
        }
    }

    fn note(&mut self, star: StarId, note: &Note) {
        Notes::new(&self.memory, &self.geometry).write(star, note);
    }

    fn note_progress(&mut self, star: StarId, ready: Seq, committed: Seq) {
        Notes::new(&self.memory, &self.geometry).set_progress(star, ready, committed);
    }

    fn note_applying(&mut self, star: StarId, seq: Seq, key: &Key, version: Option<Version>) {
        Notes::new(&self.memory, &self.geometry).set_applying(star, Applying { seq, key_hash: key.hash(), version });
    }

    fn note_bounds(&mut self, star: StarId, version_floor: Version, youngest: u64) {
        Notes::new(&self.memory, &self.geometry).set_bounds(star, version_floor, youngest);
    }

    fn noted(&self, star: StarId) -> Option<Note> {
        Notes::new(&self.memory, &self.geometry).read(star)
    }
}

impl Drop for MappedStore {
    fn drop(&mut self) {
        self.header().end_life();
        pins::hide_writer(&self.file, &self.geometry);
    }
}

impl fmt::Debug for MappedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MappedStore").field("path", &self.path).field("usage", &self.usage()).finish_non_exhaustive()
    }
}

mod giving;
mod moving;
mod rooms;
mod watching;

pub use rooms::Sealed;

/// Whether an option is as the file has it.
fn agree<T: PartialEq + ToString>(path: &Path, what: &'static str, wanted: &T, found: &T) -> Result<(), OpenError> {
    if wanted == found {
        return Ok(());
    }
    Err(OpenError::Mismatch { path: path.to_path_buf(), what, wanted: wanted.to_string(), found: found.to_string() })
}
