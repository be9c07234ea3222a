//! What clients count while a load runs.

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;

use crate::record::Recorded;

/// What was counted so far.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) read: Histogram<u64>,
    pub(crate) write: Histogram<u64>,
    pub(crate) mapped_reads: u64,
    pub(crate) error_codes: BTreeMap<String, u64>,
    pub(crate) history: Vec<Recorded>,
    /// All that was done, the warm-up included.
    pub(crate) ops: u64,
    /// What the servers had used of the processor when counting began, and when it ended.
    pub(crate) cpu: Vec<Duration>,
}

impl Tally {
    pub(crate) fn new() -> Self {
        // Three digits: an error of at most 0.1 %; up to a minute.
        let histogram = || Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("bounds that the crate takes");
        Self {
            read: histogram(),
            write: histogram(),
            mapped_reads: 0,
            error_codes: BTreeMap::new(),
            history: Vec::new(),
            ops: 0,
            cpu: Vec::new(),
        }
    }
}
