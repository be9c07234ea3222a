//! The control plane of the simulated world: one document with the views, changed by compare-and-set, and leases. What
//! it holds and refuses is what each real backend holds and refuses; who thinks about views are the servers' agents.

use std::sync::Arc;

use star_control::{CasOutcome, ClusterState, Lease, Revision, ServerRecord, plan::ended_lives};
use star_core::{
    ids::{Incarnation, ServerId, StarId},
    time::Time,
};

use super::settings::ControlBug;

/// The control plane.
#[derive(Debug)]
pub(crate) struct Plane {
    state: Arc<ClusterState>,
    revision: Revision,
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
            absences: 0,
            cut_off: vec![0; servers],
            leases: vec![None; servers],
            lease,
            bug,
        }
    }

    /// The document and how often it has changed.
    pub(crate) fn document(&self) -> (Revision, Arc<ClusterState>) {
        (self.revision, Arc::clone(&self.state))
    }

    pub(crate) fn state(&self) -> &ClusterState {
        &self.state
    }

    pub(crate) fn is_reached_by(&self, server: ServerId) -> bool {
        self.absences == 0 && self.cut_off[usize::from(server.0)] == 0
    }

    /// Whether this life of a server holds its lease.
    pub(crate) fn holds(&self, server: ServerId, holder: Incarnation, now: u64) -> bool {
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
        let leased = |name: &String| self.state.server_named(name).is_some_and(|one| self.is_leased(one.id, now));
        if let Some(name) = ended.find(leased).filter(|_| checks) {
            return CasOutcome::Leased(name);
        }
        self.revision = self.revision.next();
        self.state = Arc::clone(after);
        CasOutcome::Done(self.revision)
    }

    /// Somebody gives a star another leader among its serving members; true if that is a change.
    pub(crate) fn turn_over(&mut self, star: StarId, leader: ServerId) -> bool {
        let view = &self.state.stars[usize::from(star.0)];
        if view.leader == leader || !view.serving().any(|member| member == leader) {
            return false;
        }
        let view = &mut Arc::make_mut(&mut self.state).stars[usize::from(star.0)];
        (view.leader, view.epoch) = (leader, view.epoch.next());
        self.revision = self.revision.next();
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
