//! What an error of Redis means to a server: try again, mend something, or look at what is stored.

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::plane::PlaneError;

pub(super) fn failure(plane: &str, error: &RedisError) -> PlaneError {
    let (plane, why) = (plane.to_owned(), error.to_string());
    match error.kind() {
        ErrorKind::Io
        | ErrorKind::Server(
            ServerErrorKind::BusyLoading
            | ServerErrorKind::TryAgain
            | ServerErrorKind::MasterDown
            | ServerErrorKind::ClusterDown
            | ServerErrorKind::ReadOnly,
        ) => PlaneError::Unreachable { plane, why },
        ErrorKind::Parse | ErrorKind::UnexpectedReturnType => PlaneError::Corrupt { plane, why },
        _ => match error.code() {
            // It does not write now: no disk, no memory, no replica, or another script runs. It may soon.
            Some("MISCONF" | "OOM" | "NOREPLICAS" | "BUSY") => PlaneError::Unreachable { plane, why },
            Some("WRONGTYPE") => PlaneError::Corrupt { plane, why },
            _ => PlaneError::Refused(format!("Redis at {plane}: {why}; see its configuration and its log")),
        },
    }
}
