//! Chains of three nodes driven by hand, message by message: what goes over the links, and what each way of reading says.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use craq::protocol::{Acks, Body, Bug, Control, CraqNode, Message, NodeConfig, Reads};
use star_control::{ClusterState, ServerRecord, View};
use star_core::{
    Epoch, ErrorCode, Incarnation, Key, RequestId, ServerId, StarId, Time, Version,
    message::{Condition, Request, RequestBody, ResponseBody},
    protocol::{Effect, Input, Protocol, Token},
    store::{Encoding, MemoryStore},
};

const LEASE_END: Time = Time(1_000_000_000);

/// A view of these members, the first of them its leader.
fn view(epoch: u64, members: &[u16]) -> View {
    View {
        star: StarId(0),
        epoch: Epoch(epoch),
        founded: Epoch(1),
        members: members.iter().copied().map(ServerId).collect(),
        leader: ServerId(members[0]),
        ..View::default()
    }
}

/// Nodes 0 (head), 1 and 2 (tail) of one chain, and the messages between them.
struct Net {
    nodes: Vec<CraqNode<MemoryStore>>,
    under_way: VecDeque<(ServerId, ServerId, Message)>,
    /// All that was ever sent.
    sent: Vec<(ServerId, ServerId, Message)>,
    replies: Vec<(u64, ResponseBody, Bytes)>,
    now: Time,
    asked: u64,
}

impl Net {
    fn new(capacity_bytes: u64, change: impl Fn(&mut NodeConfig)) -> Self {
        Self::with_view(capacity_bytes, change, &view(1, &[0, 1, 2]))
    }

    fn with_view(capacity_bytes: u64, change: impl Fn(&mut NodeConfig), first: &View) -> Self {
        let node = |id: u16| {
            let mut config = NodeConfig::new(ServerId(id), format!("n{id}"), Incarnation(1), 1);
            change(&mut config);
            CraqNode::new(config, MemoryStore::new(1, capacity_bytes))
        };
        let nodes = (0..3).map(node).collect();
        let (under_way, sent, replies) = (VecDeque::new(), Vec::new(), Vec::new());
        let mut net = Self { nodes, under_way, sent, replies, now: Time(1), asked: 0 };
        net.adopt(first);
        (0..3).for_each(|id| net.turn(id, vec![Input::Control(Control::Lease { until: LEASE_END })]));
        net.settle();
        net.sent.clear();
        net
    }

    /// Tells everyone in a view of it.
    fn adopt(&mut self, view: &View) {
        let record = |id: u16| ServerRecord {
            id: ServerId(id),
            name: format!("n{id}"),
            incarnation: Incarnation(1),
            ..ServerRecord::default()
        };
        let stars = vec![view.clone()];
        let state = ClusterState { servers: (0..3).map(record).collect(), stars, ..ClusterState::default() };
        for id in view.members.iter().chain(&view.learners) {
            self.turn(usize::from(id.0), vec![Input::Control(Control::Cluster(Arc::new(state.clone())))]);
        }
    }

    fn turn(&mut self, id: usize, inputs: Vec<Input<Message, Control>>) {
        let mut effects = Vec::new();
        for input in inputs {
            self.nodes[id].step(self.now, input, &mut effects);
        }
        self.nodes[id].end_turn(self.now, &mut effects);
        self.nodes[id].check().expect("nothing is wrong inside");
        for effect in effects {
            match effect {
                Effect::Send { to, message } => {
                    self.sent.push((ServerId(id as u16), to, message.clone()));
                    self.under_way.push_back((ServerId(id as u16), to, message));
                }
                Effect::Reply { token, body, value } => self.replies.push((token.request, body, value)),
            }
        }
    }

    /// Delivers what is under way until nothing is, each message in a turn of its own; what `lost` wants is lost.
    fn settle_without(&mut self, lost: impl Fn(ServerId, ServerId, &Message) -> bool) {
        while let Some((from, to, message)) = self.under_way.pop_front() {
            if !lost(from, to, &message) {
                self.turn(usize::from(to.0), vec![Input::Message { from, message }]);
            }
        }
    }

    fn settle(&mut self) {
        self.settle_without(|_, _, _| false);
    }

    fn request(&mut self, body: RequestBody, value: &[u8]) -> Input<Message, Control> {
        self.asked += 1;
        let request = Request { body, value: Bytes::copy_from_slice(value) };
        Input::Request { token: Token { connection: 0, request: self.asked }, request }
    }

    fn set(&mut self, value: &[u8]) -> Input<Message, Control> {
        let request_id = RequestId::Text(self.asked.to_string().into());
        let (key, encoding, condition) = (Key::new("k"), Encoding::Raw, Condition::Always);
        self.request(RequestBody::Set { key, encoding, condition, request_id }, value)
    }

    fn read(&mut self) -> Input<Message, Control> {
        self.request(RequestBody::Get { key: Key::new("k") }, &[])
    }

    /// Reads at a node, without delivering any message.
    fn read_at(&mut self, id: usize) -> Option<(ResponseBody, Bytes)> {
        let read = self.read();
        self.turn(id, vec![read]);
        self.answer(self.asked)
    }

    fn answer(&self, request: u64) -> Option<(ResponseBody, Bytes)> {
        self.replies.iter().find(|(of, ..)| *of == request).map(|(_, body, value)| (body.clone(), value.clone()))
    }

    /// Writes `value` at the head and lets it come down the chain, but no acknowledgement back.
    fn set_unacknowledged(&mut self, value: &[u8]) {
        let set = self.set(value);
        self.turn(0, vec![set]);
        self.settle_without(|_, _, message| matches!(message.body, Body::Ack { .. }));
    }
}

fn value(version: u64, value: &str) -> (ResponseBody, Bytes) {
    let body = ResponseBody::Value { version: Version(version), encoding: Encoding::Raw };
    (body, Bytes::copy_from_slice(value.as_bytes()))
}

#[test]
fn a_turns_writes_take_one_message_to_each_neighbour_and_one_acknowledgement_back() {
    for (acks, ack_senders) in [(Acks::Chain, [2, 1]), (Acks::Direct, [2, 2])] {
        let mut net = Net::new(1 << 20, |config| config.acks = acks);
        let writes = (0..10).map(|number| net.set(format!("{number}").as_bytes())).collect();
        net.turn(0, writes);
        net.settle();
        assert_eq!(net.replies.len(), 10);
        let mut writes = Vec::new();
        let mut senders = Vec::new();
        for (from, to, message) in &net.sent {
            match &message.body {
                Body::Writes { entries, .. } => writes.push((from.0, to.0, entries.len())),
                Body::Ack { .. } => senders.push(from.0),
                other => panic!("nothing else is to be said, not {other:?}"),
            }
        }
        assert_eq!(writes, [(0, 1, 10), (1, 2, 10)]);
        assert_eq!(senders, ack_senders);
    }
}

#[test]
fn a_write_from_elsewhere_goes_to_the_head_and_is_answered_where_it_came_from() {
    let mut net = Net::new(1 << 20, |_| {});
    let set = net.set(b"v");
    net.turn(2, vec![set]);
    assert!(matches!(&net.sent[..], [(ServerId(2), ServerId(0), Message { body: Body::Forward { .. }, .. })]));
    net.settle();
    assert_eq!(net.answer(1), Some((ResponseBody::Written { version: Version(1) }, Bytes::new())));
    assert_eq!(net.sent.len(), 5, "to the head, down twice, back twice");
}

#[test]
fn a_large_value_goes_down_in_pieces_that_are_passed_on_as_they_come() {
    let mut net = Net::new(1 << 20, |config| config.piece_bytes = 5_000);
    let large: Vec<u8> = (0..23_456_u32).map(|number| number as u8).collect();
    let set = net.set(&large);
    net.turn(0, vec![set]);
    let (from, to, first) = net.under_way.pop_front().expect("the beginning of the value");
    net.turn(1, vec![Input::Message { from, message: first }]);
    let passed_on = net.sent.iter().any(|(from, to, message)| (from.0, to.0, message.tail.len()) == (1, 2, 5_000));
    assert!(passed_on && to == ServerId(1), "the rest has not come yet");
    net.settle();
    assert_eq!(net.answer(1), Some((ResponseBody::Written { version: Version(1) }, Bytes::new())));
    for id in 0..3 {
        assert_eq!(net.read_at(id).expect("clean").1, large, "at node {id}");
    }
}

#[test]
fn clean_reads_take_no_message_and_the_dirty_reads_of_a_turn_share_one() {
    let mut net = Net::new(1 << 20, |_| {});
    net.set_unacknowledged(b"old");
    net.sent.clear();
    assert_eq!(net.read_at(2), Some(value(1, "old")), "the tail knows");
    assert!(net.sent.is_empty());
    let reads: Vec<_> = (0..5).map(|_| net.read()).collect();
    net.turn(1, reads);
    assert!(matches!(&net.sent[..], [(ServerId(1), ServerId(2), Message { body: Body::Ask { .. }, .. })]));
    assert_eq!(net.replies.len(), 1, "the tail must be asked first");
    net.settle();
    assert_eq!(net.replies.len(), 6 + 1, "and the head was acknowledged, so its client is answered");
    assert_eq!(net.read_at(1), Some(value(1, "old")), "clean by the tail's answer");
}

#[test]
fn plain_chain_replication_reads_at_the_tail_alone() {
    let mut net = Net::new(1 << 20, |config| config.reads = Reads::Tail);
    let set = net.set(b"v");
    net.turn(0, vec![set]);
    net.settle();
    net.sent.clear();
    assert_eq!(net.read_at(0), None, "clean, but not at the tail");
    net.settle();
    assert_eq!(net.answer(2), Some(value(1, "v")));
    assert_eq!(net.sent.len(), 2);
}

#[test]
fn eventual_reads_are_answered_at_once_with_what_is_known_to_be_committed() {
    let mut net = Net::new(1 << 20, |config| config.reads = Reads::Eventual);
    let set = net.set(b"old");
    net.turn(0, vec![set]);
    net.settle();
    net.set_unacknowledged(b"new");
    assert_eq!(net.read_at(2), Some(value(2, "new")));
    assert_eq!(net.read_at(0), Some(value(1, "old")), "the head has not heard that the tail has it");
    net.now = LEASE_END;
    assert_eq!(net.read_at(0), Some(value(1, "old")), "nor does it matter that others may have gone on");
}

#[test]
fn bounded_reads_are_ahead_or_behind_by_no_more_than_their_bounds() {
    let bounded = Reads::Bounded { versions: 2, age: Duration::from_millis(50) };
    let mut net = Net::new(1 << 20, |config| config.reads = bounded);
    let set = net.set(b"one");
    net.turn(0, vec![set]);
    net.settle();
    net.set_unacknowledged(b"two");
    net.set_unacknowledged(b"three");
    assert_eq!(net.read_at(0), Some(value(3, "three")), "two versions ahead of what is known to be committed");
    net.set_unacknowledged(b"four");
    assert_eq!(net.read_at(0), None, "three versions are too far: the tail is asked");
    net.settle();
    assert_eq!(net.read_at(0), Some(value(4, "four")));
    net.set_unacknowledged(b"five");
    net.now = net.now + Duration::from_millis(51);
    assert_eq!(net.read_at(0), None, "pending for too long: the tail is asked");
    net.settle();
    net.now = LEASE_END + Duration::from_millis(49);
    assert_eq!(net.read_at(0), Some(value(5, "five")), "without a lease, but not for long");
    net.now = LEASE_END + Duration::from_millis(50);
    let (refusal, _) = net.read_at(0).expect("an answer");
    assert!(matches!(refusal, ResponseBody::Error(failure) if failure.code == ErrorCode::NoLease));
}

#[test]
fn the_neighbours_of_a_lost_middle_find_out_what_is_missing_between_them() {
    let mut net = Net::new(1 << 20, |_| {});
    let writes = (0..3).map(|number| net.set(format!("{number}").as_bytes())).collect();
    net.turn(0, writes);
    // The middle dies with all that it was to pass on.
    net.settle_without(|from, to, _| from == ServerId(1) || to == ServerId(1));
    net.adopt(&view(2, &[0, 2]));
    net.settle();
    assert_eq!(net.replies.len(), 3, "the writes are at the tail after all");
    assert_eq!((net.read_at(0), net.read_at(2)), (Some(value(3, "2")), Some(value(3, "2"))));
}

#[test]
fn the_node_before_a_lost_tail_commits_what_it_has() {
    let mut net = Net::new(1 << 20, |_| {});
    let set = net.set(b"v");
    net.turn(0, vec![set]);
    net.settle_without(|_, to, _| to == ServerId(2));
    assert_eq!(net.answer(1), None);
    net.adopt(&view(2, &[0, 1]));
    net.settle();
    assert_eq!(net.answer(1), Some((ResponseBody::Written { version: Version(1) }, Bytes::new())));
}

#[test]
fn writes_that_a_new_head_does_not_have_are_given_up_and_sent_to_it_again() {
    let mut net = Net::new(1 << 20, |_| {});
    let set = net.set(b"of the old head");
    net.turn(0, vec![set]);
    net.settle_without(|_, _, _| true);
    net.adopt(&view(2, &[1, 2, 0]));
    net.settle();
    assert_eq!(net.answer(1), Some((ResponseBody::Written { version: Version(1) }, Bytes::new())));
    for id in 0..3 {
        assert_eq!(net.read_at(id), Some(value(1, "of the old head")));
    }
}

/// The history that shows why a tail answers from its base on. Node 1, the tail, has told a client of a write; node 0 has it
/// and has not heard that it is committed. Then node 1 becomes the head, and node 2 joins after node 0, which installs it
/// as of what it knows itself, before the write.
#[test]
fn a_new_tail_says_nothing_before_it_has_what_was_committed_before_its_time() {
    for bug in [None, Some(Bug::TailAnswersEarly)] {
        let learning = View { learners: vec![ServerId(2)], ..view(1, &[0, 1]) };
        let mut net = Net::with_view(1 << 20, |config| config.bug = bug, &learning);
        assert_eq!(net.nodes[2].may_advance(), [(StarId(0), Epoch(1))], "it has all there is");
        let set = net.set(b"v");
        net.turn(1, vec![set]);
        net.settle_without(|_, _, message| matches!(message.body, Body::Ack { .. }));
        assert_eq!(net.answer(1), Some((ResponseBody::Written { version: Version(1) }, Bytes::new())));
        let joining = View { leader: ServerId(1), joining: vec![ServerId(2)], ..view(2, &[0, 1, 2]) };
        net.adopt(&joining);
        let late = |to: ServerId, message: &Message| to == ServerId(2) && matches!(message.body, Body::Writes { .. });
        let mut held = Vec::new();
        while let Some((from, to, message)) = net.under_way.pop_front() {
            if late(to, &message) {
                held.push((from, to, message));
            } else {
                net.turn(usize::from(to.0), vec![Input::Message { from, message }]);
            }
        }
        assert_eq!(held.len(), 1, "the write is on its way to the new tail");
        assert_eq!(net.read_at(0), None, "dirty");
        net.settle();
        let early = net.answer(2);
        if bug.is_some() {
            assert_eq!(early, Some((ResponseBody::NotFound, Bytes::new())), "stale");
            continue;
        }
        assert_eq!(early, None);
        net.under_way.extend(held);
        net.settle();
        assert_eq!(net.answer(2), Some(value(1, "v")));
        assert_eq!(net.nodes[2].may_advance(), [(StarId(0), Epoch(2))]);
    }
}

#[test]
fn a_full_head_refuses_and_a_repeated_request_is_not_done_again() {
    let mut net = Net::new(3_000, |_| {});
    let too_much = net.set(&[0; 2_000]);
    net.turn(0, vec![too_much]);
    net.settle();
    let (refusal, _) = net.answer(1).expect("an answer");
    assert!(matches!(refusal, ResponseBody::Error(failure) if failure.code == ErrorCode::NoSpace));
    let set = net.set(b"v");
    net.turn(0, vec![set.clone()]);
    net.settle();
    let Input::Request { request, .. } = set else { unreachable!("made above") };
    let again = Input::Request { token: Token { connection: 0, request: 77 }, request };
    net.turn(1, vec![again]);
    net.settle();
    assert_eq!(net.answer(77), Some((ResponseBody::Written { version: Version(1) }, Bytes::new())));
    assert_eq!(net.read_at(1), Some(value(1, "v")));
}
