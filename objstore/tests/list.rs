//! Readers list keys, also while the store is written.

mod common;

use std::{collections::BTreeSet, path::Path};

use common::{allow, mix, options, set};
use star_core::{Key, StarId, store::Store};
use star_objstore::{Listing, MappedStore, Options, Reader, Reason};

const KEYS: u64 = 6000;

fn name(number: u64) -> String {
    format!("{}/{number}", if number.is_multiple_of(3) { "thirds" } else { "rest" })
}

/// More buckets than are looked at under one permit, and few keys in each.
fn filled(path: &Path) -> MappedStore {
    let options = Options { entries_max: Some(40_000), ..options(path, 8 << 20) };
    let mut store = MappedStore::create(&options).unwrap();
    allow(&mut store);
    (0..KEYS).for_each(|i| assert!(set(&mut store, &Key::new(name(i)), 1, b"value")));
    store
}

fn names(keys: &[Key]) -> Vec<String> {
    keys.iter().map(|key| key.as_str().to_owned()).collect()
}

#[test]
fn every_key_is_listed_once_and_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let mut store = filled(&path);
    let reader = Reader::open(&path).unwrap();
    let all: BTreeSet<String> = (0..KEYS).map(name).collect();
    let listing = reader.list("").unwrap();
    assert_eq!(names(&listing.keys), all.iter().cloned().collect::<Vec<_>>());
    assert!(listing.dirty.is_empty());
    let thirds = reader.list("thirds/1").unwrap();
    assert_eq!(names(&thirds.keys), all.iter().filter(|key| key.starts_with("thirds/1")).cloned().collect::<Vec<_>>());
    assert_eq!(reader.list("nothing"), Ok(Listing::default()));

    store.remove(&Key::new(name(0)), false);
    assert_eq!(reader.list("").unwrap().keys.len() as u64, KEYS - 1);
    store.set_serving(StarId(common::STARS - 1), false);
    assert_eq!(reader.list(""), Err(Reason::NotServing));
}

#[test]
fn keys_that_stay_are_listed_while_others_come_and_go() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let mut store = filled(&path);
    let reader = Reader::open(&path).unwrap();
    std::thread::scope(|scope| {
        let looks = scope.spawn(|| {
            let stay: BTreeSet<String> = (0..KEYS).map(name).filter(|name| name.starts_with("thirds")).collect();
            let mut done = 0;
            for _ in 0..10_000 {
                // Refused where the writer lost its processor in the middle of a change.
                let Ok(listing) = reader.list("") else { continue };
                let sure: BTreeSet<String> = names(&listing.keys).into_iter().collect();
                assert_eq!(sure.len(), listing.keys.len(), "no key twice");
                assert!(stay.is_subset(&sure));
                assert!(listing.dirty.iter().all(|key| key.as_str().starts_with("rest")));
                done += 1;
                if done == 20 {
                    return;
                }
            }
            panic!("only {done} of 10,000 lists came about");
        });
        let mut step = 0;
        while !looks.is_finished() {
            step += 1;
            let key = Key::new(name(mix(step) % (KEYS / 3) * 3 + 1));
            if mix(step) >> 60 < 8 {
                store.remove(&key, false);
            } else {
                assert!(set(&mut store, &key, step + 1, b"new"));
            }
        }
    });
}
