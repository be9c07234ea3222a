//! Readers that hold objects in place, against a writer that never rests, and against being killed.

mod common;

use std::{
    collections::VecDeque,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use common::{allow, mix, options, set, value};
use star_core::{Key, store::Store};
use star_objstore::{MappedStore, Options, Pinned, Reader, Ref};

const KEYS: usize = 48;
const HELD_MAX: usize = 20;
/// How many readers are killed, unless `STAR_TEST_KILLS` says.
const KILLS: u64 = 60;

fn keys() -> Vec<Key> {
    (0..KEYS).map(|i| Key::new(format!("key-{i}"))).collect()
}

fn store_options(path: &Path) -> Options {
    options(path, 64 << 20)
}

fn write(store: &mut MappedStore, keys: &[Key], number: u64) {
    let key = &keys[mix(number) as usize % KEYS];
    if (mix(number) >> 32).is_multiple_of(16) {
        common::delete(store, key);
    } else {
        assert!(set(store, key, number, &value(key.as_str(), number)), "room for write {number}");
    }
}

/// Objects that are held for a while, each checked when it comes and when it goes.
struct Holding {
    reader: Arc<Reader>,
    keys: Vec<Key>,
    held: VecDeque<(usize, Ref)>,
    number: u64,
    found: u64,
}

impl Holding {
    fn new(path: &Path, seed: u64) -> Self {
        let reader = Arc::new(Reader::open(path).unwrap());
        Self { reader, keys: keys(), held: VecDeque::new(), number: seed << 32, found: 0 }
    }

    fn check(&self, index: usize, object: &Ref) {
        let key = self.keys[index].as_str();
        assert!(**object == value(key, object.version().0), "{key} version {} changed", object.version());
        let align = if object.len() >= 4096 { 64 } else { 8 };
        assert!(object.as_ptr().addr().is_multiple_of(align), "{key} is not aligned");
    }

    fn look(&mut self) {
        self.number += 1;
        let index = mix(self.number) as usize % KEYS;
        if let Ok(Some(object)) = self.reader.get_ref(&self.keys[index]) {
            self.check(index, &object);
            self.held.push_back((index, object));
            self.found += 1;
        }
        // Some go at once, some stay long.
        while self.held.len() > mix(self.number) as usize % HELD_MAX {
            let (index, object) = self.held.pop_front().unwrap();
            self.check(index, &object);
        }
    }
}

fn empties(store: &mut MappedStore, keys: &[Key]) {
    keys.iter().for_each(|key| store.remove(key, false));
    store.release_pinned();
    assert_eq!((store.pinned(), store.usage().used_bytes), (Pinned::default(), 0), "nothing is left behind");
}

#[test]
fn what_threads_hold_never_changes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let mut store = MappedStore::create(&store_options(&path)).unwrap();
    allow(&mut store);
    let (done, found) = (AtomicBool::new(false), AtomicU64::new(0));
    let keys = keys();
    let mut most = 0;
    std::thread::scope(|scope| {
        for seed in 0..2 {
            let (path, done, found) = (&path, &done, &found);
            scope.spawn(move || {
                let mut holding = Holding::new(path, seed);
                while !done.load(Ordering::Relaxed) {
                    holding.look();
                    found.fetch_max(holding.found, Ordering::Relaxed);
                }
            });
        }
        let mut number = 0;
        // Until the readers had their turns, however few the processors are.
        while number < 20_000 || found.load(Ordering::Relaxed) < 2000 {
            number += 1;
            write(&mut store, &keys, number);
            most = most.max(store.pinned().objects);
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(most > 0, "objects were replaced while they were held");
    empties(&mut store, &keys);
}

/// Not a test by itself: the reader that is killed.
#[test]
fn holding_process() {
    let Some(path) = std::env::var_os("STAR_TEST_HOLD") else { return };
    let mut holding = Holding::new(path.as_ref(), std::process::id().into());
    loop {
        holding.look();
        if holding.found == 100 {
            eprintln!("holding");
        }
    }
}

fn spawn(path: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["holding_process", "--exact", "--nocapture"])
        .env("STAR_TEST_HOLD", path)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Readers die wherever they are. What they held comes back, and what another still holds stays as it is.
#[test]
fn killed_readers_leave_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let mut store = MappedStore::create(&store_options(&path)).unwrap();
    allow(&mut store);
    let keys = keys();
    let mut number = 0;
    let mut write_some = |store: &mut MappedStore, count: u64| {
        for _ in 0..count {
            number += 1;
            write(store, &keys, number);
        }
    };
    write_some(&mut store, 1000);
    let mut witness = Holding::new(&path, 99);
    let kills = std::env::var("STAR_TEST_KILLS").map_or(KILLS, |said| said.parse().expect("a number"));
    for round in 0..kills {
        let mut child = spawn(&path);
        let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
        let (path, done) = (&path, AtomicBool::new(false));
        std::thread::scope(|scope| {
            // The writer goes on, whatever the child does.
            let store = &mut store;
            let (write_some, done) = (&mut write_some, &done);
            let writer = scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    write_some(store, 50);
                }
                write_some(store, mix(round) % 200);
            });
            let line = said.next().map(Result::unwrap);
            done.store(true, Ordering::Relaxed);
            assert_eq!(line.as_deref(), Some("holding"), "{:?} of {}", said.next(), path.display());
            (0..mix(round) & 0xffff).for_each(|_| std::hint::spin_loop());
            child.kill().unwrap();
            child.wait().unwrap();
            writer.join().unwrap();
        });
        assert!(said.map_while(Result::ok).all(|line| line == "holding"), "the child found nothing wrong");
        (0..50).for_each(|_| witness.look());
        let waiting = witness.held.len() as u64;
        store.release_pinned();
        assert!(store.pinned().objects <= waiting, "round {round}: {:?} of {waiting} held", store.pinned());
    }
    assert!(witness.found > kills, "{}", witness.found);
    witness.held.clear();
    empties(&mut store, &keys);
}
