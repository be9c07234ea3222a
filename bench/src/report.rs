//! What came of a load.

use serde::Serialize;

use crate::record::Recorded;

/// What came of a load: the JSON of `star bench --json`.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// The system that was measured.
    pub system: String,
    /// Servers of the system, as far as they are known: at least those that the load went to.
    pub servers: usize,
    /// Seconds counted.
    pub seconds: f64,
    /// Requests refused or lost.
    pub errors: u64,
    /// Reads.
    pub read: Part,
    /// Writes.
    pub write: Part,
    /// Reads answered from a mapped store, without a message (part of `read`).
    pub mapped_reads: u64,
    /// Processor time of all servers together for each operation, in microseconds; `None` if their processes are not
    /// known.
    pub cpu_us_per_op: Option<f64>,
    /// The refusals by their code.
    pub error_codes: std::collections::BTreeMap<String, u64>,
    /// Every operation, if they were recorded.
    #[serde(skip)]
    pub history: Vec<Recorded>,
}

/// Reads or writes.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Part {
    /// Operations done.
    pub ops: u64,
    /// Operations per second.
    pub ops_per_s: f64,
    /// Median latency, in microseconds.
    pub p50_us: f64,
    /// 99 % were no slower, in microseconds.
    pub p99_us: f64,
    /// 99.9 % were no slower, in microseconds.
    pub p999_us: f64,
    /// Mean latency, in nanoseconds.
    pub mean_ns: f64,
    /// The latency at each of [`Self::PERCENTS`], for a plot; empty if there were no operations.
    pub percentiles: Vec<Percentile>,
}

/// A point of the distribution of latencies.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Percentile {
    /// So many per cent were no slower.
    pub percent: f64,
    /// Their latency at most, in microseconds.
    pub us: f64,
}

impl Part {
    /// The per cents of [`Self::percentiles`], from the fastest operation to the slowest.
    pub const PERCENTS: [f64; 11] = [0.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.95, 99.99, 100.0];
}
