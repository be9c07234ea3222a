//! Operations as they are recorded for the linearizability check.

/// What an operation did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Wrote this value.
    Write(String),
    /// Read; the value that came back, if the key had one.
    Read(Option<String>),
}

/// One operation of the load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The client (connection).
    pub client: u32,
    /// The key.
    pub key: u64,
    /// What it did.
    pub operation: Operation,
    /// The version that was written or read.
    pub version: Option<u64>,
    /// When it was called, in nanoseconds since the load began.
    pub call_ns: u64,
    /// When it returned; `None` where the outcome is unknown.
    pub return_ns: Option<u64>,
    /// Whether it was done.
    pub ok: bool,
}

impl Recorded {
    /// The text of the key.
    pub fn key_text(&self) -> String {
        crate::workload::key_text(self.key)
    }
}
