//! Links that are slow, and servers that are, message by message: values go around the one, and not around the other.

#[allow(dead_code, reason = "each test program uses a part of it")]
mod support;

use std::collections::VecDeque;

use star::protocol::{Body, Message, NodeConfig, PassOn, StarNode};
use star_core::{
    ids::{Incarnation, ServerId},
    message::ResponseBody,
    protocol::Input,
    store::MemoryStore,
};
use support::Net;

/// So many bytes under way that links are sounded.
const VALUE_BYTES: usize = 64 << 10;

/// Servers of one star, with links of which some take three ticks.
struct Links {
    net: Net,
    is_slow: fn(u16, u16) -> bool,
    /// What is on its way over slow links, and when it arrives.
    late: VecDeque<(u64, u16, u16, Message)>,
    /// Values that went over each link, in the order of their messages.
    values: Vec<(u16, u16, PassOn)>,
    asked: u64,
}

impl Links {
    fn new(servers: u16, chain_from_bytes: usize, is_slow: fn(u16, u16) -> bool) -> Self {
        let mut net = Net::new(servers, 1, 1 << 30);
        let config = |id: u16| NodeConfig {
            chain_from_bytes,
            ..NodeConfig::new(ServerId(id), format!("s{id}"), Incarnation(1), 1)
        };
        net.nodes = (0..servers).map(|id| StarNode::new(config(id), MemoryStore::new(1, 1 << 30))).collect();
        let members: Vec<u16> = (0..servers).collect();
        net.view(0, &members, servers - 1, &[], &[]);
        net.tell_all();
        let mut links = Self { net, is_slow, late: VecDeque::new(), values: Vec::new(), asked: 0 };
        links.deliver();
        links
    }

    /// Delivers what arrives before the next tick.
    fn deliver(&mut self) {
        loop {
            let due = self.late.front().is_some_and(|(at, ..)| *at <= self.net.now);
            let (from, to, message) = if due {
                let (_, from, to, message) = self.late.pop_front().expect("looked at above");
                (from, to, message)
            } else {
                let Some((from, to, message)) = self.net.wire.pop_front() else { return };
                if let Body::Write(head) = &message.body {
                    self.values.push((from, to, head.pass_on));
                }
                if (self.is_slow)(from, to) {
                    self.late.push_back((self.net.now + 60_000_000, from, to, message));
                    continue;
                }
                (from, to, message)
            };
            self.net.step(to, Input::Message { from: ServerId(from), message });
        }
    }

    /// Writes at every server, each tick.
    fn load(&mut self, ticks: u32) {
        for _ in 0..ticks {
            for id in 0..self.net.nodes.len() as u16 {
                self.asked += 1;
                let (key, id_of_request) = (format!("k{}", self.asked % 100), format!("r{}", self.asked));
                self.net.set(id, self.asked, &key, vec![b'v'; VALUE_BYTES], &id_of_request);
            }
            self.deliver();
            self.net.tick();
        }
    }

    /// Lets everything come to its end; all writes must be answered.
    fn settle(&mut self) {
        for _ in 0..200 {
            self.deliver();
            self.net.tick();
        }
        let done = |request: u64| matches!(self.net.answer(request), Some((ResponseBody::Written { .. }, _)));
        assert!((1..=self.asked).all(done), "each write is done");
    }

    /// The links that are known to be slow at the servers that they lead to.
    fn found(&self) -> Vec<(u16, u16)> {
        let to = |id: u16| self.net.nodes[usize::from(id)].slow_links().into_iter().map(move |from| (from.0, id));
        (0..self.net.nodes.len() as u16).flat_map(to).collect()
    }

    fn crossed(&self, from: u16, to: u16) -> usize {
        self.values.iter().filter(|(a, b, _)| (*a, *b) == (from, to)).count()
    }
}

#[test]
fn values_go_around_a_slow_link_and_over_it_again_when_it_is_fast() {
    for servers in 3..=5 {
        let mut links = Links::new(servers, 1 << 30, |from, to| (from, to) == (0, 1));
        links.load(60);
        assert_eq!(links.found(), [(0, 1)], "{servers} servers");
        links.load(10);
        links.values.clear();
        links.load(60);
        assert_eq!(links.crossed(0, 1), 0);
        let helped = links.values.iter().filter(|(from, _, pass_on)| (*from, *pass_on) == (0, PassOn::To(ServerId(1))));
        assert_eq!(helped.count(), 60, "{servers} servers");
        assert!(links.crossed(1, 0) == 60, "the other direction is fast");
        links.is_slow = |_, _| false;
        links.load(31_000 / 20);
        assert!(links.found().is_empty());
        links.values.clear();
        links.load(10);
        assert_eq!(links.crossed(0, 1), 10);
        links.settle();
    }
}

#[test]
fn chains_go_along_rings_without_the_slow_link() {
    for servers in 3..=5 {
        let mut links = Links::new(servers, 1, |from, to| (from, to) == (0, 1));
        links.load(100);
        assert_eq!(links.found(), [(0, 1)], "{servers} servers");
        links.load(10);
        links.values.clear();
        links.load(60);
        assert_eq!(links.crossed(0, 1), 0, "{servers} servers");
        assert!(links.crossed(1, 0) > 0);
        links.settle();
    }
}

#[test]
fn a_slow_server_is_not_taken_for_slow_links() {
    for is_slow in [|_: u16, to: u16| to == 1, |from: u16, _: u16| from == 1, |from: u16, to: u16| from == 1 || to == 1]
    {
        for servers in 3..=5 {
            let mut links = Links::new(servers, 1 << 30, is_slow);
            links.load(300);
            assert_eq!(links.found(), [], "{servers} servers");
            links.settle();
        }
    }
}

/// It may be gone, or be told of a link that it never had.
#[test]
fn a_server_that_passes_on_to_somebody_who_is_no_member_does_nothing() {
    let mut net = Net::new(4, 1, 1 << 30);
    net.view(0, &[0, 1, 2], 2, &[], &[]);
    net.tell_all();
    net.run();
    net.set(0, 1, "k", vec![1], "r1");
    let messages: Vec<_> = std::mem::take(&mut net.wire).into();
    for (from, to, mut message) in messages {
        if let Body::Write(head) = &mut message.body {
            head.pass_on = PassOn::To(ServerId(3));
        }
        net.step(to, Input::Message { from: ServerId(from), message });
    }
    assert!(net.wire.iter().all(|(_, to, _)| *to != 3));
    net.settle(20);
    assert!(net.answer(1).is_some());
}
