//! All servers of a star end one after another and start again at once. The last one's lease runs a little longer than
//! the others', so for a moment it seems to be alive.

use std::{collections::BTreeMap, time::Duration};

use star_control::{
    Claim, ClusterState, Lease, Past, PlanConfig, ServerRecord, View, plan,
    plan::{SeenRenewed, alive, ended_lives, may_end_soon, registered},
};
use star_core::{Epoch, Incarnation, Seq, ServerId, StarId, note::cluster_mark};

/// How often a server looks what is to be done.
const LOOK_MS: u64 = 100;
const NAMES: [&str; 3] = ["a", "b", "c"];

/// A control plane and the agents of three servers that start at the same time.
struct Start {
    state: ClusterState,
    /// Until when each lease runs, in milliseconds from the start on, and whose life holds it.
    leases: BTreeMap<&'static str, (u64, Incarnation)>,
    /// What each server has seen of the leases.
    seen: [SeenRenewed; 3],
    now_ms: u64,
}

impl Start {
    /// Star 0 was in epoch 5 with all three, and each had acked more than was committed. All three stores are there, and
    /// together they prove that c's holds everything that anybody was told of (`DESIGN/planner.md`).
    fn new(lease_of_c_ms: u64) -> Self {
        let mut state = ClusterState::new("test-1", 1);
        for (id, name) in (0..).zip(NAMES) {
            let (id, name, incarnation) = (ServerId(id), name.to_owned(), Incarnation(1));
            state.servers.push(ServerRecord { id, name, incarnation, ..ServerRecord::default() });
        }
        let members: Vec<ServerId> = (0..3).map(ServerId).collect();
        let past = vec![Past { epoch: Epoch(4), members: members.clone() }];
        state.stars[0] = View { epoch: Epoch(5), founded: Epoch(1), members, past, ..View::default() };
        let leases = BTreeMap::from([("c", (lease_of_c_ms, Incarnation(1)))]);
        Self { state, leases, seen: Default::default(), now_ms: 0 }
    }

    fn leases(&self) -> Vec<Lease> {
        let runs = self.leases.iter().filter(|(_, (until, _))| *until > self.now_ms);
        let lease = |(name, (until, holder)): (&&str, &(u64, Incarnation))| {
            let remaining = Duration::from_millis(until - self.now_ms);
            Lease { name: (*name).into(), holder: *holder, remaining }
        };
        runs.map(lease).collect()
    }

    /// As the agents do: only if everybody whose life it ends has no lease.
    fn install(&mut self, by: Option<ServerId>, next: ClusterState) {
        let ends = ended_lives(&self.state, &next, by);
        if !self.leases().iter().any(|lease| ends.contains(&lease.name)) {
            next.check_follows(&self.state).expect("the history goes on");
            self.state = next;
        }
    }

    /// A server that has a place in the cluster renews its lease and plans; another tries to register.
    fn look(&mut self, number: usize) {
        let (name, id) = (NAMES[number], ServerId(number as u16));
        if self.state.servers[number].incarnation == Incarnation(2) {
            self.leases.insert(name, (self.now_ms + 600, Incarnation(2)));
            let wanted = PlanConfig { stars: 1, initial_servers: 3, replicas: None, follow_alive: true };
            if let Some(next) = plan(&self.state, &wanted, &alive(&self.state, &self.leases())) {
                self.install(Some(id), next);
            }
            return;
        }
        let (ready, committed) = [(22, 18), (24, 20), (25, 21)][number];
        let claim = Claim {
            cluster: cluster_mark(&self.state.cluster),
            life: Incarnation(1),
            founded: Epoch(1),
            epoch: Epoch(5),
            base: Seq(10),
            ready: Seq(ready),
            committed: Seq(committed),
            whole: true,
            star: StarId(0),
        };
        let me =
            ServerRecord { incarnation: Incarnation(2), claims: vec![claim], ..self.state.servers[number].clone() };
        let leases = self.leases();
        let seen = &mut self.seen[number];
        seen.look(&leases);
        if !may_end_soon(&self.state, &me, &leases, seen) {
            let (next, _) = registered(&self.state, &me, &alive(&self.state, &self.leases()));
            self.install(None, next);
        }
    }

    /// Two seconds in which all three look again and again; then c's store must have been gone on with.
    fn goes_on_with_c(lease_of_c_ms: u64) -> bool {
        let mut start = Self::new(lease_of_c_ms);
        for look in 0..20 {
            for number in 0..3 {
                start.now_ms = look * LOOK_MS + number as u64 * 10;
                start.look(number);
            }
        }
        let view = &start.state.stars[0];
        view.founded == Epoch(1) && view.resumed.is_some_and(|resumed| resumed.seq == Seq(21))
    }
}

#[test]
fn the_stores_of_all_are_looked_at_however_long_the_last_lease_still_runs() {
    for lease_of_c_ms in [0, 100, 299, 310, 400, 500, 599] {
        assert!(Start::goes_on_with_c(lease_of_c_ms), "c's lease ran for {lease_of_c_ms} ms more");
    }
}

/// A server that comes back to others that live need not wait for long: until they renew.
#[test]
fn a_lease_that_is_renewed_is_waited_for_no_longer() {
    let mut start = Start::new(500);
    start.look(0);
    assert_eq!(start.state.servers[0].incarnation, Incarnation(1), "it waits");
    start.now_ms = 100;
    start.look(0);
    assert_eq!(start.state.servers[0].incarnation, Incarnation(1), "it still waits");
    start.leases.insert("c", (700, Incarnation(1)));
    start.now_ms = 200;
    start.look(0);
    assert_eq!(start.state.servers[0].incarnation, Incarnation(2));
}
