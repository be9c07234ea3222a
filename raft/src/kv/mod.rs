//! A key-value store on Raft: every server has all objects, the leader orders the writes and confirms with a majority
//! that it leads before it answers reads, so that both are linearizable. To be measured beside Star; `DESIGN/raft_kv.md`.
//!
//! Servers take the messages of Star's clients. Disk, network and founding are those of the control plane.
//!
//! * Pure: `machine`, `sessions` (what is replicated), `literal` (keys and values as people write them).
//! * Edges: `state` (the machine as the library drives it), `desk` (clients' requests of a turn), `worker` (Raft),
//!   `server` (the thread around it all), `client`.

mod client;
mod desk;
mod literal;
mod machine;
mod server;
mod sessions;
mod state;
mod status;
mod worker;

pub use client::{KvClient, KvClientError};
pub use literal::literal;
pub use server::{KvError, KvOptions, KvServer, SERVERS_MAX};

/// The longest key and value, in bytes: an entry of the log has to fit a frame between servers.
const KEY_BYTES_MAX: usize = 1024;
const VALUE_BYTES_MAX: usize = 1 << 20;
