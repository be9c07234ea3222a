//! What every replication protocol of this project stands on: identities, the pure [`protocol::Protocol`] trait, the
//! [`store::Store`] it keeps its objects in, messages and their two codecs, the server that drives a protocol, and the
//! clients that talk to it.
//!
//! Nothing here knows which protocol runs: Star, CRAQ and Raft plug in from above.

pub mod admission;
pub mod cluster;
pub mod collections;
pub mod config;
pub mod error;
pub mod gather;
pub mod ids;
pub mod key;
pub mod lists;
pub mod logger;
pub mod message;
pub mod network;
pub mod note;
pub mod protocol;
pub mod requests;
pub mod server;
pub mod session;
pub mod store;
pub mod time;

pub use error::{ErrorCode, Failure};
pub use ids::{ClientId, Epoch, Incarnation, RequestId, Seq, ServerId, StarId, Version};
pub use key::{Key, KeyRef};
pub use time::{Clock, Time};
