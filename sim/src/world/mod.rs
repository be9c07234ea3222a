//! The world: virtual time, links, clocks, faults and clients around servers that run the real protocol code.
//!
//! Nothing in it depends on anything but the seed and the settings: time is the time of the next event, chance comes
//! from [`Random`], and no order depends on a hash or an address. So a run can be repeated event by event.

mod agent;
mod book;
mod client;
mod end;
pub mod faults;
mod foundations;
mod loss;
mod network;
mod parcel;
mod plane;
mod queue;
mod server;
pub mod settings;
#[cfg(test)]
mod tests;
mod trace;
mod workload;

use std::{collections::BTreeMap, rc::Rc};

use bytes::Bytes;
use star_core::{
    ids::{Epoch, Incarnation, ServerId},
    message::{Request, ResponseBody},
    protocol::Token,
};

use self::{
    agent::{Call, Occasion},
    client::Client,
    faults::{FaultKind, Undo},
    network::Network,
    parcel::{Outgoing, Parcel},
    plane::Plane,
    queue::Queue,
    server::Arrival,
    settings::ScriptedCut,
    workload::Workload,
};
pub(crate) use self::{book::Book, foundations::Foundations, server::Server};
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
    /// Room for the effects of a turn, kept from turn to turn.
    effects: Outgoing<S::Message>,
    servers: Vec<Server<S>>,
    network: Network,
    plane: Plane,
    clients: Vec<Client>,
    workload: Workload,
    fault_random: Random,
    /// How the faults that last end, by number.
    undo: BTreeMap<u64, Undo>,
    undo_number: u64,
    /// No more faults and no new requests.
    healing: bool,
    history: History,
    book: Book,
    foundations: Foundations,
    checks: Checks,
    trace: Trace,
    steps: u64,
    /// Faults that happened, by kind.
    faults: [u64; FaultKind::ALL.len()],
    answers: u64,
    unknown: u64,
    forgotten: u64,
    /// How often the views changed.
    views: u64,
    /// How often a star went on with what a store held.
    resumed: u64,
}

/// What can happen. `life` is the server's life that it is meant for. Small, because each is moved several times: what
/// is large is behind a pointer.
pub(crate) enum Event<S: Subject> {
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
        parcel: Rc<Parcel<S::Message>>,
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
    /// Something happens to a server's agent.
    Agent {
        server: ServerId,
        life: u64,
        occasion: Occasion,
    },
    /// An agent's call has reached the control plane.
    Call {
        server: ServerId,
        life: u64,
        incarnation: Incarnation,
        connection: u64,
        number: u64,
        call: Call,
    },
    Wake(u32),
    Ask {
        server: ServerId,
        life: u64,
        token: Token,
        request: Box<Request>,
    },
    Answer {
        token: Token,
        answer: Box<(ResponseBody, Bytes)>,
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
    Cut(ScriptedCut),
    Undo(u64),
}

impl<S: Subject> World<S> {
    /// The world of this seed, before its first event.
    pub fn new(seed: u64, settings: Settings, subject: S::Settings, trace: Trace) -> Self {
        let mut random = Random::new(seed);
        let network = Network::new(settings.servers, settings.delay, settings.loss, random.fork());
        let servers = (0..settings.servers).map(|_| Server::new(&settings, &mut random)).collect();
        let clients = (0..settings.workload.clients).map(|number| Client::new(number, random.fork())).collect();
        let lease = settings.lease.ttl.as_nanos() as u64;
        let mut world = Self {
            now: 0,
            queue: Queue::new(),
            effects: Outgoing::default(),
            servers,
            network,
            plane: Plane::new(settings.servers, settings.stars, lease, settings.control_bug),
            clients,
            workload: Workload::new(settings.workload.clone()),
            fault_random: random.fork(),
            undo: BTreeMap::new(),
            undo_number: 0,
            healing: false,
            history: History::new(),
            book: Book::default(),
            foundations: Foundations::new(settings.stars),
            checks: Checks::new(settings.stars),
            trace,
            steps: 0,
            faults: [0; FaultKind::ALL.len()],
            answers: 0,
            unknown: 0,
            forgotten: 0,
            views: 0,
            resumed: 0,
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
        self.settings.script.iter().for_each(|cut| self.queue.plan(cut.at, Event::Cut(*cut)));
        if self.settings.faults.weights.iter().any(|weight| *weight > 0) {
            self.queue.plan(self.settings.faults.every.1, Event::Fault);
        }
    }

    /// Lets the next thing happen; false if nothing is planned any more.
    fn next(&mut self) -> Result<bool, String> {
        let Some((at, event)) = self.queue.next() else { return Ok(false) };
        self.now = at;
        let Some(event) = self.freeze(event) else { return Ok(true) };
        match event {
            Event::Turn { server, life } if self.lives(server, life) => self.turn(server)?,
            Event::Tick { server, life } if self.lives(server, life) => self.tick(server),
            Event::Agent { server, life, occasion } if self.lives(server, life) => self.agent(server, occasion),
            Event::Ask { server, life, token, request } if self.lives(server, life) => {
                self.reach(server, token, request);
            }
            Event::Turn { .. } | Event::Tick { .. } | Event::Agent { .. } | Event::Ask { .. } => {}
            Event::Deliver { from, to, generation, parcel } => {
                if self.network.link(from, to).generation == generation {
                    self.arrive(to, Arrival::Message { from, parcel });
                }
            }
            Event::LinkDown { from, to, generation } => {
                if self.network.link(from, to).generation == generation {
                    self.arrive(from, Arrival::LinkDown(to));
                }
            }
            Event::LinkUp { from, to, generation } => {
                self.arrive(from, Arrival::LinkUp { to, generation });
            }
            Event::Call { server, life, incarnation, connection, number, call } => {
                if connection == self.plane.connection {
                    self.on_call(server, life, incarnation, number, call);
                }
            }
            Event::Wake(client) => self.wake(client),
            Event::Answer { token, answer } => self.answered(token, &answer.0, &answer.1)?,
            Event::Again { client, operation } => self.again(client, operation),
            Event::Patience { client, attempt } => self.lose_patience(client, attempt),
            Event::Fault => self.fault(),
            Event::Cut(cut) => self.cut_as_scripted(cut),
            Event::Undo(number) => self.undo(number),
        }
        Ok(true)
    }

    fn lives(&self, server: ServerId, life: u64) -> bool {
        let server = &self.servers[usize::from(server.0)];
        server.life == life && server.node.is_some()
    }

    /// What a paused server would do waits until it goes on.
    fn freeze(&mut self, event: Event<S>) -> Option<Event<S>> {
        let (Event::Turn { server, life } | Event::Tick { server, life } | Event::Agent { server, life, .. }) = event
        else {
            return Some(event);
        };
        let one = &mut self.servers[usize::from(server.0)];
        if one.pauses == 0 || one.life != life {
            return Some(event);
        }
        one.frozen.push(event);
        None
    }

    /// A server answers: what it says is a promise from now on, even if the client never hears it.
    fn note_answer(&mut self, server: ServerId, token: Token, body: &ResponseBody) -> Result<(), String> {
        let Self { clients, servers, foundations, book, settings, .. } = self;
        let one = &servers[usize::from(server.0)];
        let Some(attempt) = clients[token.connection as usize].attempt(token.request) else { return Ok(()) };
        if !attempt.asked.is_write() {
            lease_exclusion::check(server, one.held_lease(self.now), body)?;
        }
        let founded = |star| one.node.as_ref().map_or(Epoch(0), |node| node.glance(star).founded);
        attempt.places = foundations.places(attempt, body, settings.stars, founded)?;
        book.promise(&attempt.asked, body, |part| {
            let star = attempt.asked.star(part, settings.stars);
            attempt.places.get(part).is_none_or(|place| *place == foundations.latest_place(star))
        });
        Ok(())
    }

    /// The history so far.
    pub fn history(&self) -> &History {
        &self.history
    }
}
