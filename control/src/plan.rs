//! What the views should be next. Pure: any server may run it, and all get the same from the same.
//!
//! A plan is only a proposal. It is made from what one server saw a moment ago; what keeps it safe is the write that
//! installs it, which demands that nobody whose life in the views it ends holds a lease: see [`ended_lives`].

mod join;

use std::collections::{BTreeMap, BTreeSet};

pub use join::advanced;
use star_core::ids::{Epoch, ServerId, StarId};

use crate::{
    plane::Lease,
    view::{ClusterState, ServerRecord, View},
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
    let holds = |server: &&ServerRecord| {
        leases.iter().any(|lease| lease.name == server.name && lease.holder == server.incarnation)
    };
    state.servers.iter().filter(holds).map(|server| server.id).collect()
}

/// The next state of the cluster; `None` if it is as it should be, or if nothing can be done.
///
/// * A star without members gets some once enough servers are alive: its first view, or the first after the last server
///   that held its objects has lost its memory.
/// * A member that is not alive is taken out, if [`PlanConfig::follow_alive`]; if it led the star, the serving member
///   that leads the fewest stars leads it from then on. A star of which no serving member is alive stays as it is and
///   waits for one of them: nobody else has its objects.
/// * A living server that a star lacks becomes its learner; how it goes on from there is up to itself, see [`advanced`].
pub fn plan(state: &ClusterState, wanted: &PlanConfig, alive: &BTreeSet<ServerId>) -> Option<ClusterState> {
    let mut next = state.clone();
    if next.stars.is_empty() {
        next.stars = ClusterState::new("", wanted.stars).stars;
    }
    if wanted.follow_alive {
        for star in 0..next.stars.len() {
            let dead: BTreeSet<_> = named(&next.stars[star]).filter(|id| !alive.contains(id)).collect();
            if !dead.is_empty() && next.stars[star].serving().any(|id| alive.contains(&id)) {
                take_out(&mut next, star, &dead);
            }
        }
    }
    if alive.len() >= wanted.initial_servers.max(1) {
        for star in 0..next.stars.len() {
            if next.stars[star].members.is_empty() {
                found(&mut next, star, wanted.replicas, alive);
            }
        }
    }
    if wanted.follow_alive {
        join::add_learners(&mut next, wanted.replicas, alive);
        if next == *state {
            join::spread_leaders(&mut next);
        }
    }
    (next != *state).then_some(next)
}

/// The state with this server's record in it, under its name's number or the next free one.
///
/// A server that comes with another incarnation than its record's has lost its memory, so it is taken out of every view
/// in the same write: whoever is a member is one in the life that its record shows. A star that loses its last serving
/// member so has lost its objects; it is left without members.
pub fn registered(state: &ClusterState, me: &ServerRecord) -> (ClusterState, ServerId) {
    let mut next = state.clone();
    let Some(known) = next.servers.iter().position(|server| server.name == me.name) else {
        let id = ServerId(next.servers.len() as u16);
        next.servers.push(ServerRecord { id, ..me.clone() });
        return (next, id);
    };
    let id = next.servers[known].id;
    let new_life = next.servers[known].incarnation != me.incarnation;
    next.servers[known] = ServerRecord { id, ..me.clone() };
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

/// The names of the servers whose life as members ends with a change from `before` to `after`: their leases must be free
/// when it is installed. That is who is taken out of a view, and who registers a new life.
pub fn ended_lives(before: &ClusterState, after: &ClusterState) -> Vec<String> {
    let ends = |server: &&ServerRecord| {
        let same_life = after.server(server.id).is_some_and(|now| now.incarnation == server.incarnation);
        let taken_out = |view: &View| {
            let now = after.stars.get(usize::from(view.star.0));
            view.is_member(server.id) && !now.is_some_and(|now| now.is_member(server.id))
        };
        !same_life || before.stars.iter().any(taken_out)
    };
    before.servers.iter().filter(ends).map(|server| server.name.clone()).collect()
}

/// Takes servers out of a view, which is a new epoch, and finds it another leader if need be.
fn take_out(state: &mut ClusterState, star: usize, leaving: &BTreeSet<ServerId>) {
    let led = leaderships(state);
    let view = &mut state.stars[star];
    view.epoch = view.epoch.next();
    for list in [&mut view.members, &mut view.joining, &mut view.learners] {
        list.retain(|id| !leaving.contains(id));
    }
    if view.serving().next().is_none() {
        // Those that were still joining hold a part of the objects, which is worth nothing without the rest.
        *view = View { star: view.star, epoch: view.epoch, founded: view.founded, ..View::default() };
    } else if leaving.contains(&view.leader) {
        view.leader = least(view.serving(), &led).expect("there is a serving member");
    }
}

/// Gives a star without members some, all of them serving: the new `founded` has each of them begin without an object, so
/// all have the same.
fn found(state: &mut ClusterState, star: usize, replicas: Option<usize>, alive: &BTreeSet<ServerId>) {
    let led = leaderships(state);
    let mut held: BTreeMap<ServerId, usize> = BTreeMap::new();
    for member in state.stars.iter().flat_map(|view| &view.members) {
        *held.entry(*member).or_insert(0) += 1;
    }
    let held = |id: ServerId| held.get(&id).copied().unwrap_or(0);
    // The leader first: whoever leads the fewest stars, so that the members chosen never leave only busy ones to lead.
    let leader = alive.iter().copied().min_by_key(|id| (led.get(id).copied().unwrap_or(0), held(*id), *id));
    let leader = leader.expect("somebody is alive");
    let mut others: Vec<ServerId> = alive.iter().copied().filter(|id| *id != leader).collect();
    others.sort_by_key(|id| (held(*id), *id));
    others.truncate(replicas.unwrap_or(alive.len()).max(1) - 1);
    let mut members = others;
    members.push(leader);
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

/// The candidate that leads the fewest stars; of several, the one with the smallest number.
fn least(candidates: impl Iterator<Item = ServerId>, led: &BTreeMap<ServerId, usize>) -> Option<ServerId> {
    candidates.min_by_key(|id| (led.get(id).copied().unwrap_or(0), *id))
}

/// Everyone who is in a view, in whatever role.
fn named(view: &View) -> impl Iterator<Item = ServerId> + '_ {
    view.members.iter().chain(&view.learners).copied()
}

#[cfg(test)]
mod tests;
