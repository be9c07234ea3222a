//! A store's file as it is, for people: on a live one as on one that was left behind. Reads only, and needs no server.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    hint,
    path::{Path, PathBuf},
};

use star_core::{Clock, Incarnation, Key, Time, Version, store::Encoding};

use crate::{
    block::Block,
    checksum,
    error::OpenError,
    file::{self, failed},
    header::Header,
    index::{Extent, Leftover, Slot, Table, tag},
    layout::{FORMAT, Geometry, WORD},
    memory::Memory,
    pins::{self, PinTable},
};

/// How often a bucket that changes is looked at again.
const LOOKS_MAX: usize = 1000;

/// A store's file, mapped to be looked at.
#[derive(Debug)]
pub struct StoreFile {
    memory: Memory,
    geometry: Geometry,
    table: Table,
    path: PathBuf,
    file: File,
    this_boot: bool,
}

/// What a store's file says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The file's format.
    pub format: u32,
    /// The cluster's id.
    pub cluster: String,
    /// Stars of the cluster.
    pub stars: u16,
    /// Stars that the server lets readers answer for, by number.
    pub serving: Vec<u16>,
    /// The life of the server that writes the file, or wrote it last.
    pub incarnation: Incarnation,
    /// The process that writes it; 0 after a clean stop.
    pub writer_pid: u64,
    /// Whether a process writes it now.
    pub in_use: bool,
    /// Whether it was written since the machine started.
    pub this_boot: bool,
    /// Another file has taken its place.
    pub superseded: bool,
    /// Until when readers may answer, on the clock since the machine's start; [`Time::ZERO`] for not at all.
    pub lease_until: Time,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Bytes for objects.
    pub capacity_bytes: u64,
    /// Bytes of it that objects and their keys take.
    pub used_bytes: u64,
    /// The most keys.
    pub entries_max: u64,
    /// Objects.
    pub objects: u64,
    /// Bytes of their values.
    pub value_bytes: u64,
    /// Keys with a write under way.
    pub dirty: u64,
    /// Keys of the fullest bucket: what the slowest lookup has to pass.
    pub bucket_keys_max: u64,
    /// Values that are placed and not published.
    pub placed: u64,
    /// Pins of readers, on how many objects.
    pub pinned: u64,
}

/// An object of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its key.
    pub key: Key,
    /// Its version.
    pub version: Version,
    /// How its bytes came in.
    pub encoding: Encoding,
    /// Its bytes.
    pub value: Vec<u8>,
    /// A write to the key is under way.
    pub dirty: bool,
}

/// Something in the file that no server leaves there, and that [`crate::MappedStore::open`] drops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The bucket of the index.
    pub bucket: u64,
    /// What is wrong.
    pub what: &'static str,
}

/// What [`StoreFile::verify`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Objects that are whole, each with the right checksum.
    pub objects: u64,
    /// Buckets that kept changing and could not be looked at; only in a file that is written meanwhile, or whose writer was
    /// killed in the middle of a change.
    pub unsettled: u64,
    /// What is damaged.
    pub damage: Vec<Damage>,
}

/// Whether somebody writes the file. If not, what is known of its index as a whole.
struct State {
    still: Option<(Extent, Leftover)>,
}

/// What stands in a slot: an object, a mark, or neither.
enum Content {
    Object(Found, Block),
    Mark,
    Damaged(&'static str),
}

impl StoreFile {
    /// Maps a store's file, whoever writes it or wrote it last.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        let path = path.as_ref();
        let file = File::open(path).map_err(failed("open", path))?;
        let geometry = file::inspect(&file, path)?;
        let memory = Memory::read_only(&file, geometry.file_bytes).map_err(failed("map", path))?;
        let this_boot = Header(&memory).boot() == file::boot_id()?;
        Ok(Self { memory, table: Table::new(&geometry), geometry, path: path.to_path_buf(), file, this_boot })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the file says of itself. Of a live one, not all numbers are of one moment.
    pub fn stat(&self) -> Stat {
        let (header, in_use) = (Header(&self.memory), self.in_use());
        let still = !in_use;
        let mut stat = Stat {
            format: FORMAT,
            cluster: header.cluster().unwrap_or_default(),
            stars: self.geometry.stars,
            serving: header.serving(self.geometry.stars),
            incarnation: header.incarnation(),
            writer_pid: header.pid(),
            in_use,
            this_boot: self.this_boot,
            superseded: header.superseded(),
            lease_until: header.lease(),
            file_bytes: self.geometry.file_bytes as u64,
            capacity_bytes: self.geometry.area_bytes as u64,
            used_bytes: 0,
            entries_max: self.geometry.entries_max,
            objects: 0,
            value_bytes: 0,
            dirty: 0,
            bucket_keys_max: 0,
            placed: header.placed(),
            pinned: 0,
        };
        let state = self.state(still);
        for home in self.homes(&state) {
            let mut keys = 0;
            let slots = self.slots(home, &state).unwrap_or_default();
            for slot in slots {
                keys += 1;
                stat.dirty += u64::from(slot.is_dirty());
                if let Some(block) = Block::read(&self.memory, &self.geometry, slot.block_at())
                    && slot.has_object()
                {
                    stat.objects += 1;
                    stat.used_bytes += block.shape.total() as u64;
                    stat.value_bytes += block.shape.value_bytes() as u64;
                }
            }
            stat.bucket_keys_max = stat.bucket_keys_max.max(keys);
        }
        let pins = PinTable::of_file(&self.geometry).all(&self.memory);
        stat.pinned = pins.into_iter().map(|(_, block_at)| block_at).collect::<BTreeSet<_>>().len() as u64;
        stat
    }

    /// Looks at every object: its place, its key, its checksum. In a file that nobody writes also that no two share room or
    /// key, which in a live one would say nothing, as objects may move meanwhile.
    pub fn verify(&self) -> Verified {
        let mut verified = Verified::default();
        let still = !self.in_use();
        let state = self.state(still);
        let (mut keys, mut rooms) = (BTreeSet::new(), BTreeMap::new());
        for home in self.homes(&state) {
            let Some(contents) = self.contents(home, &state) else {
                verified.unsettled += 1;
                continue;
            };
            for content in contents {
                let what = match content {
                    Content::Mark => continue,
                    Content::Damaged(what) => Some(what),
                    Content::Object(found, block) if still => {
                        match (keys.insert(found.key), takes(&mut rooms, block)) {
                            (false, _) => Some("a key that another slot has too"),
                            (_, false) => Some("room that another object has too"),
                            _ => None,
                        }
                    }
                    Content::Object(..) => None,
                };
                match what {
                    Some(what) => verified.damage.push(Damage { bucket: home, what }),
                    None => verified.objects += 1,
                }
            }
        }
        verified
    }

    /// Calls `visit` for each whole object, in no order, until it returns false. Of a live file each object is as it was at
    /// some moment: this is no linearizable read, and shows what a server without lease has.
    pub fn dump(&self, mut visit: impl FnMut(Found) -> bool) {
        let state = self.state(!self.in_use());
        for home in self.homes(&state) {
            for content in self.contents(home, &state).unwrap_or_default() {
                if let Content::Object(found, _) = content
                    && !visit(found)
                {
                    return;
                }
            }
        }
    }

    /// The taken slots of a bucket and its continuation, of one moment; None if they keep changing. In a file that
    /// stands `still`, what a writer left that was killed in the middle of a change is read all the same.
    fn slots(&self, home: u64, state: &State) -> Option<Vec<Slot>> {
        self.settled(home, state, || {
            let mut slots = Vec::new();
            self.each(home, state, |slot| slots.push(slot));
            slots
        })
    }

    fn contents(&self, home: u64, state: &State) -> Option<Vec<Content>> {
        self.settled(home, state, || {
            let mut contents = Vec::new();
            // It stays the same for the keys of this bucket while the bucket does.
            let extent = state.still.as_ref().map_or_else(|| Extent::load(&self.memory), |(extent, _)| *extent);
            let whole = self.each(home, state, |slot| contents.push(self.content(home, extent, slot)));
            if !whole {
                contents.push(Content::Damaged("a chain that leads into itself"));
            }
            contents
        })
    }

    /// The slots of a bucket, but for the copies that a writer leaves who is killed while it moves slots.
    fn each(&self, home: u64, state: &State, mut visit: impl FnMut(Slot)) -> bool {
        let Some((_, leftover)) = &state.still else { return self.table.each(&self.memory, home, visit) };
        let mut words = BTreeSet::new();
        self.table.each(&self.memory, home, |slot| {
            if words.insert(slot.block_at()) && !leftover.has(home, slot) {
                visit(slot);
            }
        })
    }

    fn state(&self, still: bool) -> State {
        let still = still.then(|| {
            let extent = Extent::recovered(&self.memory, &self.table);
            (extent, Leftover::of(&self.memory, &self.table, extent))
        });
        State { still }
    }

    /// The buckets in use, those that come into use meanwhile as well.
    fn homes(&self, state: &State) -> impl Iterator<Item = u64> {
        let known = state.still.as_ref().map(|(extent, _)| *extent);
        let is_used = move |home: &u64| *home < known.unwrap_or_else(|| Extent::load(&self.memory)).used();
        (0..self.geometry.buckets).take_while(is_used)
    }

    fn settled<R>(&self, home: u64, state: &State, mut look: impl FnMut() -> R) -> Option<R> {
        let still = state.still.is_some();
        for _ in 0..if still { 1 } else { LOOKS_MAX } {
            if let Some(ticket) = Table::begin(&self.memory, home) {
                let seen = look();
                if Table::unchanged(&self.memory, ticket) {
                    return Some(seen);
                }
            }
            hint::spin_loop();
        }
        // Odd for good, if its writer is gone.
        still.then(look)
    }

    fn content(&self, home: u64, extent: Extent, slot: Slot) -> Content {
        let Some(block) = Block::read(&self.memory, &self.geometry, slot.block_at()) else {
            return Content::Damaged("a slot that leads to no block");
        };
        let mut name = Vec::new();
        let key = block.copy_key(&self.memory, &mut name).then(|| String::from_utf8(name).ok()).flatten();
        let Some(key) = key.map(Key::new) else { return Content::Damaged("a key that is no text") };
        if self.table.home_among(extent, key.hash()) != home || slot.tag() != tag(key.hash()) {
            return Content::Damaged("a key in a bucket that is not its own");
        }
        if !slot.has_object() {
            return Content::Mark;
        }
        let Some(encoding) = block.encoding() else { return Content::Damaged("a value of unknown kind") };
        let mut value = Vec::new();
        let copied = self.memory.copy(block.value_at() / WORD, block.shape.value_bytes(), &mut value);
        let (version, dirty) = (block.version(&self.memory), slot.is_dirty());
        // The key is compared as words too, with what fills the last one; that is not under the checksum.
        let sound = copied
            && block.has_key(&self.memory, key.as_str())
            && block.intact(&self.memory, key.hash(), checksum::of_value(&value));
        if !sound {
            return Content::Damaged("an object that does not match its checksum");
        }
        if block.at < self.geometry.area_at {
            return Content::Damaged("an object among the marks");
        }
        Content::Object(Found { key, version, encoding, value, dirty }, block)
    }

    /// Whether a process writes the file now. A lease that runs says so too.
    fn in_use(&self) -> bool {
        pins::has_writer(&self.file, &self.geometry) || self.this_boot && Clock.now() < Header(&self.memory).lease()
    }
}

/// Whether a block's room was nobody's; then it is the block's.
fn takes(rooms: &mut BTreeMap<usize, usize>, block: Block) -> bool {
    let end = block.at + block.shape.total();
    let free = rooms.range(..end).next_back().is_none_or(|(_, before)| *before <= block.at);
    if free {
        rooms.insert(block.at, end);
    }
    free
}
