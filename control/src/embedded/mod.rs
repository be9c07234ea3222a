//! The control plane that the servers host themselves: nothing to install.
//!
//! One server holds the [`Host`]; its own agent and those of the other servers reach it through an [`EmbeddedClient`].
//! Calls and answers are postcard, in the header of one compact frame each way.

//!
//! Several servers may keep it together instead: such a plane is reached through [`EmbeddedClient::cluster`], and the
//! frames hold an [`Envelope`] and a [`Reply`].

mod client;
mod cluster;
mod host;

pub use client::{ClientTimes, EmbeddedClient};
pub use cluster::{Carried, Carrier, CarryError, ClusterTimes, Envelope, Reply, TcpCarrier};
pub use host::Host;
use serde::{Deserialize, Serialize};
use std::time::Duration;

use crate::{machine::Command, plane::Revision};

/// What a client asks a host; the answer is a [`crate::machine::Answer`].
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
