//! A server killed at any moment leaves a file that opens again with all that was published, and nothing else.

mod common;

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use common::{STARS, allow, delete, mix, options, set, value};
use star_core::{
    Key, StarId,
    store::{Encoding, Store},
};
use star_objstore::{Answer, MappedStore, Options, Reader};

const KEYS: u64 = 300;
const ROUNDS: u64 = 100;
const REPORT_EVERY: u64 = 8;

/// What operation `number` does; the same in the child, which does it, and in the parent, which works out what must be
/// there.
enum Op {
    Set,
    Delete,
    Discard,
    Mark,
}

fn plan(number: u64) -> (Key, Op) {
    let seed = mix(number ^ 0xc0ff_ee00_0000);
    let op = match seed >> 32 & 15 {
        0..=10 => Op::Set,
        11..=13 => Op::Delete,
        14 => Op::Discard,
        _ => Op::Mark,
    };
    (Key::new(format!("key-{}", seed % KEYS)), op)
}

fn perform(store: &mut MappedStore, number: u64) {
    let (key, op) = plan(number);
    match op {
        Op::Set => assert!(set(store, &key, number, &value(key.as_str(), number)), "room for {number}"),
        Op::Delete => delete(store, &key),
        Op::Discard => {
            let place = store.place(&key, Encoding::Raw, 500).unwrap();
            store.fill(place, 0, &[9; 400]);
            store.discard(place);
        }
        Op::Mark => {
            store.mark_dirty(&key).unwrap();
            store.mark_clean(&key);
        }
    }
}

fn store_options(path: &Path) -> Options {
    // Few entries, so that overflow buckets come and go; 300 keys of 20 KiB at most on average.
    Options { entries_max: Some(400), ..options(path, 32 << 20) }
}

/// Not a test by itself: the server that is killed.
#[test]
fn writer_process() {
    let Some(path) = std::env::var_os("STAR_TEST_WRITE") else { return };
    let mut number: u64 = std::env::var("STAR_TEST_FROM").unwrap().parse().unwrap();
    let (mut store, _) = MappedStore::open(&store_options(path.as_ref())).unwrap();
    allow(&mut store);
    loop {
        perform(&mut store, number);
        if number.is_multiple_of(REPORT_EVERY) {
            eprintln!("{number}");
        }
        number += 1;
    }
}

/// Runs the child from `first` on, kills it at a moment that `seed` decides, and returns the last operation that it
/// said was done.
fn run_and_kill(path: &Path, first: u64, seed: u64) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["writer_process", "--exact", "--nocapture"])
        .env("STAR_TEST_WRITE", path)
        .env("STAR_TEST_FROM", first.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut reported = first - 1;
    for _ in 0..=seed % 200 {
        let line = lines.next().expect("the child runs until it is killed").unwrap();
        reported = line.parse().unwrap_or_else(|_| {
            let rest: Vec<String> = lines.by_ref().map_while(Result::ok).collect();
            panic!("the child said: {line}\n{}", rest.join("\n"))
        });
    }
    // The child goes on while this one counts, so the kill falls anywhere in an operation.
    (0..seed >> 32 & 0xffff).for_each(|_| std::hint::spin_loop());
    child.kill().unwrap();
    child.wait().unwrap();
    lines.map_while(Result::ok).filter_map(|line| line.parse().ok()).fold(reported, u64::max)
}

fn contents(store: &MappedStore) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for star in 0..STARS {
        store.list(StarId(star), "", None, &mut |name| {
            let entry = store.get(&Key::new(name));
            let object = entry.object.expect("a key that is listed has an object");
            assert!(!entry.dirty, "{name} is dirty after a restart");
            assert!(object.value == value(name, object.version.0), "{name} is not what was written");
            found.insert(name.to_owned(), object.version.0);
            true
        });
    }
    found
}

fn advance(model: &mut BTreeMap<String, u64>, number: u64) {
    let (key, op) = plan(number);
    match op {
        Op::Set => drop(model.insert(key.as_str().into(), number)),
        Op::Delete => drop(model.remove(key.as_str())),
        Op::Discard | Op::Mark => {}
    }
}

#[test]
fn what_was_published_survives_a_kill_at_any_moment() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    drop(MappedStore::create(&store_options(&path)).unwrap());
    let mut model = BTreeMap::new();
    let mut done = 0;
    let mut dropped = 0;
    for round in 0..ROUNDS {
        let reported = run_and_kill(&path, done + 1, mix(round));
        let (store, recovered) = MappedStore::open(&store_options(&path)).unwrap();
        assert_eq!(recovered.torn, 0, "a kill tears nothing");
        dropped += recovered.dropped;
        let found = contents(&store);
        assert_eq!(found.len() as u64, recovered.objects);
        // Everything that was reported, and then a whole number of operations more.
        while done < reported {
            done += 1;
            advance(&mut model, done);
        }
        let newest = found.values().copied().max().unwrap_or(0).max(done) + 1000;
        while model != found {
            assert!(done < newest, "round {round}: no number of operations after {reported} gives what is there");
            done += 1;
            advance(&mut model, done);
        }
    }
    println!("{done} operations, {ROUNDS} kills, {dropped} unpublished values dropped");
    assert!(done > ROUNDS * REPORT_EVERY, "the children got to do something");
    everything_comes_back(&path);
}

/// After all those kills the store still has all of its room and all of its slots.
fn everything_comes_back(path: &Path) {
    let (mut store, _) = MappedStore::open(&store_options(path)).unwrap();
    (0..KEYS).for_each(|i| store.remove(&Key::new(format!("key-{i}")), false));
    assert_eq!((store.usage().objects, store.usage().used_bytes), (0, 0));
    for i in 0..400 {
        assert!(set(&mut store, &Key::new(format!("new-{i}")), 1, &vec![1; 60_000]), "room for {i}");
    }
}

#[test]
fn a_killed_servers_readers_notice_and_its_successor_serves_them() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    drop(MappedStore::create(&store_options(&path)).unwrap());
    let done = run_and_kill(&path, 1, 50);
    let reader = Reader::open(&path).unwrap();
    let (mut store, _) = MappedStore::open(&store_options(&path)).unwrap();
    let mut buffer = Vec::new();
    let key = Key::new("key-1");
    assert!(matches!(reader.get(&key, &mut buffer), Answer::Ask(_)), "the dead server's lease is not the new one's");
    allow(&mut store);
    assert!(set(&mut store, &key, done + 1_000_000, b"after"));
    assert!(matches!(reader.get(&key, &mut buffer), Answer::Found { .. }), "the same file serves on");
    assert_eq!(buffer, b"after");
}
