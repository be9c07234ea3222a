//! The deterministic simulator: a made-up world of servers, links, clocks and clients that drives the same protocol
//! code as the real server, checks what must always hold, and judges what the clients saw.

pub mod history;
pub mod linearizable;
pub mod random;
