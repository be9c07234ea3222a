//! What must hold in every state.

use crate::{
    Bounds, Mistake,
    state::{Lease, SERVERS, Servers, State},
};

/// The servers that answer reads of keys that are clean there.
fn answering(bounds: &Bounds, state: &State) -> impl Iterator<Item = usize> {
    let answers = move |id: &usize| {
        let view = state.view_of(*id);
        let serving = if bounds.has(Mistake::JoiningServes) { view.members } else { view.serving() };
        !state.servers[*id].down && state.servers[*id].lease == Lease::Counts && serving.has(*id)
    };
    (0..SERVERS).filter(answers)
}

/// Nobody answers reads after a view without it was installed, and nobody counts on a lease that the control plane has
/// given up.
pub(crate) fn leases_exclude(bounds: &Bounds, state: &State) -> bool {
    let latest: Servers = state.epoch(state.latest).view.members;
    let counts = |id: usize| state.servers[id].lease == Lease::Counts;
    (0..SERVERS).all(|id| !counts(id) || state.leased.has(id)) && answering(bounds, state).all(|id| latest.has(id))
}

/// Whoever answers reads is ready for all that a client was told: a key of it is dirty there, so the read waits, or it
/// is applied.
pub(crate) fn reads_are_latest(bounds: &Bounds, state: &State) -> bool {
    answering(bounds, state).all(|id| state.servers[id].log.begins_with(state.told))
}

/// What was committed is in every order that is installed from then on, and all have committed the same.
pub(crate) fn committed_survives(state: &State) -> bool {
    let kept = (state.told_in..=state.latest)
        .filter_map(|epoch| state.epoch(epoch).order)
        .all(|order| order.begins_with(state.told));
    kept && state.servers.iter().all(|server| state.told.begins_with(server.log.up_to(server.committed)))
}

/// Not a safety property: the model gets that far at all.
pub(crate) fn works_to_the_end(bounds: &Bounds, state: &State) -> bool {
    state.told.last() == bounds.writes && state.told_in == bounds.epochs
}

/// The same: a new incarnation gets through all of its steps.
pub(crate) fn comes_back(state: &State) -> bool {
    let serves = |id: usize| {
        let server = &state.servers[id];
        server.was_down && server.installed && state.view_of(id).serving().has(id) && server.lease == Lease::Counts
    };
    (0..SERVERS).any(serves)
}
