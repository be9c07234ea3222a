//! Clients, stubs and clusters on real sockets.

mod client;
mod cluster;
mod stub;
mod support;
