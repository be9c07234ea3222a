//! Who gives way where servers do not reach each other: a commit needs the ack of every member, so members that cannot
//! talk to each other hold up a star's writes as long as both are in it.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use star_core::ids::ServerId;

use super::{ask_to_leave, leaderships};
use crate::view::{ClusterState, View};

/// Up to so many servers with a broken link in one star, every choice is looked at; of more, those with the most broken
/// links go first.
const EXACT_MAX: usize = 10;

/// Asks as few members as possible to leave, so that those that stay all reach each other, and drops learners that do
/// not reach all of them. Only of stars whose members are all alive: others wait for their dead first.
pub(super) fn give_way(state: &mut ClusterState, alive: &BTreeSet<ServerId>) {
    // As it was before: so that the same server gives way in every star.
    let led = leaderships(state);
    for star in 0..state.stars.len() {
        if !state.stars[star].members.iter().all(|id| alive.contains(id)) {
            continue;
        }
        let least = least_cover(state, &state.stars[star], &led);
        if !least.is_empty() {
            ask_to_leave(state, star, &least, &led);
        }
        drop_learners(state, star);
    }
}

/// The fewest members without which the others all reach each other. A joining member goes before a serving one, then
/// whoever leads the fewest stars, then the highest number.
fn least_cover(state: &ClusterState, view: &View, led: &BTreeMap<ServerId, usize>) -> BTreeSet<ServerId> {
    let mut cover = BTreeSet::new();
    let mut staying: Vec<ServerId> = view.members.iter().copied().filter(|id| !view.leaving.contains(id)).collect();
    staying.sort();
    let price = |id: ServerId| {
        let serves = usize::from(!view.joining.contains(&id));
        (serves, 1, led.get(&id).copied().unwrap_or(0))
    };
    loop {
        let broken = |id: ServerId| staying.iter().filter(|other| !state.reach(id, **other)).count();
        let involved: Vec<ServerId> = staying.iter().copied().filter(|id| broken(*id) > 0).collect();
        if involved.len() <= EXACT_MAX {
            cover.extend(least_of_few(state, &involved, price));
            return cover;
        }
        let worst = involved.into_iter().min_by_key(|id| (Reverse(broken(*id)), price(*id), Reverse(*id)));
        let worst = worst.expect("more than a few");
        staying.retain(|id| *id != worst);
        cover.insert(worst);
    }
}

/// The cheapest of all choices; `servers` is in order, and the last of them go first where choices cost the same.
fn least_of_few(
    state: &ClusterState,
    servers: &[ServerId],
    price: impl Fn(ServerId) -> (usize, usize, usize),
) -> Vec<ServerId> {
    let chosen = |choice: u32| {
        let chosen = move |at: &usize| choice & 1 << at != 0;
        (0..servers.len()).filter(chosen).map(|at| servers[at])
    };
    let rest_reaches = |choice: &u32| {
        let rest: Vec<ServerId> = chosen(!choice).collect();
        rest.iter().enumerate().all(|(at, one)| rest[..at].iter().all(|other| state.reach(*one, *other)))
    };
    let cost = |choice: &u32| {
        let sum = chosen(*choice).map(&price).fold((0, 0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1, sum.2 + one.2));
        (sum, Reverse(*choice))
    };
    let best = (0..1_u32 << servers.len()).filter(rest_reaches).min_by_key(cost);
    best.map_or_else(Vec::new, |best| chosen(best).collect())
}

/// A learner that does not reach a member would hold up writes as soon as it joins.
fn drop_learners(state: &mut ClusterState, star: usize) {
    let view = &state.stars[star];
    let fits = |learner: &ServerId| reaches_all_that_stay(state, view, *learner);
    let fitting: Vec<ServerId> = view.learners.iter().copied().filter(fits).collect();
    let view = &mut state.stars[star];
    if fitting.len() < view.learners.len() {
        view.learners = fitting;
        view.epoch = view.epoch.next();
    }
}

/// Whether a server reaches every member that is not on its way out.
pub(super) fn reaches_all_that_stay(state: &ClusterState, view: &View, server: ServerId) -> bool {
    view.members.iter().filter(|id| !view.leaving.contains(id)).all(|member| state.reach(*member, server))
}
