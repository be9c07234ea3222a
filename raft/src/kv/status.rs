//! What a server says of itself.

use std::sync::OnceLock;

use openraft::{RaftMetrics, ServerState};
use tokio::sync::watch;

use super::state::SharedMachine;
use crate::types::{Site, StoreId};

/// What is known once Raft runs.
#[derive(Debug, Default)]
pub(crate) struct Status(OnceLock<Source>);

#[derive(Debug)]
struct Source {
    name: String,
    metrics: watch::Receiver<RaftMetrics<StoreId, Site>>,
    machine: SharedMachine,
}

impl Status {
    /// Only the first call counts.
    pub(crate) fn begin(
        &self,
        name: String,
        metrics: watch::Receiver<RaftMetrics<StoreId, Site>>,
        machine: SharedMachine,
    ) {
        // There is one of them, and it begins once.
        let _ = self.0.set(Source { name, metrics, machine });
    }

    /// As JSON.
    pub(crate) fn json(&self) -> String {
        let Some(source) = self.0.get() else { return "{}".to_owned() };
        let metrics = source.metrics.borrow().clone();
        let role = match metrics.state {
            ServerState::Leader => "leader",
            ServerState::Candidate => "candidate",
            ServerState::Follower | ServerState::Learner => "follower",
            ServerState::Shutdown => "stopped",
        };
        let membership = metrics.membership_config.membership();
        let leader = metrics.current_leader.and_then(|leader| membership.get_node(&leader));
        serde_json::json!({
            "name": source.name,
            "role": role,
            "term": metrics.current_term,
            "leader": leader.map(|site| site.addr.as_str()),
            "log": metrics.last_log_index,
            "applied": source.machine.applied().map(|applied| applied.index),
            "objects": source.machine.look(|machine| machine.objects().count()),
        })
        .to_string()
    }
}
