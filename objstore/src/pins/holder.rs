//! A reader's side of the pin table.
#![allow(unsafe_code, reason = "the slots of the fast way are kept as an address: see `Holder::quick`")]

use std::{
    cell::Cell,
    fs::{File, OpenOptions},
    path::Path,
    ptr::{self, NonNull},
    sync::{
        Mutex,
        atomic::{
            AtomicPtr, AtomicU16, AtomicU64, AtomicUsize,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
};

use super::{PinTable, QUICK, SLOTS};
use crate::{
    layout::{Geometry, PIN_RECORD_WORDS, PIN_RECORDS, PINS_BYTES, WORD},
    lock,
    memory::Memory,
};

/// Records that one reader may claim: room for 896 pins.
const RECORDS_MAX: usize = 16;

/// The records of one reader. Claimed when they are needed, given back when it is dropped or its process ends.
#[derive(Debug)]
pub(crate) struct Holder {
    file: File,
    /// The pin table, the only part of the file that a reader may write.
    memory: Memory,
    table: PinTable,
    pins_at: usize,
    records: [AtomicU16; RECORDS_MAX],
    claimed: AtomicUsize,
    /// The first slots of the first record; null before there is one.
    quick: AtomicPtr<[AtomicU64; QUICK]>,
    claiming: Mutex<()>,
}

impl Holder {
    /// None where the file may only be read: then nothing can be pinned, and objects are copied.
    pub(crate) fn open(path: &Path, same: &File, geometry: &Geometry) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;
        let file = OpenOptions::new().read(true).write(true).open(path).ok()?;
        let (ours, theirs) = (file.metadata().ok()?, same.metadata().ok()?);
        // Another file may have taken the place since.
        if (ours.dev(), ours.ino()) != (theirs.dev(), theirs.ino()) {
            return None;
        }
        let memory = Memory::writable_part(&file, geometry.pins_at, PINS_BYTES).ok()?;
        let (records, claimed, quick) = (Default::default(), AtomicUsize::new(0), AtomicPtr::default());
        let (table, pins_at, claiming) = (PinTable::alone(), geometry.pins_at, Mutex::new(()));
        Some(Self { file, memory, table, pins_at, records, claimed, quick, claiming })
    }

    /// Pins a block; None if there is no room for another pin. See [`PinTable::pin`] for what it takes to hold. Returns the
    /// pin's word: the pin ends when a zero is stored there, with Release.
    pub(crate) fn pin(&self, block_at: usize) -> Option<NonNull<AtomicU64>> {
        let from = own_number();
        let mut tried = 0;
        loop {
            let claimed = self.claimed.load(Acquire);
            for record in &self.records[tried..claimed] {
                let record = usize::from(record.load(Relaxed));
                if let Some(at_word) = self.table.pin(&self.memory, record, from, block_at) {
                    return Some(NonNull::from(&self.memory.pins()[at_word]));
                }
            }
            tried = claimed;
            if !self.claim(claimed) {
                return None;
            }
        }
    }

    /// Pins a block in this thread's own slot of the first record, if that is free.
    #[inline(always)]
    pub(crate) fn pin_at_once(&self, block_at: usize) -> Option<NonNull<AtomicU64>> {
        // SAFETY: part of the mapping of `self`, which was found to have these words; all access to them is atomic.
        let quick = unsafe { self.quick.load(Acquire).as_ref() }?;
        let own = own_number() % QUICK;
        PinTable::pin_at(quick.as_slice(), own, block_at).then(|| NonNull::from(&quick[own]))
    }

    /// Whether a pin of this reader stands. Nobody may be about to pin more.
    pub(crate) fn has_pins(&self) -> bool {
        let claimed = &self.records[..self.claimed.load(Acquire)];
        claimed.iter().any(|record| self.table.has_pins(&self.memory, usize::from(record.load(Relaxed))))
    }

    /// Claims one more record than `known`, if nobody else did; false if there is none.
    #[cold]
    fn claim(&self, known: usize) -> bool {
        let _claiming = self.claiming.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if self.claimed.load(Relaxed) > known {
            return true;
        }
        if known == RECORDS_MAX {
            return false;
        }
        let ours = |record: usize| self.records[..known].iter().any(|one| usize::from(one.load(Relaxed)) == record);
        // A lock that this open file has already is granted again.
        let free = (1..PIN_RECORDS)
            .find(|record| !ours(*record) && lock::try_lock(&self.file, self.byte_of(*record)).unwrap_or(false));
        let Some(record) = free else { return false };
        self.table.take_over(&self.memory, record, std::process::id());
        self.records[known].store(record as u16, Relaxed);
        if known == 0 {
            let first: &[AtomicU64; QUICK] =
                self.memory.pins()[self.table.first_slot(record)..].first_chunk().expect("slots");
            self.quick.store(ptr::from_ref(first).cast_mut(), Release);
        }
        self.claimed.store(known + 1, Release);
        true
    }

    /// What the system does when the process ends.
    #[cfg(test)]
    pub(crate) fn die(&self) {
        for record in &self.records[..self.claimed.load(Relaxed)] {
            lock::unlock(&self.file, self.byte_of(usize::from(record.load(Relaxed)))).unwrap();
        }
    }

    fn byte_of(&self, record: usize) -> usize {
        self.pins_at + record * PIN_RECORD_WORDS * WORD
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // By name: a process that was forked meanwhile has the same open file, and would keep the locks.
        for record in &self.records[..*self.claimed.get_mut()] {
            let _ = lock::unlock(&self.file, self.byte_of(usize::from(record.load(Relaxed))));
        }
    }
}

/// A small number of this thread, so that threads begin at different slots.
#[inline]
fn own_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    // A thread that ends has no such place any more.
    OWN.try_with(|own| {
        if own.get() == usize::MAX {
            own.set(NEXT.fetch_add(1, Relaxed) % SLOTS);
        }
        own.get()
    })
    .unwrap_or(0)
}
