//! Many keys in one call are read as each would be alone.

mod common;

use common::{allow, mix, options, set};
use star_core::{Key, StarId, store::Store};
use star_objstore::{Answer, MappedStore, Options, Reader, Reason};

const KEYS: u64 = 3000;

fn key(number: u64) -> Key {
    Key::new(format!("key-{number}"))
}

fn value(number: u64) -> Vec<u8> {
    vec![number as u8; (mix(number) % 400) as usize]
}

/// Few buckets for so many keys, so that some are continued in others.
fn filled(path: &std::path::Path) -> MappedStore {
    let options = Options { entries_max: Some(KEYS + 200), ..options(path, 8 << 20) };
    let mut store = MappedStore::create(&options).unwrap();
    allow(&mut store);
    (0..KEYS).for_each(|number| assert!(set(&mut store, &key(number), 1 + number, &value(number))));
    store
}

fn one_by_one(reader: &Reader, keys: &[Key]) -> Vec<(Answer, Vec<u8>)> {
    let read = |key| {
        let mut buffer = Vec::new();
        (reader.get(key, &mut buffer), buffer)
    };
    keys.iter().map(read).collect()
}

fn together(reader: &Reader, keys: &[Key]) -> Vec<(Answer, Vec<u8>)> {
    let mut answers = Vec::new();
    reader.get_many(keys, |place, answer, value| {
        assert_eq!(place, answers.len());
        answers.push((answer, value.to_vec()));
    });
    answers
}

#[test]
fn every_key_gets_its_own_answer_in_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let mut store = filled(&path);
    let reader = Reader::open(&path).unwrap();
    store.mark_dirty(&key(7)).unwrap();
    store.set_serving(StarId(1), false);
    // Of every kind, in no order, some twice, some that there never were.
    let keys: Vec<Key> = (0..=2 * KEYS).map(|turn| key(mix(turn) % (KEYS * 5 / 4))).chain([key(7)]).collect();
    let answers = together(&reader, &keys);
    assert_eq!(answers, one_by_one(&reader, &keys));
    for wanted in [Answer::NotFound, Answer::Ask(Reason::Dirty), Answer::Ask(Reason::NotServing)] {
        assert!(answers.iter().any(|(answer, value)| *answer == wanted && value.is_empty()), "{wanted:?}");
    }
    for length in [0, 1, 15, 16, 17] {
        assert_eq!(together(&reader, &keys[..length]), one_by_one(&reader, &keys[..length]));
    }
}

#[test]
fn each_is_the_latest_while_the_store_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let mut store = filled(&path);
    let reader = Reader::open(&path).unwrap();
    let keys: Vec<Key> = (0..64).map(key).collect();
    for round in 0..200 {
        let changed = mix(round) % 64;
        assert!(set(&mut store, &keys[changed as usize], 10_000 + round, &value(round)));
        let answers = together(&reader, &keys);
        let Answer::Found { version, .. } = answers[changed as usize].0 else { panic!("no object") };
        assert_eq!((version.0, &answers[changed as usize].1), (10_000 + round, &value(round)));
    }
}
