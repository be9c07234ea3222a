//! The Star protocol as pure code: no clock, socket, task, thread or random source.
//!
//! [`StarNode`] is one server: it holds a [`replica::Replica`] for each star, the store, and the lease. The modules
//! follow the life of a write: `propagate` brings it to every member, `leader` gives it its place and version,
//! `commit` counts who has it and applies it, `read` answers from what was applied, `takeover` carries all of this over
//! a change of view, and `repair` heals what a broken link lost. The whole design is in `DESIGN/star.md`.

mod acks;
mod catch_up;
mod commit;
pub mod config;
mod context;
pub mod invariants;
mod kept;
mod leader;
mod leave;
mod list;
mod log;
pub mod message;
mod node;
mod pace;
mod propagate;
mod read;
mod recent;
mod repair;
pub mod replica;
mod resume;
mod ring;
mod sessions;
mod slow;
mod sounding;
mod status;
mod takeover;

pub use config::{Bug, DirtyReads, LinkWatch, NodeConfig, Route};
pub use message::{Body, Message, Operation, Outcome, PassOn, Stamp, WriteHead, WriteId};
pub use node::{Control, StarNode, claims};
pub use status::{Counters, PlaneRole, PlaneStatus};
