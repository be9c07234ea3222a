//! The planner over every small case.

use star_core::ids::{Incarnation, Seq};

use super::*;
use crate::view::{Claim, Past, ServerRecord, Standing};

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

/// What a store holds of star 0: its epoch, base, ready and committed.
fn claim([epoch, base, ready, committed]: [u64; 4]) -> Claim {
    let (founded, life) = (Epoch(1), Incarnation(1));
    let (base, ready, committed) = (Seq(base), Seq(ready), Seq(committed));
    Claim { founded, life, epoch: Epoch(epoch), base, ready, committed, whole: true, ..Claim::default() }
}

/// A cluster of three servers, all of which have ended, whose star 0 is in epoch 5, and was in 4 with the same members; of
/// these stores is known.
fn ended(known: &[(u16, [u64; 4])]) -> ClusterState {
    let mut state = cluster(3, 1);
    let members = vec![ServerId(0), ServerId(1), ServerId(2)];
    let past = vec![Past { epoch: Epoch(4), members: members.clone() }];
    let (epoch, founded, leader) = (Epoch(5), Epoch(1), ServerId(0));
    state.stars[0] = View { star: StarId(0), epoch, founded, members, leader, past, ..View::default() };
    for (id, numbers) in known {
        state.servers[usize::from(*id)].claims = vec![claim(*numbers)];
    }
    state
}

/// The servers whose stores certainly hold everything.
fn certain(known: &[(u16, [u64; 4])]) -> Vec<u16> {
    let state = ended(known);
    resume::proven(&state, &state.stars[0]).into_iter().map(|(id, _)| id.0).collect()
}

#[test]
fn a_store_goes_on_only_where_it_certainly_holds_everything() {
    const NOBODY: [u16; 0] = [];
    // One that has applied all that it ever acked, in the latest epoch: nobody can have been told of more.
    assert_eq!(certain(&[(1, [5, 10, 20, 20])]), [1]);
    assert_eq!(certain(&[(1, [5, 10, 21, 20])]), NOBODY, "another may have applied what it acked");
    assert_eq!(certain(&[(1, [5, 21, 20, 20])]), NOBODY, "the base is not there yet");
    // Two: what the one never acked was not committed.
    assert_eq!(certain(&[(1, [5, 10, 20, 20]), (2, [5, 10, 25, 19])]), [1]);
    assert_eq!(certain(&[(1, [5, 10, 24, 20]), (2, [5, 10, 25, 21])]), NOBODY);
    // All: who told anybody had noted that it is committed.
    assert_eq!(certain(&[(0, [5, 10, 22, 18]), (1, [5, 10, 24, 20]), (2, [5, 10, 25, 21])]), [2]);
    // In an epoch that a member had not taken over nothing was committed.
    assert_eq!(certain(&[(1, [4, 10, 20, 20])]), [1], "so epoch 5 is void");
    assert_eq!(certain(&[(1, [4, 10, 20, 19]), (2, [5, 20, 20, 20])]), [2], "all before 5 is at its base");
    assert_eq!(certain(&[(1, [3, 10, 20, 20])]), NOBODY, "it is not known who was in epoch 3");
    assert_eq!(certain(&[]), NOBODY);
    // All have noted epoch 4, and some 5, whose base nobody has committed: what was told in 4 counts.
    let cut = [(0, [4, 10, 22, 20]), (1, [5, 22, 22, 19]), (2, [5, 22, 22, 19])];
    assert_eq!(certain(&cut), [0]);
    assert_eq!(certain(&cut[1..]), NOBODY);
}

#[test]
fn what_a_store_must_be_to_be_gone_on_with() {
    let wanted = PlanConfig { stars: 1, initial_servers: usize::MAX, replicas: None, follow_alive: true };
    let goes_on = |alive: &[u16], change: &dyn Fn(&mut ClusterState)| {
        let mut state = ended(&[(1, [5, 10, 20, 20])]);
        let mut out = state.clone();
        out.stars[0].members.clear();
        out.stars[0].epoch = Epoch(6);
        state = chronicled(&state, out);
        change(&mut state);
        let next = plan(&state, &wanted, &ids(alive.iter().copied()))?;
        next.check().expect("a sound state");
        let view = &next.stars[0];
        assert_eq!((view.founded, view.past.first().map(|past| past.epoch)), (Epoch(1), began(view)));
        assert!(next.servers[usize::from(view.leader.0)].claims.is_empty(), "its store changes from now on");
        view.resumed.map(|resumed| (view.members.clone(), resumed.seq))
    };
    let began_with = Some((vec![ServerId(1)], Seq(20)));
    let of = |change: fn(&mut Claim)| move |state: &mut ClusterState| change(&mut state.servers[1].claims[0]);
    assert_eq!(goes_on(&[1], &|_| ()), began_with.clone());
    assert_eq!(goes_on(&[1, 2], &|_| ()), began_with, "who lives besides learns");
    assert_eq!(goes_on(&[2], &|_| ()), None, "its server is away");
    assert_eq!(goes_on(&[1], &of(|claim| claim.whole = false)), None, "it was being filled, or is damaged");
    assert_eq!(goes_on(&[1], &of(|claim| claim.founded = Epoch(2))), None, "of another foundation");
    assert_eq!(goes_on(&[1], &of(|claim| claim.epoch = Epoch(7))), None, "the control plane has forgotten views");
}

/// Where what is remembered of a star that went on with a store begins, if that was not in the latest epoch.
fn began(view: &View) -> Option<Epoch> {
    view.resumed.map(|resumed| resumed.epoch).filter(|began| *began < view.epoch)
}

#[test]
fn a_claim_counts_if_the_life_before_left_the_store() {
    let mut state = ended(&[]);
    let mark = star_core::note::cluster_mark(&state.cluster);
    let with = |incarnation, claim: Claim| ServerRecord { claims: vec![claim], ..record("s1", incarnation) };
    let ours = Claim { cluster: mark, ..claim([5, 10, 20, 20]) };
    let entered = |state: &ClusterState, me: &ServerRecord| registered(state, me, &ids([])).0;
    // Alone it holds everything, so the star goes on with it in the same write.
    let next = entered(&state, &with(2, ours));
    assert_eq!((next.stars[0].members.clone(), next.stars[0].epoch), (vec![ServerId(1)], Epoch(6)));
    let mut all = ended_lives(&state, &next, Some(ServerId(1)));
    all.sort();
    assert_eq!(all, ["s0", "s1", "s2"], "nobody may live on who is left out");
    for (me, why) in [
        (with(2, Claim { cluster: mark + 1, ..ours }), "of another cluster"),
        (with(2, Claim { life: Incarnation(7), ..ours }), "of another life than the last"),
    ] {
        let next = entered(&state, &me);
        assert!(next.servers[1].claims.is_empty() && next.stars[0].resumed.is_none(), "{why}");
    }
    // A life that found the store and did nothing with it leaves it as it was.
    let me = with(2, Claim { ready: Seq(21), ..ours });
    state = entered(&state, &me);
    assert_eq!((state.servers[1].claims.len(), state.stars[0].members.len()), (1, 2));
    state = entered(&state, &with(3, me.claims[0]));
    assert_eq!(state.servers[1].claims.len(), 1);
    assert!(entered(&state, &with(4, ours)).servers[1].claims.is_empty(), "it is another one");
    // A living holder goes on, whatever is claimed.
    let next = registered(&ended(&[]), &with(2, ours), &ids([2])).0;
    assert_eq!((next.stars[0].resumed, next.stars[0].members.len()), (None, 2));
}

#[test]
fn the_last_views_are_remembered_and_no_more() {
    let mut state = founded(3, 1, None);
    for turn in 0..20_u64 {
        let mut next = state.clone();
        next.stars[0].epoch = next.stars[0].epoch.next();
        state = chronicled(&state, next);
        let past = &state.stars[0].past;
        assert_eq!(past.len(), 8.min(turn as usize + 1));
        assert!(past.windows(2).all(|two| two[0].epoch.next() == two[1].epoch), "{past:?}");
        assert_eq!(past.last().map(|past| past.epoch.next()), Some(state.stars[0].epoch));
    }
}

#[test]
fn a_server_that_ended_for_good_can_be_given_up_with_what_it_has() {
    let state = ended(&[(1, [5, 10, 24, 20])]);
    assert_eq!(awaited(&state, 0, &ids([])).len(), 3);
    assert!(removed(&state, ServerId(0), false).is_err());
    let mut state = state;
    for id in [0, 2] {
        state = removed(&state, ServerId(id), true).expect("it may").expect("a change");
        state.check().expect("a sound state");
    }
    assert!(state.server(ServerId(0)).is_some_and(|one| one.standing == Standing::Removed));
    assert_eq!(awaited(&state, 0, &ids([])), ids([1]));
}
