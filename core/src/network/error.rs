//! What can go wrong between a client and the server it talks to, as far as the network is concerned.

/// Why a request got no answer. Refusals by the server itself are answers: see [`crate::error::Failure`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// No connection could be made; the request was not sent.
    #[error(
        "cannot connect to {addr}: {reason}; the next attempt is made {retry_in_ms} ms from now. \
         Is the server running? Try again later, or at another server"
    )]
    Unreachable {
        /// The server's address.
        addr: String,
        /// What the system said.
        reason: String,
        /// Requests made before this many milliseconds have passed fail with this same error, without an attempt.
        retry_in_ms: u64,
    },
    /// The connection ended with the request under way.
    #[error(
        "the connection to {addr} broke before the answer came: {reason}. A write may or may not have been done: \
         send it again with the same request id"
    )]
    Broken {
        /// The server's address.
        addr: String,
        /// What happened to the connection.
        reason: String,
    },
    /// No answer came in time.
    #[error(
        "{addr} did not answer within {waited_ms} ms. A write may or may not have been done: send it again with the \
         same request id"
    )]
    TimedOut {
        /// The server's address.
        addr: String,
        /// How long the call waited, in milliseconds.
        waited_ms: u64,
    },
    /// The request is larger than a frame may be; it was not sent.
    #[error("a request of {frame_bytes} bytes to {addr}, and a frame holds at most {max_bytes}: split it")]
    RequestTooLarge {
        /// The server's address.
        addr: String,
        /// The size of the request's header and tail, in bytes.
        frame_bytes: u64,
        /// The most that a header, or header and tail together, may have.
        max_bytes: u64,
    },
    /// The answer is larger than this client takes. The request was done.
    #[error("an answer of {frame_bytes} bytes from {addr}, and this client takes at most {max_bytes}: ask for less")]
    AnswerTooLarge {
        /// The server's address.
        addr: String,
        /// The size of the answer's header and tail, in bytes.
        frame_bytes: u64,
        /// The most that this client takes.
        max_bytes: u64,
    },
    /// What came back is no answer to the request: the other side speaks another version, or is no server of ours.
    #[error(
        "{addr} does not answer as a Star server of this version does: {reason}. Check the address and the versions"
    )]
    Unexpected {
        /// The server's address.
        addr: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// The link was switched off with [`super::ConnectionStub::fail_link`].
    #[error("the link to server {name} is switched off; switch it on again with fixLink")]
    LinkFailed {
        /// The server's name.
        name: String,
    },
    /// There is no server of this name.
    #[error("no server is named {name:?}; the servers are {known}")]
    UnknownServer {
        /// The name that was asked for.
        name: String,
        /// The names there are, with commas between.
        known: String,
    },
    /// Some servers could not be reached.
    #[error("{} of {servers} servers could not be reached: {}", failed.len(), list(failed))]
    NotConnected {
        /// How many servers were dialled.
        servers: usize,
        /// Each server that failed, by name, with its error.
        failed: Vec<(String, NetworkError)>,
    },
}

impl NetworkError {
    /// Whether the same request, with the same request id, may succeed later or at another server.
    pub fn retry(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Broken { .. }
            | Self::TimedOut { .. }
            | Self::LinkFailed { .. }
            | Self::NotConnected { .. } => true,
            Self::RequestTooLarge { .. }
            | Self::AnswerTooLarge { .. }
            | Self::Unexpected { .. }
            | Self::UnknownServer { .. } => false,
        }
    }

    /// Whether the server may have acted on the request: its outcome is unknown.
    pub fn may_have_been_done(&self) -> bool {
        matches!(
            self,
            Self::Broken { .. } | Self::TimedOut { .. } | Self::AnswerTooLarge { .. } | Self::Unexpected { .. }
        )
    }
}

fn list(failed: &[(String, NetworkError)]) -> String {
    let mut text = String::new();
    for (name, error) in failed {
        if !text.is_empty() {
            text.push_str("; ");
        }
        text.push_str(name);
        text.push_str(": ");
        text.push_str(&error.to_string());
    }
    text
}
