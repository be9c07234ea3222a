//! Servers of a star joined by a made-up network: a test decides which message arrives when.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use star::protocol::{Control, Message, NodeConfig, StarNode};
use star_control::{ClusterState, ServerRecord, View};
use star_core::{
    ids::{Epoch, Incarnation, RequestId, ServerId, StarId},
    key::Key,
    message::{Condition, Request, RequestBody, ResponseBody},
    protocol::{Effect, Input, Protocol, TICK_MS, Token},
    store::{Encoding, MemoryStore},
    time::Time,
};

/// A server as the protocol sees it.
pub(crate) type Node = StarNode<MemoryStore>;

/// A server without memory of anything.
pub(crate) fn node(id: u16, incarnation: u64, stars: u16, capacity_bytes: u64) -> Node {
    node_with(config(id, incarnation, stars), capacity_bytes)
}

/// The same, which gives what others lack one piece at a time.
pub(crate) fn node_of_small_parts(id: u16) -> Node {
    node_with(NodeConfig { part_entries: 1, ..config(id, 1, 1) }, 1 << 30)
}

fn config(id: u16, incarnation: u64, stars: u16) -> NodeConfig {
    let config = NodeConfig::new(ServerId(id), format!("s{id}"), Incarnation(incarnation), stars);
    NodeConfig { chain_from_bytes: 1 << 30, ..config }
}

fn node_with(config: NodeConfig, capacity_bytes: u64) -> Node {
    let stars = config.stars;
    StarNode::new(config, MemoryStore::new(stars, capacity_bytes))
}

/// Whether a message from one server to another is lost.
type Loses = Box<dyn FnMut(u16, u16, &Message) -> bool>;

/// The servers and what is on its way between them.
pub(crate) struct Net {
    pub(crate) nodes: Vec<Node>,
    /// In nanoseconds; the same at all servers.
    pub(crate) now: u64,
    pub(crate) wire: VecDeque<(u16, u16, Message)>,
    /// Answers, by the number that [`Net::set`] or [`Net::get`] was given.
    answers: Vec<(u64, ResponseBody, Bytes)>,
    pub(crate) state: ClusterState,
    pub(crate) loses: Loses,
}

impl Net {
    pub(crate) fn new(servers: u16, stars: u16, capacity_bytes: u64) -> Self {
        let record = |id| ServerRecord {
            id: ServerId(id),
            name: format!("s{id}"),
            addr: String::new(),
            incarnation: Incarnation(1),
            pid: 1,
            store: None,
            ..ServerRecord::default()
        };
        Self {
            nodes: (0..servers).map(|id| node(id, 1, stars, capacity_bytes)).collect(),
            now: 1_000_000_000,
            wire: VecDeque::new(),
            answers: Vec::new(),
            state: ClusterState { servers: (0..servers).map(record).collect(), ..ClusterState::new("x-1", stars) },
            loses: Box::new(|_, _, _| false),
        }
    }

    pub(crate) fn step(&mut self, id: u16, input: Input<Message, Control>) {
        let mut effects: Vec<Effect<Message>> = Vec::new();
        let node = &mut self.nodes[usize::from(id)];
        node.step(Time(self.now), input, &mut effects);
        node.end_turn(Time(self.now), &mut effects);
        node.check().expect("a sound server");
        for effect in effects {
            match effect {
                Effect::Send { to, message } => {
                    if !(self.loses)(id, to.0, &message) {
                        self.wire.push_back((id, to.0, message));
                    }
                }
                Effect::Reply { token, body, value } => self.answers.push((token.request, body, value)),
            }
        }
    }

    /// Delivers what is on its way until nothing is.
    pub(crate) fn run(&mut self) {
        while let Some((from, to, message)) = self.wire.pop_front() {
            self.step(to, Input::Message { from: ServerId(from), message });
        }
    }

    pub(crate) fn tick(&mut self) {
        self.now += TICK_MS * 1_000_000;
        for id in 0..self.nodes.len() as u16 {
            self.step(id, Input::Tick);
        }
    }

    pub(crate) fn settle(&mut self, ticks: u32) {
        for _ in 0..ticks {
            self.run();
            self.tick();
        }
        self.run();
    }

    /// Gives a star its next view; nobody hears of it yet.
    pub(crate) fn view(&mut self, star: u16, members: &[u16], leader: u16, joining: &[u16], learners: &[u16]) {
        let ids = |list: &[u16]| list.iter().map(|id| ServerId(*id)).collect::<Vec<_>>();
        let view = &mut self.state.stars[usize::from(star)];
        *view = View {
            star: StarId(star),
            epoch: view.epoch.next(),
            founded: view.founded.max(Epoch(1)),
            members: ids(members),
            leader: ServerId(leader),
            joining: ids(joining),
            learners: ids(learners),
            ..View::default()
        };
    }

    /// Tells a server the views.
    pub(crate) fn tell(&mut self, id: u16) {
        let state = Arc::new(self.state.clone());
        self.step(id, Input::Control(Control::Cluster(state)));
    }

    /// Tells all servers the views, and gives them leases for good.
    pub(crate) fn tell_all(&mut self) {
        for id in 0..self.nodes.len() as u16 {
            self.tell(id);
            self.step(id, Input::Control(Control::Lease { until: Time(u64::MAX) }));
        }
    }

    pub(crate) fn set(&mut self, id: u16, request: u64, key: &str, value: Vec<u8>, request_id: &str) {
        self.set_as(id, request, key, value, RequestId::Text(request_id.into()));
    }

    pub(crate) fn set_as(&mut self, id: u16, request: u64, key: &str, value: Vec<u8>, request_id: RequestId) {
        let (key, encoding, condition) = (Key::new(key), Encoding::Raw, Condition::Always);
        let body = RequestBody::Set { key, encoding, condition, request_id };
        self.ask(id, request, Request { body, value: value.into() });
    }

    pub(crate) fn delete(&mut self, id: u16, request: u64, key: &str) {
        let (key, condition, request_id) = (Key::new(key), Condition::Always, RequestId::Unnamed);
        self.ask(id, request, RequestBody::Delete { key, condition, request_id }.into());
    }

    pub(crate) fn get(&mut self, id: u16, request: u64, key: &str) {
        self.ask(id, request, RequestBody::Get { key: Key::new(key) }.into());
    }

    fn ask(&mut self, id: u16, request: u64, body: Request) {
        let token = Token { connection: 0, request };
        self.step(id, Input::Request { token, request: body });
    }

    pub(crate) fn answer(&self, request: u64) -> Option<(ResponseBody, Bytes)> {
        self.answers.iter().find(|answer| answer.0 == request).map(|answer| (answer.1.clone(), answer.2.clone()))
    }
}
