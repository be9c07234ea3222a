//! What is lost for good: the last copy of a star, and the control plane's memory.

use star_control::{ClusterState, Revision};
use star_core::ids::ServerId;

use super::{
    Server, World,
    faults::{FaultKind, Undo},
    server::Stop,
    settings::MS,
};
use crate::{invariants::Checks, subject::Subject};

impl<S: Subject> World<S> {
    /// Returns how the loss ends and after how long; `None` if it cannot happen now.
    pub(super) fn lose(&mut self, kind: FaultKind) -> Option<(Option<Undo>, u64)> {
        match kind {
            FaultKind::LastCopyLost => self.lose_copies().then_some((None, 0)),
            FaultKind::PlaneOlder | FaultKind::PlaneEmpty => {
                let lease = self.settings.lease.ttl.as_nanos() as u64;
                let lasts = self.fault_random.between(lease / 2, self.settings.faults.long_pause_max);
                let undo = if self.fault_random.chance(300_000) { Undo::StartAnew } else { Undo::Remember };
                self.make_plane_forget(kind == FaultKind::PlaneOlder).then_some((Some(undo), lasts))
            }
            FaultKind::FullStop => self.stop_all().then_some((None, 0)),
            FaultKind::FullCrash => self.crash_all().then_some((None, 0)),
            _ => None,
        }
    }

    /// All servers that run are told to stop. They are gone for so long that most never meet; others start before the last
    /// has stopped.
    fn stop_all(&mut self) -> bool {
        if self.plane.has_lost_memory() {
            return false;
        }
        let give_up_at = self.now + self.settings.hand_over_max();
        let down_max = self.settings.faults.down_max.max(MS);
        let runs: Vec<ServerId> = self.running();
        for id in &runs {
            let down_for = self.fault_random.between(MS, 2 * down_max);
            self.server(*id).stop = Some(Stop { give_up_at, down_for });
        }
        !runs.is_empty()
    }

    /// All servers that run crash, within a time that is mostly too short for any view to follow.
    fn crash_all(&mut self) -> bool {
        if self.plane.has_lost_memory() {
            return false;
        }
        let lease = self.settings.lease.ttl.as_nanos() as u64;
        let within = *self.fault_random.pick(&[0, MS, lease / 4, 4 * lease]);
        let runs = self.running();
        for id in &runs {
            let after = self.fault_random.between(0, within);
            self.plan_undo(Undo::Crash(*id), after);
        }
        !runs.is_empty()
    }

    fn running(&self) -> Vec<ServerId> {
        (0..self.settings.servers).map(ServerId).filter(|id| self.servers[usize::from(id.0)].node.is_some()).collect()
    }

    /// A server's turn has come to crash with all others. Its store stays.
    pub(super) fn crash_in_full(&mut self, id: ServerId) {
        if self.server(id).node.is_some() && !self.healing {
            let lasts = self.fault_random.between(MS, 2 * self.settings.faults.down_max.max(MS));
            self.end(id, false, true);
            self.plan_undo(Undo::Restart(id), lasts);
        }
    }

    /// All servers that hold a star are gone; false if there is none.
    fn lose_copies(&mut self) -> bool {
        let star = usize::from(self.fault_random.below(self.settings.stars.into()) as u16);
        let state = self.plane.state();
        let holds = |id: &ServerId| self.servers[usize::from(id.0)].is_copy(id.0.into(), state, &state.stars[star]);
        let holders: Vec<ServerId> = (0..self.settings.servers).map(ServerId).filter(holds).collect();
        for id in &holders {
            let lasts = self.fault_random.between(MS, self.settings.faults.down_max.max(MS));
            self.crash(*id, false);
            self.plan_undo(Undo::Restart(*id), lasts);
        }
        !holders.is_empty()
    }

    /// The control plane goes back, to before what any server that runs has seen: of those that have not, none could tell.
    /// Servers that start meanwhile could not, either; they wait.
    fn make_plane_forget(&mut self, keeps_something: bool) -> bool {
        let running = self.servers.iter().filter(|server| server.node.is_some());
        let seen = running.map(|server| server.agent.revision()).min().unwrap_or(Revision::ABSENT);
        let nth = keeps_something.then(|| self.fault_random.next_u64());
        seen > Revision::ABSENT && !self.plane.has_lost_memory() && self.plane.lose_memory(self.now, seen, nth)
    }

    /// All servers stop, and start anew with what the control plane holds.
    pub(super) fn start_anew(&mut self) {
        self.faults[FaultKind::StartAnew as usize] += 1;
        for id in (0..self.settings.servers).map(ServerId) {
            self.server(id).left = None;
            if self.server(id).node.is_some() {
                // What the control plane shows may be of an earlier time than the stores are.
                self.end(id, false, false);
                let lasts = self.fault_random.between(MS, self.settings.faults.down_max.max(MS));
                self.plan_undo(Undo::Restart(id), lasts);
            }
        }
        self.plane.start_anew(self.servers.iter().map(Server::next_life));
        self.foundations.start_anew(self.plane.state());
        self.checks = Checks::new(self.settings.stars);
    }

    /// Whether a server that is about to end has taken over the latest views of the stars that nobody takes over from it, so
    /// that its store says so.
    pub(super) fn has_noted(&self, id: ServerId, state: &ClusterState) -> bool {
        let Some(node) = &self.servers[usize::from(id.0)].node else { return true };
        state.stars.iter().filter(|view| view.holders().any(|holder| holder == id)).all(|view| {
            let glance = node.glance(view.star);
            glance.epoch == view.epoch && glance.installed && glance.committed == glance.ready
        })
    }
}
