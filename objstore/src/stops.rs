//! A writer that is killed before each of its stores, one after another: whatever it was doing, the file opens again with
//! what was published.

use std::{
    cell::Cell,
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::Path,
    sync::Arc,
};

use star_core::{
    Incarnation, Key, StarId, Time, Version,
    config::GroupAccess,
    store::{Encoding, Store},
};

use crate::{MappedStore, Options, Reader, StoreFile};

thread_local! {
    /// Stores that this thread may make until it is killed; `None` for as many as it likes.
    static LEFT: Cell<Option<u64>> = const { Cell::new(None) };
}

/// What a killed writer unwinds with.
struct Killed;

pub(crate) fn before_a_store() {
    LEFT.with(|left| match left.get() {
        None => {}
        // Also what its destructors would store: a process that is killed runs none.
        Some(0) => resume_unwind(Box::new(Killed)),
        Some(more) => left.set(Some(more - 1)),
    });
}

/// Runs `work` until it has made so many stores; whether it was killed. What it leaves behind in memory is lost.
fn killed_after(stores: u64, work: impl FnOnce()) -> bool {
    LEFT.set(Some(stores));
    let result = catch_unwind(AssertUnwindSafe(work));
    LEFT.set(None);
    match result {
        Ok(()) => false,
        Err(reason) if reason.is::<Killed>() => true,
        Err(reason) => resume_unwind(reason),
    }
}

type Contents = BTreeMap<String, (Version, Vec<u8>)>;

#[derive(Clone, Copy, Debug)]
enum Op {
    Set(u64, usize),
    Delete(u64),
    /// A write that never happens: placed, marked, dropped.
    Drop(u64, usize),
    /// A delete with another write under way, which then comes.
    Replace(u64, usize),
    Permit(u64),
}

fn key(number: u64) -> Key {
    Key::new(format!("key-{number}"))
}

fn bytes(version: u64, len: usize) -> Vec<u8> {
    (0..len).map(|i| (version as usize * 31 + i / 3) as u8).collect()
}

fn place(store: &mut MappedStore, number: u64, version: u64, len: usize) -> star_core::store::Place {
    let place = store.place(&key(number), Encoding::Raw, len).expect("room");
    store.fill(place, 0, &bytes(version, len));
    store.mark_dirty(&key(number)).expect("room");
    place
}

fn perform(store: &mut MappedStore, op: Op, version: u64) {
    match op {
        Op::Set(number, len) => {
            let place = place(store, number, version, len);
            store.publish(&key(number), place, Version(version), false);
        }
        Op::Delete(number) => {
            store.mark_dirty(&key(number)).expect("room");
            store.remove(&key(number), false);
        }
        Op::Drop(number, len) => {
            let place = place(store, number, version, len);
            store.discard(place);
            store.mark_clean(&key(number));
        }
        Op::Replace(number, len) => {
            let place = place(store, number, version, len);
            store.remove(&key(number), true);
            store.publish(&key(number), place, Version(version), false);
        }
        Op::Permit(until) => {
            store.set_serving(StarId(0), until % 2 == 0);
            store.set_lease(Time(until));
        }
    }
}

/// What may be there after an operation was begun: before it, at a point within it, or after it.
fn outcomes(before: &Contents, op: Op, version: u64) -> Vec<Contents> {
    let with = |number: u64, len: usize| {
        let mut after = before.clone();
        after.insert(key(number).as_str().into(), (Version(version), bytes(version, len)));
        after
    };
    let without = |number: u64| {
        let mut after = before.clone();
        after.remove(key(number).as_str());
        after
    };
    match op {
        Op::Set(number, len) => vec![before.clone(), with(number, len)],
        Op::Delete(number) => vec![before.clone(), without(number)],
        Op::Drop(..) | Op::Permit(_) => vec![before.clone()],
        Op::Replace(number, len) => vec![before.clone(), without(number), with(number, len)],
    }
}

fn options(path: &Path) -> Options {
    // Few buckets, so that they come into use one after another and chains of overflow buckets come and go.
    Options {
        path: path.to_path_buf(),
        capacity_bytes: 1 << 20,
        entries_max: Some(40),
        stars: 1,
        cluster: "stops".into(),
        incarnation: Incarnation(1),
        group: GroupAccess::None,
        huge_pages: false,
    }
}

fn contents(store: &MappedStore) -> Contents {
    let mut all = Contents::new();
    store.list(StarId(0), "", None, &mut |name| {
        let entry = store.get(&Key::new(name));
        assert!(!entry.dirty, "{name} is dirty after a restart");
        let object = entry.object.expect("a key that is listed has an object");
        all.insert(name.to_owned(), (object.version, object.value.to_vec()));
        true
    });
    all
}

/// Opens what a killed writer left, is killed at that too, and opens it again.
fn reopened(path: &Path, stop: u64) -> MappedStore {
    killed_after(stop % 60, || drop(MappedStore::open(&options(path))));
    let (store, recovered) = MappedStore::open(&options(path)).unwrap();
    assert_eq!(recovered.torn, 0, "a kill tears nothing");
    assert_eq!(recovered.objects, store.usage().objects);
    store
}

/// Kills the writer before its first store, its second, and so on by `step`, until it comes to the end of `ops`.
fn at_each_store(start: &[Op], ops: &[Op], step: usize) -> u64 {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let mut store = MappedStore::create(&options(&path)).unwrap();
    let mut version = 0;
    let mut model = Contents::new();
    for op in start {
        version += 1;
        perform(&mut store, *op, version);
        model = outcomes(&model, *op, version).pop().unwrap();
    }
    drop(store);
    let begin = std::fs::read(&path).unwrap();
    for stop in (0..).step_by(step) {
        std::fs::write(&path, &begin).unwrap();
        let mut store = MappedStore::open(&options(&path)).unwrap().0;
        let (mut model, mut version) = (model.clone(), version);
        let mut allowed = vec![model.clone()];
        let was_killed = killed_after(stop, || {
            for op in ops {
                version += 1;
                allowed = outcomes(&model, *op, version);
                perform(&mut store, *op, version);
                model = allowed.pop().unwrap();
                allowed = vec![model.clone()];
            }
        });
        if !was_killed {
            assert_eq!(contents(&store), model);
            return stop;
        }
        // As a kill does: the lock goes, and nothing is stored.
        LEFT.set(Some(0));
        let _ = catch_unwind(AssertUnwindSafe(|| drop(store)));
        LEFT.set(None);
        let verified = StoreFile::open(&path).unwrap().verify();
        assert!(verified.damage.is_empty() && verified.unsettled == 0, "stop {stop}: {verified:?}");
        let store = reopened(&path, stop);
        assert!(allowed.contains(&contents(&store)), "stop {stop}: {:?}", contents(&store).keys());
        drop(store);
        let reader = Arc::new(Reader::open(&path).unwrap());
        assert!(reader.get_ref(&key(1)).is_err(), "no lease outlives its writer");
    }
    unreachable!("the operations end")
}

#[test]
fn a_kill_before_any_store_loses_nothing() {
    let mut start: Vec<Op> = (0..20).map(|number| Op::Set(number, 10 * number as usize)).collect();
    start.push(Op::Permit(1000));
    let mut ops = vec![Op::Permit(2000), Op::Permit(3001), Op::Set(3, 70), Op::Set(4, 5000), Op::Drop(5, 30)];
    // Chains grow and shrink.
    ops.extend((20..32).map(|number| Op::Set(number, 20)));
    ops.extend((0..32).step_by(2).map(Op::Delete));
    ops.extend([Op::Drop(50, 8), Op::Replace(1, 40), Op::Replace(60, 40), Op::Set(2, 0), Op::Permit(0)]);
    let stops = at_each_store(&start, &ops, 1);
    println!("killed at each of {stops} stores");
    assert!(stops > 800, "{stops}");
}

/// The same while buckets with continuations are split: keys that stay together until there are eight buckets.
#[test]
fn a_kill_while_a_bucket_is_split_loses_nothing() {
    let together: Vec<u64> = (0..).filter(|number| key(*number).hash() >> 32 & 3 == 1).take(34).collect();
    let start: Vec<Op> = together[..14].iter().map(|number| Op::Set(*number, 8)).collect();
    let mut ops: Vec<Op> = together[14..].iter().map(|number| Op::Set(*number, 8)).collect();
    ops.extend([Op::Replace(together[3], 8), Op::Delete(together[20]), Op::Set(together[20], 9)]);
    let stops = at_each_store(&start, &ops, 1);
    println!("killed at each of {stops} stores");
}

/// The same while objects are moved to make room in one piece.
#[test]
fn a_kill_while_objects_move_loses_nothing() {
    let mut start: Vec<Op> = (0..30).map(|number| Op::Set(number, 32_000)).collect();
    start.extend((0..30).step_by(4).map(Op::Delete));
    let stops = at_each_store(&start, &[Op::Set(40, 90_000), Op::Set(41, 90)], 97);
    println!("killed at {} of {stops} stores", stops / 97);
    assert!(stops > 90_000 / 8 + 32_000 / 8, "an object was moved: {stops} stores");
}
