//! The world: virtual time, links, clocks, faults and clients around servers that run the real protocol code.
//!
//! Nothing in it depends on anything but the seed and the settings: time is the time of the next event, chance comes
//! from [`Random`], and no order depends on a hash or an address. So a run can be repeated event by event.

mod book;
mod client;
mod end;
pub mod faults;
mod network;
mod plane;
mod queue;
mod server;
pub mod settings;
mod trace;
mod workload;

use std::collections::BTreeMap;

use bytes::Bytes;
use star_core::{
    ids::{Incarnation, ServerId},
    message::{Request, ResponseBody},
    protocol::{Input, Token},
    time::Time,
};

pub(crate) use self::{book::Book, server::Server};
use self::{
    client::Client,
    faults::{FaultKind, Undo},
    network::Network,
    plane::Plane,
    queue::Queue,
    server::Arrival,
    workload::Workload,
};
pub use self::{
    end::{Failure, Summary},
    settings::Settings,
    trace::Trace,
};
use crate::{
    history::History,
    invariants::{Checks, lease_exclusion},
    random::Random,
    subject::Subject,
};

/// A world under way.
pub struct World<S: Subject> {
    settings: Settings,
    subject: S::Settings,
    now: u64,
    queue: Queue<Event<S>>,
    servers: Vec<Server<S>>,
    network: Network,
    plane: Plane,
    clients: Vec<Client>,
    workload: Workload,
    fault_random: Random,
    /// How the faults that last end, by number.
    undo: BTreeMap<u64, Undo>,
    undo_number: u64,
    has_crashed: bool,
    /// No more faults and no new requests.
    healing: bool,
    history: History,
    book: Book,
    checks: Checks,
    trace: Trace,
    steps: u64,
    /// Faults that happened, by kind.
    faults: [u64; FaultKind::ALL.len()],
    answers: u64,
    unknown: u64,
}

/// What can happen. `life` is the server's life that it is meant for.
enum Event<S: Subject> {
    Turn {
        server: ServerId,
        life: u64,
    },
    Tick {
        server: ServerId,
        life: u64,
    },
    Deliver {
        from: ServerId,
        to: ServerId,
        generation: u64,
        message: S::Message,
    },
    LinkDown {
        from: ServerId,
        to: ServerId,
        generation: u64,
    },
    LinkUp {
        from: ServerId,
        to: ServerId,
        generation: u64,
    },
    /// A server asks for a new lease.
    Renew {
        server: ServerId,
        life: u64,
    },
    /// Its question has reached the control plane; `sent` is on the server's clock.
    Renewal {
        server: ServerId,
        life: u64,
        incarnation: Incarnation,
        sent: Time,
    },
    /// News of the control plane reach a server.
    News {
        server: ServerId,
        life: u64,
        arrival: Arrival<S>,
    },
    TakeOut(ServerId),
    Wake(u32),
    Ask {
        server: ServerId,
        life: u64,
        token: Token,
        request: Request,
    },
    Answer {
        token: Token,
        body: ResponseBody,
        value: Bytes,
    },
    Again {
        client: u32,
        operation: u64,
    },
    Patience {
        client: u32,
        attempt: u64,
    },
    Fault,
    Undo(u64),
}

impl<S: Subject> World<S> {
    /// The world of this seed, before its first event.
    pub fn new(seed: u64, settings: Settings, subject: S::Settings, trace: Trace) -> Self {
        let mut random = Random::new(seed);
        let network = Network::new(settings.servers, settings.delay, settings.loss, random.fork());
        let servers = (0..settings.servers).map(|_| Server::new(&settings, &mut random)).collect();
        let clients = (0..settings.workload.clients).map(|number| Client::new(number, random.fork())).collect();
        let mut world = Self {
            now: 0,
            queue: Queue::new(),
            servers,
            network,
            plane: Plane::new(settings.servers, settings.stars),
            clients,
            workload: Workload::new(settings.workload.clone()),
            fault_random: random.fork(),
            undo: BTreeMap::new(),
            undo_number: 0,
            has_crashed: false,
            healing: false,
            history: History::new(),
            book: Book::default(),
            checks: Checks::new(settings.stars),
            trace,
            steps: 0,
            faults: [0; FaultKind::ALL.len()],
            answers: 0,
            unknown: 0,
            settings,
            subject,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        let ids: Vec<ServerId> = (0..self.settings.servers).map(ServerId).collect();
        for id in &ids {
            self.start(*id);
        }
        for from in &ids {
            ids.iter().filter(|to| *to != from).for_each(|to| self.connect(*from, *to));
        }
        (0..self.settings.workload.clients).for_each(|client| self.queue.plan(0, Event::Wake(client)));
        if self.settings.faults.weights.iter().any(|weight| *weight > 0) {
            self.queue.plan(self.settings.faults.every.1, Event::Fault);
        }
    }

    /// Lets the next thing happen; false if nothing is planned any more.
    fn next(&mut self) -> Result<bool, String> {
        let Some((at, event)) = self.queue.next() else { return Ok(false) };
        self.now = at;
        match event {
            Event::Turn { server, life } if self.lives(server, life) => self.turn(server)?,
            Event::Tick { server, life } if self.lives(server, life) => self.tick(server),
            Event::Renew { server, life } if self.lives(server, life) => self.renew(server, life),
            Event::Ask { server, life, token, request } if self.lives(server, life) => {
                self.reach(server, token, request);
            }
            Event::News { server, life, arrival } if self.lives(server, life) => self.arrive(server, arrival),
            Event::Turn { .. } | Event::Tick { .. } | Event::Renew { .. } | Event::Ask { .. } | Event::News { .. } => {}
            Event::Deliver { from, to, generation, message } => {
                if self.network.link(from, to).generation == generation {
                    self.arrive(to, Arrival::Input(Input::Message { from, message }));
                }
            }
            Event::LinkDown { from, to, generation } => {
                if self.network.link(from, to).generation == generation {
                    self.arrive(from, Arrival::Input(Input::LinkDown(to)));
                }
            }
            Event::LinkUp { from, to, generation } => {
                self.arrive(from, Arrival::LinkUp { to, generation });
            }
            Event::Renewal { server, life, incarnation, sent } => self.grant(server, life, incarnation, sent),
            Event::TakeOut(server) => self.take_out(server),
            Event::Wake(client) => self.wake(client),
            Event::Answer { token, body, value } => self.answered(token, &body, &value)?,
            Event::Again { client, operation } => self.again(client, operation),
            Event::Patience { client, attempt } => self.lose_patience(client, attempt),
            Event::Fault => self.fault(),
            Event::Undo(number) => self.undo(number),
        }
        Ok(true)
    }

    fn lives(&self, server: ServerId, life: u64) -> bool {
        let server = &self.servers[usize::from(server.0)];
        server.life == life && server.node.is_some()
    }

    /// A server asks the control plane for a new lease. One that is paused asks nothing.
    fn renew(&mut self, id: ServerId, life: u64) {
        let (now, every) = (self.now, self.settings.renew_every);
        let server = self.server(id);
        let (sent, incarnation, paused) = (server.clock(now), server.incarnation, server.pauses > 0);
        self.queue.plan(now + every, Event::Renew { server: id, life });
        if !paused {
            let at = now + self.network.other_delay();
            self.queue.plan(at, Event::Renewal { server: id, life, incarnation, sent });
        }
    }

    /// The control plane grants a lease; the server counts it from when it asked, less the margin.
    fn grant(&mut self, server: ServerId, life: u64, incarnation: Incarnation, sent: Time) {
        let until = self.now + self.settings.lease;
        if !self.plane.is_there() || !self.plane.renew(server, incarnation, until) {
            return;
        }
        let until = Time(sent.0 + self.settings.lease - self.settings.lease_margin);
        let at = self.now + self.network.other_delay();
        self.queue.plan(at, Event::News { server, life, arrival: Arrival::Lease(until) });
        self.tell_view(server);
    }

    /// The control plane tells a server of the latest views.
    fn tell_view(&mut self, server: ServerId) {
        if !self.plane.is_there() {
            return;
        }
        let life = self.server(server).life;
        let arrival = Arrival::Input(Input::Control(S::cluster(self.plane.state())));
        let at = self.now + self.network.other_delay();
        self.queue.plan(at, Event::News { server, life, arrival });
    }

    fn tell_views(&mut self) {
        (0..self.settings.servers).for_each(|server| self.tell_view(ServerId(server)));
    }

    /// A server answers: what it says is a promise from now on, even if the client never hears it.
    fn note_answer(&mut self, server: ServerId, token: Token, body: &ResponseBody) -> Result<(), String> {
        let Some(asked) = self.clients[token.connection as usize].asked_in(token.request) else { return Ok(()) };
        if !asked.is_write() {
            lease_exclusion::check(server, self.servers[usize::from(server.0)].holds_lease(self.now), body)?;
        }
        self.book.promise(asked, body);
        Ok(())
    }

    /// The history so far.
    pub fn history(&self) -> &History {
        &self.history
    }
}
