//! What can go wrong between a client and a server, and what the client can do about it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The kinds of refusal. Each says by itself whether the same request may succeed later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ErrorCode {
    /// The message is not one of ours, or a field is missing or wrong: mend the request.
    BadRequest,
    /// The message's type is unknown here: mend the request.
    UnknownType,
    /// A key, value, request id or frame is over its limit: mend the request.
    TooLarge,
    /// The server holds as much unfinished work as it may: try again a little later, or at another server.
    Overloaded,
    /// The store has no room: delete something, or start with a larger store; the write was not done.
    NoSpace,
    /// The server holds no lease, so it cannot know that its objects are current: try another server.
    NoLease,
    /// The server does not serve this star now (it is joining, or the star has no view yet): try another server.
    NotServing,
    /// The write may or may not have been done: try again *with the same request id*, then it is done once.
    Unfinished,
    /// The server is stopping: try another server.
    Stopping,
    /// The request is understood but switched off by the configuration.
    Disabled,
    /// A mistake of ours: please report it.
    Internal,
    /// The write was done with before, or its client is forgotten: it may or may not have been done, and is not done now.
    Forgotten,
}

impl ErrorCode {
    /// Whether the same request, with the same request id, may succeed later or at another server.
    pub fn retry(self) -> bool {
        match self {
            Self::Overloaded | Self::NoSpace | Self::NoLease | Self::NotServing | Self::Unfinished | Self::Stopping => {
                true
            }
            Self::BadRequest
            | Self::UnknownType
            | Self::TooLarge
            | Self::Disabled
            | Self::Internal
            | Self::Forgotten => false,
        }
    }

    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::BadRequest => "BAD_REQUEST",
            Self::UnknownType => "UNKNOWN_TYPE",
            Self::TooLarge => "TOO_LARGE",
            Self::Overloaded => "OVERLOADED",
            Self::NoSpace => "NO_SPACE",
            Self::NoLease => "NO_LEASE",
            Self::NotServing => "NOT_SERVING",
            Self::Unfinished => "UNFINISHED",
            Self::Stopping => "STOPPING",
            Self::Disabled => "DISABLED",
            Self::Internal => "INTERNAL",
            Self::Forgotten => "FORGOTTEN",
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A refusal: its kind, and a sentence for people (what happened, why, what to do next).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Failure {
    /// The kind of refusal.
    pub code: ErrorCode,
    /// The sentence for people.
    pub message: String,
}

impl Failure {
    /// A refusal of this kind.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}
