//! What servers write about themselves, and people about servers.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use star_core::{
    ids::{Incarnation, ServerId},
    note::cluster_mark,
};

use super::{chronicled, named, resume, take_out};
use crate::{
    plane::Lease,
    view::{Claim, ClusterState, ServerRecord, Standing},
};

/// The state with this server's record in it, under its name's number or the next free one.
///
/// A server that comes with another incarnation than its record's has lost its memory, so it is taken out of every view
/// in the same write: whoever is a member is one in the life that its record shows. A star that loses its last
/// member with all objects so is left without members. A server that is being drained still is.
///
/// The record comes with what the server's store holds of each star. If with that it is certain that a store has all that
/// anybody was told of in a star of which no other holder is `alive`, the star goes on with it in the same write. That
/// it was the record's own life, or the same before, that left the store is looked at here: one of another time says nothing.
pub fn registered(state: &ClusterState, me: &ServerRecord, alive: &BTreeSet<ServerId>) -> (ClusterState, ServerId) {
    let mut next = state.clone();
    let Some(known) = next.servers.iter().position(|server| server.name == me.name) else {
        let id = ServerId(next.servers.len() as u16);
        let (standing, unreachable, claims) = (Standing::Active, BTreeSet::new(), Vec::new());
        next.servers.push(ServerRecord { id, standing, unreachable, claims, ..me.clone() });
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
    let claims = if new_life { credible(state, before, me) } else { before.claims.clone() };
    next.servers[known] = ServerRecord { id, standing, unreachable, claims, ..me.clone() };
    if new_life {
        resume::resume(&mut next, state, alive, Some(id));
        let me_alone = BTreeSet::from([id]);
        for star in 0..next.stars.len() {
            let is_resumed = next.stars[star].resumed != state.stars[star].resumed;
            if !is_resumed && named(&next.stars[star]).any(|member| member == id) {
                take_out(&mut next, star, &me_alone);
            }
        }
        next = chronicled(state, next);
    }
    (next, id)
}

/// The leases that a server has seen renewed since it began to look: whoever holds one of them lives, or did a moment ago.
/// A lease that merely runs may be of a server that ended just before.
#[derive(Clone, Debug, Default)]
pub struct SeenRenewed {
    last: BTreeMap<String, (Incarnation, Duration)>,
    renewed: BTreeSet<String>,
}

impl SeenRenewed {
    /// Looks at the leases once more.
    pub fn look(&mut self, leases: &[Lease]) {
        for Lease { name, holder, remaining } in leases {
            let before = self.last.insert(name.clone(), (*holder, *remaining));
            // What is not renewed only gets less, or stays where the plane's time stands still.
            if before.is_some_and(|before| before.0 != *holder || before.1 < *remaining) {
                self.renewed.insert(name.clone());
            }
        }
        self.last.retain(|name, _| leases.iter().any(|lease| lease.name == *name));
    }
}

/// Whether a server that comes with a claim should wait a little before it registers: another holder of the star has a lease
/// that nobody has seen renewed, so in a moment it may be known to have ended. If this server became its learner meanwhile, its
/// claims would go, and all of them together may be what proves that a store has everything. The wait is over when that lease
/// is, or is renewed.
pub fn may_end_soon(state: &ClusterState, me: &ServerRecord, leases: &[Lease], seen: &SeenRenewed) -> bool {
    if leases.iter().any(|lease| lease.name == me.name) {
        return false; // It has to wait for itself first.
    }
    let may_have_ended = |id: ServerId| {
        let name = state.server(id).map(|server| &server.name);
        leases.iter().any(|lease| Some(&lease.name) == name && !seen.renewed.contains(&lease.name))
    };
    me.claims
        .iter()
        .filter_map(|claim| state.stars.get(usize::from(claim.star.0)).filter(|view| view.founded == claim.founded))
        .any(|view| view.holders().any(may_have_ended))
}

/// The most claims in a document, so that it stays far below what a control plane takes.
const CLAIMS_MAX: usize = 4096;

/// The claims of a new life that count: of a store of this cluster that the life before left, or that it found and did not
/// change.
fn credible(state: &ClusterState, before: &ServerRecord, me: &ServerRecord) -> Vec<Claim> {
    let others: usize = state.servers.iter().filter(|one| one.name != me.name).map(|one| one.claims.len()).sum();
    if others + me.claims.len() > CLAIMS_MAX {
        return Vec::new();
    }
    let mark = cluster_mark(&state.cluster);
    let ours = me.claims.iter().filter(|claim| claim.cluster == mark).map(|claim| Claim { cluster: 0, ..*claim });
    ours.filter(|claim| claim.life == before.incarnation || before.claims.contains(claim)).collect()
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
///
/// With `loses_objects` it may be in views, and is taken out of them. A star that it was the last to hold begins empty then,
/// if the stores of the others do not certainly hold everything.
pub fn removed(
    state: &ClusterState,
    server: ServerId,
    loses_objects: bool,
) -> Result<Option<ClusterState>, CannotRemove> {
    if loses_objects {
        let mut next = marked(state, server, Standing::Removed).unwrap_or_else(|| state.clone());
        for star in 0..next.stars.len() {
            if named(&next.stars[star]).any(|id| id == server) {
                take_out(&mut next, star, &BTreeSet::from([server]));
            }
        }
        return Ok((next != *state).then(|| chronicled(state, next)));
    }
    match state.stars.iter().filter(|view| named(view).any(|id| id == server)).count() {
        0 => Ok(marked(state, server, Standing::Removed)),
        views => Err(CannotRemove::InViews(views)),
    }
}
