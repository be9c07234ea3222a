//! That a cluster comes to rest where it should, from whatever it may have gone through: once all servers live and reach
//! each other, every star gets its members, all of them serving, and members and leaders are spread.

use star_core::ids::Incarnation;

use super::{
    cases::{settle, view_of, views, wanted},
    tests::cluster,
    *,
};
use crate::{agent::handed_over, view::Standing};

fn all(servers: u16) -> BTreeSet<ServerId> {
    (0..servers).map(ServerId).collect()
}

/// What must hold of a cluster at rest in which all that live reach each other, and none stops: every star that has its
/// objects still is whole, and if that is each of them, members and leaders are spread.
fn check_rest(start: &ClusterState, end: &ClusterState, replicas: Option<usize>, alive: &BTreeSet<ServerId>) {
    let case = || format!("{start:?}\nwith {alive:?} alive comes to rest as {:?}", end.stars);
    let able: Vec<ServerId> = alive.iter().copied().filter(|id| end.is_active(*id)).collect();
    if able.is_empty() {
        return; // There is nobody to go to.
    }
    let copies = replicas.unwrap_or(able.len()).min(able.len());
    let waits = |view: &&View| !view.holders().any(|id| alive.contains(&id));
    for view in end.stars.iter().filter(|view| !waits(view)) {
        assert!(view.is_settled() && view.members.len() == copies, "{}", case());
        assert!(view.members.iter().all(|id| able.contains(id)), "who is to leave stays: {}", case());
    }
    if end.stars.iter().any(|view| waits(&view)) {
        return;
    }
    let (held, led) = (places(end), leaderships(end));
    let of = |counts: &BTreeMap<ServerId, usize>, id: &ServerId| counts.get(id).copied().unwrap_or(0);
    let (least, most) = (able.iter().map(|id| of(&held, id)).min(), able.iter().map(|id| of(&held, id)).max());
    assert!(most.unwrap_or(0) - least.unwrap_or(0) <= 1, "members are not spread: {}", case());
    for view in &end.stars {
        let least = view.serving().map(|id| of(&led, &id)).min().expect("somebody serves");
        assert!(of(&led, &view.leader) <= least + 1, "another member leads less: {}", case());
    }
}

#[test]
fn every_pair_of_views_of_three_servers_settles_whole_and_spread() {
    let standings = [Standing::Active, Standing::Draining];
    let (ones, others) = (views(3, 0), views(3, 1));
    for (code, replicas) in (0..8_usize).flat_map(|code| [None, Some(1), Some(2)].map(|replicas| (code, replicas))) {
        let mut state = cluster(3, 2);
        for (id, server) in state.servers.iter_mut().enumerate() {
            server.standing = standings[code >> id & 1];
        }
        for (one, other) in ones.iter().flat_map(|one| others.iter().map(move |other| (one, other))) {
            state.stars = vec![one.clone(), other.clone()];
            let (end, _) = settle(state.clone(), &wanted(2, replicas), &all(3));
            check_rest(&state, &end, replicas, &all(3));
        }
    }
}

/// A cluster to which things happen, as they happen to a real one: by the steps that servers' agents take.
struct Walk {
    state: ClusterState,
    alive: BTreeSet<ServerId>,
    ending: BTreeSet<ServerId>,
    config: PlanConfig,
    dice: u64,
}

impl Walk {
    fn below(&mut self, bound: usize) -> usize {
        // Knuth's MMIX generator; the high bits are the good ones.
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.dice >> 33) as usize % bound
    }

    fn any(&mut self) -> ServerId {
        ServerId(self.below(self.state.servers.len()) as u16)
    }

    /// Installs a change, unless it ends a life whose lease is held.
    fn install(&mut self, next: Option<ClusterState>, by: Option<ServerId>) {
        let Some(next) = next else { return };
        let leased = |name: &String| self.state.server_named(name).is_some_and(|one| self.alive.contains(&one.id));
        if !ended_lives(&self.state, &next, by).iter().any(leased) {
            next.check().expect("a sound state");
            next.check_follows(&self.state).expect("the history goes on");
            self.state = next;
        }
    }

    /// What the agent of one server does at a look; its server is ready for whatever comes next, or for nothing.
    fn look(&mut self, me: ServerId, is_ready: bool) {
        let stars = self.state.stars.iter().filter(|_| is_ready);
        let ready: Vec<(StarId, Epoch)> = stars.map(|view| (view.star, view.epoch)).collect();
        if self.ending.contains(&me) {
            let (next, is_done) = handed_over(&self.state, me, &ready, &self.alive);
            if is_done {
                self.ending.remove(&me);
                self.alive.remove(&me);
                return;
            }
            self.install(next, Some(me));
        }
        let next = advanced(&self.state, me, &ready, &self.alive);
        self.install(next.or_else(|| plan(&self.state, &self.config, &self.alive)), Some(me));
    }

    fn begins_anew(&mut self, id: ServerId) {
        self.alive.remove(&id);
        self.ending.remove(&id);
        let before = self.state.server(id).expect("it is known").clone();
        let life = crate::view::ServerRecord { incarnation: Incarnation(before.incarnation.0 + 1), ..before };
        let next = registered(&self.state, &life, &self.alive).0;
        self.install(Some(next), None);
        self.alive.insert(id);
    }

    fn happens(&mut self) {
        let (id, other, what) = (self.any(), self.any(), self.below(40));
        match what {
            0 => drop(self.alive.remove(&id)),
            1 if !self.alive.contains(&id) && !self.ending.contains(&id) => drop(self.alive.insert(id)),
            2 => self.begins_anew(id),
            3 if self.alive.contains(&id) => drop(self.ending.insert(id)),
            4 | 5 if id != other => {
                let mut cut = self.state.server(id).expect("it is known").unreachable.clone();
                let _ = what == 4 && cut.insert(other) || cut.remove(&other);
                let next = reported(&self.state, id, &cut);
                self.install(next, Some(id));
            }
            6 => {
                let standing = [Standing::Active, Standing::Draining][self.below(2)];
                let next = marked(&self.state, id, standing).filter(|_| self.state.is_active(id));
                self.install(next, None);
            }
            _ if self.alive.contains(&id) => {
                let is_ready = self.below(3) > 0;
                self.look(id, is_ready);
            }
            _ => {}
        }
    }

    /// All that live reach each other again, and who was about to end has ended.
    fn heal(&mut self, alive: &BTreeSet<ServerId>) {
        for id in all(self.state.servers.len() as u16) {
            let stops = self.state.server(id).is_some_and(|one| one.standing == Standing::Stopping);
            if alive.contains(&id) && (stops || self.ending.contains(&id)) {
                self.begins_anew(id);
            }
            let next = reported(&self.state, id, &BTreeSet::new());
            self.install(next, Some(id));
        }
        self.alive.clone_from(alive);
    }
}

/// Many things happen to a cluster, and then nothing more: `healed` says who lives from then on.
fn settles_after_all(seeds: u16, healed: impl Fn(&mut Walk) -> BTreeSet<ServerId>) {
    for seed in 0..seeds {
        let (servers, stars) = (2 + seed % 4, 1 + seed / 4 % 5);
        let replicas = [None, Some(1), Some(2), Some(3)][usize::from(seed / 20 % 4)];
        let config = PlanConfig { initial_servers: servers.into(), ..wanted(stars, replicas) };
        let (state, alive) = (cluster(servers, stars), all(servers));
        let mut walk = Walk { state, alive, ending: BTreeSet::new(), config, dice: seed.into() };
        for _ in 0..20 + seed % 300 {
            walk.happens();
        }
        // Whatever is cut still, it comes to rest.
        settle(walk.state.clone(), &walk.config, &walk.alive);
        let alive = healed(&mut walk);
        walk.heal(&alive);
        let (end, _) = settle(walk.state.clone(), &walk.config, &walk.alive);
        check_rest(&walk.state, &end, replicas, &walk.alive);
    }
}

#[test]
fn whatever_happened_the_cluster_settles_whole_and_spread_once_all_is_healed() {
    settles_after_all(4_000, |walk| all(walk.state.servers.len() as u16));
}

#[test]
fn whatever_happened_those_that_live_settle_without_the_dead() {
    settles_after_all(4_000, |walk| {
        let (one, servers) = (walk.any(), all(walk.state.servers.len() as u16));
        servers.into_iter().filter(|id| *id == one || walk.below(3) > 0).collect()
    });
}

#[test]
fn stars_that_wait_for_the_dead_keep_nobody_else_from_moving() {
    let (mut state, alive) = (cluster(4, 3), BTreeSet::from([1, 2, 3].map(ServerId)));
    for (star, text) in ["0* 1+", "0* 1+", "1* 2"].into_iter().enumerate() {
        state.stars[star] = View { star: StarId(star as u16), ..view_of(text) };
    }
    state.servers[1].standing = Standing::Draining;
    let (end, _) = settle(state.clone(), &wanted(3, Some(2)), &alive);
    assert_eq!(end.stars[2].members, [ServerId(2), ServerId(3)], "{:?}", end.stars);
    assert_eq!(&end.stars[..2], &state.stars[..2]);
}
