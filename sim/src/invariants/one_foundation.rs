//! One foundation: who answers reads, with a lease, is in the latest foundation of the star, and nobody answers in an
//! older one once the next has begun, but for a write that was asked for before.

use star_core::ids::{Epoch, ServerId, StarId};

/// Judges a server that may answer reads.
pub(crate) fn check_reader(server: ServerId, star: StarId, founded: Epoch, latest: Epoch) -> Result<(), String> {
    if founded == latest {
        return Ok(());
    }
    Err(format!(
        "one foundation: server {server} answers reads of star {star} as it was founded in epoch {founded}, and it was \
         founded again in epoch {latest}"
    ))
}

/// Judges a write that was asked for at `call` and done in a foundation after which the next began at `next`.
pub(crate) fn check_write(star: StarId, call: u64, next: Option<u64>) -> Result<(), String> {
    match next {
        Some(next) if next <= call => Err(format!(
            "one foundation: a client asked for a write to star {star} after it was founded anew, and was answered by the \
             foundation before"
        )),
        _ => Ok(()),
    }
}
