//! The buffer drains: when all faults are healed and every request is answered, nothing is left over anywhere.

use star_core::ids::ServerId;

use super::Scene;
use crate::subject::Subject;

pub(crate) fn check<S: Subject>(scene: &Scene<'_, S>, server: ServerId) -> Result<(), String> {
    match scene.node(server).and_then(Subject::unfinished) {
        None => Ok(()),
        Some(left) => Err(format!("the buffer drains: server {server} is at rest with something left: {left}")),
    }
}
