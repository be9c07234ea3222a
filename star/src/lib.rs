//! Star replication: an object store in which any server takes a SET, one leader per star assigns versions, and any
//! server answers a GET, with every history linearizable.
//!
//! * [`StarClient`] (and [`BlockingClient`]): set, get, delete, compare-and-set, list, create and seal,
//!   subscribe.
//! * [`StarServer`]: one server; [`StarCluster`]: several on this machine.
//! * [`protocol`]: the protocol as pure code, driven by the server and by the simulator.

pub mod client;
mod cluster;
pub mod protocol;
mod server;

pub use client::{
    BlockingClient, CasOutcome, ClientError, Event, Object, ObjectRef, Options, Page, Room, StarClient, Subscription,
    Transport, Value,
};
pub use cluster::{LocalError, StarCluster};
pub use server::{ServerOptions, StarServer, StartError, control_plane};
pub use star_host::ControlOptions;
