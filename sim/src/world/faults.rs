//! What breaks, and for how long. Every fault ends by itself; at the end of a run all are ended at once.

use star_control::{ClusterState, View};
use star_core::ids::{Incarnation, ServerId, StarId};

use super::{
    Event, World,
    server::{Server, Stop},
    settings::{MS, ScriptedCut},
};
use crate::subject::Subject;

/// The kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultKind {
    /// A link is cut in one direction.
    CutOneWay,
    /// A link is cut in both directions.
    CutBoth,
    /// A server takes no steps for less than its lease; what arrives waits for it.
    Pause,
    /// A link delays everything.
    Slow,
    /// Nobody reaches the control plane.
    ControlAway,
    /// One server does not reach the control plane, but its peers.
    ControlCutOff,
    /// A star gets another leader among its serving members.
    Turnover,
    /// A server takes no steps for longer than its lease, so that the others may go on without it.
    LongPause,
    /// A server is gone and comes back without its memory.
    Crash,
    /// A server stops in order: it hands over, gives its lease back, and comes back without its memory.
    Stop,
    /// All servers that hold a star are gone at once and come back without their memory: it is founded anew.
    LastCopyLost,
    /// The control plane comes back with an earlier state, and without its leases.
    PlaneOlder,
    /// The control plane comes back with nothing.
    PlaneEmpty,
    /// Not a fault of its own, but how some of the last two end: all servers stop and start anew with what is there.
    StartAnew,
    /// All servers stop in order at once. Those that nobody can take over from keep their stores.
    FullStop,
    /// All servers crash, one right after another, and all their stores stay.
    FullCrash,
}

impl FaultKind {
    /// All of them, in the order of [`super::settings::Faults::weights`].
    pub const ALL: [Self; 16] = [
        Self::CutOneWay,
        Self::CutBoth,
        Self::Pause,
        Self::Slow,
        Self::ControlAway,
        Self::ControlCutOff,
        Self::Turnover,
        Self::LongPause,
        Self::Crash,
        Self::Stop,
        Self::LastCopyLost,
        Self::PlaneOlder,
        Self::PlaneEmpty,
        Self::StartAnew,
        Self::FullStop,
        Self::FullCrash,
    ];
}

/// What ends a fault.
#[derive(Clone, Debug)]
pub(crate) enum Undo {
    Mend(Vec<(ServerId, ServerId)>),
    Resume(ServerId),
    Hasten(ServerId, ServerId),
    ControlBack,
    ControlReached(ServerId),
    Restart(ServerId),
    /// A server crashes that runs, and its store stays.
    Crash(ServerId),
    /// The control plane gets its latest state back.
    Remember,
    StartAnew,
}

impl<S: Subject> Server<S> {
    /// Whether this server runs in the life that `state` knows and holds a whole copy of the star of `view`.
    pub(crate) fn is_copy(&self, id: usize, state: &ClusterState, view: &View) -> bool {
        let id = ServerId(id as u16);
        let lives = self.node.is_some() && state.server(id).is_some_and(|one| one.incarnation == self.incarnation);
        lives && view.holders().any(|member| member == id)
    }

    /// The name of the life after this one.
    pub(crate) fn next_life(&self) -> Incarnation {
        Incarnation(self.incarnation.0 + 1)
    }
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
                self.plan_undo(undo, lasts);
            }
        }
    }

    pub(super) fn plan_undo(&mut self, undo: Undo, lasts: u64) {
        self.undo_number += 1;
        self.undo.insert(self.undo_number, undo);
        self.queue.plan(self.now + lasts, Event::Undo(self.undo_number));
    }

    /// Returns how the fault ends and after how long; `None` if it cannot happen now.
    fn break_something(&mut self, kind: FaultKind, first: ServerId, second: ServerId) -> Option<(Option<Undo>, u64)> {
        let faults = self.settings.faults.clone();
        let lease = self.settings.lease.ttl.as_nanos() as u64;
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
            FaultKind::Pause | FaultKind::LongPause => {
                let long = kind == FaultKind::LongPause;
                let lasts = if long { lease + lasts(faults.long_pause_max - lease) } else { lasts(faults.pause_max) };
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
            FaultKind::ControlCutOff => {
                let lasts = lasts(faults.away_max);
                self.plane.cut_off[usize::from(first.0)] += 1;
                Some((Some(Undo::ControlReached(first)), lasts))
            }
            FaultKind::Turnover => {
                let star = StarId(self.fault_random.below(self.settings.stars.into()) as u16);
                let done = self.plane.turn_over(star, first).then_some((None, 0));
                done.inspect(|_| self.views_changed(first))
            }
            FaultKind::Crash => {
                let lasts = lasts(faults.down_max);
                if !self.can_lose(first) {
                    return None;
                }
                self.crash(first, false);
                Some((Some(Undo::Restart(first)), lasts))
            }
            FaultKind::Stop => {
                let lasts = lasts(faults.down_max);
                // Where no copy may be lost, two that end up with one star each would wait for each other.
                let alone = self.settings.loses_copies || self.servers.iter().all(|server| server.stop.is_none());
                let can = self.can_lose(first) && self.server(first).stop.is_none() && alone;
                can.then(|| {
                    // It hands over first; how long that takes is up to the others.
                    let give_up_at = self.now + self.settings.hand_over_max();
                    self.server(first).stop = Some(Stop { give_up_at, down_for: lasts });
                    (None, 0)
                })
            }
            FaultKind::LastCopyLost
            | FaultKind::PlaneOlder
            | FaultKind::PlaneEmpty
            | FaultKind::StartAnew
            | FaultKind::FullStop
            | FaultKind::FullCrash => self.lose(kind),
        }
    }

    /// A link is cut as the settings say.
    pub(super) fn cut_as_scripted(&mut self, cut: ScriptedCut) {
        self.cut(cut.from, cut.to);
        self.plan_undo(Undo::Mend(vec![(cut.from, cut.to)]), cut.lasts);
    }

    /// Ends a fault; one that was ended at the end of the run is passed over.
    pub(super) fn undo(&mut self, number: u64) {
        let Some(undo) = self.undo.remove(&number) else { return };
        let at = self.now;
        self.trace.event(at, &[11, number], &[], || format!("END OF FAULT {undo:?}"));
        match undo {
            Undo::Mend(links) => links.into_iter().for_each(|(from, to)| self.mend(from, to)),
            Undo::Resume(server) => self.resume(server),
            Undo::Hasten(from, to) => self.network.slow_by(from, to, 0),
            Undo::ControlBack => {
                self.plane.absences -= 1;
                (0..self.settings.servers).for_each(|server| self.reach_control(ServerId(server)));
            }
            Undo::ControlReached(server) => {
                self.plane.cut_off[usize::from(server.0)] -= 1;
                self.reach_control(server);
            }
            Undo::Restart(server) if self.plane.has_lost_memory() => {
                let lasts = self.settings.lease.look_every().as_nanos() as u64;
                self.plan_undo(Undo::Restart(server), lasts);
            }
            Undo::Restart(server) => self.restart(server),
            Undo::Crash(server) => self.crash_in_full(server),
            Undo::Remember => {
                self.plane.remember(self.now);
                (0..self.settings.servers).for_each(|server| self.reach_control(ServerId(server)));
            }
            Undo::StartAnew => self.start_anew(),
        }
    }

    /// A server may have missed changes of the views: it asks again some time after the control plane is back.
    fn reach_control(&mut self, server: ServerId) {
        if self.plane.is_reached_by(server) {
            let delay = self.fault_random.between(MS, 2 * self.settings.lease.look_every().as_nanos() as u64);
            self.tell_views(server, delay);
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

    /// A paused server goes on: what was to happen to it meanwhile happens now, in its order.
    fn resume(&mut self, id: ServerId) {
        let now = self.now;
        let server = self.server(id);
        server.pauses -= 1;
        if server.pauses == 0 {
            let frozen = std::mem::take(&mut server.frozen);
            frozen.into_iter().for_each(|event| self.queue.plan(now, event));
        }
    }

    /// Whether a server may be gone now: where no copy may be lost, only if others have all that it has.
    pub(super) fn can_lose(&self, id: ServerId) -> bool {
        let runs = self.servers[usize::from(id.0)].node.is_some();
        runs && (self.settings.loses_copies || self.is_spare(id))
    }

    /// Whether every star has another whole copy at a server that runs.
    pub(super) fn is_spare(&self, id: ServerId) -> bool {
        let state = self.plane.state();
        let mut others = self.servers.iter().enumerate().filter(|(at, _)| *at != usize::from(id.0));
        others.any(|(_, server)| server.node.is_some())
            && state.stars.iter().all(|view| {
                let mut others = self.servers.iter().enumerate().filter(|(at, _)| *at != usize::from(id.0));
                view.founded.0 == 0 || others.any(|(at, server)| server.is_copy(at, state, view))
            })
    }

    /// A server that was to stop has handed over, or has tried for long enough. False if it must go on until somebody else
    /// has a copy.
    pub(super) fn end_stop(&mut self, id: ServerId) -> bool {
        let stop = self.server(id).stop;
        match stop.filter(|_| self.can_lose(id)) {
            Some(stop) => {
                self.crash(id, true);
                self.plan_undo(Undo::Restart(id), stop.down_for);
                true
            }
            None => false,
        }
    }

    /// A server is gone, in order or not.
    pub(super) fn crash(&mut self, id: ServerId, in_order: bool) {
        // A server that stops in order removes its store; of those that crash, half stand on a file that stays.
        let keeps = if in_order { self.is_last(id) } else { self.fault_random.chance(500_000) };
        self.end(id, in_order, keeps);
    }

    /// Whether a server that stops is still one of those that hold a star: nobody took it over.
    fn is_last(&self, id: ServerId) -> bool {
        let known = self.servers[usize::from(id.0)].agent.state();
        known.is_some_and(|state| state.stars.iter().any(|view| view.holders().any(|holder| holder == id)))
    }

    /// A server is gone.
    pub(super) fn end(&mut self, id: ServerId, in_order: bool, keeps: bool) {
        if in_order {
            self.give_lease_back(id);
        }
        let server = &mut self.servers[usize::from(id.0)];
        let before = server.node.take();
        server.left = before.filter(|_| keeps);
        server.inbox.clear();
        server.frozen.clear();
        server.open.clear();
        server.stop = None;
        server.life += 1;
        self.network.forget(id);
        for other in (0..self.settings.servers).map(ServerId).filter(|other| *other != id) {
            let generation = self.network.link(other, id).generation;
            let notice = self.now + self.fault_random.between(0, 50 * MS);
            self.queue.plan(notice, Event::LinkDown { from: other, to: id, generation });
        }
    }

    /// A server that was gone starts again, without its memory.
    pub(super) fn restart(&mut self, id: ServerId) {
        let server = &mut self.servers[usize::from(id.0)];
        server.incarnation = server.next_life();
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
