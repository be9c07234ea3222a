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
    /// How the rate was kept, in an open loop; `None` in a closed one.
    pub open_loop: Option<OpenLoop>,
    /// Reads.
    pub read: Part,
    /// Writes.
    pub write: Part,
    /// Reads answered from a mapped store, without a message (part of `read`).
    pub mapped_reads: u64,
    /// Processor time of all servers together for each operation, in microseconds; `None` if their processes are not
    /// known.
    pub cpu_us_per_op: Option<f64>,
    /// Messages for each operation: segments of TCP with data in them that anybody on the machine sent, those of the load
    /// as well; `None` if the servers' processes are not known, or nobody counts.
    pub messages_per_op: Option<f64>,
    /// Bytes that were sent for each operation, all heads with them; `None` as above.
    pub bytes_per_op: Option<f64>,
    /// The refusals by their code.
    pub error_codes: std::collections::BTreeMap<String, u64>,
    /// Every operation, if they were recorded.
    #[serde(skip)]
    pub history: Vec<Recorded>,
}

/// How a load at a fixed rate went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct OpenLoop {
    /// Operations that were due each second.
    pub wanted_per_s: f64,
    /// Operations that were due in the time that counts.
    pub wanted: u64,
    /// Those of them that were not done: refused, not answered until 5 s after the end, or not even sent before it, because
    /// too many were under way. Except for those that were refused, the latencies contain them with the time that they had
    /// waited: they would have taken no less.
    pub not_done: u64,
    /// How much later than it was due an operation was begun although its client had room for it, in the median, in
    /// microseconds: what this load generator is late by itself. The latencies contain it.
    pub late_p50_us: f64,
    /// 99 % were begun no later than this after they were due, in microseconds.
    pub late_p99_us: f64,
}

impl OpenLoop {
    /// Whether less than a hundredth of what was due was left undone, of so many operations that were done. If not, latencies
    /// say how long the load was more than how fast the system is.
    pub fn kept_up(&self, done: u64) -> bool {
        self.not_done * 100 <= self.not_done + done
    }
}

/// Reads or writes.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Part {
    /// Operations done.
    pub ops: u64,
    /// Operations per second.
    pub ops_per_s: f64,
    /// Median latency, in microseconds. Latencies count from when an operation was begun; in an open loop from when it was
    /// due.
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
