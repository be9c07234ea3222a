//! Histories that once broke the protocol, message by message.

mod support;

use std::collections::VecDeque;

use star::protocol::{Body, Message};
use star_control::Resumed;
use star_core::{
    ids::{ClientId, Epoch, Incarnation, RequestId, Seq, ServerId, StarId},
    key::Key,
    message::ResponseBody,
    protocol::Input,
};
use support::{Net, Node, node, node_of_small_parts};

#[test]
fn a_learner_misses_no_write_when_a_later_part_comes_from_a_member_that_is_behind() {
    let mut net = Net::new(4, 1, 1 << 30);
    net.view(0, &[0, 1, 2], 0, &[], &[]);
    net.tell_all();
    net.run();
    for i in 0..10 {
        net.set(0, i, &format!("k{i}"), vec![b'o'; 256 << 10], &format!("r{i}"));
        net.run();
    }
    // server 1 acks the last write but does not hear server 2's ack
    net.loses = Box::new(|f, t, m| f == 2 && t == 1 && matches!(m.body, Body::Ack { .. }));
    net.set(0, 99, "k9", b"new".to_vec(), "new");
    net.run();
    assert!(matches!(net.answer(99), Some((ResponseBody::Written { .. }, _))));
    net.view(0, &[0, 1, 2], 0, &[], &[3]);
    // the new epoch would repair server 1, so: same situation again within it
    net.loses = Box::new(|_, _, _| false);
    for i in 0..3 {
        net.tell(i);
    }
    net.run();
    net.loses = Box::new(|f, t, m| f == 2 && t == 1 && matches!(m.body, Body::Ack { .. }));
    net.set(0, 100, "k9", b"newer".to_vec(), "newer");
    net.run();
    assert!(matches!(net.answer(100), Some((ResponseBody::Written { .. }, _))));
    net.tell(3);
    net.run();
    net.loses = Box::new(|_, _, _| false);
    net.settle(50);
    assert_eq!(net.nodes[3].may_advance().len(), 1);
    net.view(0, &[0, 1, 2, 3], 0, &[3], &[]);
    net.tell_all();
    net.settle(20);
    assert_eq!(net.nodes[3].may_advance().len(), 1);
    net.view(0, &[0, 1, 2, 3], 0, &[], &[]);
    net.tell_all();
    net.settle(20);
    for s in 0..4 {
        net.get(s, 200 + u64::from(s), "k9");
        net.run();
    }
    assert_eq!(net.answer(203).unwrap().1, "newer", "the former learner answers the value before");
}

#[test]
fn a_learner_remembers_requests_over_a_change_of_epoch() {
    let mut net = Net::new(4, 1, 1 << 30);
    net.view(0, &[0, 1], 0, &[], &[]);
    net.tell_all();
    net.run();
    for i in 0..3000 {
        net.set(0, i, &format!("k{}", i % 10), vec![b'o'], &format!("r{i}"));
        net.run();
    }
    net.view(0, &[0, 1], 0, &[], &[2]);
    net.tell_all();
    // objects, then one part of the requests
    let mut parts = 0;
    while let Some((f, t, m)) = net.wire.pop_front() {
        let c = matches!(m.body, Body::Changes { .. });
        net.step(t, Input::Message { from: ServerId(f), message: m });
        if c {
            parts += 1;
            if parts == 2 {
                break;
            }
        }
    }
    net.view(0, &[0, 1], 0, &[], &[2, 3]);
    net.wire.clear();
    net.tell_all();
    net.settle(30);
    assert!(net.nodes[2].may_advance().len() == 1);
    net.view(0, &[0, 1, 2], 0, &[2], &[3]);
    net.tell_all();
    net.settle(20);
    net.view(0, &[0, 1, 2], 2, &[], &[3]);
    net.tell_all();
    net.settle(20);
    net.set(1, 9000, "k5", b"again".to_vec(), "r5");
    net.settle(30);
    let first = net.answer(5).unwrap().0;
    let again = net.answer(9000).unwrap().0;

    assert_eq!(first, again, "the request took effect twice");
}

/// A client's results are listed where its latest one is. Server 1 is ahead and lists them later than the leader: what
/// the joining server had of the one list must not count for the other.
#[test]
fn a_joining_server_knows_all_results_though_it_asked_a_member_that_is_ahead() {
    let mut net = Net::new(3, 1, 1 << 30);
    net.nodes = (0..3).map(node_of_small_parts).collect();
    net.view(0, &[0, 1], 0, &[], &[2]);
    net.tell_all();
    let named = |number, behind| RequestId::Counted { client: ClientId { born: 7, draw: 7 }, number, behind };
    net.set(0, 1, "a", vec![1], "r1");
    net.settle(50);
    assert_eq!(net.nodes[2].may_advance().len(), 1, "the planner may act on this at any time from now on");
    // The leader does not hear the ack of the last write, so its committed stays one behind server 1's.
    net.set_as(0, 11, "b", vec![11], named(11, 0));
    net.run();
    net.set(0, 2, "c", vec![2], "r2");
    net.run();
    net.loses = Box::new(|from, to, message| (from, to) == (1, 0) && matches!(message.body, Body::Ack { .. }));
    net.set_as(1, 12, "b", vec![12], named(12, 1));
    net.run();
    assert!(net.answer(12).is_some());
    // Two parts come from server 1: what was done at the seqs of the first two writes.
    let mut parts = 0;
    net.loses = Box::new(move |from, to, message| {
        parts += u32::from((from, to) == (1, 2) && matches!(message.body, Body::Changes { .. }));
        parts > 2 || (from, to) == (1, 0) && matches!(message.body, Body::Ack { .. } | Body::Hello { .. })
    });
    net.settle(4);
    net.loses = Box::new(|_, _, _| false);
    for (joining, leader) in [(&[2][..], 0), (&[][..], 2)] {
        net.view(0, &[0, 1, 2], leader, joining, &[]);
        net.tell_all();
        net.settle(20);
    }
    net.set_as(0, 111, "b", vec![11], named(11, 0));
    net.settle(20);
    assert_eq!(net.answer(111).expect("an answer").0, net.answer(11).expect("an answer").0, "it was done twice");
}

/// The order that a joining member began to take over from a leader that died is gone before it takes objects of later.
#[test]
fn a_joining_server_falls_behind_in_the_next_view() {
    let mut net = Net::new(3, 1, 1 << 30);
    net.nodes = (0..3).map(node_of_small_parts).collect();
    net.view(0, &[0, 1], 0, &[], &[2]);
    net.tell_all();
    net.set(0, 1, "a", vec![1], "r1");
    net.settle(50);
    assert_eq!(net.nodes[2].may_advance().len(), 1);
    // The leader does not hear that the others have acked, so it does not know these to be committed.
    net.loses = Box::new(|_, to, message| to == 2 || to == 0 && matches!(message.body, Body::Ack { .. }));
    for number in 2..6 {
        net.set(1, number, &format!("k{number}"), vec![1], &format!("r{number}"));
        net.run();
        assert!(net.answer(number).is_some());
    }
    // In the next view the joining server gets all stamps, and the first two writes.
    net.view(0, &[0, 1, 2], 0, &[2], &[]);
    let mut writes = 0;
    net.loses = Box::new(move |_, to, message| {
        writes += u32::from(to == 2 && matches!(message.body, Body::Write(_)));
        (to == 2 && writes > 2) || matches!(message.body, Body::Ack { .. })
    });
    net.tell_all();
    net.run();
    assert!(net.nodes[2].store().dirty_keys().count() > 0, "it has begun");
    // The leader dies; the one after it knows all to be committed. What is wrong inside a server is found at each step.
    net.loses = Box::new(|from, to, _| from == 0 || to == 0);
    net.view(0, &[1, 2], 1, &[2], &[]);
    net.tell_all();
    net.settle(20);
    net.view(0, &[1, 2], 2, &[], &[]);
    net.tell_all();
    net.settle(20);
    for number in 2..6 {
        net.get(2, 100 + number, &format!("k{number}"));
        assert_eq!(net.answer(100 + number).expect("an answer").1, vec![1]);
    }
}

#[test]
fn a_server_takes_the_writes_of_its_own_earlier_life_that_are_in_the_order() {
    let mut net = Net::new(3, 1, 1 << 30);
    net.view(0, &[0, 1, 2], 0, &[], &[]);
    net.tell_all();
    net.run();
    net.set(0, 1, "a", vec![1], "r1");
    net.run();
    // link 0<->1 cut: server 2's write is stamped, and cannot be committed
    net.loses = Box::new(|f, t, _| (f, t) == (0, 1) || (f, t) == (1, 0));
    net.set(2, 2, "b", vec![2], "r2");
    net.run();
    assert_eq!(net.answer(2), None);
    // server 2 dies and comes back
    net.nodes[2] = node(2, 2, 1, 1 << 30);
    net.state.servers[2].incarnation = Incarnation(2);
    net.view(0, &[0, 1], 0, &[], &[]);
    net.tell_all();
    net.settle(20);
    net.view(0, &[0, 1], 0, &[], &[2]);
    net.tell_all();
    net.settle(20);
    assert_eq!(net.nodes[2].may_advance().len(), 1);
    net.view(0, &[0, 1, 2], 0, &[2], &[]);
    net.tell_all();
    net.settle(20);
    net.loses = Box::new(|_, _, _| false);
    net.settle(3000);
    net.set(0, 3, "c", vec![3], "r3");
    net.settle(3000);
    assert!(net.answer(3).is_some(), "the star stands still");
}

/// Its store outlived it: what is the same elsewhere is not sent, and nothing in it counts that is not.
#[test]
fn a_server_that_finds_its_store_again_is_sent_only_what_has_changed() {
    let mut net = Net::new(3, 1, 1 << 30);
    net.view(0, &[0, 1, 2], 0, &[], &[]);
    net.tell_all();
    net.run();
    for number in 0..50 {
        net.set(0, number, &format!("k{number:02}"), vec![7; 100], &format!("r{number}"));
    }
    net.settle(5);
    let found = std::mem::replace(&mut net.nodes[2], node(2, 2, 1, 1 << 30)).into_store().after_crash();
    let config = net.nodes[2].config().clone();
    net.nodes[2] = Node::new(config, found);
    net.state.servers[2].incarnation = Incarnation(2);
    net.view(0, &[0, 1], 0, &[], &[]);
    for id in [0, 1] {
        net.tell(id);
    }
    net.settle(5);
    net.set(0, 100, "k07", vec![8; 100], "r100");
    net.delete(0, 101, "k49");
    net.set(0, 102, "k99", vec![9; 100], "r102");
    net.settle(5);
    net.tell_all();
    net.view(0, &[0, 1], 0, &[], &[2]);
    net.tell_all();
    net.settle(20);
    assert_eq!(net.nodes[2].may_advance().len(), 1);
    let objects = |node: &Node| node.store().objects().map(|(k, v, o)| (k.clone(), v, o.to_vec())).collect::<Vec<_>>();
    assert_eq!(objects(&net.nodes[2]), objects(&net.nodes[0]));
    let counters = net.nodes[2].counters();
    assert_eq!((counters.objects_kept, counters.objects_taken, counters.objects_dropped), (48, 2, 0));
    // As a member from the beginning it has nothing to compare with.
    net.nodes[2] = Node::new(
        net.nodes[2].config().clone(),
        std::mem::replace(&mut net.nodes[2], node(2, 3, 1, 1)).into_store().after_crash(),
    );
    net.state.stars[0].founded = net.state.stars[0].epoch.next();
    net.view(0, &[2], 2, &[], &[]);
    net.tell(2);
    assert_eq!((objects(&net.nodes[2]).len(), net.nodes[2].counters().objects_dropped), (0, 50));
}

#[test]
fn a_lost_write_is_sent_again_however_many_were_done_before_it() {
    let mut net = Net::new(2, 1, 1 << 30);
    net.view(0, &[0, 1], 0, &[], &[]);
    net.tell_all();
    net.run();
    net.loses = Box::new(|_, _, m| matches!(&m.body, Body::Write(h) if h.request_id == RequestId::Text("r299".into())));
    for i in 0..300 {
        net.set(1, i, &format!("k{i}"), vec![1], &format!("r{i}"));
    }
    net.loses = Box::new(|_, _, _| false);
    net.settle(3000);
    assert!(net.answer(298).is_some());
    assert!(net.answer(299).is_some(), "the lost write is never answered");
}

#[test]
fn a_learner_catches_up_over_a_link_slower_than_its_patience() {
    let mut net = Net::new(3, 1, 1 << 30);
    net.view(0, &[0, 1], 0, &[], &[]);
    net.tell_all();
    net.run();
    net.set(0, 1, "k", vec![1], "r1");
    net.run();
    net.view(0, &[0, 1], 0, &[], &[2]);
    net.tell_all();
    let mut late: VecDeque<(u64, u16, u16, Message)> = VecDeque::new();
    for _ in 0..3000 {
        net.tick();
        while let Some((f, t, m)) = net.wire.pop_front() {
            if matches!(m.body, Body::Changes { .. }) {
                late.push_back((net.now + 150_000_000, f, t, m));
            } else {
                net.step(t, Input::Message { from: ServerId(f), message: m });
            }
        }
        while late.front().is_some_and(|l| l.0 <= net.now) {
            let (_, f, t, m) = late.pop_front().unwrap();
            net.step(t, Input::Message { from: ServerId(f), message: m });
        }
    }
    assert_eq!(net.nodes[2].may_advance().len(), 1, "it never catches up");
}

#[test]
fn two_leaders_do_not_give_away_the_same_room() {
    let mut net = Net::new(2, 2, 100);
    net.view(0, &[0, 1], 0, &[], &[]);
    net.view(1, &[0, 1], 1, &[], &[]);
    net.tell_all();
    net.run();
    let k =
        |star: u16| (0..100).map(|i| format!("k{i}")).find(|k| Key::new(k.as_str()).star(2) == StarId(star)).unwrap();
    net.set(0, 1, &k(0), vec![1; 60], "r1");
    net.set(1, 2, &k(1), vec![2; 60], "r2");
    net.settle(3000);

    assert!(net.answer(1).is_some() && net.answer(2).is_some(), "both stars stand still");
}

/// The leader has committed a write and forgotten that it held it, when a late copy comes: it stamps that as a repeat.
/// Then the leader changes, and the repeat is taken back. Server 1, which has not committed the write, must keep it.
#[test]
fn a_write_stays_when_a_repeat_of_it_is_taken_back() {
    let mut net = Net::new(3, 1, 1 << 30);
    net.view(0, &[0, 1, 2], 0, &[], &[]);
    net.tell_all();
    net.set(2, 1, "k", b"old".to_vec(), "r1");
    net.settle(20);
    // Server 1 does not hear that server 2 has the next one.
    net.loses = Box::new(|from, to, message| (from, to) == (2, 1) && matches!(message.body, Body::Ack { .. }));
    net.set(2, 2, "k", b"new".to_vec(), "r2");
    let is_copy =
        |(from, to, message): &&(u16, u16, Message)| (*from, *to) == (2, 0) && matches!(message.body, Body::Write(_));
    let copy = net.wire.iter().find(is_copy).expect("sent to the leader").clone();
    net.run();
    assert!(matches!(net.answer(2), Some((ResponseBody::Written { .. }, _))));
    // The repeat's stamp does not reach the leader to come.
    net.loses = Box::new(|from, to, message| {
        let is_stamp = (from, to) == (0, 2) && matches!(message.body, Body::Stamps { .. });
        is_stamp || (from, to) == (2, 1) && matches!(message.body, Body::Ack { .. })
    });
    net.wire.push_back(copy);
    net.run();
    net.view(0, &[0, 1, 2], 2, &[], &[]);
    net.tell_all();
    net.loses = Box::new(|_, _, _| false);
    net.settle(20);
    for server in 0..3 {
        net.get(server, 10 + u64::from(server), "k");
        net.run();
        assert_eq!(net.answer(10 + u64::from(server)).expect("an answer").1, "new", "server {server} is stale");
    }
}

/// Server 0 hears nothing of the control plane, while another's store is gone on with, and lost as well. What it hears then is a
/// view without members, whose leader, named by default, has the number 0.
#[test]
fn a_server_that_missed_all_serves_nothing_in_a_view_without_members() {
    let mut net = Net::new(2, 1, 1 << 30);
    net.view(0, &[0, 1], 0, &[], &[]);
    net.tell_all();
    net.set(0, 1, "k", b"old".to_vec(), "r1");
    net.settle(5);
    net.view(0, &[1], 1, &[], &[]);
    net.view(0, &[], 0, &[], &[]);
    net.state.stars[0].resumed = Some(Resumed { epoch: Epoch(2), seq: Seq(1) });
    net.tell(0);
    net.get(0, 2, "k");
    net.run();
    assert!(matches!(net.answer(2), Some((ResponseBody::Error(_), _))), "it answers: {:?}", net.answer(2));
}

/// A server that is to go on with its store alone, and has none that fits, must not go on as before either.
#[test]
fn a_server_that_cannot_go_on_with_its_store_serves_nothing() {
    let mut net = Net::new(2, 1, 1 << 30);
    net.view(0, &[0, 1], 0, &[], &[]);
    net.tell_all();
    net.set(0, 1, "k", b"old".to_vec(), "r1");
    net.settle(5);
    net.view(0, &[1], 1, &[], &[]);
    net.state.stars[0].resumed = Some(Resumed { epoch: Epoch(2), seq: Seq(7) });
    net.tell(1);
    net.get(1, 2, "k");
    net.run();
    assert!(matches!(net.answer(2), Some((ResponseBody::Error(_), _))), "it answers: {:?}", net.answer(2));
}
