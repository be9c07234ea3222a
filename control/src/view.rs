//! What the control plane keeps: who is in the cluster, and the view of every star.

use serde::{Deserialize, Serialize};
use star_core::ids::{Epoch, Incarnation, ServerId, StarId};

/// The state of the cluster, as one document under one revision of the control plane.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterState {
    /// The format of this document.
    pub format: u32,
    /// Names the cluster; made when it is, so that two clusters never mix.
    pub cluster: String,
    /// Servers that ever joined, in the order of their ids.
    pub servers: Vec<ServerRecord>,
    /// The view of each star, in the order of their ids; all of them from the first document on.
    pub stars: Vec<View>,
}

/// A server of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerRecord {
    /// Its number, for the whole life of the cluster.
    pub id: ServerId,
    /// Its name, unique in the cluster.
    pub name: String,
    /// Where it listens: `host:port`.
    pub addr: String,
    /// Its latest life.
    pub incarnation: Incarnation,
    /// Its process, for people.
    pub pid: u32,
    /// The path of its mapped store, for processes on the same machine.
    pub store: Option<String>,
}

/// Who replicates a star, in one epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// The star.
    pub star: StarId,
    /// Grows with every change of the view; 0 as long as there is none.
    pub epoch: Epoch,
    /// The epoch in which the star's history began: the first view, or the one after all of its objects were lost.
    #[serde(default)]
    pub founded: Epoch,
    /// The servers whose acks count, the leader and the joining ones among them. Empty before the first view.
    pub members: Vec<ServerId>,
    /// The member that orders writes; never a joining one.
    pub leader: ServerId,
    /// Members that answer no read until they have caught up with the base of this view.
    pub joining: Vec<ServerId>,
    /// Servers that are catching up with the star; they ask the members for what they lack.
    pub learners: Vec<ServerId>,
}

impl View {
    /// Whether there is a view at all.
    pub fn exists(&self) -> bool {
        self.epoch > Epoch(0)
    }

    /// Whether acks of this server count.
    pub fn is_member(&self, server: ServerId) -> bool {
        self.members.contains(&server)
    }

    /// The members that hold every committed write: those that are not joining.
    pub fn serving(&self) -> impl Iterator<Item = ServerId> + '_ {
        self.members.iter().copied().filter(|member| !self.joining.contains(member))
    }
}

impl ClusterState {
    /// The format that this version writes.
    pub const FORMAT: u32 = 1;

    /// The cluster's name in the configuration; [`Self::cluster`] tells its foundations apart as well.
    pub fn name(&self) -> &str {
        self.cluster.rsplit_once('-').map_or("", |(name, _)| name)
    }

    /// The server of this name.
    pub fn server_named(&self, name: &str) -> Option<&ServerRecord> {
        self.servers.iter().find(|server| server.name == name)
    }

    /// The server with this id.
    pub fn server(&self, id: ServerId) -> Option<&ServerRecord> {
        self.servers.iter().find(|server| server.id == id)
    }
}
