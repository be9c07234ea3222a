//! A server of the world: its inbox, its clock, its turns.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    rc::Rc,
    time::Duration,
};

use star_control::Claim;
use star_core::{
    ids::{Incarnation, ServerId},
    message::Request,
    protocol::{Input, TICK_MS, Token},
    time::Time,
};

use super::{
    Event, World,
    agent::Agent,
    parcel::{Outgoing, Parcel, Sent, digest},
    plane::server_name,
    settings::{MS, Settings},
};
use crate::{
    random::Random,
    subject::{Identity, Subject},
};

/// The most inputs in one turn.
const TURN_INPUTS_MAX: u64 = 16;

/// One server.
pub(crate) struct Server<S: Subject> {
    /// The protocol; `None` while the server is gone.
    pub(crate) node: Option<S>,
    /// What a crash left, if its store outlived it.
    pub(crate) left: Option<S>,
    /// What its store held when this life began.
    pub(crate) claims: Vec<Claim>,
    pub(crate) incarnation: Incarnation,
    /// Grows with every start and crash: what was meant for an earlier life never reaches this one.
    pub(crate) life: u64,
    pub(crate) inbox: VecDeque<Arrival<S>>,
    turn_planned: bool,
    /// Whether a tick waits in the inbox: a server that was away gets one, not all that it missed.
    tick_waits: bool,
    /// How many faults keep it from taking steps.
    pub(crate) pauses: u32,
    /// What would have happened to it while it is paused.
    pub(super) frozen: Vec<Event<S>>,
    /// Its clock when the world began, and how many millionths faster it runs.
    clock_offset: u64,
    clock_drift: i64,
    /// Until when, on its own clock, it was told that it holds a lease.
    pub(crate) lease_until: Time,
    /// The latest that this was in the present turn: what was answered before the lease was lost was answered with it.
    lease_in_turn: Time,
    /// What keeps its lease and its views.
    pub(crate) agent: Agent,
    /// The servers to which its links are down, and since when on its own clock.
    pub(crate) cut: BTreeMap<ServerId, Time>,
    /// Whether it is about to stop.
    pub(crate) stop: Option<Stop>,
    /// Requests that it has not answered yet.
    pub(crate) open: BTreeSet<Token>,
    turn_random: Random,
}

/// How a server stops.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stop {
    /// When it stops whether it has handed over or not.
    pub(crate) give_up_at: u64,
    /// For how long it is gone then.
    pub(crate) down_for: u64,
}

/// What waits in an inbox.
pub(crate) enum Arrival<S: Subject> {
    Request { token: Token, request: Box<Request> },
    Message { from: ServerId, parcel: Rc<Parcel<S::Message>> },
    LinkUp { to: ServerId, generation: u64 },
    LinkDown(ServerId),
    Control(S::Control),
    Lease(Time),
    Tick,
}

impl<S: Subject> Server<S> {
    pub(crate) fn new(settings: &Settings, random: &mut Random) -> Self {
        let drift = random.between(0, settings.clock_drift_max * 2) as i64 - settings.clock_drift_max as i64;
        Self {
            node: None,
            left: None,
            claims: Vec::new(),
            incarnation: Incarnation(1),
            life: 0,
            inbox: VecDeque::new(),
            turn_planned: false,
            tick_waits: false,
            pauses: 0,
            frozen: Vec::new(),
            clock_offset: random.between(0, settings.clock_offset_max),
            clock_drift: drift,
            lease_until: Time::ZERO,
            lease_in_turn: Time::ZERO,
            agent: Agent::new(settings),
            cut: BTreeMap::new(),
            stop: None,
            open: BTreeSet::new(),
            turn_random: random.fork(),
        }
    }

    /// This server's clock at a moment of the world.
    pub(crate) fn clock(&self, now: u64) -> Time {
        let drift = i128::from(now) * i128::from(self.clock_drift) / 1_000_000;
        Time((i128::from(self.clock_offset) + i128::from(now) + drift) as u64)
    }

    /// How long the world takes until this clock has gone on by `span`; never too short.
    pub(crate) fn world_time(&self, span: Duration) -> u64 {
        let rate = (1_000_000 + self.clock_drift) as u128;
        (span.as_nanos() * 1_000_000 / rate) as u64 + 1
    }

    /// Whether it may answer reads as far as its lease goes.
    pub(crate) fn holds_lease(&self, now: u64) -> bool {
        self.clock(now) < self.lease_until
    }

    /// The same at any moment of the turn whose answers are on their way.
    pub(crate) fn held_lease(&self, now: u64) -> bool {
        self.clock(now) < self.lease_in_turn
    }
}

impl<S: Subject> World<S> {
    pub(super) fn server(&mut self, id: ServerId) -> &mut Server<S> {
        &mut self.servers[usize::from(id.0)]
    }

    /// What a server's store held when its present life began.
    pub(super) fn claims(&self, id: ServerId) -> Vec<Claim> {
        self.servers[usize::from(id.0)].claims.clone()
    }

    /// Starts a server's next life.
    pub(super) fn start(&mut self, id: ServerId) {
        let stars = self.settings.stars;
        let server = &mut self.servers[usize::from(id.0)];
        let identity = Identity { id, name: server_name(id), incarnation: server.incarnation, stars };
        server.node = Some(match server.left.take() {
            Some(before) => S::start_warm(&self.subject, &identity, before),
            None => S::start(&self.subject, &identity),
        });
        server.claims = server.node.as_ref().map_or_else(Vec::new, S::claims);
        server.life += 1;
        server.inbox.clear();
        (server.turn_planned, server.tick_waits, server.lease_until) = (false, false, Time::ZERO);
        let (life, clock) = (server.life, server.clock(self.now));
        server.cut = (0..self.settings.servers).map(|other| (ServerId(other), clock)).collect();
        server.cut.remove(&id);
        let first_tick = self.now + server.turn_random.between(0, TICK_MS * MS);
        self.checks.forget(id);
        self.queue.plan(first_tick, Event::Tick { server: id, life });
        self.start_agent(id);
    }

    pub(super) fn server_clock(&self, id: ServerId) -> Time {
        self.servers[usize::from(id.0)].clock(self.now)
    }

    /// Puts something into a server's inbox and plans a turn.
    pub(super) fn arrive(&mut self, id: ServerId, arrival: Arrival<S>) {
        let now = self.now;
        let turn_delay_max = self.settings.turn_delay_max;
        let server = self.server(id);
        if server.node.is_none() {
            return;
        }
        server.inbox.push_back(arrival);
        if !server.turn_planned {
            server.turn_planned = true;
            let (at, life) = (now + server.turn_random.between(0, turn_delay_max), server.life);
            self.queue.plan(at, Event::Turn { server: id, life });
        }
    }

    pub(super) fn tick(&mut self, id: ServerId) {
        let now = self.now;
        let server = self.server(id);
        let life = server.life;
        if !std::mem::replace(&mut server.tick_waits, true) {
            self.arrive(id, Arrival::Tick);
        }
        self.queue.plan(now + TICK_MS * MS, Event::Tick { server: id, life });
    }

    /// A server takes a batch of what has arrived, as a real one drains its queue.
    pub(super) fn turn(&mut self, id: ServerId) -> Result<(), String> {
        let at = usize::from(id.0);
        let life = self.servers[at].life;
        let now = self.servers[at].clock(self.now);
        let batch = 1 + self.servers[at].turn_random.below(TURN_INPUTS_MAX);
        let mut effects = std::mem::take(&mut self.effects);
        self.servers[at].lease_in_turn = self.servers[at].lease_until;
        for _ in 0..batch {
            let Some(arrival) = self.servers[at].inbox.pop_front() else { break };
            let Some(input) = self.input(id, arrival) else { continue };
            self.steps += 1;
            let node = self.servers[at].node.as_mut().ok_or("a server that is gone takes a turn")?;
            node.step(now, input, &mut effects);
        }
        if let Some(node) = &mut self.servers[at].node {
            node.end_turn(now, &mut effects);
        }
        self.dispatch(id, &mut effects)?;
        self.effects = effects;
        let server = &mut self.servers[at];
        server.turn_planned = !server.inbox.is_empty();
        if server.turn_planned {
            let next = self.now + 1 + server.turn_random.below(self.settings.turn_delay_max + 1);
            self.queue.plan(next, Event::Turn { server: id, life });
        }
        self.lease_is_held(id)?;
        self.checks.after_turn(&self.servers, &self.book, &self.foundations, self.now, id)
    }

    /// A server that counts on its lease has it: as long as its clock is within the margin, it stops first.
    fn lease_is_held(&self, id: ServerId) -> Result<(), String> {
        let server = &self.servers[usize::from(id.0)];
        if server.holds_lease(self.now) && !self.plane.respects(id, server.incarnation, self.now) {
            return Err(format!("lease exclusion: server {id} counts on a lease that the control plane has given up"));
        }
        Ok(())
    }

    /// What the protocol is told of an arrival, if anything.
    fn input(&mut self, id: ServerId, arrival: Arrival<S>) -> Option<Input<S::Message, S::Control>> {
        let number = u64::from(id.0);
        let Self { trace, servers, network, now, .. } = self;
        let server = &mut servers[usize::from(id.0)];
        Some(match arrival {
            Arrival::Request { token, request } => {
                let of = [1, token.connection << 32 ^ token.request, number, digest(&request.body)];
                trace.event(*now, &of, &request.value, || {
                    format!("{id} <- client {} #{}  {:?}", token.connection, token.request, request.body)
                });
                server.open.insert(token);
                Input::Request { token, request: *request }
            }
            Arrival::Message { from, parcel } => {
                let of = [2, u64::from(from.0), number, parcel.digest];
                trace.event(*now, &of, &[], || format!("{id} <- {from}  {:?}", parcel.message));
                Input::Message { from, message: Parcel::unpack(parcel) }
            }
            Arrival::LinkUp { to, generation } => {
                if !network.open(id, to, generation) {
                    return None;
                }
                server.cut.remove(&to);
                trace.event(*now, &[3, to.0.into(), number], &[], || format!("{id}  link to {to} is up"));
                Input::LinkUp(to)
            }
            Arrival::LinkDown(to) => {
                let since = server.clock(*now);
                server.cut.entry(to).or_insert(since);
                trace.event(*now, &[4, to.0.into(), number], &[], || format!("{id}  link to {to} is down"));
                Input::LinkDown(to)
            }
            Arrival::Control(control) => {
                trace.event(*now, &[5, 0, number], &[], || format!("{id}  news of the views"));
                Input::Control(control)
            }
            Arrival::Lease(until) => {
                server.lease_until = until;
                server.lease_in_turn = until.max(server.lease_in_turn);
                trace.event(*now, &[5, until.0, number], &[], || format!("{id}  news of its lease"));
                Input::Control(S::lease(until))
            }
            Arrival::Tick => {
                server.tick_waits = false;
                trace.event(*now, &[6, 0, number], &[], || format!("{id}  tick"));
                Input::Tick
            }
        })
    }

    fn dispatch(&mut self, id: ServerId, effects: &mut Outgoing<S::Message>) -> Result<(), String> {
        for effect in effects.drain() {
            match effect {
                Sent::Parcel { to, parcel } => {
                    if usize::from(to.0) >= self.servers.len() || to == id {
                        return Err(format!("server {id} sends to server {to}"));
                    }
                    if let Some((at, generation)) = self.network.send(self.now, id, to) {
                        self.queue.plan(at, Event::Deliver { from: id, to, generation, parcel });
                    } else {
                        let numbers = [7, id.0.into(), to.0.into()];
                        self.trace
                            .event(self.now, &numbers, &[], || format!("{id} -> {to}  LOST {:?}", parcel.message));
                    }
                }
                Sent::Answer { token, answer } => {
                    if !self.server(id).open.remove(&token) {
                        return Err(format!("server {id} answers {token:?}, which is not open: {:?}", answer.0));
                    }
                    self.note_answer(id, token, &answer.0)?;
                    let at = self.now + self.network.other_delay();
                    self.queue.plan(at, Event::Answer { token, answer });
                }
            }
        }
        Ok(())
    }
}
