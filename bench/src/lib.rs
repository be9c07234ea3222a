//! The load generator: closed or open loops of requests over raw connections, with histograms and a recorded history.
//!
//! It speaks the wire format itself, on one thread, so that it takes as little as possible from the servers that it
//! measures on the same machine.

mod client;
mod connection;
mod cpu;
mod dialect;
mod fill;
mod network;
mod pace;
mod record;
mod report;
mod run;
mod tally;
mod usage;
mod workload;

pub use dialect::System;
pub use record::{Operation, Recorded};
pub use report::{OpenLoop, Part, Percentile, Report};
pub use run::{Progress, run};
pub use workload::{Distribution, Options, Target};

/// Why a load could not be run to its end.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A server cannot be reached, or broke the connection.
    #[error("the connection to {addr} failed: {source}; is the server running? `star status` shows it")]
    Connection {
        /// The server.
        addr: String,
        /// Why.
        source: std::io::Error,
    },
    /// What came back is not an answer.
    #[error("{addr} sent something that is not an answer: {why}")]
    Answer {
        /// The server.
        addr: String,
        /// What is wrong with it.
        why: String,
    },
    /// The system has no timer for the open loop.
    #[error("operations cannot be timed: {0}")]
    Timer(std::io::Error),
    /// The options make no sense.
    #[error("{0}")]
    Options(String),
}
