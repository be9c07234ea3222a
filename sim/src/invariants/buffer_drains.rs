//! The buffer drains: once all faults are healed and every request is answered, a time comes at which nothing is left
//! over anywhere. The end of a run waits for it, and fails with what is left if it does not come.

use star_core::ids::ServerId;

use super::Scene;
use crate::subject::Subject;

pub(crate) fn check<S: Subject>(scene: &Scene<'_, S>, server: ServerId) -> Result<(), String> {
    match scene.node(server).and_then(Subject::unfinished) {
        None => Ok(()),
        Some(left) => Err(format!("the buffer drains: server {server} has something left: {left}")),
    }
}
