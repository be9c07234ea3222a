//! How full a store gets before it says that it is.

mod common;

use std::{
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use common::{allow, mix, options};
use star_core::{
    Key,
    store::{Encoding, Store},
};
use star_objstore::{Answer, MappedStore, Options, Reader};

const CAPACITY: u64 = 64 << 20;
/// How many objects come and go, unless `STAR_TEST_OPERATIONS` says.
const OPERATIONS: u64 = 40_000;

/// Sizes that differ by four orders of magnitude.
fn size(seed: u64) -> usize {
    let below = |limit: u64| (mix(seed) % limit) as usize;
    match seed % 10 {
        0..=5 => below(400),
        6..=8 => 1024 + below(15_000),
        _ => 20_000 + below(200_000),
    }
}

fn content(number: u64) -> Vec<u8> {
    let bytes = size(mix(number));
    mix(number).to_le_bytes().into_iter().cycle().take(bytes).collect()
}

/// A reader of whatever is there, while it is moved about.
struct Watch {
    reader: Reader,
    buffer: Vec<u8>,
    seen: u64,
}

impl Watch {
    fn new(path: &Path) -> Self {
        Self { reader: Reader::open(path).unwrap(), buffer: Vec::new(), seen: 0 }
    }

    fn run(mut self, newest: &AtomicU64, done: &AtomicBool) -> u64 {
        let mut turn = 0;
        // Until it has seen some, however few the processors are: there is much to see at the end too.
        while !done.load(Ordering::Relaxed) || self.seen < 1000 {
            turn += 1;
            let number = 1 + mix(turn) % newest.load(Ordering::Relaxed);
            if let Answer::Found { version, .. } = self.reader.get(&Key::new(format!("key-{number}")), &mut self.buffer)
            {
                assert_eq!(version.0, number);
                assert!(self.buffer == content(number), "key-{number} is torn");
                self.seen += 1;
            }
        }
        self.seen
    }
}

/// Objects come and go in a full store for a long time. What is in it is never touched by that, though it is moved.
#[test]
fn a_store_is_full_before_it_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let mut store = MappedStore::create(&Options { entries_max: Some(100_000), ..options(&path, CAPACITY) }).unwrap();
    allow(&mut store);
    let operations = std::env::var("STAR_TEST_OPERATIONS").map_or(OPERATIONS, |said| said.parse().expect("a number"));
    let mut held: Vec<(Key, u64, usize)> = Vec::new();
    let (mut asked, mut worst, mut sum, mut refusals) = (0, usize::MAX, 0, 0);
    let (watch, newest, done) = (Watch::new(&path), AtomicU64::new(1), AtomicBool::new(false));
    let (newest, done) = (&newest, &done);
    let seen = std::thread::scope(|scope| {
        let watcher = scope.spawn(move || watch.run(newest, done));
        for number in 1..operations {
            newest.store(number, Ordering::Relaxed);
            let bytes = size(mix(number));
            let key = Key::new(format!("key-{number}"));
            let Ok(place) = store.place(&key, Encoding::Raw, bytes) else {
                worst = worst.min(asked);
                sum += asked;
                refusals += 1;
                for i in 0..20 {
                    let (key, _, bytes) = held.swap_remove(mix(number * 100 + i) as usize % held.len());
                    store.remove(&key, false);
                    asked -= bytes + key.len();
                }
                continue;
            };
            store.fill(place, 0, &content(number));
            store.mark_dirty(&key).unwrap();
            store.publish(&key, place, star_core::Version(number), false);
            asked += bytes + key.len();
            held.push((key, number, bytes));
        }
        done.store(true, Ordering::Relaxed);
        watcher.join().unwrap()
    });
    assert!(seen > 100, "a reader saw {seen} objects");
    let percent = |bytes: usize| bytes as f64 * 100.0 / CAPACITY as f64;
    let (worst, mean) = (percent(worst), percent(sum / refusals));
    println!("refused {refusals} times, at {mean:.1} % full on average, {worst:.1} % at worst");
    println!("{} MB were moved for {} MB", store.moved_bytes() >> 20, CAPACITY >> 20);
    let reader = Reader::open(&path).unwrap();
    let mut buffer = Vec::new();
    for (key, number, _) in &held {
        assert!(matches!(reader.get(key, &mut buffer), Answer::Found { version, .. } if version.0 == *number), "{key}");
        assert!(buffer == content(*number), "{key} is not what it was");
    }
    drop(store);
    let (store, recovered) =
        MappedStore::open(&Options { entries_max: Some(100_000), ..options(&path, CAPACITY) }).unwrap();
    assert_eq!((recovered.objects, recovered.torn, store.usage().objects), (held.len() as u64, 0, held.len() as u64));
    assert!(refusals > 100, "it was full {refusals} times");
    assert!(worst > 90.0, "refused at {mean:.1} % full on average, {worst:.1} % at worst");
}
