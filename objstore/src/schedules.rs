//! Every schedule, and every order of stores that the memory model allows, of the races that the layout is built on:
//! the same code as in the mapped file runs on `loom`'s words. Each test fails when one of its fences is taken away.

use std::sync::atomic::Ordering::{self, Relaxed};

use loom::{
    cell::UnsafeCell,
    sync::{
        Arc,
        atomic::{AtomicU64, fence},
    },
    thread,
};

use star_core::Time;

use crate::{
    index::{Extent, Index, Slot, Table},
    layout::{BUCKET_WORDS, EXTENT_WORD, Geometry, HEADER_BYTES, PIN_RECORD_WORDS, WORD},
    lease_clock,
    pins::PinTable,
    words::{Claims, Words},
};

const HASH: u64 = 7 << 16;
/// Of a key that goes to the second bucket when there is one.
const MOVING: u64 = HASH | 1 << 32;
const OLD: u64 = 11;
const NEW: u64 = 22;
const REUSED: u64 = 33;
/// Where the blocks are, in bytes: any number will do.
const OLD_AT: usize = 1 << 16;
const NEW_AT: usize = 1 << 17;

/// Two buckets of which one is in use, a word in each of two blocks, and a pin table with one slot in use.
struct Model {
    buckets: Vec<AtomicU64>,
    extent: AtomicU64,
    blocks: [AtomicU64; 2],
    records: AtomicU64,
    limit: AtomicU64,
    until: AtomicU64,
    used: AtomicU64,
    pin: AtomicU64,
    /// Orders nothing; see [`Model::meet`].
    gate: AtomicU64,
    /// The old block once more, as who has it pinned reads it: like any slice, not atomically. `loom` reports a store
    /// that comes neither before nor after such a read.
    slice: UnsafeCell<()>,
}

#[allow(unsafe_code, reason = "what makes the slice sound is what the tests are about")]
// SAFETY: the cell holds nothing; `loom` only counts who comes by.
unsafe impl Sync for Model {}

impl Model {
    fn word(&self, at_word: usize) -> &AtomicU64 {
        let bucket = HEADER_BYTES / WORD;
        match at_word {
            at if (bucket..bucket + 2 * BUCKET_WORDS).contains(&at) => &self.buckets[at - bucket],
            EXTENT_WORD => &self.extent,
            at if at == OLD_AT / WORD => &self.blocks[0],
            at if at == NEW_AT / WORD => &self.blocks[1],
            // The pin table is at word 0: its head, and the first record's count and first slot. Or a lease clock's fact.
            0 => &self.records,
            1 => &self.limit,
            2 => &self.until,
            at if at == PIN_RECORD_WORDS + 1 => &self.used,
            at if at == PIN_RECORD_WORDS + 8 => &self.pin,
            at => panic!("word {at} is not in the model"),
        }
    }

    /// A key whose old object is published, and whose new one is placed.
    fn new() -> Arc<Self> {
        let word = |value| AtomicU64::new(value);
        let model = Self {
            buckets: (0..2 * BUCKET_WORDS).map(|_| word(0)).collect(),
            extent: word(Extent::of(1).word()),
            blocks: [word(OLD), word(0)],
            records: word(2),
            limit: word(0),
            until: word(0),
            used: word(0),
            pin: word(0),
            gate: word(0),
            slice: UnsafeCell::new(()),
        };
        let first = HEADER_BYTES / WORD + 1;
        model.store(first, Slot::new(HASH, OLD_AT, true, false).word(), Relaxed);
        Arc::new(model)
    }

    /// What the writer does for a commit: publish the new value, and take the old one out.
    fn publish(&self) {
        self.store(NEW_AT / WORD, NEW, Relaxed);
        let (position, _) = table().find_in(self, 0, HASH, |_| true).unwrap();
        Index::replace(self, position, Slot::new(HASH, NEW_AT, true, false));
    }

    /// A place where the threads may overtake each other. `loom` looks for such places only at the latest access to a
    /// word, and would have the reader's first look at the sequence come before the writer's changes each time.
    fn meet(&self) {
        self.gate.fetch_add(1, Relaxed);
    }

    fn reuse(&self) {
        self.slice.with_mut(|_| ());
        self.store(OLD_AT / WORD, REUSED, Relaxed);
    }

    fn value(&self, slot: Slot) -> (usize, u64) {
        (slot.block_at(), self.load(slot.block_at() / WORD, Relaxed))
    }
}

impl Claims for Model {
    fn claim(&self, at_word: usize, value: u64) -> bool {
        self.word(at_word).compare_exchange(0, value, Relaxed, Relaxed).is_ok()
    }

    fn fence_after_claim(&self) {
        fence(Ordering::SeqCst);
    }
}

impl Words for Model {
    fn load(&self, at_word: usize, order: Ordering) -> u64 {
        self.word(at_word).load(order)
    }

    fn store(&self, at_word: usize, value: u64, order: Ordering) {
        self.word(at_word).store(value, order);
    }

    fn raise(&self, at_word: usize, value: u64) {
        self.word(at_word).fetch_max(value, Relaxed);
    }

    fn fence(&self, order: Ordering) {
        fence(order);
    }
}

fn table() -> Table {
    // Nothing that a bucket is continued in.
    Table { buckets: 2, overflow: 0 }
}

fn whole((at, value): (usize, u64)) {
    assert_eq!(value, if at == OLD_AT { OLD } else { NEW }, "block at {at}");
}

/// What a reader copied between two looks at the sequence is what stood there, though the writer used the room again.
#[test]
fn a_copy_that_counts_is_whole() {
    loom::model(|| {
        let model = Model::new();
        let writer = Arc::clone(&model);
        let writer = thread::spawn(move || {
            writer.meet();
            writer.publish();
            writer.meet();
            writer.reuse();
        });
        model.meet();
        if let Some(ticket) = Table::begin(&*model, 0)
            && let Some((_, slot)) = table().find_in(&*model, 0, HASH, |_| true)
        {
            let copied = model.value(slot);
            if Table::unchanged(&*model, ticket) {
                whole(copied);
            }
        }
        writer.join().unwrap();
    });
}

/// A change of two words (a slot emptied here, its key put there) is seen whole or not at all.
#[test]
fn a_change_of_a_bucket_is_one() {
    loom::model(|| {
        let model = Model::new();
        let writer = Arc::clone(&model);
        let first = HEADER_BYTES / WORD + 1;
        let writer = thread::spawn(move || {
            writer.meet();
            let slot = writer.load(first, Relaxed);
            Index::change(&*writer, 0, || {
                writer.store(first, 0, Relaxed);
                writer.store(first + 1, slot, Relaxed);
            });
        });
        model.meet();
        if let Some(ticket) = Table::begin(&*model, 0) {
            let found = table().find_in(&*model, 0, HASH, |_| true).is_some();
            if Table::unchanged(&*model, ticket) {
                assert!(found, "the key is there at all times");
            }
        }
        writer.join().unwrap();
    });
}

/// A key that moves to a new bucket is in one of the two at all times, and no reader takes it for absent: neither one that
/// does not know of the new bucket, nor one that is the first to come there.
#[test]
fn a_key_that_moves_to_another_bucket_is_never_absent() {
    loom::model(|| {
        let model = Model::new();
        let writer = Arc::clone(&model);
        let writer = thread::spawn(move || {
            let geometry = Geometry::new(1, 8, 1 << 20).expect("two buckets");
            writer.meet();
            Index::recovered(&geometry, 1, Vec::new()).split(&*writer, 1, |_| MOVING);
        });
        model.meet();
        let aim = table().aim(&*model, MOVING);
        if let Some(ticket) = Table::begin(&*model, aim.home) {
            let found = table().find_in(&*model, aim.home, MOVING, |_| true);
            if Table::unchanged(&*model, ticket) && Table::is_home(&*model, aim) {
                whole(model.value(found.expect("the key is there at all times").1));
            }
        }
        writer.join().unwrap();
        let (position, _) = table().find(&*model, MOVING, |_| true).expect("the key is there in the end");
        assert_eq!(position.home, 1);
    });
}

/// A pin that was found to hold keeps the room from being used again.
#[test]
fn what_is_pinned_is_not_used_again() {
    loom::model(|| {
        let model = Model::new();
        let writer = Arc::clone(&model);
        let writer = thread::spawn(move || {
            writer.meet();
            writer.publish();
            writer.meet();
            if !PinTable::alone().is_pinned(&*writer, OLD_AT) {
                writer.reuse();
            }
        });
        model.meet();
        if let Some(ticket) = Table::begin(&*model, 0)
            && let Some((_, slot)) = table().find_in(&*model, 0, HASH, |_| true)
        {
            let pin = PinTable::alone().pin(&*model, 1, 0, slot.block_at()).unwrap();
            if Table::unchanged(&*model, ticket) {
                whole(model.value(slot));
                if slot.block_at() == OLD_AT {
                    model.slice.with(|_| ());
                }
            }
            PinTable::unpin(&*model, pin);
        }
        writer.join().unwrap();
    });
}

/// What a reader reads before it ends its pin is not what the writer stores after it found the pin ended.
#[test]
fn a_pin_that_ended_lets_go_of_nothing_unread() {
    loom::model(|| {
        let model = Model::new();
        let pin = PinTable::alone().pin(&*model, 1, 0, OLD_AT).unwrap();
        model.publish();
        let writer = Arc::clone(&model);
        let writer = thread::spawn(move || {
            if !PinTable::alone().is_pinned(&*writer, OLD_AT) {
                writer.reuse();
            }
        });
        model.slice.with(|_| ());
        PinTable::unpin(&*model, pin);
        writer.join().unwrap();
    });
}

/// The limit of one lease is never taken for another's, also where two facts have the same limit.
#[test]
fn a_lease_goes_with_its_own_limit() {
    let leases = [Time(1), Time(2)];
    loom::model(move || {
        let model = Model::new();
        lease_clock::replace(&*model, leases[0], 10);
        let writer = Arc::clone(&model);
        let writer = thread::spawn(move || {
            lease_clock::replace(&*writer, leases[1], 20);
            lease_clock::replace(&*writer, leases[0], 10);
        });
        let limits = leases.map(|until| lease_clock::limit_of(&*model, until));
        assert!(limits[0].is_none_or(|limit| limit == 10), "{limits:?}");
        assert!(limits[1].is_none_or(|limit| limit == 20), "{limits:?}");
        writer.join().unwrap();
    });
}
