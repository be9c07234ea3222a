//! Three servers without sockets: protocol, mapped store and codec, with bytes for wires.

use std::{sync::Arc, time::Duration};

use bytes::BytesMut;
use star::protocol::{Control, Message, NodeConfig, StarNode};
use star_control::{ClusterState, ServerRecord, View};
use star_core::{
    Epoch, Incarnation, ServerId, StarId, Time,
    message::{
        Request, ResponseBody, Wire,
        frame::{self, Decoder, Frame, FrameKind},
        to_postcard,
    },
    protocol::{Effects, Input, Protocol, Token},
    time::Clock,
};
use star_objstore::{MappedStore, Reader};

/// The server that clients ask.
pub(crate) const ORIGIN: usize = 0;
/// The server that leads the only star.
pub(crate) const LEADER: usize = 1;
const SERVERS: usize = 3;
const FRAME_BYTES_MAX: u64 = 1 << 20;

/// What a server has written and nobody has read yet.
#[derive(Debug, Default)]
pub(crate) struct Wires {
    peers: [Vec<u8>; SERVERS],
    client: Vec<u8>,
    /// Bytes that were ever written to other servers.
    sent_bytes: usize,
    head: Vec<u8>,
}

impl Effects<Message> for Wires {
    fn send(&mut self, to: ServerId, message: &Message) {
        self.broadcast(&[to], message);
    }

    fn broadcast(&mut self, to: &[ServerId], message: &Message) {
        self.head.clear();
        frame::encode_head(FrameKind::Peer, 0, message, message.tail().len(), &mut self.head);
        for to in to {
            let wire = &mut self.peers[usize::from(to.0)];
            wire.extend_from_slice(&self.head);
            wire.extend_from_slice(message.tail());
            self.sent_bytes += self.head.len() + message.tail().len();
        }
    }

    fn reply(&mut self, token: Token, body: &ResponseBody, value: &[u8]) {
        let write = |out: &mut Vec<u8>| to_postcard(body, out);
        frame::encode_with(FrameKind::Response, token.request, value.len(), &mut self.client, write);
        self.client.extend_from_slice(value);
    }
}

/// One server and its ends of the wires.
struct Server {
    node: StarNode<MappedStore>,
    wires: Wires,
    /// What has come from each other server.
    from_peers: [BytesMut; SERVERS],
    from_client: BytesMut,
    decoder: Decoder,
    inputs: Vec<Input<Message, Control>>,
    now: Time,
}

impl Server {
    /// Takes all that has come, and ends the turn: what the server's thread does between two waits.
    fn turn(&mut self) {
        while let Some(Frame::Compact { id, header, tail, .. }) = next(&mut self.decoder, &mut self.from_client) {
            let request = Request::decode(&header, tail).expect("a client's request");
            let token = Token { connection: 0, request: id };
            self.inputs.push(Input::Request { token, request });
        }
        for from in 0..SERVERS {
            while let Some(Frame::Compact { header, tail, .. }) = next(&mut self.decoder, &mut self.from_peers[from]) {
                let message = Message::decode(&header, tail).expect("another server's message");
                self.inputs.push(Input::Message { from: ServerId(from as u16), message });
            }
        }
        if self.inputs.len() > 1 {
            self.node.expect(&self.inputs);
        }
        for input in self.inputs.drain(..) {
            self.node.step(self.now, input, &mut self.wires);
        }
        self.node.end_turn(self.now, &mut self.wires);
    }
}

fn next(decoder: &mut Decoder, bytes: &mut BytesMut) -> Option<Frame> {
    decoder.decode(bytes).expect("whole frames")
}

/// Three servers, all of them members of one star.
pub(crate) struct Cluster {
    servers: Vec<Server>,
    answers: Decoder,
    /// Holds the stores, and goes away with the cluster.
    folder: tempfile::TempDir,
}

impl Cluster {
    /// Empty, with leases that outlast every measurement.
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder for the stores");
        let now = Clock.now();
        let mut cluster = Self { servers: Vec::new(), answers: Decoder::new(FRAME_BYTES_MAX), folder };
        let state = Arc::new(state());
        for id in 0..SERVERS {
            let path = cluster.folder.path().join(id.to_string());
            cluster.servers.push(server(id, path, now));
        }
        for server in &mut cluster.servers {
            for control in
                [Control::Cluster(Arc::clone(&state)), Control::Lease { until: now + Duration::from_secs(86_400) }]
            {
                server.node.step(now, Input::Control(control), &mut server.wires);
            }
            server.node.end_turn(now, &mut server.wires);
        }
        cluster.settle();
        cluster
    }

    /// Reads what a server has, as another process does.
    pub(crate) fn reader(&self) -> Reader {
        Reader::open(self.servers[ORIGIN].node.store().path()).expect("the store of a running server")
    }

    /// Bytes that a server has written to others so far.
    pub(crate) fn sent_bytes(&self, server: usize) -> usize {
        self.servers[server].wires.sent_bytes
    }

    /// Has the origin read these frames of its client, and all servers go on until nothing is under way. Returns how many
    /// answers came, all of which `wanted` must like.
    pub(crate) fn ask(&mut self, frames: &[u8], wanted: impl Fn(&ResponseBody) -> bool) -> usize {
        self.servers[ORIGIN].from_client.extend_from_slice(frames);
        origin_turn(&mut self.servers[ORIGIN]);
        self.settle();
        let mut bytes = BytesMut::from(std::mem::take(&mut self.servers[ORIGIN].wires.client).as_slice());
        let mut count = 0;
        while let Some(Frame::Compact { header, .. }) = next(&mut self.answers, &mut bytes) {
            let body: ResponseBody = star_core::message::from_postcard(&header).expect("an answer");
            assert!(wanted(&body), "{body:?}");
            count += 1;
        }
        count
    }

    /// Carries bytes from server to server until there are none.
    fn settle(&mut self) {
        while self.deliver() {
            for (id, server) in self.servers.iter_mut().enumerate() {
                if server.from_peers.iter().all(|bytes| bytes.is_empty()) {
                    continue;
                }
                match id {
                    ORIGIN => origin_turn(server),
                    LEADER => leader_turn(server),
                    _ => member_turn(server),
                }
            }
        }
    }

    fn deliver(&mut self) -> bool {
        let mut any = false;
        for from in 0..SERVERS {
            for to in 0..SERVERS {
                let mut bytes = std::mem::take(&mut self.servers[from].wires.peers[to]);
                any |= !bytes.is_empty();
                self.servers[to].from_peers[from].extend_from_slice(&bytes);
                bytes.clear();
                self.servers[from].wires.peers[to] = bytes;
            }
        }
        any
    }
}

// Each role has a name of its own among the instructions that are counted.

#[inline(never)]
fn origin_turn(server: &mut Server) {
    server.turn();
}

#[inline(never)]
fn leader_turn(server: &mut Server) {
    server.turn();
    std::hint::black_box(LEADER);
}

#[inline(never)]
fn member_turn(server: &mut Server) {
    server.turn();
    std::hint::black_box(SERVERS);
}

fn server(id: usize, path: std::path::PathBuf, now: Time) -> Server {
    let options = star_objstore::Options {
        path,
        capacity_bytes: 16 << 20,
        entries_max: None,
        stars: 1,
        cluster: "counts-1".to_owned(),
        incarnation: Incarnation(1),
        group: star_core::config::GroupAccess::None,
        huge_pages: false,
    };
    let store = MappedStore::create(&options).expect("a store");
    let config = NodeConfig::new(ServerId(id as u16), format!("n{id}"), Incarnation(1), 1);
    Server {
        node: StarNode::new(config, store),
        wires: Wires::default(),
        from_peers: Default::default(),
        from_client: BytesMut::new(),
        decoder: Decoder::new(FRAME_BYTES_MAX),
        inputs: Vec::new(),
        now,
    }
}

fn state() -> ClusterState {
    let record = |id| ServerRecord {
        id: ServerId(id),
        name: format!("n{id}"),
        incarnation: Incarnation(1),
        ..ServerRecord::default()
    };
    let view = View {
        star: StarId(0),
        epoch: Epoch(1),
        founded: Epoch(1),
        members: (0..SERVERS as u16).map(ServerId).collect(),
        leader: ServerId(LEADER as u16),
        ..View::default()
    };
    ClusterState {
        servers: (0..SERVERS as u16).map(record).collect(),
        stars: vec![view],
        ..ClusterState::new("counts-1", 1)
    }
}
