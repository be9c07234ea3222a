//! The planner over every small case.

use star_core::ids::Incarnation;

use super::*;
use crate::view::ServerRecord;

fn record(name: &str, incarnation: u64) -> ServerRecord {
    ServerRecord {
        id: ServerId(0),
        name: name.into(),
        addr: format!("127.0.0.1:{}", 7000 + name.len()),
        incarnation: Incarnation(incarnation),
        pid: 1,
        store: None,
        ..ServerRecord::default()
    }
}

fn ids(of: impl IntoIterator<Item = u16>) -> BTreeSet<ServerId> {
    of.into_iter().map(ServerId).collect()
}

pub(super) fn cluster(servers: u16, stars: u16) -> ClusterState {
    let mut state = ClusterState::new("test", stars);
    for number in 0..servers {
        state = registered(&state, &record(&format!("s{number}"), 1), &ids([])).0;
    }
    state
}

fn founded(servers: u16, stars: u16, replicas: Option<usize>) -> ClusterState {
    let wanted = PlanConfig { stars, initial_servers: servers.into(), replicas, follow_alive: false };
    plan(&cluster(servers, stars), &wanted, &ids(0..servers)).expect("first views")
}

/// Removal of the dead alone.
fn without_dead(state: &ClusterState, alive: &BTreeSet<ServerId>) -> Option<ClusterState> {
    let mut next = state.clone();
    take_out_the_dead(&mut next, alive);
    (next != *state).then_some(next)
}

/// All subsets of `0..count`.
fn subsets(count: u16) -> impl Iterator<Item = BTreeSet<ServerId>> {
    (0_u32..1 << count).map(move |bits| ids((0..count).filter(|id| bits & (1 << id) != 0)))
}

#[test]
fn first_views_wait_for_the_expected_servers_to_be_registered_and_alive() {
    let wanted = PlanConfig { stars: 4, initial_servers: 3, replicas: None, follow_alive: true };
    for registered in 0..=3 {
        for alive in subsets(registered) {
            let plan = plan(&cluster(registered, 4), &wanted, &alive);
            assert_eq!(plan.is_some(), alive.len() == 3, "{registered} registered, {alive:?} alive");
        }
    }
}

#[test]
fn first_views_spread_members_and_leaders_evenly_in_every_small_cluster() {
    for servers in 1..=7_u16 {
        for stars in 1..=24_u16 {
            for replicas in (1..=usize::from(servers)).map(Some).chain([None]) {
                let state = founded(servers, stars, replicas);
                state.check().expect("a sound state");
                let wanted_members = replicas.unwrap_or(servers.into());
                for view in &state.stars {
                    assert_eq!((view.epoch, view.founded, view.members.len()), (Epoch(1), Epoch(1), wanted_members));
                    assert!(view.joining.is_empty() && view.learners.is_empty());
                }
                let spread = |count: &dyn Fn(ServerId) -> usize| {
                    let counts: Vec<_> = (0..servers).map(|id| count(ServerId(id))).collect();
                    counts.iter().max().expect("servers") - counts.iter().min().expect("servers")
                };
                let case = format!("{servers} servers, {stars} stars, {replicas:?}");
                assert!(spread(&|id| state.stars.iter().filter(|view| view.leader == id).count()) <= 1, "{case}");
                assert!(spread(&|id| state.stars.iter().filter(|view| view.is_member(id)).count()) <= 1, "{case}");
            }
        }
    }
}

#[test]
fn a_settled_cluster_is_left_alone() {
    let wanted = PlanConfig { stars: 8, initial_servers: 3, replicas: None, follow_alive: true };
    let state = founded(3, 8, None);
    assert_eq!(plan(&state, &wanted, &ids(0..3)), None);
    let patient = PlanConfig { follow_alive: false, ..wanted };
    for alive in subsets(3) {
        assert_eq!(plan(&state, &patient, &alive), None, "{alive:?}");
    }
}

#[test]
fn a_state_without_stars_gets_all_of_them() {
    let mut state = cluster(1, 0);
    state.stars.clear();
    let next = plan(&state, &PlanConfig::default(), &ids([0])).expect("views");
    assert_eq!(next.stars.len(), 8);
    next.check().expect("a sound state");
}

/// Every view over four servers (members, joining ones, learners, leader), under every set of servers that are alive.
#[test]
fn removal_holds_its_rules_in_every_view_of_four_servers() {
    let mut cases = 0;
    for members in subsets(4).filter(|members| !members.is_empty()) {
        for joining in subsets(4).filter(|joining| joining.is_subset(&members) && *joining != members) {
            for learners in subsets(4).filter(|learners| learners.is_disjoint(&members)) {
                for leader in members.difference(&joining) {
                    for alive in subsets(4) {
                        let mut state = cluster(4, 1);
                        state.stars[0] = View {
                            star: StarId(0),
                            epoch: Epoch(7),
                            founded: Epoch(2),
                            members: members.iter().copied().collect(),
                            leader: *leader,
                            joining: joining.iter().copied().collect(),
                            learners: learners.iter().copied().collect(),
                            ..View::default()
                        };
                        check_removal(&state, &alive);
                        cases += 1;
                    }
                }
            }
        }
    }
    assert!(cases > 1000, "{cases}");
}

fn check_removal(state: &ClusterState, alive: &BTreeSet<ServerId>) {
    let before = &state.stars[0];
    let survives = before.serving().any(|id| alive.contains(&id));
    let all_alive = named(before).all(|id| alive.contains(&id));
    let Some(next) = without_dead(state, alive) else {
        assert!(all_alive || !survives, "{before:?} with {alive:?} alive needs a new view");
        return;
    };
    assert!(!all_alive && survives, "{before:?} with {alive:?} alive must stay");
    next.check().expect("a sound state");
    let after = &next.stars[0];
    assert_eq!((after.epoch, after.founded), (before.epoch.next(), before.founded));
    let kept = |list: &[ServerId]| -> Vec<_> { list.iter().copied().filter(|id| alive.contains(id)).collect() };
    assert_eq!(after.members, kept(&before.members));
    assert_eq!(after.joining, kept(&before.joining));
    assert_eq!(after.learners, kept(&before.learners));
    if alive.contains(&before.leader) {
        assert_eq!(after.leader, before.leader, "a living leader goes on");
    }
    let removed = before.members.iter().filter(|id| !alive.contains(id));
    let names: Vec<_> = removed.map(|id| state.server(*id).expect("known").name.clone()).collect();
    assert_eq!(ended_lives(state, &next, None), names);
    assert_eq!(without_dead(&next, alive), None, "one plan is enough");
}

#[test]
fn the_stars_of_a_dead_leader_are_spread_over_the_survivors() {
    for servers in 2..=6_u16 {
        for dead in 0..servers {
            let state = founded(servers, 12, None);
            let alive = ids((0..servers).filter(|id| *id != dead));
            let next = without_dead(&state, &alive).expect("new views");
            let led: Vec<_> =
                alive.iter().map(|id| next.stars.iter().filter(|view| view.leader == *id).count()).collect();
            assert!(led.iter().max().expect("alive") - led.iter().min().expect("alive") <= 1, "{servers}: {led:?}");
        }
    }
}

#[test]
fn a_name_keeps_its_number_and_the_same_life_changes_nothing() {
    let state = founded(3, 4, None);
    let (same, id) = registered(&state, &record("s1", 1), &ids([]));
    assert_eq!((id, &same), (ServerId(1), &state));
    assert_eq!(ended_lives(&state, &same, None), Vec::<String>::new());
    let (moved, id) = registered(&state, &ServerRecord { addr: "127.0.0.1:9".into(), ..record("s1", 1) }, &ids([]));
    assert_eq!(id, ServerId(1));
    assert_eq!((moved.stars, moved.servers[1].addr.as_str()), (state.stars.clone(), "127.0.0.1:9"));
    assert_eq!(registered(&state, &record("new", 1), &ids([])).1, ServerId(3));
}

#[test]
fn a_new_life_is_a_member_of_nothing_and_needs_the_old_ones_lease_to_be_free() {
    let state = founded(3, 6, None);
    let (next, _) = registered(&state, &record("s1", 2), &ids([]));
    next.check().expect("a sound state");
    assert_eq!(ended_lives(&state, &next, None), ["s1"]);
    for (view, before) in next.stars.iter().zip(&state.stars) {
        assert_eq!(view.members, [ServerId(0), ServerId(2)]);
        assert_eq!(view.epoch, before.epoch.next());
    }
    // Also where it was a member of nothing: its old life may hold the lease still.
    let state = cluster(2, 2);
    let (next, _) = registered(&state, &record("s0", 2), &ids([]));
    assert_eq!(ended_lives(&state, &next, None), ["s0"]);
}

#[test]
fn the_last_holder_comes_back_without_memory_although_a_joining_member_lives() {
    let mut state = founded(2, 1, None);
    state.stars[0].joining = vec![ServerId(1)];
    state.stars[0].leader = ServerId(0);
    let (next, _) = registered(&state, &record("s0", 2), &ids([]));
    next.check().expect("a sound state");
    assert_eq!(next.stars[0].members, [], "what the joining one has is worth nothing");
    assert_eq!(ended_lives(&state, &next, None), ["s0"], "s1 lives, and would be waited for until it ends");
}

#[test]
fn a_cluster_that_was_restarted_whole_without_memory_starts_anew_in_higher_epochs() {
    let mut state = founded(3, 2, None);
    let wanted = PlanConfig { stars: 2, initial_servers: 3, replicas: None, follow_alive: true };
    for number in 0..3 {
        state = registered(&state, &record(&format!("s{number}"), 2), &ids([])).0;
        state.check().expect("a sound state");
    }
    assert!(state.stars.iter().all(|view| view.members.is_empty() && view.epoch == Epoch(4)));
    assert!(state.stars.iter().all(|view| view.founded == Epoch(1)));
    let next = plan(&state, &wanted, &ids(0..3)).expect("views");
    assert!(next.stars.iter().all(|view| view.members.len() == 3 && view.epoch == Epoch(5)));
    assert!(next.stars.iter().all(|view| view.founded == Epoch(5)), "whoever holds objects of before drops them");
    next.check_follows(&state).expect("the history goes on");
    assert_eq!(ended_lives(&state, &next, None), Vec::<String>::new());
}

#[test]
fn only_the_lease_of_the_latest_life_makes_a_server_alive() {
    let state = cluster(3, 1);
    let remaining = std::time::Duration::from_millis(1);
    let lease = |name: &str, holder| Lease { name: name.into(), holder: Incarnation(holder), remaining };
    let leases = [lease("s0", 1), lease("s1", 9), lease("stranger", 1)];
    assert_eq!(alive(&state, &leases), ids([0]));
}
