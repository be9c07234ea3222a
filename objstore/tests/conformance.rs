//! The mapped store does what the store in plain memory does, for any sequence of calls; its readers see the same.

mod common;

use common::{STARS, allow, mix, options, set};
use proptest::prelude::*;
use star_core::{
    Key, StarId, Time, Version,
    store::{Encoding, MemoryStore, Place, Store},
};
use star_objstore::{Answer, MappedStore, Reader, Reason};

#[derive(Clone, Copy, Debug)]
enum Op {
    Place { key: usize, json: bool, len: usize },
    Publish { which: usize, dirty: bool },
    Discard { which: usize },
    MarkDirty { key: usize },
    MarkClean { key: usize },
    Remove { key: usize, dirty: bool },
    List { prefix: usize, after: Option<usize>, limit: usize },
    Reopen,
}

const KEYS: usize = 60;

/// Keys that share prefixes, of many lengths up to the longest that servers take.
fn name(index: usize) -> String {
    match index % 6 {
        0 => format!("k{index}"),
        1 => format!("files/src/{index}"),
        2 => format!("files/{index}"),
        3 => "é".repeat(index + 1),
        4 => format!("files/{}", "x".repeat(index * 17)),
        _ => format!("{index}"),
    }
}

fn key(index: usize) -> Key {
    Key::new(name(index))
}

fn op() -> impl Strategy<Value = Op> {
    let len = prop_oneof![6 => 0..200usize, 2 => 4090..4100usize, 1 => 0..40_000usize];
    let after = prop::option::of(0..KEYS);
    prop_oneof![
        8 => (0..KEYS, any::<bool>(), len).prop_map(|(key, json, len)| Op::Place { key, json, len }),
        8 => (any::<usize>(), any::<bool>()).prop_map(|(which, dirty)| Op::Publish { which, dirty }),
        1 => any::<usize>().prop_map(|which| Op::Discard { which }),
        4 => (0..KEYS).prop_map(|key| Op::MarkDirty { key }),
        3 => (0..KEYS).prop_map(|key| Op::MarkClean { key }),
        3 => (0..KEYS, any::<bool>()).prop_map(|(key, dirty)| Op::Remove { key, dirty }),
        2 => (0..KEYS, after, 1..20usize).prop_map(|(prefix, after, limit)| Op::List { prefix, after, limit }),
        1 => Just(Op::Reopen),
    ]
}

/// Both stores, and the values that are placed in both.
struct Pair {
    directory: tempfile::TempDir,
    memory: MemoryStore,
    mapped: Option<MappedStore>,
    held: Vec<(Key, Place, Place, Vec<u8>)>,
    version: u64,
}

impl Pair {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut pair =
            Self { directory, memory: MemoryStore::new(STARS, 1 << 40), mapped: None, held: Vec::new(), version: 0 };
        pair.mapped = Some(MappedStore::create(&pair.options()).unwrap());
        allow(pair.mapped());
        pair
    }

    fn options(&self) -> star_objstore::Options {
        // So few entries that most buckets are continued in overflow.
        star_objstore::Options {
            entries_max: Some(KEYS as u64),
            ..options(&self.directory.path().join("store"), 16 << 20)
        }
    }

    fn mapped(&mut self) -> &mut MappedStore {
        self.mapped.as_mut().unwrap()
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Place { key: index, json, len } => self.place(&key(index), json, len),
            Op::Publish { which, dirty } if !self.held.is_empty() => {
                let (key, memory, mapped, value) = self.held.swap_remove(which % self.held.len());
                assert_eq!(self.memory.placed(memory), value);
                assert_eq!(self.mapped().placed(mapped), value);
                self.version += 1;
                let version = Version(self.version);
                self.memory.publish(&key, memory, version, dirty);
                self.mapped().publish(&key, mapped, version, dirty);
            }
            Op::Discard { which } if !self.held.is_empty() => {
                let (_, memory, mapped, _) = self.held.swap_remove(which % self.held.len());
                self.memory.discard(memory);
                self.mapped().discard(mapped);
            }
            Op::Publish { .. } | Op::Discard { .. } => {}
            Op::MarkDirty { key: index } => {
                self.memory.mark_dirty(&key(index)).unwrap();
                self.mapped().mark_dirty(&key(index)).unwrap();
            }
            Op::MarkClean { key: index } => {
                self.memory.mark_clean(&key(index));
                self.mapped().mark_clean(&key(index));
            }
            Op::Remove { key: index, dirty } => {
                self.memory.remove(&key(index), dirty);
                self.mapped().remove(&key(index), dirty);
            }
            Op::List { prefix, after, limit } => {
                let name = name(prefix);
                let prefix: String = name.chars().take(limit % 7).collect();
                self.compare_lists(&prefix, after.map(self::name).as_deref(), limit);
            }
            Op::Reopen => self.reopen(),
        }
    }

    fn place(&mut self, key: &Key, json: bool, len: usize) {
        if self.held.len() >= 8 {
            return;
        }
        let encoding = if json { Encoding::Json } else { Encoding::Raw };
        let (memory, mapped) =
            (self.memory.place(key, encoding, len).unwrap(), self.mapped().place(key, encoding, len).unwrap());
        let value: Vec<u8> = (0..len).map(|i| mix((len * 31 + i) as u64) as u8).collect();
        // In pieces, sometimes from the back.
        let piece = len / 3 + 1;
        let mut pieces: Vec<usize> = (0..len.div_ceil(piece)).collect();
        if len % 2 == 1 {
            pieces.reverse();
        }
        for i in pieces {
            let bytes = &value[i * piece..len.min((i + 1) * piece)];
            self.memory.fill(memory, i * piece, bytes);
            self.mapped().fill(mapped, i * piece, bytes);
        }
        self.held.push((key.clone(), memory, mapped, value));
    }

    /// What a restart means: marks and placed values go, objects stay.
    fn reopen(&mut self) {
        let placed = self.held.len() as u64;
        for (_, memory, _, _) in std::mem::take(&mut self.held) {
            self.memory.discard(memory);
        }
        for key in self.memory.dirty_keys().cloned().collect::<Vec<_>>() {
            self.memory.mark_clean(&key);
        }
        self.mapped = None;
        let (mut mapped, recovered) = MappedStore::open(&self.options()).unwrap();
        assert_eq!((recovered.objects, recovered.dropped, recovered.torn), (self.memory.usage().objects, placed, 0));
        allow(&mut mapped);
        self.mapped = Some(mapped);
    }

    fn compare_lists(&self, prefix: &str, after: Option<&str>, limit: usize) {
        for star in 0..STARS {
            let memory = first(&self.memory, star, prefix, after, limit);
            let mapped = first(self.mapped.as_ref().unwrap(), star, prefix, after, limit);
            assert_eq!(memory, mapped, "star {star}, prefix {prefix:?}, after {after:?}");
        }
    }

    fn compare(&self) {
        let mapped = self.mapped.as_ref().unwrap();
        let reader = Reader::open(mapped.path()).unwrap();
        let mut buffer = Vec::new();
        for index in 0..KEYS {
            let key = key(index);
            let wanted = self.memory.get(&key);
            assert_eq!(wanted, mapped.get(&key), "{key}");
            let answer = reader.get(&key, &mut buffer);
            let contains = reader.contains(&key);
            match wanted.object {
                _ if wanted.dirty => {
                    assert_eq!((answer, contains), (Answer::Ask(Reason::Dirty), Err(Reason::Dirty)));
                }
                Some(object) => {
                    let (version, encoding) = (object.version, object.encoding);
                    assert_eq!((answer, contains), (Answer::Found { version, encoding }, Ok(true)), "{key}");
                    assert_eq!(buffer, object.value);
                }
                None => assert_eq!((answer, contains), (Answer::NotFound, Ok(false)), "{key}"),
            }
        }
        assert_eq!(self.memory.usage().objects, mapped.usage().objects);
        self.compare_lists("", None, usize::MAX);
    }
}

/// The first `limit` names of a list.
fn first(store: &impl Store, star: u16, prefix: &str, after: Option<&str>, limit: usize) -> Vec<String> {
    let mut names = Vec::new();
    store.list(StarId(star), prefix, after, &mut |name| {
        names.push(name.to_owned());
        names.len() < limit
    });
    names
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_calls_gives_the_same(ops in prop::collection::vec(op(), 1..250)) {
        let mut pair = Pair::new();
        for (i, op) in ops.into_iter().enumerate() {
            pair.apply(op);
            if i % 16 == 0 {
                pair.compare();
            }
        }
        pair.compare();
        // Everything comes back: no block and no slot was lost on the way.
        for (key, memory, mapped, _) in std::mem::take(&mut pair.held) {
            pair.memory.publish(&key, memory, Version(u64::MAX), true);
            pair.mapped().publish(&key, mapped, Version(u64::MAX), true);
        }
        for index in 0..KEYS {
            pair.memory.remove(&key(index), false);
            pair.mapped().remove(&key(index), false);
        }
        pair.compare();
        prop_assert_eq!(pair.mapped().usage().used_bytes, 0);
    }
}

#[test]
fn a_full_area_says_so_loses_nothing_and_fills_again() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = MappedStore::create(&options(&directory.path().join("store"), 2 << 20)).unwrap();
    let mut counts = Vec::new();
    for round in 0..3u64 {
        let mut count = 0;
        while set(&mut store, &Key::new(format!("{round}/{count}")), 1, &[round as u8; 1000]) {
            count += 1;
        }
        assert!(count * 1000 > (2 << 20) * 8 / 10, "full after {count}");
        let error = store.place(&Key::new("more"), Encoding::Raw, 1000).unwrap_err();
        assert!(error.wanted_bytes >= 1000 && error.free_bytes < 300_000, "{error}");
        for i in 0..count {
            let key = Key::new(format!("{round}/{i}"));
            assert_eq!(store.get(&key).object.unwrap().value, [round as u8; 1000]);
            store.remove(&key, false);
        }
        assert_eq!((store.usage().objects, store.usage().used_bytes), (0, 0));
        counts.push(count);
    }
    assert!(counts.iter().all(|count| *count == counts[0]), "{counts:?}");
}

#[test]
fn a_full_index_refuses_new_keys_and_takes_new_versions() {
    let directory = tempfile::tempdir().unwrap();
    let entries_max = Some(1000);
    let options = star_objstore::Options { entries_max, ..options(&directory.path().join("store"), 4 << 20) };
    let mut store = MappedStore::create(&options).unwrap();
    let mut count = 0;
    while set(&mut store, &Key::new(format!("{count}")), 1, b"one") {
        count += 1;
    }
    assert!((990..=1000).contains(&count), "full after {count}");
    for i in 0..count {
        assert!(set(&mut store, &Key::new(format!("{i}")), 2, b"two"), "a new version of {i}");
    }
    store.remove(&Key::new("0"), false);
    assert!(set(&mut store, &Key::new("new"), 1, b"one"));
}

#[test]
fn values_too_large_for_any_store_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = MappedStore::create(&options(&directory.path().join("store"), 1 << 20)).unwrap();
    for len in [1 << 20, u32::MAX as usize, 1 << 32, usize::MAX] {
        assert!(store.place(&Key::new("k"), Encoding::Raw, len).is_err(), "{len}");
    }
    assert_eq!(store.usage().used_bytes, 0);
}

#[test]
fn large_values_are_aligned_in_the_servers_memory() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = MappedStore::create(&options(&directory.path().join("store"), 4 << 20)).unwrap();
    for (i, len) in [4096, 5000, 20_000, 300_000].into_iter().enumerate() {
        let key = Key::new(format!("a key of some length {i}"));
        assert!(set(&mut store, &key, 1, &vec![1; len]));
        assert!(store.get(&key).object.unwrap().value.as_ptr().addr().is_multiple_of(64));
    }
}

#[test]
fn nobody_answers_before_lease_and_star_are_given() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = MappedStore::create(&options(&directory.path().join("store"), 1 << 20)).unwrap();
    let key = Key::new("k");
    set(&mut store, &key, 1, b"v");
    let reader = Reader::open(store.path()).unwrap();
    let mut buffer = Vec::new();
    assert_eq!(reader.get(&key, &mut buffer), Answer::Ask(Reason::NoLease));
    store.set_lease(Time(u64::MAX));
    assert_eq!(reader.get(&key, &mut buffer), Answer::Ask(Reason::NotServing));
    store.set_serving(key.star(STARS), true);
    assert!(matches!(reader.get(&key, &mut buffer), Answer::Found { .. }));
    store.set_lease(Time(1));
    assert_eq!(reader.get(&key, &mut buffer), Answer::Ask(Reason::NoLease));
}
