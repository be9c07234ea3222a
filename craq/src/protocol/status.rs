//! What a server says of itself, for people and scripts.

use serde::Serialize;
use serde_json::json;
use star_core::store::Store;

use super::{node::CraqNode, replica::Replica};

/// What was done since the server started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Reads answered at once.
    pub reads_clean: u64,
    /// Reads that waited for the tail.
    pub reads_asked: u64,
    /// Questions to tails.
    pub questions: u64,
    /// Writes given their place here, as head.
    pub ordered: u64,
    /// Writes applied here.
    pub committed: u64,
    /// Times at which something was said again because nothing moved.
    pub repairs: u64,
    /// Times at which the store had no room.
    pub no_space: u64,
    /// Messages of an older epoch.
    pub ignored_old_epoch: u64,
    /// Messages of servers that are not of the view.
    pub ignored_stranger: u64,
}

impl<S: Store> CraqNode<S> {
    /// What was done since the server started.
    pub fn counters(&self) -> Counters {
        self.shared.counters
    }

    /// This server's status as JSON text.
    pub(crate) fn status(&self) -> String {
        let lease_ms = self.shared.lease_until.since(self.shared.now).as_millis() as u64;
        let stars: Vec<_> = self
            .replicas
            .iter()
            .map(|replica| {
                json!({
                    "id": replica.star,
                    "epoch": replica.view.epoch,
                    "installed": replica.installed,
                    "serving": replica.serves(self.config.me),
                    "chain": replica.chain.order(),
                    "leader": replica.view.leader,
                    "committed": replica.committed,
                    "ready": replica.ready(),
                    "buffered": replica.own.len(),
                    "dirty": replica.dirty.len(),
                    "sessions": replica.requests.len(),
                })
            })
            .collect();
        json!({
            "name": self.config.name,
            "id": self.config.me,
            "incarnation": self.config.incarnation,
            "lease_ms": lease_ms,
            "store": self.store.usage(),
            "buffer_bytes": self.shared.own_bytes,
            "counters": self.shared.counters,
            "stars": stars,
            "cluster": self.cluster.as_deref(),
        })
        .to_string()
    }

    /// Whether nothing is unfinished at this server.
    pub fn is_idle(&self) -> bool {
        self.replicas.iter().all(Replica::is_idle) && self.lists.is_empty() && self.shared.gathers.is_empty()
    }
}
