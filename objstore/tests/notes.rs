//! What a store notes of a star, and what is found of it after the server was killed between two stores to its memory. The file
//! is copied while the store is open: the copy is what a kill at that moment leaves.

use std::path::Path;

use star_core::{
    Incarnation, Key, StarId, Version,
    ids::{Epoch, Seq},
    note::Note,
    store::{Encoding, Store},
};
use star_objstore::{MappedStore, Options};

mod common;

fn options(path: &Path) -> Options {
    common::options(path, 1 << 20)
}

fn star() -> StarId {
    key().star(common::STARS)
}

/// A store with one object, of version 1 and seq 1, and a note.
fn store(path: &Path) -> MappedStore {
    let mut store = MappedStore::create(&options(path)).expect("a new store");
    let (epoch, seq) = (Epoch(3), Seq(1));
    let life = Incarnation(1);
    let note = Note { life, founded: epoch, epoch, ready: seq, committed: seq, whole: true, ..Note::default() };
    publish(&mut store, 1);
    store.note(star(), &note);
    store
}

fn key() -> Key {
    Key::new("key")
}

fn publish(store: &mut MappedStore, version: u64) {
    let place = store.place(&key(), Encoding::Raw, 3).expect("room");
    store.fill(place, 0, b"abc");
    store.publish(&key(), place, Version(version), false);
}

/// What is noted, and the key's version, in what a kill now leaves.
fn killed(store: &MappedStore) -> (Note, Option<Version>) {
    let copy = store.path().with_extension("copy");
    std::fs::copy(store.path(), &copy).expect("a copy");
    let (opened, _) = MappedStore::open(&options(&copy)).expect("it opens");
    let version = opened.get(&key()).object.map(|object| object.version);
    (opened.noted(star()).expect("a note"), version)
}

#[test]
fn a_write_that_was_applied_is_known_although_the_turn_did_not_end() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut store = store(&directory.path().join("store"));
    assert_eq!((killed(&store).0.committed, killed(&store).1), (Seq(1), Some(Version(1))));

    // Seqs between had no effect, so nothing is left of them but that they are past.
    store.note_applying(star(), Seq(4), &key(), Some(Version(2)));
    let (note, version) = killed(&store);
    assert_eq!((note.committed, note.ready, version), (Seq(3), Seq(3), Some(Version(1))), "nobody can have seen it");
    publish(&mut store, 2);
    let (note, version) = killed(&store);
    assert_eq!((note.committed, note.ready, version), (Seq(4), Seq(4), Some(Version(2))), "a reader may have seen it");

    store.note_applying(star(), Seq(5), &key(), None);
    assert_eq!((killed(&store).0.committed, killed(&store).1), (Seq(4), Some(Version(2))));
    store.remove(&key(), false);
    assert_eq!((killed(&store).0.committed, killed(&store).1), (Seq(5), None));

    store.note_progress(star(), Seq(9), Seq(7));
    let (note, _) = killed(&store);
    assert_eq!((note.committed, note.ready), (Seq(7), Seq(9)));
}

#[test]
fn what_was_noted_of_an_order_that_is_no_more_says_nothing_of_the_next() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut store = store(&directory.path().join("store"));
    store.note_applying(star(), Seq(2), &key(), Some(Version(1)));
    store.note(star(), &Note::default());
    let (epoch, life) = (Epoch(8), Incarnation(1));
    store.note(star(), &Note { life, founded: epoch, epoch, ready: Seq(1), committed: Seq(1), ..Note::default() });
    assert_eq!(killed(&store).0.committed, Seq(1), "the second write of the order before is not that of this one");
}
