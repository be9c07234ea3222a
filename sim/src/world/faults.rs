//! What breaks, and for how long. Every fault ends by itself; at the end of a run all are ended at once.

use star_core::ids::{Incarnation, ServerId, StarId};

use super::{Event, World, settings::MS};
use crate::subject::Subject;

/// The kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultKind {
    /// A link is cut in one direction.
    CutOneWay,
    /// A link is cut in both directions.
    CutBoth,
    /// A server takes no steps; what arrives waits for it.
    Pause,
    /// A link delays everything.
    Slow,
    /// The control plane cannot be reached.
    ControlAway,
    /// A star gets another leader among the same members.
    Turnover,
    /// A server is gone and comes back without its memory.
    CrashForgetting,
    /// A server is gone and comes back with its store.
    CrashKeeping,
}

impl FaultKind {
    /// All of them, in the order of [`super::settings::Faults::weights`].
    pub const ALL: [Self; 8] = [
        Self::CutOneWay,
        Self::CutBoth,
        Self::Pause,
        Self::Slow,
        Self::ControlAway,
        Self::Turnover,
        Self::CrashForgetting,
        Self::CrashKeeping,
    ];
}

/// What ends a fault.
#[derive(Clone, Debug)]
pub(crate) enum Undo {
    Mend(Vec<(ServerId, ServerId)>),
    Resume(ServerId),
    Hasten(ServerId, ServerId),
    ControlBack,
    Restart(ServerId),
}

impl<S: Subject> World<S> {
    /// Something breaks now.
    pub(super) fn fault(&mut self) {
        let (least, most) = self.settings.faults.every;
        let next = self.now + self.fault_random.between(least, most.max(least));
        self.queue.plan(next, Event::Fault);
        if self.healing || self.undo.len() >= self.settings.faults.at_once_max {
            return;
        }
        let kind = FaultKind::ALL[self.fault_random.weighted(&self.settings.faults.weights)];
        let first = ServerId(self.fault_random.below(self.settings.servers.into()) as u16);
        let others = u64::from(self.settings.servers) - 1;
        let step = if others == 0 { 0 } else { 1 + self.fault_random.below(others) };
        let second = ServerId(((u64::from(first.0) + step) % u64::from(self.settings.servers)) as u16);
        self.trace.event(self.now, &[10, kind as u64, first.0.into(), second.0.into()], &[], || {
            format!("FAULT {kind:?} (servers {first}, {second})")
        });
        if let Some((undo, lasts)) = self.break_something(kind, first, second) {
            self.faults[kind as usize] += 1;
            if let Some(undo) = undo {
                self.undo_number += 1;
                self.undo.insert(self.undo_number, undo);
                self.queue.plan(self.now + lasts, Event::Undo(self.undo_number));
            }
        }
    }

    /// Returns how the fault ends and after how long; `None` if it cannot happen now.
    fn break_something(&mut self, kind: FaultKind, first: ServerId, second: ServerId) -> Option<(Option<Undo>, u64)> {
        let faults = self.settings.faults.clone();
        let mut lasts = |most: u64| self.fault_random.between(MS, most.max(MS));
        match kind {
            FaultKind::CutOneWay | FaultKind::CutBoth if first == second => None,
            FaultKind::CutOneWay => {
                let lasts = lasts(faults.cut_max);
                self.cut(first, second);
                Some((Some(Undo::Mend(vec![(first, second)])), lasts))
            }
            FaultKind::CutBoth => {
                let lasts = lasts(faults.cut_max);
                self.cut(first, second);
                self.cut(second, first);
                Some((Some(Undo::Mend(vec![(first, second), (second, first)])), lasts))
            }
            FaultKind::Pause => {
                let lasts = lasts(faults.pause_max);
                self.server(first).pauses += 1;
                Some((Some(Undo::Resume(first)), lasts))
            }
            FaultKind::Slow => {
                let (lasts, slow_by) = (lasts(faults.cut_max), lasts(faults.slow_max));
                self.network.slow_by(first, second, slow_by);
                Some((Some(Undo::Hasten(first, second)), lasts))
            }
            FaultKind::ControlAway => {
                let lasts = lasts(faults.away_max);
                self.plane.absences += 1;
                Some((Some(Undo::ControlBack), lasts))
            }
            FaultKind::Turnover => {
                let star = StarId(self.fault_random.below(self.settings.stars.into()) as u16);
                self.plane.turn_over(star, first);
                self.tell_views();
                Some((None, 0))
            }
            FaultKind::CrashForgetting | FaultKind::CrashKeeping => {
                let lasts = lasts(faults.down_max);
                self.crash(first, kind == FaultKind::CrashKeeping)?;
                Some((Some(Undo::Restart(first)), lasts))
            }
        }
    }

    /// Ends a fault; one that was ended at the end of the run is passed over.
    pub(super) fn undo(&mut self, number: u64) {
        let Some(undo) = self.undo.remove(&number) else { return };
        let at = self.now;
        self.trace.event(at, &[11, number], &[], || format!("END OF FAULT {undo:?}"));
        match undo {
            Undo::Mend(links) => links.into_iter().for_each(|(from, to)| self.mend(from, to)),
            Undo::Resume(server) => self.server(server).pauses -= 1,
            Undo::Hasten(from, to) => self.network.slow_by(from, to, 0),
            Undo::ControlBack => self.plane.absences -= 1,
            Undo::Restart(server) => self.restart(server),
        }
    }

    /// Ends all faults.
    pub(super) fn heal(&mut self) {
        self.healing = true;
        self.network.lose_nothing();
        let numbers: Vec<u64> = self.undo.keys().copied().collect();
        for number in numbers {
            self.undo(number);
        }
        self.tell_views();
    }

    fn cut(&mut self, from: ServerId, to: ServerId) {
        if self.network.cut(from, to) {
            // The sender notices a little later; what it sends until then is lost as well.
            let generation = self.network.link(from, to).generation;
            let notice = self.now + self.fault_random.between(0, 50 * MS);
            self.queue.plan(notice, Event::LinkDown { from, to, generation });
        }
    }

    fn mend(&mut self, from: ServerId, to: ServerId) {
        if self.network.mend(from, to) {
            self.connect(from, to);
        }
    }

    /// The sender's side of a whole link connects again, a little later.
    pub(super) fn connect(&mut self, from: ServerId, to: ServerId) {
        let generation = self.network.link(from, to).generation;
        let at = self.now + 50 * MS + self.fault_random.between(0, 50 * MS);
        self.queue.plan(at, Event::LinkUp { from, to, generation });
    }

    /// A server is gone. Never the last one that runs; `None` if it cannot be.
    fn crash(&mut self, id: ServerId, keep: bool) -> Option<()> {
        let running = self.servers.iter().filter(|server| server.node.is_some()).count();
        let server = &mut self.servers[usize::from(id.0)];
        if running < 2 || self.has_crashed {
            return None;
        }
        // Without learners nobody comes back as a member, so one crash in a run is what a star of two survives.
        self.has_crashed = true;
        let node = server.node.take()?;
        server.remains = keep.then(|| node.into_remains());
        server.inbox.clear();
        server.open.clear();
        server.life += 1;
        self.network.forget(id);
        for other in (0..self.settings.servers).map(ServerId).filter(|other| *other != id) {
            let generation = self.network.link(other, id).generation;
            let notice = self.now + self.fault_random.between(0, 50 * MS);
            self.queue.plan(notice, Event::LinkDown { from: other, to: id, generation });
        }
        self.queue.plan(self.now + self.settings.lease, Event::TakeOut(id));
        Some(())
    }

    /// The control plane looks whether a crashed server's lease has run out.
    pub(super) fn take_out(&mut self, id: ServerId) {
        if self.plane.take_out(id, self.now) {
            self.tell_views();
        } else if self.plane.state().stars.iter().any(|view| view.is_member(id)) {
            self.queue.plan(self.now + self.settings.renew_every, Event::TakeOut(id));
        }
    }

    /// A crashed server starts again, once it is a member of nothing.
    fn restart(&mut self, id: ServerId) {
        if self.plane.state().stars.iter().any(|view| view.is_member(id)) {
            self.undo_number += 1;
            self.undo.insert(self.undo_number, Undo::Restart(id));
            self.queue.plan(self.now + 100 * MS, Event::Undo(self.undo_number));
            return;
        }
        let server = &mut self.servers[usize::from(id.0)];
        server.incarnation = Incarnation(server.incarnation.0 + 1);
        self.plane.register(id, server.incarnation);
        self.start(id);
        for other in (0..self.settings.servers).map(ServerId).filter(|other| *other != id) {
            for (from, to) in [(id, other), (other, id)] {
                if self.network.is_whole(from, to) {
                    self.connect(from, to);
                }
            }
        }
    }
}
