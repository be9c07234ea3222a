//! The control plane that the servers keep themselves: nothing to install.
//!
//! Some servers keep it together (`star_raft`); each server's agent reaches it through an [`EmbeddedClient`]. Calls and
//! answers are postcard, in the header of one compact frame each way: an [`Envelope`] and a [`Reply`].

mod client;
mod cluster;

pub use client::EmbeddedClient;
pub use cluster::{Carried, Carrier, CarryError, ClusterTimes, Envelope, Reply, TcpCarrier};
use serde::{Deserialize, Serialize};
use std::time::Duration;

use crate::{machine::Command, plane::Revision};

/// What a client asks; the answer is a [`crate::machine::Answer`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Call {
    /// To be answered at once.
    Apply(Command),
    /// To be answered like [`Command::Get`], as soon as the revision is not `after` or `wait` is over.
    Watch {
        /// The document.
        key: String,
        /// The revision that the client knows.
        after: Revision,
        /// How long to wait at most.
        wait: Duration,
    },
}
