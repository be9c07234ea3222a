//! Memberships that move from server to server: away from those that are drained, and to those that have few. First
//! somebody else has the objects, then somebody goes; and few stars at a time, because copying takes room on the links.

use std::{
    cmp::{Ordering, Reverse},
    collections::{BTreeMap, BTreeSet},
};

use star_core::ids::ServerId;

use super::{ask_to_leave, leaderships, places, reach::reaches_all_that_stay, wanted_members};
use crate::view::{ClusterState, Standing, View};

/// In how many stars somebody may be on the way in or out before one more begins without need.
pub(super) const MOVING_STARS_MAX: usize = 2;

/// Whether somebody is on the way in or out of a view and can get there. Where nobody lives who has the objects all wait,
/// maybe for good, and the other stars do not wait for that.
pub(super) fn is_moving(view: &View, alive: &BTreeSet<ServerId>) -> bool {
    !view.is_settled() && view.holders().any(|id| alive.contains(&id))
}

/// Whether a star may begin to change its members, or go on with it, without need.
pub(super) fn may_move(state: &ClusterState, star: usize, alive: &BTreeSet<ServerId>) -> bool {
    let moving = state.stars.iter().filter(|view| is_moving(view, alive)).count();
    !state.stars[star].is_settled() || moving < MOVING_STARS_MAX
}

/// Asks members to leave that a star can do without: one that is drained, or one too many. Nobody leaves while somebody is
/// on the way in, so a star never has fewer whole copies than it should for that.
pub(super) fn let_go(state: &mut ClusterState, replicas: Option<usize>, alive: &BTreeSet<ServerId>) {
    let wanted = wanted_members(state, replicas, alive);
    for star in 0..state.stars.len() {
        let view = &state.stars[star];
        if !view.is_settled() || view.members.is_empty() || !may_move(state, star, alive) {
            continue;
        }
        let staying = view.members.iter().filter(|id| alive.contains(id) && state.is_active(**id)).count();
        let led = leaderships(state);
        let drained = |id: &ServerId| state.server(*id).is_some_and(|one| one.standing == Standing::Draining);
        let going = match staying.cmp(&wanted) {
            Ordering::Greater => one_too_many(state, view, &led),
            Ordering::Equal => view.members.iter().copied().find(drained),
            Ordering::Less => None,
        };
        if let Some(going) = going {
            ask_to_leave(state, star, &BTreeSet::from([going]), &led);
        }
    }
}

/// A member that is drained, else the one that is in the most views; rather not the leader.
fn one_too_many(state: &ClusterState, view: &View, led: &BTreeMap<ServerId, usize>) -> Option<ServerId> {
    let held = places(state);
    let key = |id: &ServerId| {
        let (held, led) = (held.get(id).copied().unwrap_or(0), led.get(id).copied().unwrap_or(0));
        (state.is_active(*id), Reverse(held), *id == view.leader, led, Reverse(*id))
    };
    view.members.iter().copied().min_by_key(key)
}

/// Has a server that is in few views learn one of a server that is in at least two more, which then has one too many.
/// One move at a time, and only while nobody is on the way.
pub(super) fn spread_members(state: &mut ClusterState, replicas: Option<usize>, alive: &BTreeSet<ServerId>) {
    if replicas.is_none() || state.stars.iter().any(|view| is_moving(view, alive)) {
        return;
    }
    let held = places(state);
    let count = |id: ServerId| held.get(&id).copied().unwrap_or(0);
    let able = || alive.iter().copied().filter(|id| state.is_active(*id));
    let mut few: Vec<ServerId> = able().collect();
    few.sort_by_key(|id| (count(*id), *id));
    for least in few {
        let fits = |view: &&View| {
            let lives = view.members.iter().all(|id| alive.contains(id));
            let has_a_rich_one = lives && view.members.iter().any(|id| count(*id) >= count(least) + 2);
            has_a_rich_one && !view.is_member(least) && reaches_all_that_stay(state, view, least)
        };
        // The star of the richest one; of several stars the first.
        let richest = |view: &&View| (Reverse(view.members.iter().map(|id| count(*id)).max()), view.star);
        if let Some(star) = state.stars.iter().filter(fits).min_by_key(richest).map(|view| usize::from(view.star.0)) {
            let view = &mut state.stars[star];
            view.epoch = view.epoch.next();
            view.learners.push(least);
            return;
        }
    }
}
