//! Files that are not what they should be are refused with a clear error, or their sound part is used: never a panic.

mod common;

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use common::{STARS, allow, mix, options, set, value};
use star_core::{Key, StarId, config::GroupAccess, store::Store};
use star_objstore::{Answer, MappedStore, OpenError, Options, Reader};

const CAPACITY: u64 = 1 << 20;

fn small(path: &Path) -> Options {
    Options { entries_max: Some(100), ..options(path, CAPACITY) }
}

/// A store with some objects, closed; its bytes.
fn sound(path: &Path) -> Vec<u8> {
    let mut store = MappedStore::create(&small(path)).unwrap();
    for i in 0..80 {
        let name = format!("key-{i}");
        assert!(set(
            &mut store,
            &Key::new(name.as_str()),
            i + 1,
            &value(&name, i + 1)[..100.min(value(&name, i + 1).len())]
        ));
    }
    drop(store);
    fs::read(path).unwrap()
}

fn both(path: &Path) -> [Result<(), OpenError>; 2] {
    [MappedStore::open(&small(path)).map(drop), Reader::open(path).map(drop)]
}

#[test]
fn a_file_cut_at_any_length_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let bytes = sound(&path);
    let lengths = [0, 1, 7, 8, 9, 100, 4095, 4096, 4097, 8192, bytes.len() / 2, bytes.len() - 4096, bytes.len() - 1];
    for len in lengths {
        fs::write(&path, &bytes[..len]).unwrap();
        for result in both(&path) {
            let error = result.unwrap_err();
            assert!(matches!(error, OpenError::Truncated { .. }), "{len}: {error}");
        }
        assert_eq!(fs::read(&path).unwrap(), bytes[..len], "a refused file is not touched");
    }
    let store = MappedStore::create(&small(&path)).unwrap();
    assert_eq!(store.usage().objects, 0, "a cut store may be replaced");
}

#[test]
fn another_programs_file_is_refused_and_never_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    for len in [1usize, 100, 4096, 100_000] {
        let bytes: Vec<u8> = (0..len as u64).map(|i| mix(i) as u8).collect();
        fs::write(&path, &bytes).unwrap();
        let refused = |error: OpenError| {
            matches!(error, OpenError::Foreign { .. }) || len < 4096 && matches!(error, OpenError::Truncated { .. })
        };
        assert!(both(&path).into_iter().all(|result| refused(result.unwrap_err())), "{len}");
        assert!(matches!(MappedStore::create(&small(&path)), Err(OpenError::Foreign { .. })), "{len}");
        assert_eq!(fs::read(&path).unwrap(), bytes, "{len}");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left beside it");
    }
}

#[test]
fn a_newer_format_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let mut bytes = sound(&path);
    bytes[8] = 4;
    fs::write(&path, &bytes).unwrap();
    for result in both(&path) {
        let error = result.unwrap_err();
        assert!(matches!(error, OpenError::NewerFormat { found: 4, known: 3, .. }), "{error}");
    }
}

#[test]
fn every_flipped_bit_of_the_description_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let bytes = sound(&path);
    for bit in 0..15 * 64 {
        let mut bad = bytes.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &bad).unwrap();
        assert!(both(&path).into_iter().all(|result| result.is_err()), "bit {bit}");
    }
}

#[test]
fn damage_outside_the_header_costs_only_what_it_hits() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let bytes = sound(&path);
    let needle = value("key-0", 1);
    let objects = bytes.windows(needle.len().min(100)).position(|window| needle.starts_with(window)).unwrap();
    let mut torn = 0;
    for seed in 0..150u64 {
        let mut bad = bytes.clone();
        for i in 0..=seed % 40 {
            // The index and the objects alike.
            let at = mix(seed * 1000 + i) as usize;
            let at = if at & 1 == 0 { 4096 + (at >> 1) % 2624 } else { objects + (at >> 1) % (24 << 10) };
            bad[at] ^= mix(i) as u8 | 1;
        }
        fs::write(&path, &bad).unwrap();
        let (mut store, recovered) = MappedStore::open(&small(&path)).unwrap();
        torn += recovered.torn;
        let mut seen = 0;
        for star in 0..STARS {
            store.list(StarId(star), "", None, &mut |name| {
                let object = store.get(&Key::new(name)).object.unwrap();
                let wanted = value(name, object.version.0);
                assert_eq!(object.value, &wanted[..100.min(wanted.len())]);
                seen += 1;
                true
            });
        }
        assert_eq!(seen, recovered.objects);
        // What is left is a sound store: it can be written, emptied and read.
        allow(&mut store);
        for i in 0..80 {
            assert!(set(&mut store, &Key::new(format!("key-{i}")), 1000, b"new"));
        }
        (0..80).for_each(|i| store.remove(&Key::new(format!("key-{i}")), false));
        assert_eq!((store.usage().objects, store.usage().used_bytes), (0, 0), "seed {seed}");
    }
    assert!(torn > 50, "the damage hit {torn} objects");
}

#[test]
fn random_words_in_the_index_are_survived() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let bytes = sound(&path);
    for seed in 0..60u64 {
        let mut bad = bytes.clone();
        for (i, byte) in bad[4096..8192].iter_mut().enumerate() {
            // Whole random words, or small numbers that look like links.
            let word = mix((seed << 32) + i as u64 / 8);
            let word = if word & 1 == 0 { word >> 58 } else { word };
            *byte = word.to_le_bytes()[i % 8];
        }
        fs::write(&path, &bad).unwrap();
        let reader = Reader::open(&path).unwrap();
        let _ = reader.get(&Key::new("key-1"), &mut Vec::new());
        let (mut store, _) = MappedStore::open(&small(&path)).unwrap();
        (0..80).for_each(|i| assert!(set(&mut store, &Key::new(format!("key-{i}")), 1000, b"new")));
    }
}

#[test]
fn other_options_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    sound(&path);
    for (what, options) in [
        ("stars", Options { stars: 4, ..small(&path) }),
        ("cluster", Options { cluster: "other".into(), ..small(&path) }),
        ("capacity_bytes", Options { capacity_bytes: 2 << 20, ..small(&path) }),
        ("entries_max", Options { entries_max: Some(101), ..small(&path) }),
    ] {
        let error = MappedStore::open(&options).unwrap_err();
        assert!(matches!(error, OpenError::Mismatch { what: found, .. } if found == what), "{what}: {error}");
    }
    assert_eq!(MappedStore::open(&small(&path)).unwrap().1.objects, 80, "a refused file is not touched");
}

#[test]
fn impossible_options_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    for options in [
        Options { stars: 0, ..small(&path) },
        Options { stars: 1025, ..small(&path) },
        Options { capacity_bytes: 0, ..small(&path) },
        Options { capacity_bytes: u64::MAX, entries_max: None, ..small(&path) },
        Options { entries_max: Some(0), ..small(&path) },
        Options { cluster: "x".repeat(65), ..small(&path) },
    ] {
        assert!(matches!(MappedStore::create(&options), Err(OpenError::Options(_))), "{options:?}");
    }
    let error = MappedStore::create(&Options { capacity_bytes: 1 << 45, ..small(&path) }).unwrap_err();
    assert!(matches!(error, OpenError::Io { .. }), "{error}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "nothing is left of a file that did not fit");
}

#[test]
fn one_writer_at_a_time_and_nobody_elses_eyes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = MappedStore::create(&small(&path)).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let pid = u64::from(std::process::id());
    for error in [MappedStore::open(&small(&path)).unwrap_err(), MappedStore::create(&small(&path)).unwrap_err()] {
        assert!(matches!(error, OpenError::InUse { pid: found, .. } if found == pid), "{error}");
    }
    drop(store);
    assert!(MappedStore::open(&small(&path)).is_ok());
}

#[test]
fn users_of_the_group_get_what_the_option_says_whatever_the_mask_and_the_file_before() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    for (group, wanted) in [(GroupAccess::Pin, 0o660), (GroupAccess::Read, 0o640), (GroupAccess::None, 0o600)] {
        let options = Options { group, ..small(&path) };
        drop(MappedStore::create(&options).unwrap());
        assert_eq!(mode(), wanted);
        drop(MappedStore::open(&Options { group: GroupAccess::None, ..small(&path) }).unwrap());
        assert_eq!(mode(), 0o600, "an option that changed counts when the store is opened again");
        drop(MappedStore::open(&options).unwrap());
        assert_eq!(mode(), wanted);
    }
}

#[test]
fn a_store_that_asked_for_huge_pages_is_the_same_with_and_without_them() {
    // On a memory file system, where there may be some, and on whatever the others are on.
    for directory in [tempfile::tempdir().unwrap(), tempfile::tempdir_in("/dev/shm").unwrap()] {
        let path = directory.path().join("store");
        let options = Options { huge_pages: true, ..options(&path, 6 << 20) };
        let mut store = MappedStore::create(&options).unwrap();
        allow(&mut store);
        assert!(store.huge_bytes() <= store.file_bytes());
        let (key, large) = (Key::new("key"), vec![7; 5 << 20]);
        assert!(set(&mut store, &key, 1, &large));
        let mut read = Vec::new();
        assert!(matches!(Reader::open(&path).unwrap().get(&key, &mut read), Answer::Found { .. }));
        assert!(read == large);
        drop(store);
        let (store, recovered) = MappedStore::open(&options).unwrap();
        assert_eq!((recovered.objects, recovered.torn), (1, 0));
        assert!(store.get(&key).object.unwrap().value == large);
    }
}

#[test]
fn a_file_of_an_earlier_run_of_the_machine_is_not_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let mut bytes = sound(&path);
    bytes[17 * 8] ^= 1;
    fs::write(&path, &bytes).unwrap();
    assert!(matches!(Reader::open(&path), Err(OpenError::OldBoot { .. })));
    assert_eq!(MappedStore::open(&small(&path)).unwrap().1.objects, 80, "its server takes it up again");
    assert!(Reader::open(&path).is_ok());
}
