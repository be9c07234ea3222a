//! The deterministic simulator: a made-up world of servers, links, clocks and clients that drives the same protocol
//! code as the real server, checks what must always hold, and judges what the clients saw.
//!
//! * [`history`]: what clients asked and were told, in files and in memory.
//! * [`linearizable`]: two checkers for histories.
//! * [`world`]: the world. [`subject`]: what it needs of a protocol. [`star`]: the Star protocol in it; [`craq`]: CRAQ.
//! * [`rates`]: what a protocol does where links or processors limit.
//! * [`campaign`]: what a seed stands for, and one again. [`fleet`]: many seeds on all cores.

pub mod campaign;
pub mod craq;
pub mod fleet;
pub mod history;
mod invariants;
pub mod linearizable;
pub mod random;
pub mod rates;
pub mod star;
pub mod subject;
pub mod world;
