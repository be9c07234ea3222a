//! What the control plane keeps: who is in the cluster, and the view of every star.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use star_core::{
    ids::{Epoch, Incarnation, Seq, ServerId, StarId},
    note::Note,
};

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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Whether it is to be in views. The planner goes by it; see `DESIGN/planner.md`.
    #[serde(default, skip_serializing_if = "Standing::is_active")]
    pub standing: Standing,
    /// The living servers that it says it cannot reach. Only what a server that lives says of one that lives counts.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub unreachable: BTreeSet<ServerId>,
    /// What its store held of each star when this life began. A star's is dropped as soon as the server is in its view again:
    /// from then on the store changes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<Claim>,
}

/// What a server's store held of a star when the server started: see [`Note`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The star.
    #[serde(rename = "s")]
    pub star: StarId,
    /// Which cluster the store was of; only looked at when the claim is made.
    #[serde(skip)]
    pub cluster: u64,
    /// The life that left it.
    #[serde(rename = "l")]
    pub life: Incarnation,
    /// See [`Note::founded`].
    #[serde(rename = "f")]
    pub founded: Epoch,
    /// See [`Note::epoch`].
    #[serde(rename = "e")]
    pub epoch: Epoch,
    /// See [`Note::base`].
    #[serde(rename = "b")]
    pub base: Seq,
    /// See [`Note::ready`].
    #[serde(rename = "r")]
    pub ready: Seq,
    /// See [`Note::committed`].
    #[serde(rename = "c")]
    pub committed: Seq,
    /// See [`Note::whole`].
    #[serde(rename = "w")]
    pub whole: bool,
}

impl Claim {
    /// What a note says of a star.
    pub fn new(star: StarId, note: &Note) -> Self {
        let Note { cluster, life, founded, epoch, base, ready, committed, whole, .. } = *note;
        Self { star, cluster, life, founded, epoch, base, ready, committed, whole }
    }
}

/// Who was in a view that is over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Past {
    /// Its epoch.
    #[serde(rename = "e")]
    pub epoch: Epoch,
    /// Its members.
    #[serde(rename = "m")]
    pub members: Vec<ServerId>,
}

/// From where a star went on with what one server's store held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Resumed {
    /// The first epoch after that.
    pub epoch: Epoch,
    /// What the store held: everything that anybody was told of before that epoch is at or before this.
    pub seq: Seq,
}

/// What a server is to be in the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// A server like any other.
    #[default]
    Active,
    /// It is about to end and leaves all views at once. Its next life is active again.
    Stopping,
    /// It leaves its views as others take its place in them, and comes into none. Its next life is draining too.
    Draining,
    /// It was forgotten: nobody links to it, and its number stays taken. Its next life is active again.
    Removed,
}

impl Standing {
    /// Whether it may come into views and stay in them.
    pub fn is_active(&self) -> bool {
        *self == Self::Active
    }
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
    /// Members on their way out: their acks count, but from when they hear of it they answer no read, and then they take
    /// themselves out of the view.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leaving: Vec<ServerId>,
    /// Servers that are catching up with the star; they ask the members for what they lack.
    pub learners: Vec<ServerId>,
    /// When the star went on last with what a store held after all its holders had ended, if ever since it was founded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed: Option<Resumed>,
    /// The latest views before this one, in order; none is missing between the first of them and this.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub past: Vec<Past>,
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

    /// The members that may answer reads: those that are neither joining nor leaving.
    pub fn serving(&self) -> impl Iterator<Item = ServerId> + '_ {
        self.holders().filter(|member| !self.leaving.contains(member))
    }

    /// The members that hold every committed write: those that are not joining.
    pub fn holders(&self) -> impl Iterator<Item = ServerId> + '_ {
        self.members.iter().copied().filter(|member| !self.joining.contains(member))
    }

    /// Whether nobody is on the way in or out.
    pub fn is_settled(&self) -> bool {
        self.joining.is_empty() && self.leaving.is_empty() && self.learners.is_empty()
    }
}

impl ClusterState {
    /// The format that this version writes.
    pub const FORMAT: u32 = 3;

    /// The cluster's name in the configuration; [`Self::cluster`] tells its foundations apart as well.
    pub fn name(&self) -> &str {
        self.cluster.rsplit_once('-').map_or("", |(name, _)| name)
    }

    /// The server of this name.
    pub fn server_named(&self, name: &str) -> Option<&ServerRecord> {
        self.servers.iter().find(|server| server.name == name)
    }

    /// Whether two living servers reach each other, by the word of both.
    pub fn reach(&self, one: ServerId, other: ServerId) -> bool {
        let cannot = |from, to| self.server(from).is_some_and(|server| server.unreachable.contains(&to));
        !cannot(one, other) && !cannot(other, one)
    }

    /// Whether a server may come into views and stay in them.
    pub fn is_active(&self, id: ServerId) -> bool {
        self.server(id).is_some_and(|server| server.standing.is_active())
    }

    /// The names of servers, for people: `b, c`.
    pub fn names(&self, ids: impl Iterator<Item = ServerId>) -> String {
        let names: Vec<&str> = ids.filter_map(|id| self.server(id)).map(|server| server.name.as_str()).collect();
        names.join(", ")
    }

    /// The server with this id.
    pub fn server(&self, id: ServerId) -> Option<&ServerRecord> {
        self.servers.get(usize::from(id.0)).filter(|server| server.id == id)
    }
}
