//! What operations take, other than time: it moves less than times do.

use std::time::Duration;

use crate::{cpu, network::Sent};

/// What was used so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// Of the processor, by the servers.
    cpu: Option<Duration>,
    /// Of the network, by everybody.
    sent: Option<Sent>,
}

/// What an operation took; `None` for what nobody counted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct PerOperation {
    /// Processor time of the servers, in microseconds.
    pub(crate) cpu_us: Option<f64>,
    pub(crate) messages: Option<f64>,
    pub(crate) bytes: Option<f64>,
}

impl Usage {
    /// With what these processes used of the processor.
    pub(crate) fn now(pids: &[u32]) -> Self {
        Self { cpu: cpu::used(pids), sent: Sent::now() }
    }

    /// What each of `operations` took since `before`.
    pub(crate) fn per_operation(self, before: Self, operations: u64) -> PerOperation {
        if operations == 0 {
            return PerOperation::default();
        }
        let each = |all: f64| all / operations as f64;
        let cpu = self.cpu.zip(before.cpu).map(|(after, before)| after.saturating_sub(before));
        let sent = self.sent.zip(before.sent).map(|(after, before)| after.since(before));
        PerOperation {
            cpu_us: cpu.map(|cpu| each(cpu.as_secs_f64() * 1e6)),
            messages: sent.map(|sent| each(sent.messages as f64)),
            bytes: sent.map(|sent| each(sent.bytes as f64)),
        }
    }
}
