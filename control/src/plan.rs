//! What the views should be next. Pure: any server may run it, and all get the same from the same.
//!
//! A plan is only a proposal. It is made from what one server saw a moment ago; what keeps it safe is the write that
//! installs it, which demands that nobody whose life in the views it ends holds a lease: see [`ended_lives`].
//! The rules, with their table and the reasons, are in `DESIGN/planner.md`.

mod join;
mod leave;
mod moves;
mod reach;
mod register;
mod resume;

use std::collections::{BTreeMap, BTreeSet};

pub use leave::{advanced, stopped};
pub use register::{CannotRemove, SeenRenewed, marked, may_end_soon, registered, removed, reported};
pub use resume::{awaited, chronicled};
use star_core::ids::{Epoch, ServerId, StarId};

use crate::{
    plane::Lease,
    view::{ClusterState, View},
};

/// What the cluster should look like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanConfig {
    /// How many stars; fixed when the cluster is made.
    pub stars: u16,
    /// How many servers must be registered and hold leases before the first views are made; at least 1.
    pub initial_servers: usize,
    /// How many members a star has; `None`: all servers.
    pub replicas: Option<usize>,
    /// Whether views follow who is alive: members without a lease are taken out, servers that come (back) are brought
    /// in, and leaders spread over them. Else the first views stay.
    pub follow_alive: bool,
}

impl Default for PlanConfig {
    fn default() -> Self {
        Self { stars: 8, initial_servers: 1, replicas: None, follow_alive: false }
    }
}

/// The servers that hold the lease of their latest life.
pub fn alive(state: &ClusterState, leases: &[Lease]) -> BTreeSet<ServerId> {
    let holds = |server: &&crate::view::ServerRecord| {
        leases.iter().any(|lease| lease.name == server.name && lease.holder == server.incarnation)
    };
    state.servers.iter().filter(holds).map(|server| server.id).collect()
}

/// The next state of the cluster; `None` if it is as it should be, or if nothing can be done.
///
/// * A star of which every holder has ended goes on with what a living server's store held, where that is certainly all
///   that anybody was told of.
/// * A star without members gets some once enough servers are alive: its first view, or the first after the last server
///   that held its objects has lost its memory, if no store that is known holds them all for certain.
/// * A member that is not alive is taken out, if [`PlanConfig::follow_alive`]; if it led the star, the serving member
///   that leads the fewest stars leads it from then on. A star of which no member with all objects is alive stays as it
///   is and waits for one of them: nobody else has its objects.
/// * Where living members do not reach each other, as few as possible are asked to leave; so are members that are to
///   stop or to be drained, and those that a star has too many. They take themselves out, see [`advanced`].
/// * A living server that a star lacks becomes its learner; how it goes on from there is up to itself, see [`advanced`].
pub fn plan(state: &ClusterState, wanted: &PlanConfig, alive: &BTreeSet<ServerId>) -> Option<ClusterState> {
    let mut next = state.clone();
    if next.stars.is_empty() {
        next.stars = ClusterState::new("", wanted.stars).stars;
    }
    if wanted.follow_alive {
        resume::resume(&mut next, state, alive, None);
        take_out_the_dead(&mut next, alive);
        reach::give_way(&mut next, alive);
        leave::stop(&mut next, alive);
    }
    if alive.len() >= wanted.initial_servers.max(1) {
        for star in 0..next.stars.len() {
            // One whose objects are with a server that is away just now waits for it.
            let waits = !resume::proven(&next, &next.stars[star]).is_empty();
            if next.stars[star].members.is_empty() && !waits {
                found(&mut next, star, wanted.replicas, alive);
            }
        }
    }
    if wanted.follow_alive {
        join::add_learners(&mut next, wanted.replicas, alive);
        moves::let_go(&mut next, wanted.replicas, alive);
        if next == *state {
            moves::spread_members(&mut next, wanted.replicas, alive);
        }
        if next == *state {
            join::spread_leaders(&mut next, alive);
        }
    }
    (next != *state).then(|| chronicled(state, next))
}

/// The names of the servers whose life as members ends with a change from `before` to `after`: their leases must be free
/// when it is installed. That is who is taken out of a view, who registers a new life, and who is forgotten.
///
/// `by`: the server that installs the change, if it does so for itself: a leaving member that has stopped to answer reads
/// takes itself out with its lease in its hand. Nobody else may do that for it, because nobody else knows.
///
/// Where a star is left without members because the last that held its objects is gone, or goes on with what a store held
/// after all such members had ended, those that were still joining need not be waited for: they answer no reads in this
/// view, and came into it by their own step, so they know. Else that last holder, back without its memory, could never
/// register while one of them lives.
pub fn ended_lives(before: &ClusterState, after: &ClusterState, by: Option<ServerId>) -> Vec<String> {
    let ends = |server: &&crate::view::ServerRecord| {
        let goes_on = after.server(server.id).is_some_and(|now| {
            let is_forgotten = now.standing != server.standing && now.standing == crate::view::Standing::Removed;
            now.incarnation == server.incarnation && !is_forgotten
        });
        let taken_out = |view: &View| {
            let now = after.stars.get(usize::from(view.star.0));
            let by_itself = by == Some(server.id) && view.leaving.contains(&server.id);
            let begins_again = |now: &View| now.members.is_empty() || now.resumed != view.resumed;
            let is_lost = now.is_some_and(begins_again) && view.joining.contains(&server.id);
            view.is_member(server.id) && !by_itself && !is_lost && !now.is_some_and(|now| now.is_member(server.id))
        };
        !goes_on || before.stars.iter().any(taken_out)
    };
    before.servers.iter().filter(ends).map(|server| server.name.clone()).collect()
}

/// Takes servers without a lease out, where somebody is left who has the objects.
fn take_out_the_dead(state: &mut ClusterState, alive: &BTreeSet<ServerId>) {
    for star in 0..state.stars.len() {
        let dead: BTreeSet<_> = named(&state.stars[star]).filter(|id| !alive.contains(id)).collect();
        if !dead.is_empty() && state.stars[star].holders().any(|id| alive.contains(&id)) {
            take_out(state, star, &dead);
        }
    }
}

/// Takes servers out of a view, which is a new epoch, and finds it another leader if need be. A leaving member stays after
/// all if nobody else has the objects.
fn take_out(state: &mut ClusterState, star: usize, gone: &BTreeSet<ServerId>) {
    let view = &mut state.stars[star];
    view.epoch = view.epoch.next();
    for list in [&mut view.members, &mut view.joining, &mut view.leaving, &mut view.learners] {
        list.retain(|id| !gone.contains(id));
    }
    if view.holders().next().is_none() {
        // Those that were still joining hold a part of the objects, which is worth nothing without the rest.
        *view = View {
            star: view.star,
            epoch: view.epoch,
            founded: view.founded,
            resumed: view.resumed,
            ..View::default()
        };
        return;
    }
    if view.serving().next().is_none() {
        let joining = &view.joining;
        view.leaving.retain(|id| joining.contains(id));
    }
    let led = leaderships(state);
    lead_by_one_that_serves(state, star, &led);
}

/// Has servers leave a view: they stay members until they have heard of it. A new epoch, and another leader if need be.
/// At least one other serving member must be left. `led`: how many stars each server leads.
fn ask_to_leave(state: &mut ClusterState, star: usize, leaving: &BTreeSet<ServerId>, led: &BTreeMap<ServerId, usize>) {
    let view = &mut state.stars[star];
    view.epoch = view.epoch.next();
    view.leaving.extend(leaving.iter().copied());
    view.leaving.sort();
    lead_by_one_that_serves(state, star, led);
}

/// Gives a star another leader if its own does not serve: whoever leads the fewest, rather one that is to stay.
fn lead_by_one_that_serves(state: &mut ClusterState, star: usize, led: &BTreeMap<ServerId, usize>) {
    let view = &state.stars[star];
    if !view.serving().any(|id| id == view.leader) {
        let count = |id: ServerId| led.get(&id).copied().unwrap_or(0);
        let best = view.serving().min_by_key(|id| (!state.is_active(*id), count(*id), *id));
        state.stars[star].leader = best.expect("there is a serving member");
    }
}

/// Gives a star without members some, all of them serving: the new `founded` has each of them begin without an object, so
/// all have the same.
fn found(state: &mut ClusterState, star: usize, replicas: Option<usize>, alive: &BTreeSet<ServerId>) {
    let led = leaderships(state);
    let held = places(state);
    let held = |id: ServerId| held.get(&id).copied().unwrap_or(0);
    let able: Vec<ServerId> = alive.iter().copied().filter(|id| state.is_active(*id)).collect();
    // The leader first: whoever leads the fewest stars, so that the members chosen never leave only busy ones to lead.
    let leader = able.iter().copied().min_by_key(|id| (led.get(id).copied().unwrap_or(0), held(*id), *id));
    let Some(leader) = leader else { return };
    let mut others: Vec<ServerId> = able.into_iter().filter(|id| *id != leader).collect();
    others.sort_by_key(|id| (held(*id), *id));
    let mut members = vec![leader];
    for other in others {
        let reaches_all = members.iter().all(|member| state.reach(*member, other));
        if reaches_all && members.len() < replicas.unwrap_or(usize::MAX).max(1) {
            members.push(other);
        }
    }
    members.sort();
    let epoch = state.stars[star].epoch.next();
    state.stars[star] = View { star: StarId(star as u16), epoch, founded: epoch, members, leader, ..View::default() };
}

/// How many stars each server leads.
fn leaderships(state: &ClusterState) -> BTreeMap<ServerId, usize> {
    let mut led = BTreeMap::new();
    for view in state.stars.iter().filter(|view| !view.members.is_empty() && view.epoch > Epoch(0)) {
        *led.entry(view.leader).or_insert(0) += 1;
    }
    led
}

/// In how many views each server is, those that it leaves left out.
fn places(state: &ClusterState) -> BTreeMap<ServerId, usize> {
    let mut places = BTreeMap::new();
    for view in &state.stars {
        for id in named(view).filter(|id| !view.leaving.contains(id)) {
            *places.entry(id).or_insert(0) += 1;
        }
    }
    places
}

/// How many members a star should have: as many as configured, but no more than there are servers to be members.
fn wanted_members(state: &ClusterState, replicas: Option<usize>, alive: &BTreeSet<ServerId>) -> usize {
    let able = alive.iter().filter(|id| state.is_active(**id)).count();
    replicas.unwrap_or(able).min(able).max(1)
}

/// Everyone who is in a view, in whatever role.
fn named(view: &View) -> impl Iterator<Item = ServerId> + '_ {
    view.members.iter().chain(&view.learners).copied()
}

#[cfg(test)]
mod cases;
#[cfg(test)]
mod settles;
#[cfg(test)]
mod tests;
