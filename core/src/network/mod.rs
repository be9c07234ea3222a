//! Talking to servers: a [`TcpClient`] for one address, and a [`ConnectionStub`] for the servers of a cluster by name.
//!
//! A client keeps a small pool of connections; each carries many requests at a time, told apart by the ids of their
//! compact frames (see [`crate::message::frame`]).

mod client;
mod connection;
mod error;
mod outbox;
mod stub;

pub use client::{ClientOptions, TcpClient};
pub use error::NetworkError;
pub use stub::ConnectionStub;
