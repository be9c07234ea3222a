//! The control plane of the simulated world: one document with the views, changed by compare-and-set, and leases. What
//! it holds and refuses is what each real backend holds and refuses; who thinks about views are the servers' agents.

use std::{collections::VecDeque, sync::Arc};

use star_control::{
    CasOutcome, ClusterState, Lease, Revision, ServerRecord,
    plan::{chronicled, ended_lives},
};
use star_core::{
    ids::{Incarnation, ServerId, StarId},
    time::Time,
};

use super::settings::ControlBug;

/// How many earlier states it can come back with.
const PASSED_MAX: usize = 64;

/// The control plane.
#[derive(Debug)]
pub(crate) struct Plane {
    state: Arc<ClusterState>,
    revision: Revision,
    /// Earlier states, the latest last.
    passed: VecDeque<(Revision, Arc<ClusterState>)>,
    /// What it knew before it lost its memory, as long as that lasts.
    lost: Option<(Revision, Arc<ClusterState>)>,
    /// The leases that it gave before, and until when it was blind then.
    lost_leases: Vec<Option<Held>>,
    lost_blind_until: u64,
    /// Until when it answers `Leased` to whatever ends a life, because it may have given leases that it does not know of.
    blind_until: u64,
    /// Which connection to it is the present one: what was under way on an earlier one never arrives.
    pub(crate) connection: u64,
    /// How many faults keep it away from everybody.
    pub(crate) absences: u32,
    /// How many faults keep each server from reaching it.
    pub(crate) cut_off: Vec<u32>,
    /// Who holds the lease of each server's name, and until when on the world's clock.
    leases: Vec<Option<Held>>,
    lease: u64,
    bug: Option<ControlBug>,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    holder: Incarnation,
    until: u64,
}

impl Plane {
    /// All servers are known in their first life; no star has a view yet.
    pub(crate) fn new(servers: u16, stars: u16, lease: u64, bug: Option<ControlBug>) -> Self {
        let mut state = ClusterState::new("simulated-1", stars);
        state.servers = (0..servers).map(|id| server_record(ServerId(id), Incarnation(1))).collect();
        let servers = usize::from(servers);
        Self {
            state: Arc::new(state),
            revision: Revision(1),
            passed: VecDeque::new(),
            lost: None,
            lost_leases: vec![None; servers],
            lost_blind_until: 0,
            blind_until: 0,
            connection: 0,
            absences: 0,
            cut_off: vec![0; servers],
            leases: vec![None; servers],
            lease,
            bug,
        }
    }

    /// The document that it shows, and how often that has changed.
    pub(crate) fn document(&self) -> (Revision, Arc<ClusterState>) {
        (self.revision, Arc::clone(&self.state))
    }

    /// The latest state that there ever was, whatever it shows.
    pub(crate) fn state(&self) -> &ClusterState {
        self.lost.as_ref().map_or(&self.state, |(_, state)| state)
    }

    /// Whether it shows less than it knew once.
    pub(crate) fn has_lost_memory(&self) -> bool {
        self.lost.is_some()
    }

    /// It comes back without its leases, and with an earlier state: the `nth` of those from before `seen`, or, for `None`,
    /// with none at all. False if it has none such.
    pub(crate) fn lose_memory(&mut self, now: u64, seen: Revision, nth: Option<u64>) -> bool {
        let shown = match nth {
            None => Some((Revision::ABSENT, Arc::new(ClusterState::new("simulated-2", self.state.stars.len() as u16)))),
            Some(nth) => {
                let count = self.passed.iter().take_while(|(revision, _)| *revision < seen).count();
                (count > 0).then(|| self.passed[nth as usize % count].clone())
            }
        };
        let Some((revision, state)) = shown else { return false };
        self.connection += 1;
        self.lost_leases = std::mem::replace(&mut self.leases, vec![None; self.cut_off.len()]);
        let known = (std::mem::replace(&mut self.revision, revision), std::mem::replace(&mut self.state, state));
        self.lost = Some(known);
        self.lost_blind_until = std::mem::replace(&mut self.blind_until, now + self.lease);
        true
    }

    /// It gets its latest state back, without the leases that it gave meanwhile.
    pub(crate) fn remember(&mut self, now: u64) {
        let Some((revision, state)) = self.lost.take() else { return };
        (self.revision, self.state) = (revision, state);
        self.leases.fill(None);
        self.connection += 1;
        self.blind_until = now + self.lease;
    }

    /// All servers have ended and will start new lives, these: what it shows is what there is from now on.
    pub(crate) fn start_anew(&mut self, lives: impl Iterator<Item = Incarnation>) {
        self.lost = None;
        self.connection += 1;
        self.passed.clear();
        if self.revision == Revision::ABSENT {
            // They make a new cluster and enter themselves, which has no part in anything here.
            let record = |(id, incarnation)| server_record(ServerId(id as u16), incarnation);
            Arc::make_mut(&mut self.state).servers = lives.enumerate().map(record).collect();
            self.revision = self.revision.next();
        }
    }

    fn now_is(&mut self, state: Arc<ClusterState>) {
        let before = std::mem::replace(&mut self.state, state);
        self.passed.push_back((self.revision, before));
        if self.passed.len() > PASSED_MAX {
            self.passed.pop_front();
        }
        self.revision = self.revision.next();
    }

    pub(crate) fn is_reached_by(&self, server: ServerId) -> bool {
        self.absences == 0 && self.cut_off[usize::from(server.0)] == 0
    }

    /// Whether nobody goes on without this life of a server, so that it may count on its lease.
    pub(crate) fn respects(&self, server: ServerId, holder: Incarnation, now: u64) -> bool {
        if self.has_lost_memory() {
            // What it gave since must not count: nobody can have read the views.
            let held = self.lost_leases[usize::from(server.0)];
            return now < self.lost_blind_until || held.is_some_and(|held| held.holder == holder && now < held.until);
        }
        now < self.blind_until || self.holds(server, holder, now)
    }

    /// Whether this life of a server holds its lease.
    fn holds(&self, server: ServerId, holder: Incarnation, now: u64) -> bool {
        self.leases[usize::from(server.0)].is_some_and(|held| held.holder == holder && now < held.until)
    }

    fn is_leased(&self, server: ServerId, now: u64) -> bool {
        self.leases[usize::from(server.0)].is_some_and(|held| now < held.until)
    }

    /// Gives a lease, unless another life of the server holds it.
    pub(crate) fn acquire(&mut self, server: ServerId, holder: Incarnation, now: u64) -> bool {
        if self.is_leased(server, now) && !self.holds(server, holder, now) {
            return false;
        }
        self.extend(server, holder, now);
        true
    }

    /// Lets a lease run on; one that has run out is lost.
    pub(crate) fn renew(&mut self, server: ServerId, holder: Incarnation, now: u64) -> bool {
        let revived = self.bug == Some(ControlBug::LeaseRevived) && !self.is_leased(server, now);
        let held = self.holds(server, holder, now) || revived;
        if held {
            self.extend(server, holder, now);
        }
        held
    }

    fn extend(&mut self, server: ServerId, holder: Incarnation, now: u64) {
        self.leases[usize::from(server.0)] = Some(Held { holder, until: now + self.lease });
    }

    pub(crate) fn release(&mut self, server: ServerId, holder: Incarnation) {
        self.leases[usize::from(server.0)].take_if(|held| held.holder == holder);
    }

    /// The leases that run.
    pub(crate) fn leases(&self, now: u64) -> Vec<Lease> {
        // The planted bug writes a server off before its time.
        let early = if self.bug == Some(ControlBug::EvictionBeforeLeaseEnd) { self.lease * 3 / 5 } else { 0 };
        let lease = |(id, held): (usize, &Option<Held>)| {
            let held = held.as_ref().filter(|held| now + early < held.until)?;
            let remaining = Time(held.until).since(Time(now));
            Some(Lease { name: server_name(ServerId(id as u16)), holder: held.holder, remaining })
        };
        self.leases.iter().enumerate().filter_map(lease).collect()
    }

    /// Makes `after` the document if nobody has changed it since `expected`, and if all whose life as members ends with
    /// it hold no lease, but for `by`, who may take itself out. `is_kept`: whether a star's history goes on under its new view.
    pub(crate) fn compare_and_set(
        &mut self,
        now: u64,
        expected: Revision,
        after: &Arc<ClusterState>,
        by: ServerId,
        is_kept: impl FnOnce(&ClusterState) -> bool,
    ) -> CasOutcome {
        if expected != self.revision || !is_kept(after) {
            return CasOutcome::Conflict;
        }
        let unchecked = [ControlBug::EvictionBeforeLeaseEnd, ControlBug::LeaverTakenOut];
        let checks = self.bug.is_none_or(|bug| !unchecked.contains(&bug));
        let mut ended = ended_lives(&self.state, after, Some(by)).into_iter();
        let is_blind = now < self.blind_until;
        let is_leased = |id| is_blind || self.is_leased(id, now);
        let leased = |name: &String| self.state.server_named(name).is_some_and(|one| is_leased(one.id));
        if let Some(name) = ended.find(leased).filter(|_| checks) {
            return CasOutcome::Leased(name);
        }
        self.now_is(Arc::clone(after));
        CasOutcome::Done(self.revision)
    }

    /// Somebody gives a star another leader among its serving members; true if that is a change.
    pub(crate) fn turn_over(&mut self, star: StarId, leader: ServerId) -> bool {
        let view = &self.state.stars[usize::from(star.0)];
        if self.has_lost_memory() || view.leader == leader || !view.serving().any(|member| member == leader) {
            return false;
        }
        let mut after = ClusterState::clone(&self.state);
        let view = &mut after.stars[usize::from(star.0)];
        (view.leader, view.epoch) = (leader, view.epoch.next());
        self.now_is(Arc::new(chronicled(&self.state, after)));
        true
    }
}

/// What a server says of itself when it registers.
pub(crate) fn server_record(id: ServerId, incarnation: Incarnation) -> ServerRecord {
    ServerRecord {
        id,
        name: server_name(id),
        addr: format!("127.0.0.1:{}", 7000 + id.0),
        incarnation,
        pid: 1 + u32::from(id.0),
        store: None,
        ..ServerRecord::default()
    }
}

pub(crate) fn server_name(id: ServerId) -> String {
    char::from_u32(u32::from(b'a') + u32::from(id.0)).map_or_else(|| format!("s{id}"), String::from)
}
