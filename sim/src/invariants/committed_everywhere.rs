//! Committed on all members: when a server has committed a seq, every member of its view that runs holds everything up
//! to there.
//!
//! A server may commit late, when a later view is at work already: a member that the later view is without, or that came
//! back with another life and no memory, has nothing to hold any more. So only those that serve now are looked at.

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
        if there.serving && there.epoch >= glance.epoch && there.ready < glance.committed {
            return Err(format!(
                "committed on all members: star {star}: server {server} has committed seq {}, but member {member} holds \
                 only seqs up to {}",
                glance.committed, there.ready
            ));
        }
    }
    Ok(())
}
