//! CRAQ: chain replication with apportioned queries (Terrace and Freedman, USENIX ATC 2009), on the core that Star
//! stands on. Writes enter at a chain's head and are committed at its tail; every node of the chain answers reads.
//!
//! * [`protocol`]: the protocol as pure code, driven by the server and by the simulator.

pub mod protocol;
