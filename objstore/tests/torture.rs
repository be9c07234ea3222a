//! Readers against a writer that never rests: no torn value, no step back in time, no answer that was already old.

mod common;

use std::{
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use common::{allow, delete, mix, options, set, value};
use star_core::{Key, Version, store::Store};
use star_objstore::{Answer, MappedStore, Reader};

const KEYS: usize = 64;
/// Keys from here on are also deleted.
const DELETED_FROM: usize = 48;
const WRITES: u64 = 60_000;

fn keys() -> Vec<Key> {
    (0..KEYS).map(|i| Key::new(format!("key-{i}"))).collect()
}

/// One step of the writer: mostly a new version, sometimes a delete, sometimes a mark that leads to nothing.
fn write(store: &mut MappedStore, keys: &[Key], number: u64) -> usize {
    let seed = mix(number);
    let index = seed as usize % KEYS;
    let key = &keys[index];
    match seed >> 32 & 15 {
        0 if index >= DELETED_FROM => delete(store, key),
        1 => {
            store.mark_dirty(key).unwrap();
            store.mark_clean(key);
        }
        _ => assert!(set(store, key, number, &value(key.as_str(), number)), "room for write {number}"),
    }
    index
}

/// What one reader has seen; every answer is checked.
struct Watch {
    reader: Reader,
    keys: Vec<Key>,
    latest: Vec<u64>,
    buffer: Vec<u8>,
    found: u64,
    asked: u64,
}

impl Watch {
    fn new(path: &std::path::Path) -> Self {
        let reader = Reader::open(path).unwrap();
        Self { reader, keys: keys(), latest: vec![0; KEYS], buffer: Vec::new(), found: 0, asked: 0 }
    }

    /// Reads a key. `floor` is a version that was published before the call.
    fn look(&mut self, index: usize, floor: u64) {
        let key = &self.keys[index];
        match self.reader.get(key, &mut self.buffer) {
            Answer::Found { version: Version(version), .. } => {
                assert!(self.buffer == value(key.as_str(), version), "{key} version {version} is torn");
                assert!(version >= self.latest[index], "{key}: {version} after {}", self.latest[index]);
                assert!(version >= floor, "{key}: {version}, but {floor} was there before");
                self.latest[index] = version;
                self.found += 1;
            }
            Answer::NotFound => assert!(index >= DELETED_FROM || self.latest[index].max(floor) == 0, "{key} is lost"),
            Answer::Ask(_) => self.asked += 1,
        }
    }
}

#[test]
fn threads_see_whole_values_that_never_go_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let mut store = MappedStore::create(&options(&path, 32 << 20)).unwrap();
    allow(&mut store);
    let published: Vec<AtomicU64> = (0..KEYS).map(|_| AtomicU64::new(0)).collect();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|seed| {
                let (path, published, done) = (&path, &published, &done);
                scope.spawn(move || {
                    let mut watch = Watch::new(path);
                    let mut number = seed;
                    while !done.load(Ordering::Relaxed) {
                        number += 2;
                        let index = mix(number) as usize % KEYS;
                        // What is deleted at times has no floor: a version may be gone by now, but never come back.
                        let floor = if index < DELETED_FROM { published[index].load(Ordering::Acquire) } else { 0 };
                        watch.look(index, floor);
                    }
                    watch.found
                })
            })
            .collect();
        let keys = keys();
        for number in 1..=WRITES {
            let index = write(&mut store, &keys, number);
            if let Some(object) = store.get(&keys[index]).object {
                published[index].store(object.version.0, Ordering::Release);
            }
        }
        done.store(true, Ordering::Relaxed);
        for reader in readers {
            assert!(reader.join().unwrap() > 1000, "a reader that found nothing proves nothing");
        }
    });
}

/// Not a test by itself: what the test below runs in a process of its own.
#[test]
fn reader_process() {
    let Some(path) = std::env::var_os("STAR_TEST_READ") else { return };
    let mut watch = Watch::new(path.as_ref());
    eprintln!("ready");
    let mut number = 0;
    // The writer stops by taking the lease: then every read is refused.
    let mut refused = 0;
    while refused < 10_000 {
        number += 1;
        let asked = watch.asked;
        watch.look(mix(number) as usize % KEYS, 0);
        refused = if watch.asked > asked { refused + 1 } else { 0 };
    }
    eprintln!("found {}", watch.found);
}

#[test]
fn another_process_sees_whole_values_that_never_go_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let mut store = MappedStore::create(&options(&path, 32 << 20)).unwrap();
    allow(&mut store);
    let keys = keys();
    (1..=1000).for_each(|number| {
        write(&mut store, &keys, number);
    });
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["reader_process", "--exact", "--nocapture"])
        .env("STAR_TEST_READ", &path)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    assert_eq!(said.next().unwrap().unwrap(), "ready");
    for number in 1001..=WRITES {
        write(&mut store, &keys, number);
    }
    drop(store);
    let rest: Vec<String> = said.map(Result::unwrap).collect();
    std::io::stderr().write_all(rest.join("\n").as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{rest:?}");
    let found: u64 = rest.last().unwrap().strip_prefix("found ").unwrap().parse().unwrap();
    assert!(found > 1000, "found {found}");
}
