//! Committed on all members: when a server has committed a seq, every member of its view that answers reads, or that has
//! acked in the same epoch, holds everything up to there.
//!
//! Why that holds for each kind of member, wherever the two servers are in the order of epochs:
//!
//! * A member that calls itself *serving* in the same or a later epoch: it acked the seq as a member, or it came in later
//!   and its base covers all that was committed before.
//! * A serving member that is still in an *earlier* epoch (it has not heard of the new view, which keeps it a member):
//!   what is committed was acked by it in its epoch or before. Nothing is committed in an epoch that it has not adopted.
//! * A *joining* member in the very epoch of the server, once it has installed: what is beyond the base of its INSTALL
//!   needed its ack. What is not, may have been committed before it was a member, and it may still lack the values.
//! * A server in another life, a learner, and one that was taken out and knows it hold what they hold: they neither ack
//!   nor answer. One that was taken out and does not know it is no member of the newer view, and as a member of the older
//!   view it falls under the first two.
//!
//! And the same from the side of the reader: whoever answers reads, with a lease, holds what is committed anywhere. It is
//! asked of a server after each of its turns, so also when it begins to serve and nobody commits anything just then.

use star_core::ids::{Seq, ServerId, StarId};

use super::Scene;
use crate::subject::{Glance, Subject};

pub(crate) fn check<S: Subject>(
    scene: &Scene<'_, S>,
    server: ServerId,
    star: StarId,
    glance: &Glance,
) -> Result<(), String> {
    for member in glance.members.iter() {
        let Some(there) = scene.node(member).map(|node| node.glance(star)) else { continue };
        let acks = there.installed && there.epoch == glance.epoch && there.members.contains(member);
        let must_hold = (there.serving && there.founded == glance.founded) || (acks && there.base < glance.committed);
        if must_hold && there.ready < glance.committed {
            return Err(format!(
                "committed on all members: star {star}: server {server} has committed seq {}, but member {member} holds \
                 only seqs up to {}",
                glance.committed, there.ready
            ));
        }
    }
    Ok(())
}

/// Judges a server that may answer reads: `committed` is the highest seq of the star that any server has committed.
pub(crate) fn check_reader(server: ServerId, star: StarId, glance: &Glance, committed: Seq) -> Result<(), String> {
    if glance.serving && glance.ready < committed {
        return Err(format!(
            "committed on all members: star {star}: server {server} answers reads, but holds only seqs up to {}, and seq \
             {committed} is committed",
            glance.ready
        ));
    }
    Ok(())
}
