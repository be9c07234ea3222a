//! CRAQ: chain replication with apportioned queries (Terrace and Freedman, USENIX ATC 2009), on the core that Star
//! stands on. Writes enter at a chain's head and are committed at its tail; every node of the chain answers reads.
//!
//! * [`protocol`]: the protocol as pure code, driven by the server and by the simulator.
//! * [`CraqServer`]: one node, on threads of its own. [`Coordinator`]: what the nodes announce themselves to.
//!
//! Clients are Star's (`star::StarClient`): both systems speak the same messages to clients.

mod coordinator;
pub mod protocol;
mod server;

pub use coordinator::{Coordinator, CoordinatorOptions};
pub use server::{ControlOptions, CraqOptions, CraqServer, StartError};
