//! The embedded control plane, kept by several servers together: [`star_control::Machine`] replicated by Raft.
//!
//! A [`RaftHost`] is one member. Raft itself is the library `openraft`, log, vote and snapshot are in `redb`; both stay
//! behind the types of this crate. `DESIGN/raft.md` says what is replicated, how time is, and what survives what.
//!
//! * Pure: [`replica`] (the machine with its own time), [`image`] (a machine as a snapshot holds it).
//! * Edges: [`store`] (the disk), [`network`] (calls to other members), [`founding`] (the first start), [`serve`]
//!   (clients' calls), [`host`] (the thread around it all).

mod founding;
mod host;
mod image;
mod network;
mod options;
mod replica;
mod rpc;
mod serve;
mod store;
mod types;

pub use host::{MemberState, RaftHost, remote_client};
pub use options::{Member, RaftOptions, RaftTimes, StartError};
