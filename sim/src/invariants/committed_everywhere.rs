//! Committed on all members: when a server has committed a seq, every member of its view that runs holds everything up
//! to there.

use star_core::ids::{ServerId, StarId};

use super::Scene;
use crate::subject::{Glance, Subject};

pub(crate) fn check<S: Subject>(
    scene: &Scene<'_, S>,
    server: ServerId,
    star: StarId,
    glance: &Glance,
) -> Result<(), String> {
    for member in &glance.members {
        let Some(there) = scene.node(*member).map(|node| node.glance(star)) else { continue };
        // A server that has not heard of this view was not a member of its serving ones when it acked.
        if there.epoch >= glance.epoch && there.ready < glance.committed {
            return Err(format!(
                "committed on all members: star {star}: server {server} has committed seq {}, but member {member} holds \
                 only seqs up to {}",
                glance.committed, there.ready
            ));
        }
    }
    Ok(())
}
