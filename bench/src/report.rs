//! What came of a load.

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::record::Recorded;

/// What came of a load: the JSON of `star bench --json`.
#[derive(Debug, Serialize)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
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
}

impl Part {
    pub(crate) fn new(latency_ns: &Histogram<u64>, seconds: f64) -> Self {
        let us = |quantile: f64| latency_ns.value_at_quantile(quantile) as f64 / 1e3;
        if latency_ns.is_empty() {
            return Self::default();
        }
        Self {
            ops: latency_ns.len(),
            ops_per_s: latency_ns.len() as f64 / seconds,
            p50_us: us(0.5),
            p99_us: us(0.99),
            p999_us: us(0.999),
            mean_ns: latency_ns.mean(),
        }
    }
}
