//! What a server says of itself, for people and scripts.

use serde::Serialize;
use serde_json::json;
use star_core::{ids::ServerId, store::Store};

use super::node::StarNode;

/// What was done since the server started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Reads answered at once.
    pub reads_clean: u64,
    /// Reads that met a write under way.
    pub reads_dirty: u64,
    /// Writes given their place here, as leader.
    pub stamped: u64,
    /// Writes applied here.
    pub committed: u64,
    /// Times at which something was said again because nothing moved.
    pub repairs: u64,
    /// Writes sent again.
    pub sent_again: u64,
    /// Times at which values were asked for.
    pub fetches: u64,
    /// Times at which the store had no room.
    pub no_space: u64,
    /// Objects of an earlier time that need not be sent when this server caught up.
    pub objects_kept: u64,
    /// Objects that were sent to this server when it caught up.
    pub objects_taken: u64,
    /// Objects of an earlier time that were dropped because the star began anew.
    pub objects_dropped: u64,
    /// Stars that went on with what was in this server's store, after all their holders had ended.
    pub resumed: u64,
    /// Stars that were to go on with this server's store, and could not.
    pub not_resumed: u64,
    /// Links to this server that were found to be slow.
    pub slow_links_found: u64,
    /// Writes of this server that went another way than they would have, because of slow links.
    pub went_around: u64,
    /// Messages of an older epoch.
    pub ignored_old_epoch: u64,
    /// Messages of servers that are not of the view.
    pub ignored_stranger: u64,
}

/// What a server knows of its control plane, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlaneStatus {
    /// `embedded` or `redis`.
    pub backend: &'static str,
    /// What this server has to do with it.
    pub role: PlaneRole,
    /// The name of the server that leads an embedded one, as far as this server knows.
    pub leader: Option<String>,
    /// What is wrong, and what to do; nothing if all is well.
    pub note: Option<String>,
}

/// What a server has to do with the control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PlaneRole {
    /// It asks it.
    Client,
    /// It keeps it, with others.
    Member,
    /// It will keep it, once all members were there.
    Founding,
    /// It should keep it, but has lost its part of it.
    Stranger,
    /// It kept it, until its part of it failed.
    Failed,
}

impl<S: Store> StarNode<S> {
    /// What was done since the server started.
    pub fn counters(&self) -> Counters {
        self.shared.counters
    }

    /// Whose values go around the links to this server, because those are slow.
    pub fn slow_links(&self) -> Vec<ServerId> {
        self.shared.slow.to(self.config.me).collect()
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
                    "committed": replica.committed,
                    "ready": replica.ready,
                    "buffered": replica.buffer.len(),
                    "dirty": replica.dirty.len(),
                    "sessions": replica.sessions.len(),
                    "leader": replica.view.leader,
                })
            })
            .collect();
        let usage = self.store.usage();
        json!({
            "name": self.config.name,
            "id": self.config.me,
            "incarnation": self.config.incarnation,
            "lease_ms": lease_ms,
            "store": usage,
            "buffer_bytes": self.shared.own_bytes,
            "counters": self.shared.counters,
            "stars": stars,
            "slow_links_from": self.slow_links(),
            "plane": self.plane,
            "cluster": self.shared.cluster.as_deref(),
        })
        .to_string()
    }

    /// Whether nothing is unfinished at this server.
    pub fn is_idle(&self) -> bool {
        self.replicas.iter().all(super::replica::Replica::is_idle)
            && self.lists.is_empty()
            && self.shared.gathers.is_empty()
    }
}
