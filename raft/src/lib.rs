//! The embedded control plane, kept by several servers together: [`star_control::Machine`] replicated by Raft.
//!
//! A [`RaftHost`] is one member. Raft itself is the library `openraft`, log, vote and snapshot are in `redb`; both stay
//! behind the types of this crate. `DESIGN/raft.md` says what is replicated, how time is, and what survives what.
//!
//! * Pure: `replica` (the machine with its own time).
//! * Edges: `store` (the disk), `network` (calls to other members), `founding` (the first start), `serve` (clients'
//!   calls), `door` (their connections), `host` (the thread around it all).
//!
//! [`kv`] replicates objects in the same way: a key-value store to measure beside Star, with the program `raft` ([`cli`]).
//!
//! A server that is a member:
//!
//! ```no_run
//! # use std::time::Duration;
//! # use star_control::embedded::ClusterTimes;
//! # use star_raft::{Member, RaftHost, RaftOptions};
//! let servers = ["a", "b", "c"].into_iter().zip(7000..).map(|(name, port)| Member::new(name, format!("127.0.0.1:{port}")));
//! let servers: Vec<_> = servers.collect();
//! let members = Member::choose(&servers).to_vec();
//! let options = RaftOptions::new("star", "a", members, "/var/lib/star/a/control", Duration::from_millis(600));
//! let host = RaftHost::start(options)?;
//! let plane = star_control::Plane::Embedded(host.client(ClusterTimes::default()));
//! // The server hands connections that begin with a frame of kind `Control` to `host.take(stream)`.
//! # Ok::<(), star_raft::StartError>(())
//! ```

pub mod cli;
mod door;
mod founding;
mod host;
pub mod kv;
mod links;
mod network;
mod options;
mod replica;
mod rpc;
mod seat;
mod serve;
mod store;
mod types;

pub use host::{MemberState, RaftHost, remote_client};
pub use options::{Member, RaftOptions, RaftTimes, StartError};
pub use store::SlowDisk;
