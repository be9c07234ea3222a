//! The writer's side of the pin table: blocks that are nobody's object any more and that a reader still looks at.

use std::{collections::BTreeSet, fs::File};

use super::PinTable;
use crate::{
    block::Block,
    layout::{Geometry, PIN_RECORD_WORDS, WORD},
    lock,
    memory::Memory,
};

/// Blocks that wait for their pins to end. Bounded by the pin table: each has a pin.
#[derive(Debug)]
pub(crate) struct Limbo {
    table: PinTable,
    pins_at: usize,
    blocks: Vec<Block>,
    /// Blocks given back since the waiting ones were looked at.
    since: usize,
}

/// How many blocks are given back between two looks at those that wait, at least.
const LOOK_EVERY: usize = 64;

impl Limbo {
    pub(crate) fn new(geometry: &Geometry) -> Self {
        Self { table: PinTable::of_file(geometry), pins_at: geometry.pins_at, blocks: Vec::new(), since: 0 }
    }

    /// Blocks that wait.
    pub(crate) fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// Keeps a block that no bucket names if a pin does; false if its room may be used again.
    pub(crate) fn keeps(&mut self, memory: &Memory, block: Block) -> bool {
        self.since += 1;
        let pinned = self.table.is_pinned(memory, block.at);
        if pinned {
            self.blocks.push(block);
        }
        pinned
    }

    pub(crate) fn is_pinned(&self, memory: &Memory, block_at: usize) -> bool {
        self.table.is_pinned(memory, block_at)
    }

    /// Whether enough was given back for another look at what waits; so each look costs a write little.
    pub(crate) fn is_due(&self) -> bool {
        !self.blocks.is_empty() && self.since >= LOOK_EVERY.max(self.blocks.len())
    }

    /// The blocks that nobody pins any more. Asks the system about each reader that holds up a block, once per call.
    pub(crate) fn released(&mut self, memory: &Memory, file: &File) -> Vec<Block> {
        self.since = 0;
        if self.blocks.is_empty() {
            return Vec::new();
        }
        self.bury(memory, file);
        let pinned: BTreeSet<usize> = self.table.all(memory).into_iter().map(|(_, block_at)| block_at).collect();
        self.blocks.extract_if(.., |block| !pinned.contains(&block.at)).collect()
    }

    /// After a crash of the writer: the pins of readers that live on, on blocks that no bucket names any more. `adopt`
    /// says which blocks those are, and takes their room.
    pub(crate) fn recover(&mut self, memory: &Memory, file: &File, mut adopt: impl FnMut(usize) -> Option<Block>) {
        self.clear_dead(memory, file, |_| true);
        let pinned: BTreeSet<usize> = self.table.all(memory).into_iter().map(|(_, block_at)| block_at).collect();
        self.blocks = pinned.into_iter().filter_map(&mut adopt).collect();
    }

    /// Ends the pins of dead readers that a waiting block waits for.
    fn bury(&self, memory: &Memory, file: &File) {
        let waiting: BTreeSet<usize> = self.blocks.iter().map(|block| block.at).collect();
        self.clear_dead(memory, file, |block_at| waiting.contains(&block_at));
    }

    fn clear_dead(&self, memory: &Memory, file: &File, matters: impl Fn(usize) -> bool) {
        let records: BTreeSet<usize> =
            self.table.all(memory).into_iter().filter(|(_, at)| matters(*at)).map(|(record, _)| record).collect();
        for record in records {
            let byte = self.pins_at + record * PIN_RECORD_WORDS * WORD;
            // While this lock is held nobody can claim the record; where the system cannot say, its owner lives.
            if lock::try_lock(file, byte).unwrap_or(false) {
                self.table.clear(memory, record);
                let _ = lock::unlock(file, byte);
            }
        }
    }
}
