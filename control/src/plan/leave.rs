//! The steps that a server takes in views by itself, as it has come so far: in, and out.

use std::collections::BTreeSet;

use star_core::ids::{Epoch, ServerId, StarId};

use super::{ask_to_leave, chronicled, leaderships, reach::reaches_all_that_stay};
use crate::view::{ClusterState, Standing, View};

/// The state after a server took its next step in stars where it is ready for it: a learner becomes a joining member, a
/// joining member a serving one, and a leaving member leaves. `ready` names the epochs that the server speaks of; other
/// epochs stay as they are. `None` if nothing changes.
///
/// Who leaves takes no star's last living copy along, and who joins must reach all members.
pub fn advanced(
    state: &ClusterState,
    me: ServerId,
    ready: &[(StarId, Epoch)],
    alive: &BTreeSet<ServerId>,
) -> Option<ClusterState> {
    let mut next = state.clone();
    for (star, epoch) in ready {
        let Some(view) = state.stars.get(usize::from(star.0)).filter(|view| view.epoch == *epoch) else { continue };
        let may_join = reaches_all_that_stay(state, view, me);
        let may_leave = view.serving().any(|other| alive.contains(&other));
        step(&mut next.stars[usize::from(star.0)], me, may_join, may_leave);
    }
    (next != *state).then(|| chronicled(state, next))
}

fn step(view: &mut View, me: ServerId, may_join: bool, may_leave: bool) {
    if view.leaving.contains(&me) {
        if !may_leave {
            return;
        }
        for list in [&mut view.members, &mut view.joining, &mut view.leaving] {
            list.retain(|id| *id != me);
        }
    } else if view.learners.contains(&me) && may_join {
        view.learners.retain(|id| *id != me);
        view.members.push(me);
        view.members.sort();
        view.joining.push(me);
        view.joining.sort();
    } else if view.joining.contains(&me) {
        view.joining.retain(|id| *id != me);
    } else {
        return;
    }
    view.epoch = view.epoch.next();
}

/// The state in which `me`, which is about to end, and whoever else is, was asked to leave all views in which somebody
/// else stays.
pub fn stopped(state: &ClusterState, me: ServerId, alive: &BTreeSet<ServerId>) -> ClusterState {
    let mut next = state.clone();
    let mut stopping = stopping(state);
    stopping.insert(me);
    ask_all_to_leave(&mut next, &stopping, alive);
    chronicled(state, next)
}

/// Has servers that are about to end leave all their views at once, where another serving member stays.
pub(super) fn stop(state: &mut ClusterState, alive: &BTreeSet<ServerId>) {
    let stopping = stopping(state);
    if !stopping.is_empty() {
        ask_all_to_leave(state, &stopping, alive);
    }
}

fn stopping(state: &ClusterState) -> BTreeSet<ServerId> {
    state.servers.iter().filter(|one| one.standing == Standing::Stopping).map(|one| one.id).collect()
}

fn ask_all_to_leave(state: &mut ClusterState, stopping: &BTreeSet<ServerId>, alive: &BTreeSet<ServerId>) {
    for star in 0..state.stars.len() {
        let view = &mut state.stars[star];
        let learners = view.learners.len();
        view.learners.retain(|id| !stopping.contains(id));
        if view.learners.len() < learners {
            view.epoch = view.epoch.next();
        }
        let goes = |id: &ServerId| stopping.contains(id) && !view.leaving.contains(id);
        let going: BTreeSet<ServerId> = view.members.iter().copied().filter(goes).collect();
        let stays = view.serving().any(|id| alive.contains(&id) && !stopping.contains(&id));
        if !going.is_empty() && stays {
            let led = leaderships(state);
            ask_to_leave(state, star, &going, &led);
        }
    }
}
