//! What is lost for good: the last copy of a star, and the control plane's memory.

use star_control::Revision;
use star_core::ids::ServerId;

use super::{
    Server, World,
    faults::{FaultKind, Undo},
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
            _ => None,
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
            if self.server(id).node.is_some() {
                self.crash(id, false);
                let lasts = self.fault_random.between(MS, self.settings.faults.down_max.max(MS));
                self.plan_undo(Undo::Restart(id), lasts);
            }
        }
        self.plane.start_anew(self.servers.iter().map(Server::next_life));
        self.foundations.start_anew(self.plane.state());
        self.checks = Checks::new(self.settings.stars);
    }
}
