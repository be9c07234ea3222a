//! What an operation of a client can end with, other than its result.

use std::fmt::Debug;

use star_core::{Failure, network::NetworkError};

/// Why an operation was not done, or may not have been.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// A server refused it; [`Failure::code`] says why, and whether it was worth trying again (it was tried).
    #[error("{0}")]
    Refused(Failure),
    /// No server answered. A write may have been done: see [`NetworkError::may_have_been_done`].
    #[error("{0}")]
    Network(#[from] NetworkError),
    /// No server of the cluster could be reached at all.
    #[error("no server answers at {tried}: {last}. Is the cluster running? `star up` starts one")]
    NoCluster {
        /// The addresses that were tried.
        tried: String,
        /// What the last of them said.
        last: String,
    },
    /// `transport = shm` was asked for, and there is no mapped store of this cluster on this machine.
    #[error("no server of this machine has a mapped store that can be opened: {0}; use --transport auto or tcp")]
    NoMappedStore(String),
    /// A server answered something that does not fit: does it run another version?
    #[error("a server gave an answer that does not fit the request: {0}; does it run another version?")]
    Unexpected(String),
}

impl ClientError {
    pub(crate) fn unexpected(what: impl Debug) -> Self {
        Self::Unexpected(format!("{what:?}"))
    }

    /// Whether the same operation may succeed later or at another server.
    pub fn retry(&self) -> bool {
        match self {
            Self::Refused(failure) => failure.code.retry() && failure.code != star_core::ErrorCode::NoSpace,
            Self::Network(error) => error.retry(),
            Self::NoCluster { .. } | Self::NoMappedStore(_) | Self::Unexpected(_) => false,
        }
    }
}
