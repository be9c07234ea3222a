//! The planner over every small case, and the table in `DESIGN/planner.md` against the planner.

use super::{tests::cluster, *};
use crate::view::Standing;

const DESIGN: &str = include_str!("../../../DESIGN/planner.md");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Out,
    Serving,
    Joining,
    Leaving,
    Learner,
}

const ROLES: [Role; 5] = [Role::Out, Role::Serving, Role::Joining, Role::Leaving, Role::Learner];

fn ids(bits: u32, of: u16) -> BTreeSet<ServerId> {
    (0..of).filter(|id| bits & 1 << id != 0).map(ServerId).collect()
}

/// Every view that a star of so many servers can have: roles and leader.
pub(super) fn views(servers: u16, star: u16) -> Vec<View> {
    let mut views = Vec::new();
    for code in 0..5_usize.pow(servers.into()) {
        let role = |id: u16| ROLES[code / 5_usize.pow(id.into()) % 5];
        let with = |wanted: &[Role]| -> Vec<ServerId> {
            (0..servers).filter(|id| wanted.contains(&role(*id))).map(ServerId).collect()
        };
        for leader in with(&[Role::Serving]) {
            views.push(View {
                star: StarId(star),
                epoch: Epoch(7),
                founded: Epoch(2),
                members: with(&[Role::Serving, Role::Joining, Role::Leaving]),
                leader,
                joining: with(&[Role::Joining]),
                leaving: with(&[Role::Leaving]),
                learners: with(&[Role::Learner]),
                ..View::default()
            });
        }
    }
    views
}

/// The pairs that do not reach each other, by the bits of a number; every other one said from the other side.
fn cut(state: &mut ClusterState, servers: u16, bits: u32) {
    let pairs = (0..servers).flat_map(|one| (0..one).map(move |other| (one, other)));
    for (number, (one, other)) in pairs.enumerate().filter(|(number, _)| bits & 1 << number != 0) {
        let (from, to) = if number % 2 == 0 { (one, other) } else { (other, one) };
        state.servers[usize::from(from)].unreachable.insert(ServerId(to));
    }
}

pub(super) fn wanted(stars: u16, replicas: Option<usize>) -> PlanConfig {
    PlanConfig { stars, initial_servers: usize::MAX, replicas, follow_alive: true }
}

/// What must hold of every plan.
fn check(before: &ClusterState, alive: &BTreeSet<ServerId>, after: &ClusterState) {
    let case = || format!("{:?}\nwith {alive:?} alive, {:?}\nto {:?}", before.stars, before.servers, after.stars);
    after.check().unwrap_or_else(|why| panic!("{why}: {}", case()));
    after.check_follows(before).unwrap_or_else(|why| panic!("{why}: {}", case()));
    for (view, next) in before.stars.iter().zip(&after.stars) {
        if !view.holders().any(|id| alive.contains(&id)) {
            let roles = |view: &View| (view.members.clone(), view.leader, view.joining.clone(), view.leaving.clone());
            assert_eq!(roles(view), roles(next), "nobody is left who has the objects: {}", case());
            continue;
        }
        for gone in view.members.iter().filter(|id| !next.is_member(**id)) {
            assert!(!alive.contains(gone), "nobody but itself takes a living member out: {}", case());
        }
        assert!(named(next).all(|id| alive.contains(&id)), "the dead go: {}", case());
        assert!(next.serving().any(|id| id == next.leader), "somebody serves and leads: {}", case());
        let staying: Vec<ServerId> = next.members.iter().copied().filter(|id| !next.leaving.contains(id)).collect();
        for (at, one) in staying.iter().enumerate() {
            let reached = staying[..at].iter().all(|other| after.reach(*one, *other));
            assert!(reached, "who stays reaches all that stay: {}", case());
        }
        let learners_fit = next.learners.iter().all(|one| staying.iter().all(|member| after.reach(*one, *member)));
        assert!(learners_fit, "who learns reaches all that stay: {}", case());
    }
}

/// The most serving members that could stay in a view, by trying every set.
fn most_that_can_serve(state: &ClusterState, view: &View, alive: &BTreeSet<ServerId>) -> usize {
    let serving: Vec<ServerId> = view.serving().filter(|id| alive.contains(id)).collect();
    let sets = (0..1_u32 << serving.len()).map(|bits| {
        let chosen = (0..serving.len()).filter(move |at| bits & 1 << at != 0);
        chosen.map(|at| serving[at]).collect::<Vec<_>>()
    });
    let whole = |set: &Vec<ServerId>| set.iter().all(|one| set.iter().all(|other| state.reach(*one, *other)));
    sets.filter(whole).map(|set| set.len()).max().unwrap_or(0)
}

#[test]
fn every_view_of_four_servers_under_all_that_lives_and_all_that_is_cut() {
    let mut cases = 0_u32;
    let mut state = cluster(4, 1);
    for view in views(4, 0) {
        state.stars[0] = view;
        for broken in 0..1 << 6 {
            let servers = cluster(4, 1).servers;
            state.servers = servers;
            cut(&mut state, 4, broken);
            for alive in (0..1 << 4).map(|bits| ids(bits, 4)) {
                let next = plan(&state, &wanted(1, None), &alive).unwrap_or_else(|| state.clone());
                check(&state, &alive, &next);
                let survives = state.stars[0].serving().any(|id| alive.contains(&id));
                if survives {
                    let most = most_that_can_serve(&state, &state.stars[0], &alive);
                    assert_eq!(next.stars[0].serving().count(), most, "as few as possible go: {state:?} {alive:?}");
                }
                cases += 1;
            }
        }
    }
    assert!(cases > 500_000, "{cases}");
}

#[test]
fn every_pair_of_views_of_three_servers_has_the_same_server_give_way() {
    let mut cases = 0_u32;
    let (ones, others) = (views(3, 0), views(3, 1));
    for broken in 0..1 << 3 {
        let mut state = cluster(3, 2);
        cut(&mut state, 3, broken);
        for alive in (0..1 << 3).map(|bits| ids(bits, 3)) {
            for (one, other) in ones.iter().flat_map(|one| others.iter().map(move |other| (one, other))) {
                state.stars = vec![one.clone(), other.clone()];
                let next = plan(&state, &wanted(2, None), &alive).unwrap_or_else(|| state.clone());
                check(&state, &alive, &next);
                let newly = |star: usize| -> Vec<ServerId> {
                    let (before, after) = (&state.stars[star], &next.stars[star]);
                    after.leaving.iter().copied().filter(|id| !before.leaving.contains(id)).collect()
                };
                let alike = |view: &View| (view.members.clone(), view.joining.clone(), view.leaving.clone());
                if alike(one) == alike(other) {
                    assert_eq!(newly(0), newly(1), "{state:?} with {alive:?} alive");
                }
                cases += 1;
            }
        }
    }
    assert!(cases > 100_000, "{cases}");
}

/// Plans and own steps until nothing moves; everybody is always ready for the next step, but for where nobody lives from
/// whom the objects could come.
pub(super) fn settle(
    mut state: ClusterState,
    wanted: &PlanConfig,
    alive: &BTreeSet<ServerId>,
) -> (ClusterState, usize) {
    for steps in 0..200 {
        let lives = |view: &&View| view.holders().any(|id| alive.contains(&id));
        let ready: Vec<_> = state.stars.iter().filter(lives).map(|view| (view.star, view.epoch)).collect();
        let own = alive.iter().find_map(|id| advanced(&state, *id, &ready, alive));
        match own.or_else(|| plan(&state, wanted, alive)) {
            None => return (state, steps),
            Some(next) => {
                next.check().expect("a sound state");
                next.check_follows(&state).expect("the history goes on");
                state = next;
            }
        }
    }
    panic!("it never rests: {state:?} with {alive:?} alive");
}

#[test]
fn everything_settles_from_every_view_of_three_servers_whatever_they_are_to_be() {
    let standings = [Standing::Active, Standing::Stopping, Standing::Draining];
    for code in 0..27_usize {
        for replicas in [None, Some(1), Some(2)] {
            for (alive, broken) in (1..1 << 3).flat_map(|bits| (0..1 << 3).map(move |cut| (ids(bits, 3), cut))) {
                let mut state = cluster(3, 1);
                cut(&mut state, 3, broken);
                for (id, server) in state.servers.iter_mut().enumerate() {
                    server.standing = standings[code / 3_usize.pow(id as u32) % 3];
                }
                for view in views(3, 0) {
                    state.stars[0] = view;
                    let (end, _) = settle(state.clone(), &wanted(1, replicas), &alive);
                    check(&state, &alive, &plan(&state, &wanted(1, replicas), &alive).unwrap_or(state.clone()));
                    let view = &end.stars[0];
                    if !view.holders().any(|id| alive.contains(&id)) {
                        continue;
                    }
                    assert!(view.is_settled(), "{state:?} with {alive:?} alive: {end:?}");
                    let active = |id: &ServerId| end.is_active(*id);
                    let copies = view.members.iter().filter(|id| active(id)).count();
                    let able = alive.iter().filter(|id| active(id)).count();
                    if broken == 0 {
                        assert_eq!(copies, replicas.unwrap_or(able).min(able), "{state:?} with {alive:?}: {end:?}");
                        let others = view.members.len() - copies;
                        assert!(others == 0 || able == 0, "they leave where others stay: {state:?}: {end:?}");
                    }
                }
            }
        }
    }
}

/// How many members and leaderships the richest and the poorest of these servers have.
fn spread(state: &ClusterState, of: impl Fn(&View, ServerId) -> bool, ids: &BTreeSet<ServerId>) -> (usize, usize) {
    let count = |id: &ServerId| state.stars.iter().filter(|view| of(view, *id)).count();
    (ids.iter().map(count).min().unwrap_or(0), ids.iter().map(count).max().unwrap_or(0))
}

#[test]
fn memberships_spread_over_servers_that_come_and_away_from_those_that_are_drained() {
    for stars in [1, 4, 8, 11] {
        for replicas in 1..=3_usize {
            let first = ids(0b111, 3);
            let founding = PlanConfig { initial_servers: 3, ..wanted(stars, Some(replicas)) };
            let start = plan(&cluster(3, stars), &founding, &first).expect("first views");
            let mut state = ClusterState { servers: cluster(6, stars).servers, ..start };
            let mut moving_most = 0;
            let all = ids(0b11_1111, 6);
            let mut moves = 0;
            // The new ones come; then two are drained.
            for (round, alive) in [(0, all.clone()), (1, all.clone())] {
                if round == 1 {
                    for id in [0, 4] {
                        state = marked(&state, ServerId(id), Standing::Draining).expect("a change");
                    }
                }
                loop {
                    let ready: Vec<(StarId, Epoch)> = state.stars.iter().map(|view| (view.star, view.epoch)).collect();
                    let own = alive.iter().find_map(|id| advanced(&state, *id, &ready, &alive));
                    let Some(next) = own.or_else(|| plan(&state, &wanted(stars, Some(replicas)), &alive)) else {
                        break;
                    };
                    let copies = next.stars.iter().map(|view| view.serving().count() + view.leaving.len()).min();
                    assert!(copies >= Some(replicas), "a star has fewer copies than it should: {next:?}");
                    moving_most = moving_most.max(next.stars.iter().filter(|view| !view.is_settled()).count());
                    moves += 1;
                    assert!(moves < 3000, "it never rests");
                    state = next;
                }
                let able: BTreeSet<ServerId> = alive.iter().copied().filter(|id| state.is_active(*id)).collect();
                let case = format!("{stars} stars of {replicas}, round {round}: {:?}", state.stars);
                let (least, most) = spread(&state, View::is_member, &able);
                assert!(most - least <= 1, "members are spread: {least} to {most}, {case}");
                assert!(state.stars.iter().all(|view| view.members.len() == replicas && view.is_settled()), "{case}");
                let strays = state.stars.iter().flat_map(|view| &view.members).any(|id| !able.contains(id));
                assert!(!strays, "who is drained is in no view: {case}");
            }
            assert!(moving_most <= moves::MOVING_STARS_MAX, "{moving_most} stars move at once");
            assert!(removed(&state, ServerId(0), false).expect("it is in no view").is_some());
            assert!(matches!(removed(&state, ServerId(1), false), Err(CannotRemove::InViews(_))) || stars == 1);
        }
    }
}

#[test]
fn nobody_but_a_leaving_member_itself_leaves_with_a_lease_in_its_hand() {
    let mut before = cluster(3, 1);
    let all = ids(0b111, 3);
    before.stars[0] = views(3, 0).into_iter().find(|view| view.serving().count() == 3).expect("such a view");
    let asked = stopped(&before, ServerId(2), &all);
    assert_eq!((asked.stars[0].leaving.as_slice(), asked.stars[0].epoch), ([ServerId(2)].as_slice(), Epoch(8)));
    assert_eq!(ended_lives(&before, &asked, Some(ServerId(1))), Vec::<String>::new(), "to be asked ends nothing");
    let ready = [(StarId(0), Epoch(8))];
    let out = advanced(&asked, ServerId(2), &ready, &all).expect("a step");
    assert_eq!(out.stars[0].members, [ServerId(0), ServerId(1)]);
    assert_eq!(ended_lives(&asked, &out, Some(ServerId(2))), Vec::<String>::new());
    for by in [None, Some(ServerId(0)), Some(ServerId(1))] {
        assert_eq!(ended_lives(&asked, &out, by), ["s2"]);
    }
    // Not even itself, where it was not asked in the view that is there; and not where nobody else lives.
    assert_eq!(ended_lives(&before, &out, Some(ServerId(2))), ["s2"]);
    assert_eq!(advanced(&asked, ServerId(2), &[(StarId(0), Epoch(7))], &all), None);
    assert_eq!(advanced(&asked, ServerId(2), &ready, &ids(0b100, 3)), None);
    // If the others die it stays after all.
    let alone = plan(&asked, &wanted(1, None), &ids(0b100, 3)).expect("a plan");
    assert_eq!((alone.stars[0].leader, alone.stars[0].serving().count()), (ServerId(2), 1));
}

/// `0* 1 2+ 3- 4?`: leader, joining, leaving, learner.
pub(super) fn view_of(text: &str) -> View {
    let mut view = View { epoch: Epoch(7), founded: Epoch(2), ..View::default() };
    for word in text.split_whitespace() {
        let id = ServerId(word.trim_end_matches(['*', '+', '-', '?']).parse().expect("a number"));
        if word.contains('?') {
            view.learners.push(id);
            continue;
        }
        view.members.push(id);
        if word.contains('*') {
            view.leader = id;
        }
        if word.contains('+') {
            view.joining.push(id);
        }
        if word.contains('-') {
            view.leaving.push(id);
        }
    }
    view
}

#[test]
fn the_table_in_the_document_is_what_the_planner_does() {
    let mut rows = 0;
    for line in DESIGN.lines().filter(|line| line.starts_with("| all |") || line.starts_with("| 2 |")) {
        let cells: Vec<&str> = line.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        let [_, replicas, servers, cannot_reach, view, next, _, _] = cells[..] else {
            panic!("a row has 6 cells: {line}")
        };
        let mut state = cluster(4, 1);
        let mut alive = ids(0b1111, 4);
        for word in servers.split(", ").filter(|word| !word.is_empty()) {
            let (id, what) = word.split_once(' ').expect("a server and what is with it");
            let id: u16 = id.parse().expect("a number");
            match what {
                "dead" => drop(alive.remove(&ServerId(id))),
                "stops" => state.servers[usize::from(id)].standing = Standing::Stopping,
                "drains" => state.servers[usize::from(id)].standing = Standing::Draining,
                other => panic!("{other:?} is nothing that a server can be"),
            }
        }
        for pair in cannot_reach.split(", ").filter(|pair| !pair.is_empty()) {
            let (from, to) = pair.split_once('→').expect("who cannot reach whom");
            let to = ServerId(to.parse().expect("a number"));
            state.servers[from.parse::<usize>().expect("a number")].unreachable.insert(to);
        }
        state.stars[0] = view_of(view);
        let planned = plan(&state, &wanted(1, replicas.parse().ok()), &alive);
        let found = planned.map(|state| View { epoch: Epoch(7), past: Vec::new(), ..state.stars[0].clone() });
        let expected = (next != "stays").then(|| view_of(next));
        assert_eq!(found, expected, "{line}");
        rows += 1;
    }
    assert!(rows > 15, "{rows} rows");
}
