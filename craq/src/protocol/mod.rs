//! CRAQ as pure code: no clock, socket, task, thread or random source.
//!
//! [`CraqNode`] is one server: it holds a [`replica::Replica`] for each star, which is a chain here. The modules follow
//! the life of a write: `forward` brings it to the head, `head` gives it its place and version, `pass` sends it down the
//! chain, `commit` applies what the tail has, `read` answers at any node, `takeover` carries all of this over a change of
//! view, `catch_up` brings a server in at the tail, and `repair` heals what a broken link lost. The whole design is in
//! `DESIGN/craq.md`; sections (§) are those of the paper.

mod catch_up;
pub mod chain;
mod commit;
pub mod config;
mod context;
mod forward;
mod head;
pub mod invariants;
mod leave;
mod list;
mod log;
pub mod message;
mod node;
mod pass;
mod read;
mod repair;
pub mod replica;
mod requests;
mod status;
mod takeover;

pub use chain::Chain;
pub use config::{Acks, Bug, NodeConfig, Reads};
pub use message::{Body, Entry, Message, Operation, Outcome, WriteId};
pub use node::{Control, CraqNode};
pub use status::Counters;
