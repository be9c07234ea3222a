//! What servers write about themselves, and people about servers.

use std::collections::BTreeSet;

use star_core::ids::ServerId;

use super::{named, take_out};
use crate::view::{ClusterState, ServerRecord, Standing};

/// The state with this server's record in it, under its name's number or the next free one.
///
/// A server that comes with another incarnation than its record's has lost its memory, so it is taken out of every view
/// in the same write: whoever is a member is one in the life that its record shows. A star that loses its last
/// member with all objects so has lost its objects; it is left without members. A server that is being drained still is.
pub fn registered(state: &ClusterState, me: &ServerRecord) -> (ClusterState, ServerId) {
    let mut next = state.clone();
    let Some(known) = next.servers.iter().position(|server| server.name == me.name) else {
        let id = ServerId(next.servers.len() as u16);
        let (standing, unreachable) = (Standing::Active, BTreeSet::new());
        next.servers.push(ServerRecord { id, standing, unreachable, ..me.clone() });
        return (next, id);
    };
    let before = &next.servers[known];
    let id = before.id;
    let new_life = before.incarnation != me.incarnation;
    let (standing, unreachable) = match before.standing {
        standing if !new_life => (standing, before.unreachable.clone()),
        Standing::Draining => (Standing::Draining, BTreeSet::new()),
        _ => (Standing::Active, BTreeSet::new()),
    };
    next.servers[known] = ServerRecord { id, standing, unreachable, ..me.clone() };
    if new_life {
        let me_alone = BTreeSet::from([id]);
        for star in 0..next.stars.len() {
            if named(&next.stars[star]).any(|member| member == id) {
                take_out(&mut next, star, &me_alone);
            }
        }
    }
    (next, id)
}

/// The state in which a server says that it cannot reach these others; `None` if that is what it says already.
pub fn reported(state: &ClusterState, me: ServerId, unreachable: &BTreeSet<ServerId>) -> Option<ClusterState> {
    let record = state.server(me).filter(|record| record.unreachable != *unreachable)?;
    let mut next = state.clone();
    next.servers[usize::from(record.id.0)].unreachable.clone_from(unreachable);
    Some(next)
}

/// The state in which a server is to be this; `None` if it is already.
pub fn marked(state: &ClusterState, server: ServerId, standing: Standing) -> Option<ClusterState> {
    let record = state.server(server).filter(|record| record.standing != standing)?;
    let mut next = state.clone();
    next.servers[usize::from(record.id.0)].standing = standing;
    Some(next)
}

/// Why a server cannot be forgotten.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CannotRemove {
    /// It is in views.
    #[error("it is in the views of {0} stars: drain it first, or stop it, so that others go on without it")]
    InViews(usize),
}

/// The state in which a server is forgotten, which is in no view any more. Who installs it must demand that its lease is
/// free (see [`super::ended_lives`]): a server that runs is not forgotten.
pub fn removed(state: &ClusterState, server: ServerId) -> Result<Option<ClusterState>, CannotRemove> {
    match state.stars.iter().filter(|view| named(view).any(|id| id == server)).count() {
        0 => Ok(marked(state, server, Standing::Removed)),
        views => Err(CannotRemove::InViews(views)),
    }
}
