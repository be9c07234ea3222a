//! CRAQ: chain replication with apportioned queries (Terrace and Freedman, USENIX ATC 2009), on the core that Star
//! stands on. Writes enter at a chain's head and are committed at its tail; every node of the chain answers reads.
//!
//! * [`protocol`]: the protocol as pure code, driven by the server and by the simulator.
//! * [`CraqServer`]: one node, on threads of its own. [`Coordinator`]: what the nodes announce themselves to.
//! * [`cli`]: the processes as commands, for the program `craq` and for others that start them.
//!
//! Clients are Star's (`star::StarClient`): both systems speak the same messages to clients.

pub mod cli;
mod coordinator;
pub mod protocol;
mod server;

pub use coordinator::{Coordinator, CoordinatorOptions};
pub use server::{CraqOptions, CraqServer, StartError};
