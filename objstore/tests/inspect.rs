//! A store's file is looked at from outside, whether its server runs, has stopped or was killed.

mod common;

use std::{collections::BTreeMap, fs, path::Path};

use common::{STARS, mix, options, set, value};
use star_core::{
    Key, StarId, Time, Version,
    store::{Encoding, Store},
};
use star_objstore::{MappedStore, OpenError, Reader, StoreFile, Verified};

const OBJECTS: u64 = 500;

fn filled(path: &Path) -> MappedStore {
    let mut store = MappedStore::create(&options(path, 16 << 20)).unwrap();
    for i in 0..OBJECTS {
        let name = format!("key-{i}");
        assert!(set(&mut store, &Key::new(name.as_str()), i + 1, &value(&name, i + 1)));
    }
    store
}

/// What a server that was killed leaves: the file as it is, with nobody's lock on it.
fn killed(store: &MappedStore, path: &Path) {
    fs::copy(store.path(), path).unwrap();
}

#[test]
fn the_numbers_are_those_of_the_store() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let mut store = filled(&path);
    store.set_serving(StarId(1), true);
    store.set_serving(StarId(6), true);
    store.mark_dirty(&Key::new("key-7")).unwrap();
    store.mark_dirty(&Key::new("no object yet")).unwrap();
    let place = store.place(&Key::new("on its way"), Encoding::Raw, 10).unwrap();

    let stat = StoreFile::open(&path).unwrap().stat();
    let usage = store.usage();
    assert_eq!((stat.objects, stat.used_bytes > 0, stat.capacity_bytes), (OBJECTS, true, usage.capacity_bytes));
    assert!(stat.used_bytes <= usage.used_bytes, "the allocator counts what its classes round up to");
    let values: u64 = (0..OBJECTS).map(|i| value(&format!("key-{i}"), i + 1).len() as u64).sum();
    assert_eq!((stat.value_bytes, stat.dirty, stat.placed), (values, 2, 1));
    assert_eq!((stat.cluster.as_str(), stat.stars, stat.serving), ("test-cluster", STARS, vec![1, 6]));
    assert_eq!(stat.writer_pid, u64::from(std::process::id()));
    assert!(stat.in_use && stat.this_boot && !stat.superseded && stat.bucket_keys_max > 0);
    assert_eq!((stat.file_bytes, stat.lease_until), (fs::metadata(&path).unwrap().len(), Time::ZERO));

    let left = directory.path().join("left");
    killed(&store, &left);
    let stat = StoreFile::open(&left).unwrap().stat();
    assert!(!stat.in_use && stat.writer_pid > 0, "nobody has it, and nobody closed it");
    store.discard(place);
    drop(store);
    let stat = StoreFile::open(&path).unwrap().stat();
    assert!(!stat.in_use && stat.writer_pid == 0 && stat.placed == 0);
}

#[test]
fn objects_that_readers_hold_are_counted() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let mut store = filled(&path);
    common::allow(&mut store);
    let reader = std::sync::Arc::new(Reader::open(&path).unwrap());
    let held = ["key-1", "key-1", "key-2"].map(|name| reader.get_ref(&Key::new(name)).unwrap().unwrap());
    let file = StoreFile::open(&path).unwrap();
    assert_eq!(file.stat().pinned, 2);
    drop(held);
    assert_eq!(file.stat().pinned, 0);
}

#[test]
fn a_dump_has_every_object() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let mut store = filled(&path);
    store.mark_dirty(&Key::new("key-3")).unwrap();
    let file = StoreFile::open(&path).unwrap();
    let mut all = BTreeMap::new();
    file.dump(|found| {
        assert_eq!(found.encoding, Encoding::Raw);
        all.insert(found.key.as_str().to_owned(), (found.version, found.value, found.dirty)).is_none()
    });
    let wanted = (0..OBJECTS).map(|i| {
        let name = format!("key-{i}");
        let bytes = value(&name, i + 1);
        (name, (Version(i + 1), bytes, i == 3))
    });
    assert_eq!(all, wanted.collect());
    let mut visited = 0;
    file.dump(|_| {
        visited += 1;
        visited < 3
    });
    assert_eq!(visited, 3, "ends when it is told to");
}

#[test]
fn what_a_server_has_written_is_sound_also_while_it_writes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let mut store = filled(&path);
    let file = StoreFile::open(&path).unwrap();
    let sound = Verified { objects: OBJECTS, ..Verified::default() };
    assert_eq!(file.verify(), sound);
    std::thread::scope(|scope| {
        let looks = scope.spawn(|| {
            for _ in 0..10 {
                let verified = file.verify();
                assert!(verified.damage.is_empty(), "{verified:?}");
                assert!(verified.objects == OBJECTS || verified.unsettled > 0, "{verified:?}");
            }
        });
        let mut version = 1000;
        while !looks.is_finished() {
            version += 1;
            let name = format!("key-{}", mix(version) % OBJECTS);
            assert!(set(&mut store, &Key::new(name.as_str()), version, &value(&name, version)));
        }
    });
    let left = directory.path().join("left");
    killed(&store, &left);
    assert_eq!(StoreFile::open(&left).unwrap().verify(), sound);
}

/// Changes random bytes anywhere behind the description, in the index more than by chance.
fn damaged(bytes: &[u8], index_bytes: u64, seed: u64) -> Vec<u8> {
    let mut bad = bytes.to_vec();
    for i in 0..=seed % 60 {
        let random = mix(seed << 20 | i);
        let at = match random % 8 {
            0 => 15 * 8 + (random >> 8) % (4096 - 15 * 8),
            1..=4 => 4096 + (random >> 8) % index_bytes,
            _ => (random >> 8) % bytes.len() as u64,
        };
        if at >= 15 * 8 {
            bad[at as usize] ^= (random >> 3) as u8 | 1;
        }
    }
    bad
}

#[test]
fn damage_of_any_kind_is_survived_by_all_who_open_the_file_and_found_by_verify() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let options = star_objstore::Options { entries_max: Some(600), ..options(&path, 1 << 20) };
    let mut store = MappedStore::create(&options).unwrap();
    for i in 0..400 {
        assert!(set(&mut store, &Key::new(format!("key-{i}")), i + 1, &mix(i).to_ne_bytes()));
    }
    drop(store);
    let bytes = fs::read(&path).unwrap();
    let mut damages = 0;
    for seed in 0..200 {
        fs::write(&path, damaged(&bytes, 64 * 190, seed)).unwrap();
        // The words behind the description say who writes and until when; a file of another boot is refused to readers.
        if let Ok(reader) = Reader::open(&path) {
            for i in 0..400 {
                let _ = reader.get(&Key::new(format!("key-{i}")), &mut Vec::new());
            }
            let _ = reader.list("");
        }
        let file = StoreFile::open(&path).unwrap();
        let (stat, verified) = (file.stat(), file.verify());
        let mut dumped = 0;
        file.dump(|_| {
            dumped += 1;
            true
        });
        drop(file);
        let (_, recovered) = MappedStore::open(&options).unwrap();
        // A damaged lease may make it look as if somebody wrote it.
        if !stat.in_use {
            assert!(dumped >= recovered.objects, "seed {seed}");
            assert!(verified.objects >= recovered.objects, "seed {seed}: {verified:?} {recovered:?}");
            assert!(recovered.torn == 0 || !verified.damage.is_empty(), "seed {seed}: {recovered:?}");
        }
        damages += verified.damage.len();
    }
    assert!(damages > 200, "{damages} damages were found");
}

#[test]
fn what_is_no_whole_store_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    drop(filled(&path));
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    assert!(matches!(StoreFile::open(&path), Err(OpenError::Truncated { .. })));
    let mut newer = bytes.clone();
    newer[8] = 77;
    fs::write(&path, newer).unwrap();
    assert!(matches!(StoreFile::open(&path), Err(OpenError::NewerFormat { found: 77, .. })));
    fs::write(&path, vec![b'x'; 10_000]).unwrap();
    assert!(matches!(StoreFile::open(&path), Err(OpenError::Foreign { .. })));
    assert!(matches!(StoreFile::open(directory.path().join("none")), Err(OpenError::Io { .. })));
}
