//! A network whose links carry a fixed rate, and servers that take a fixed time for each input: what a protocol can do
//! there, in simulated time. Nothing breaks; the protocols are the ones that serve users.
//!
//! Two processors cannot show how throughput grows with servers, nor can a loopback show what links limit. Here both
//! follow from the messages alone, and the same figures come out on every machine.

mod figures;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    sync::Arc,
};

use bytes::Bytes;
pub use figures::{Figure, all as figures};
use star_control::{ClusterState, ServerRecord, View};
use star_core::{
    ids::{ClientId, Epoch, Incarnation, RequestId, ServerId, StarId},
    key::Key,
    message::{Condition, Request, RequestBody, ResponseBody, Wire},
    protocol::{Effect, Input, TICK_MS, Token},
    store::Encoding,
    time::Time,
};

use crate::{
    random::Random,
    subject::{Identity, Subject},
};

/// What a frame costs beside its header and tail, in bytes: its own header and those of the network.
const FRAME_BYTES: u64 = 16 + 40;

const SECOND: u64 = 1_000_000_000;

/// The servers and what lies between them.
#[derive(Clone, Copy, Debug)]
pub struct Net {
    /// How many servers; all are members of every star.
    pub servers: u16,
    /// How many stars, or chains; leaders are spread evenly.
    pub stars: u16,
    /// What each link carries in one direction, in bytes a second.
    pub bytes_per_second: u64,
    /// How long each message is under way beside that, in nanoseconds; also between clients and servers.
    pub latency: u64,
    /// How long a server takes for each input, in nanoseconds.
    pub cost: u64,
    /// This link, in both directions, carries a tenth.
    pub slow: Option<(ServerId, ServerId)>,
    /// How long the load runs at least before anything is counted, in nanoseconds.
    pub warm_up: u64,
}

impl Default for Net {
    /// Three servers, links of a gigabit, and nothing else that limits.
    fn default() -> Self {
        Self { servers: 3, stars: 8, bytes_per_second: SECOND / 8, latency: 50_000, cost: 0, slow: None, warm_up: 0 }
    }
}

/// What the clients ask.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Clients at each server, each with one request under way.
    pub clients: u32,
    /// Clients that only write, at the first server; the others only read. `None`: `write_share` says for all.
    pub writers: Option<u32>,
    /// How many requests of a hundred write.
    pub write_share: u64,
    /// The bytes of a value.
    pub value_bytes: usize,
    /// How many keys there are; each is as likely as the others.
    pub keys: u64,
}

/// What was done while it was counted.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Writes a second.
    pub writes: f64,
    /// Reads a second.
    pub reads: f64,
    /// The median of what a write took, in nanoseconds.
    pub write_time: u64,
    /// The median of what a read took, in nanoseconds.
    pub read_time: u64,
    /// Messages between servers for each operation.
    pub messages: f64,
    /// Bytes between servers for each operation.
    pub bytes: f64,
    /// Answers that were neither a result nor "not found".
    pub refused: u64,
}

enum Event<S: Subject> {
    /// Something has come to a server, which may be busy.
    Arrive(ServerId, Input<S::Message, S::Control>),
    /// The server takes it.
    Step(ServerId, Input<S::Message, S::Control>),
    Tick,
    /// A client asks.
    Ask(u64),
}

struct Client {
    is_writer: Option<bool>,
    number: u64,
    asked_at: u64,
    is_write: bool,
}

struct World<S: Subject> {
    net: Net,
    load: Load,
    now: u64,
    /// The next events, by time and then in the order in which they were planned.
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, Event<S>>,
    planned: u64,
    nodes: Vec<S>,
    /// Until when each server is busy.
    busy: Vec<u64>,
    /// Until when each link is, by sender and receiver.
    links: Vec<u64>,
    clients: Vec<Client>,
    random: Random,
    counted: Option<Counted>,
    value: Bytes,
}

#[derive(Default)]
struct Counted {
    write_times: Vec<u64>,
    read_times: Vec<u64>,
    messages: u64,
    bytes: u64,
    refused: u64,
}

/// Runs a load for `seconds` of simulated time, after a fifth of that, or [`Net::warm_up`] if it is longer, which is not
/// counted.
pub fn run<S: Subject>(settings: &S::Settings, net: Net, load: Load, seconds: f64) -> Outcome {
    let mut world = World::<S>::new(settings, net, load);
    let length = (seconds * SECOND as f64) as u64;
    let warm_up = net.warm_up.max(length / 5);
    world.until(warm_up);
    world.counted = Some(Counted::default());
    world.until(warm_up + length);
    world.counted.take().expect("set above").outcome(seconds)
}

impl Counted {
    fn outcome(mut self, seconds: f64) -> Outcome {
        let operations = (self.write_times.len() + self.read_times.len()).max(1) as f64;
        Outcome {
            writes: self.write_times.len() as f64 / seconds,
            reads: self.read_times.len() as f64 / seconds,
            write_time: median(&mut self.write_times),
            read_time: median(&mut self.read_times),
            messages: self.messages as f64 / operations,
            bytes: self.bytes as f64 / operations,
            refused: self.refused,
        }
    }
}

fn median(times: &mut [u64]) -> u64 {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or(0)
}

impl<S: Subject> World<S> {
    fn new(settings: &S::Settings, net: Net, load: Load) -> Self {
        let (servers, stars) = (net.servers, net.stars);
        let name = |id: u16| format!("s{id}");
        let identity = |id| Identity { id: ServerId(id), name: name(id), incarnation: Incarnation(1), stars };
        let total = u64::from(load.clients) * u64::from(servers);
        let client = |at: u64| Client {
            is_writer: load.writers.map(|writers| at < u64::from(writers)),
            number: 0,
            asked_at: 0,
            is_write: false,
        };
        let mut world = Self {
            net,
            load,
            now: 0,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            planned: 0,
            nodes: (0..servers).map(|id| S::start(settings, &identity(id))).collect(),
            busy: vec![0; usize::from(servers)],
            links: vec![0; usize::from(servers) * usize::from(servers)],
            clients: (0..total).map(client).collect(),
            random: Random::new(1),
            counted: None,
            value: Bytes::from(vec![b'v'; load.value_bytes]),
        };
        let state = Arc::new(whole(servers, stars, name));
        for id in (0..servers).map(ServerId) {
            world.plan(0, Event::Arrive(id, Input::Control(S::cluster(Arc::clone(&state)))));
            world.plan(0, Event::Arrive(id, Input::Control(S::lease(Time(u64::MAX)))));
            for other in (0..servers).map(ServerId).filter(|other| *other != id) {
                world.plan(0, Event::Arrive(id, Input::LinkUp(other)));
            }
        }
        world.plan(0, Event::Tick);
        // Not all at the same instant, and after the views are installed.
        (0..total).for_each(|client| world.plan(20 * net.latency + 997 * client, Event::Ask(client)));
        world
    }

    fn plan(&mut self, at: u64, event: Event<S>) {
        self.planned += 1;
        self.queue.push(Reverse((at, self.planned)));
        self.events.insert(self.planned, event);
    }

    fn until(&mut self, end: u64) {
        while let Some(Reverse((at, number))) = self.queue.pop_if_before(end) {
            self.now = at;
            match self.events.remove(&number).expect("planned with its number") {
                Event::Arrive(id, input) => {
                    let busy = &mut self.busy[usize::from(id.0)];
                    *busy = at.max(*busy) + self.net.cost;
                    let done = *busy;
                    self.plan(done, Event::Step(id, input));
                }
                Event::Step(id, input) => self.step(id, input),
                Event::Tick => {
                    // Not counted as work: a server that is busy has its ticks late, nothing more.
                    (0..self.net.servers).for_each(|id| self.step(ServerId(id), Input::Tick));
                    self.plan(at + TICK_MS * 1_000_000, Event::Tick);
                }
                Event::Ask(client) => self.ask(client),
            }
        }
    }

    fn step(&mut self, id: ServerId, input: Input<S::Message, S::Control>) {
        let mut effects: Vec<Effect<S::Message>> = Vec::new();
        let node = &mut self.nodes[usize::from(id.0)];
        node.step(Time(self.now), input, &mut effects);
        node.end_turn(Time(self.now), &mut effects);
        for effect in effects {
            match effect {
                Effect::Send { to, message } => self.send(id, to, message),
                Effect::Reply { token, body, .. } => self.answered(token.connection, &body),
            }
        }
    }

    fn send(&mut self, from: ServerId, to: ServerId, message: S::Message) {
        let mut header = Vec::new();
        message.encode_header(&mut header);
        let bytes = FRAME_BYTES + (header.len() + message.tail().len()) as u64;
        if let Some(counted) = &mut self.counted {
            counted.messages += 1;
            counted.bytes += bytes;
        }
        let is_slow = self.net.slow.is_some_and(|(a, b)| (a, b) == (from, to) || (b, a) == (from, to));
        let rate = self.net.bytes_per_second / if is_slow { 10 } else { 1 };
        let link = &mut self.links[usize::from(from.0) * usize::from(self.net.servers) + usize::from(to.0)];
        *link = self.now.max(*link) + bytes * SECOND / rate;
        let arrives = *link + self.net.latency;
        self.plan(arrives, Event::Arrive(to, Input::Message { from, message }));
    }

    fn ask(&mut self, at: u64) {
        let is_write = self.random.below(100) < self.load.write_share;
        let key = Key::new(format!("k{}", self.random.below(self.load.keys)));
        let client = &mut self.clients[at as usize];
        client.is_write = client.is_writer.unwrap_or(is_write);
        client.number += 1;
        client.asked_at = self.now;
        let request = if client.is_write {
            let id = ClientId { born: 1, draw: at as u32 };
            let request_id = RequestId::Counted { client: id, number: client.number, behind: 0 };
            let (encoding, condition) = (Encoding::Raw, Condition::Always);
            let body = RequestBody::Set { key, encoding, condition, request_id };
            Request { body, value: self.value.clone() }
        } else {
            RequestBody::Get { key }.into()
        };
        let token = Token { connection: at, request: client.number };
        let server = ServerId((at % u64::from(self.net.servers)) as u16);
        // Writers, where only some write, are clients of the first server.
        let server = if self.load.writers.is_some() && client.is_write { ServerId(0) } else { server };
        self.plan(self.now + self.net.latency, Event::Arrive(server, Input::Request { token, request }));
    }

    fn answered(&mut self, at: u64, body: &ResponseBody) {
        let heard = self.now + self.net.latency;
        let client = &self.clients[at as usize];
        let time = heard - client.asked_at;
        if let Some(counted) = &mut self.counted {
            match body {
                ResponseBody::Written { .. } => counted.write_times.push(time),
                ResponseBody::Value { .. } | ResponseBody::NotFound => counted.read_times.push(time),
                _ => counted.refused += 1,
            }
        }
        self.plan(heard, Event::Ask(at));
    }
}

/// Takes the first of a queue if it is before `end`.
trait PopBefore {
    fn pop_if_before(&mut self, end: u64) -> Option<Reverse<(u64, u64)>>;
}

impl PopBefore for BinaryHeap<Reverse<(u64, u64)>> {
    fn pop_if_before(&mut self, end: u64) -> Option<Reverse<(u64, u64)>> {
        if self.peek().is_some_and(|Reverse((at, _))| *at < end) { self.pop() } else { None }
    }
}

/// All servers are serving members of every star.
fn whole(servers: u16, stars: u16, name: impl Fn(u16) -> String) -> ClusterState {
    let record =
        |id| ServerRecord { id: ServerId(id), name: name(id), incarnation: Incarnation(1), ..ServerRecord::default() };
    let view = |star| View {
        star: StarId(star),
        epoch: Epoch(1),
        founded: Epoch(1),
        members: (0..servers).map(ServerId).collect(),
        leader: ServerId(star % servers),
        ..View::default()
    };
    let empty = ClusterState::new("rates-1", stars);
    ClusterState { servers: (0..servers).map(record).collect(), stars: (0..stars).map(view).collect(), ..empty }
}
