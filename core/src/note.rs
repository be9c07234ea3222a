//! What a store notes of a star beside its objects: how far they go in the star's order. A server that starts again reads
//! it, and by it the control plane can tell whether a store that was left behind holds every write that anybody was told of.

use xxhash_rust::xxh3::xxh3_64;

use crate::ids::{Epoch, Incarnation, Seq, Version};

/// How far a star's objects in a store go. Between two epochs it is written as a whole; within one epoch only `ready`,
/// `committed`, `version_floor` and `youngest` change, and they only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Note {
    /// Which cluster this is about, by [`cluster_mark`].
    pub cluster: u64,
    /// The life of the server that wrote this.
    pub life: Incarnation,
    /// The epoch in which the star's history began.
    pub founded: Epoch,
    /// The latest epoch whose order this server took over: it has acked nothing in a later one.
    pub epoch: Epoch,
    /// The last seq of the order with which that epoch began here: whatever was committed in an earlier one is not after it.
    pub base: Seq,
    /// No ack of this server in `epoch` was for more than this.
    pub ready: Seq,
    /// Every write up to here is applied, and whatever this server told anybody of rests on writes up to here.
    pub committed: Seq,
    /// No deleted key ever had a higher version.
    pub version_floor: Version,
    /// No typed client of which a write is applied was born later.
    pub youngest: u64,
    /// The store holds nothing but what the order up to `committed` makes, perhaps with the effect of writes right after it
    /// that were committed and of which nobody was told.
    pub whole: bool,
}

/// Tells the foundation of a cluster from all others, in a note.
pub fn cluster_mark(cluster: &str) -> u64 {
    xxh3_64(cluster.as_bytes())
}
