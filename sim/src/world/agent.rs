//! A server's agent: what `star_control::Agent` does with a real control plane, done with the one of this world. The
//! rules are the real ones (`LeaseKeeper`, `registered`, `plan`, `advanced`); made up are only the calls' ways and delays.

mod register;

use std::sync::Arc;

use star_control::{
    CasOutcome, ClusterState, Lease, LeaseKeeper, LeaseState, LeaseStep, PlanConfig, ReachKeeper, Revision,
    agent::{Reluctance, handed_over},
    plan::{SeenRenewed, advanced, alive, plan, reported},
};
use star_core::{
    ids::{Incarnation, ServerId},
    time::Time,
};

use super::{
    Event, World,
    server::{Arrival, Server},
    settings::{ControlBug, Settings},
    trace::view_line,
};
use crate::subject::Subject;

/// One server's agent.
#[derive(Debug)]
pub(crate) struct Agent {
    keeper: LeaseKeeper,
    reach: ReachKeeper,
    reluctance: Reluctance,
    /// What the server was told last about its lease.
    told: Option<Time>,
    known: Option<(Revision, Arc<ClusterState>)>,
    is_registered: bool,
    /// Of other servers, while this one registers.
    seen: SeenRenewed,
    /// Whether it was ever given its lease in this life.
    had_lease: bool,
    /// The call about the lease that is under way, and the one about views.
    lease_call: Option<Pending<LeaseAsk>>,
    view_call: Option<Pending<ViewAsk>>,
    last_call: u64,
    /// Only the latest planned look at the lease counts.
    last_look: u64,
}

#[derive(Debug)]
struct Pending<A> {
    number: u64,
    sent: Time,
    ask: A,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LeaseAsk {
    Acquire,
    Renew,
    ReadViews,
}

#[derive(Debug)]
enum ViewAsk {
    Register,
    /// The document has come to a server that is to register, which asks who is alive.
    RegisterIn(Revision, Arc<ClusterState>),
    Leases,
    Set(Arc<ClusterState>),
}

/// What an agent asks of the control plane.
#[derive(Debug)]
pub(crate) enum Call {
    Get,
    Acquire,
    Renew,
    Release,
    Leases,
    Set { expected: Revision, after: Arc<ClusterState> },
}

/// What the control plane answers.
#[derive(Debug)]
pub(crate) enum Answer {
    Document(Revision, Arc<ClusterState>),
    Lease(bool),
    Leases(Vec<Lease>),
    Set(CasOutcome),
}

/// What happens to an agent.
#[derive(Debug)]
pub(crate) enum Occasion {
    /// It tries to register.
    Register,
    /// Its lease may need something; the latest planned number counts.
    Look(u64),
    /// It looks whether the views are as they should be.
    Tend,
    /// The document has changed.
    Views(Revision, Arc<ClusterState>),
    Answer(u64, Answer),
    /// It has waited long enough for an answer.
    Timeout(u64),
}

impl Agent {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            keeper: LeaseKeeper::new(settings.lease),
            reach: ReachKeeper::new(settings.lease),
            reluctance: Reluctance::default(),
            told: None,
            known: None,
            is_registered: false,
            seen: SeenRenewed::default(),
            had_lease: false,
            lease_call: None,
            view_call: None,
            last_call: 0,
            last_look: 0,
        }
    }

    /// The latest revision of the document that it has seen; none before it is registered.
    pub(crate) fn revision(&self) -> Revision {
        self.known.as_ref().map_or(Revision::ABSENT, |(revision, _)| *revision)
    }

    /// The latest state of the cluster that it has seen.
    pub(crate) fn state(&self) -> Option<&ClusterState> {
        self.known.as_ref().map(|(_, state)| &**state)
    }
}

impl<S: Subject> World<S> {
    /// Something happens to the agent of a server that runs.
    pub(super) fn agent(&mut self, id: ServerId, occasion: Occasion) {
        match occasion {
            Occasion::Register => self.ask_about_views(id, ViewAsk::Register, Call::Get),
            Occasion::Look(number) if number == self.server(id).agent.last_look => self.tend_lease(id),
            Occasion::Look(_) => {}
            Occasion::Tend => self.tend_views(id),
            Occasion::Views(revision, state) => {
                if self.server(id).agent.is_registered {
                    let _ = self.accept(id, revision, state); // What must not be followed is left alone.
                }
            }
            Occasion::Answer(number, answer) => self.take_answer(id, number, answer),
            Occasion::Timeout(number) => self.time_out(id, number),
        }
    }

    fn occasion_in(&mut self, id: ServerId, delay: u64, occasion: Occasion) {
        let life = self.server(id).life;
        self.queue.plan(self.now + delay, Event::Agent { server: id, life, occasion });
    }

    /// A new life begins: it must register before anything else.
    pub(super) fn start_agent(&mut self, id: ServerId) {
        self.server(id).agent = Agent::new(&self.settings);
        self.occasion_in(id, 0, Occasion::Register);
    }

    /// Takes in what the control plane shows; false if that has lost its memory.
    fn accept(&mut self, id: ServerId, revision: Revision, state: Arc<ClusterState>) -> bool {
        let follows_all = self.settings.control_bug == Some(ControlBug::OldStateFollowed);
        let agent = &mut self.server(id).agent;
        let known = agent.known.as_ref().map(|(known, state)| (*known, &**state));
        let is_other = known.is_none_or(|(known, _)| known != revision);
        let news = state.is_news(revision, known);
        if news == Ok(true) || (follows_all && is_other) {
            agent.known = Some((revision, Arc::clone(&state)));
            self.arrive(id, Arrival::Control(S::cluster(state)));
        }
        news.is_ok() || follows_all
    }

    fn tell_lease(&mut self, id: ServerId, until: Option<Time>) {
        let agent = &mut self.server(id).agent;
        if agent.told != until {
            agent.told = until;
            self.arrive(id, Arrival::Lease(until.unwrap_or(Time::ZERO)));
        }
    }

    fn tend_lease(&mut self, id: ServerId) {
        let (now, bug) = (self.server_clock(id), self.settings.control_bug);
        let agent = &mut self.server(id).agent;
        if agent.lease_call.is_some() {
            return; // The answer, or its absence, leads back here.
        }
        if self.is_overdue(id) {
            // Let it run out: the others go on without this server's word.
            let look = self.settings.lease.look_every().as_nanos() as u64;
            let agent = &mut self.server(id).agent;
            if agent.keeper.state(now) == LeaseState::Lost {
                self.tell_lease(id, None);
            }
            let agent = &mut self.server(id).agent;
            agent.last_look += 1;
            let again = Occasion::Look(agent.last_look);
            return self.occasion_in(id, look, again);
        }
        let agent = &mut self.server(id).agent;
        let step = agent.keeper.step(now);
        // The planted bug holds on to a lease that it had once.
        let revives = bug == Some(ControlBug::LeaseRevived) && agent.had_lease;
        let until = match agent.keeper.state(now) {
            LeaseState::Holding { until } => Some(until),
            LeaseState::Lost | LeaseState::NeedViews => None,
        };
        self.tell_lease(id, until);
        match step {
            LeaseStep::Wait(at) => {
                let wait = self.server(id).world_time(at.since(now));
                let agent = &mut self.server(id).agent;
                agent.last_look += 1;
                let look = Occasion::Look(agent.last_look);
                self.occasion_in(id, wait, look);
            }
            LeaseStep::Acquire if revives => self.ask_about_lease(id, LeaseAsk::Renew, Call::Renew),
            LeaseStep::Acquire => self.ask_about_lease(id, LeaseAsk::Acquire, Call::Acquire),
            LeaseStep::Renew => self.ask_about_lease(id, LeaseAsk::Renew, Call::Renew),
            LeaseStep::ReadViews => self.ask_about_lease(id, LeaseAsk::ReadViews, Call::Get),
        }
    }

    fn ask_about_lease(&mut self, id: ServerId, ask: LeaseAsk, call: Call) {
        let sent = self.server_clock(id);
        let number = self.call(id, call);
        let agent = &mut self.server(id).agent;
        if ask != LeaseAsk::ReadViews {
            agent.keeper.sent(sent);
        }
        agent.lease_call = Some(Pending { number, sent, ask });
    }

    fn ask_about_views(&mut self, id: ServerId, ask: ViewAsk, call: Call) {
        let sent = self.server_clock(id);
        let number = self.call(id, call);
        self.server(id).agent.view_call = Some(Pending { number, sent, ask });
    }

    /// Sends a call on its way; it may be lost, and so may its answer.
    fn call(&mut self, id: ServerId, call: Call) -> u64 {
        let patience = self.settings.lease.renew_every().as_nanos() as u64;
        let server = self.server(id);
        server.agent.last_call += 1;
        let (number, life, incarnation) = (server.agent.last_call, server.life, server.incarnation);
        let at = self.now + self.network.other_delay();
        let connection = self.plane.connection;
        self.queue.plan(at, Event::Call { server: id, life, incarnation, connection, number, call });
        self.occasion_in(id, patience, Occasion::Timeout(number));
        number
    }

    /// A server that stops gives its lease back, after it has answered its last request.
    pub(super) fn give_lease_back(&mut self, id: ServerId) {
        let (life, incarnation) = (self.server(id).life, self.server(id).incarnation);
        let at = self.now + self.network.other_delay();
        let (connection, number, call) = (self.plane.connection, 0, Call::Release);
        self.queue.plan(at, Event::Call { server: id, life, incarnation, connection, number, call });
    }

    /// A call has reached the control plane, if that is there.
    pub(super) fn on_call(&mut self, id: ServerId, life: u64, incarnation: Incarnation, number: u64, call: Call) {
        if !self.plane.is_reached_by(id) || self.network.loses() {
            return;
        }
        let now = self.now;
        let answer = match call {
            Call::Get => {
                let (revision, state) = self.plane.document();
                Answer::Document(revision, state)
            }
            Call::Acquire => Answer::Lease(self.plane.acquire(id, incarnation, now)),
            Call::Renew => Answer::Lease(self.plane.renew(id, incarnation, now)),
            Call::Release => return self.plane.release(id, incarnation),
            Call::Leases => Answer::Leases(self.plane.leases(now)),
            Call::Set { expected, after } => {
                let Self { plane, servers, settings, .. } = self;
                // In most worlds no history ends: see `World::can_lose`.
                let is_kept = |state: &ClusterState| {
                    let kept = |view| servers.iter().enumerate().any(|(at, one)| one.is_copy(at, state, view));
                    settings.loses_copies || state.stars.iter().all(|view| view.founded.0 == 0 || kept(view))
                };
                let outcome = plane.compare_and_set(now, expected, &after, id, is_kept);
                if let CasOutcome::Done(_) = outcome {
                    self.views_changed(id);
                }
                Answer::Set(outcome)
            }
        };
        if !self.network.loses() {
            let at = now + self.network.other_delay();
            self.queue.plan(at, Event::Agent { server: id, life, occasion: Occasion::Answer(number, answer) });
        }
    }

    /// The document has changed: whoever can be reached hears of it.
    pub(super) fn views_changed(&mut self, by: ServerId) {
        let Self { trace, plane, .. } = self;
        trace.event(self.now, &[12, by.0.into()], &[], || {
            let views: Vec<String> = plane.state().stars.iter().map(view_line).collect();
            format!("VIEWS {}", views.join("  "))
        });
        self.views += 1;
        self.resumed += self.foundations.note_resumed(self.plane.state());
        for star in self.foundations.note(self.now, self.plane.state()) {
            self.book.begin_anew(star, self.settings.stars);
        }
        for id in (0..self.settings.servers).map(ServerId) {
            if self.plane.is_reached_by(id) {
                let delay = self.network.other_delay();
                self.tell_views(id, delay);
            }
        }
    }

    /// A server hears what the views are, once its question that waits for a change is answered.
    pub(super) fn tell_views(&mut self, id: ServerId, delay: u64) {
        let (revision, state) = self.plane.document();
        self.occasion_in(id, delay, Occasion::Views(revision, state));
    }

    fn take_answer(&mut self, id: ServerId, number: u64, answer: Answer) {
        let agent = &mut self.server(id).agent;
        if let Some(pending) = agent.lease_call.take_if(|pending| pending.number == number) {
            self.take_lease_answer(id, &pending, answer);
            self.tend_lease(id);
        } else if let Some(pending) = agent.view_call.take_if(|pending| pending.number == number) {
            match answer {
                Answer::Document(revision, state) => {
                    self.ask_about_views(id, ViewAsk::RegisterIn(revision, state), Call::Leases);
                }
                Answer::Leases(leases) => match pending.ask {
                    ViewAsk::RegisterIn(revision, state) => self.register_in(id, revision, &state, &leases),
                    _ => self.propose(id, &leases),
                },
                Answer::Set(outcome) => self.was_set(id, pending.ask, outcome),
                Answer::Lease(_) => {}
            }
        }
    }

    fn take_lease_answer(&mut self, id: ServerId, pending: &Pending<LeaseAsk>, answer: Answer) {
        let now = self.server_clock(id);
        let revives = self.settings.control_bug == Some(ControlBug::LeaseRevived);
        let unread = self.settings.control_bug == Some(ControlBug::LeaseBeforeViews);
        let follows_all = self.settings.control_bug == Some(ControlBug::OldStateFollowed);
        let agent = &mut self.server(id).agent;
        match (pending.ask, answer) {
            (LeaseAsk::Acquire, Answer::Lease(true)) => {
                agent.keeper.acquired(pending.sent, now);
                agent.had_lease = true;
                if unread {
                    agent.keeper.views_read(now);
                }
            }
            (LeaseAsk::Renew, Answer::Lease(true)) if revives => {
                agent.keeper.acquired(pending.sent, now);
                agent.keeper.views_read(now);
            }
            (LeaseAsk::Renew, Answer::Lease(true)) => agent.keeper.renewed(pending.sent, now),
            (LeaseAsk::Renew, Answer::Lease(false)) => agent.keeper.lost(now),
            (LeaseAsk::ReadViews, Answer::Document(revision, state)) => {
                // Older: news that came meanwhile are newer, or the control plane has lost its memory.
                let is_older = agent.known.as_ref().is_some_and(|(known, _)| *known > revision) && !follows_all;
                if is_older || !self.accept(id, revision, state) {
                    return self.server(id).agent.keeper.failed(now);
                }
                self.server(id).agent.keeper.views_read(pending.sent);
            }
            _ => agent.keeper.failed(now),
        }
    }

    fn time_out(&mut self, id: ServerId, number: u64) {
        let now = self.server_clock(id);
        let again = self.settings.lease.look_every().as_nanos() as u64;
        let agent = &mut self.server(id).agent;
        if agent.lease_call.take_if(|pending| pending.number == number).is_some() {
            agent.keeper.failed(now);
            self.tend_lease(id);
        } else if agent.view_call.take_if(|pending| pending.number == number).is_some() && !agent.is_registered {
            self.occasion_in(id, again, Occasion::Register);
        }
    }

    /// Asks who is alive; who may not count on its own view of the world does not change that of others.
    fn tend_views(&mut self, id: ServerId) {
        let now = self.server_clock(id);
        self.occasion_in(id, self.settings.lease.look_every().as_nanos() as u64, Occasion::Tend);
        if self.server(id).stop.is_some_and(|stop| self.now >= stop.give_up_at) && self.end_stop(id) {
            return;
        }
        let agent = &self.server(id).agent;
        if agent.view_call.is_none() && agent.told.is_some_and(|until| now < until) {
            self.ask_about_views(id, ViewAsk::Leases, Call::Leases);
        }
    }

    fn propose(&mut self, id: ServerId, leases: &[Lease]) {
        let (wanted, now): (PlanConfig, Time) = (self.settings.plan(), self.server_clock(id));
        let Some((revision, state)) = self.server(id).agent.known.clone() else { return };
        let alive = alive(&state, leases);
        let is_hasty = self.settings.control_bug == Some(ControlBug::LeaverTakenOut);
        let server = self.server(id);
        let ready = server.node.as_ref().map_or_else(Vec::new, S::may_advance);
        let mut next = None;
        if server.stop.is_some() {
            let (step, is_done) = handed_over(&state, id, &ready, &alive);
            if is_done && self.has_noted(id, &state) && self.end_stop(id) {
                return;
            }
            next = step;
        }
        // A server that is about to end goes on to speak and to plan.
        let server = self.server(id);
        let next = next
            .or_else(|| advanced(&state, id, &ready, &alive))
            .or_else(|| reported(&state, id, server.agent.reach.say(now, &server.cut, &alive)))
            .or_else(|| plan(&state, &wanted, &alive).map(|next| if is_hasty { without_leavers(next) } else { next }));
        if let Some(after) = next {
            let after = Arc::new(self.with_claims_kept(&state, after));
            let call = Call::Set { expected: revision, after: Arc::clone(&after) };
            self.ask_about_views(id, ViewAsk::Set(after), call);
        }
    }

    /// Whether a server was asked to leave long ago and does not.
    fn is_overdue(&mut self, id: ServerId) -> bool {
        let (now, lease) = (self.server_clock(id), self.settings.lease);
        let Server { node, agent, .. } = self.server(id);
        let ready = node.as_ref().map_or_else(Vec::new, S::may_advance);
        let Some((_, state)) = &agent.known else { return false };
        agent.reluctance.is_overdue(now, &lease, state, id, &ready)
    }

    fn was_set(&mut self, id: ServerId, ask: ViewAsk, outcome: CasOutcome) {
        let again = self.settings.lease.look_every().as_nanos() as u64;
        let is_registered = self.server(id).agent.is_registered;
        match (ask, outcome) {
            (ViewAsk::Set(after), CasOutcome::Done(revision)) if is_registered => {
                let _ = self.accept(id, revision, after); // It is what this server asked for.
            }
            (ViewAsk::Set(after), CasOutcome::Done(revision)) => self.is_registered(id, revision, after),
            _ if is_registered => {} // Others were faster, or a lease has not run out yet; the next look tells.
            _ => self.occasion_in(id, again, Occasion::Register),
        }
    }
}

/// The planted bug: whoever is asked to leave is taken out in the same write.
fn without_leavers(mut state: ClusterState) -> ClusterState {
    for view in &mut state.stars {
        for id in std::mem::take(&mut view.leaving) {
            view.members.retain(|member| *member != id);
            view.joining.retain(|member| *member != id);
        }
    }
    state
}
