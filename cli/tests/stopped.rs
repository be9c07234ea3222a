//! A server that stood still longer than its lease: what it says when it goes on must be of now.

mod support;

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use rustix::process::Signal;
use serde_json::{Value, json};
use star_core::{Clock, Key, Version};
use star_objstore::{Answer, Reader, Reason};
use support::{Place, Running, pause, signal, wait_until};

/// The objects that change while the server stands still.
const KEYS: usize = 16;
const ROUNDS: usize = 5;
/// The lease of the default configuration, and some.
const BEYOND_THE_LEASE: Duration = Duration::from_millis(900);

fn key(number: usize) -> String {
    format!("key-{number}")
}

/// Sends a message, and leaves its answer to [`receive`].
fn send(stream: &mut TcpStream, message: &Value) {
    let text = message.to_string();
    stream.write_all(&(text.len() as u64).to_be_bytes()).expect("the socket takes it");
    stream.write_all(text.as_bytes()).expect("the socket takes it");
}

fn receive(stream: &mut TcpStream) -> Value {
    let mut length = [0; 8];
    stream.read_exact(&mut length).expect("an answer");
    let mut text = vec![0; u64::from_be_bytes(length) as usize];
    stream.read_exact(&mut text).expect("an answer");
    serde_json::from_slice(&text).expect("JSON")
}

fn connect(addr: &str) -> TcpStream {
    let stream = TcpStream::connect(addr).expect("the server listens");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    stream
}

/// Writes through this server until it is done: it may wait for the server that stands still to be left out.
fn set(stream: &mut TcpStream, key: &str, value: &str) -> u64 {
    let message = json!({"type": "SET", "key": key, "value": value, "request_id": format!("{key} {value}")});
    loop {
        send(stream, &message);
        let answer = receive(stream);
        if answer["status"] == "OK" {
            return answer["version"].as_u64().expect("a version");
        }
        assert_eq!(answer["retry"], true, "{answer}");
        pause();
    }
}

/// What the server that stood still says of a key, as far as it says anything; it must not be older than `round`.
fn is_of_now(answer: &Value, round: usize) -> bool {
    match answer["status"].as_str() {
        Some("OK") => {
            assert_eq!(answer["value"], round.to_string(), "a stale answer in round {round}: {answer}");
            true
        }
        _ => {
            assert_eq!(answer["retry"], true, "a refusal that another server makes good: {answer}");
            false
        }
    }
}

/// Reads every key from the mapped store; whatever it says must be of now. Returns how often it sent us to the server
/// for want of a lease.
fn read_mapped(reader: &Reader, version: &[u64], round: usize) -> usize {
    let mut buffer = Vec::new();
    let refused = (0..KEYS).filter(|number| match reader.get(&Key::new(key(*number)), &mut buffer) {
        Answer::Found { version: found, .. } => {
            let text = String::from_utf8_lossy(&buffer);
            assert_eq!((found, &*text), (Version(version[*number]), round.to_string().as_str()), "a stale mapped read");
            false
        }
        Answer::NotFound => panic!("a stale mapped read: there is an object"),
        Answer::Ask(reason) => matches!(reason, Reason::NoLease | Reason::NotServing),
    });
    refused.count()
}

#[test]
fn a_server_stopped_beyond_its_lease_never_answers_stale() {
    let place = Place::new(3);
    let servers = Running::serve(&place);
    let (mut writer, stopped) = (connect(&place.addrs[0]), servers.0[2].id());
    let mut versions: Vec<u64> = (0..KEYS).map(|number| set(&mut writer, &key(number), "0")).collect();
    let reader = Reader::open(place.path().join("stores/test/c")).expect("the mapped store of server c");
    let (mut refused_over_tcp, mut refused_mapped) = (0, 0);
    for round in 1..=ROUNDS {
        wait_until("server c serves from its mapped store", || {
            read_mapped(&reader, &versions, round - 1) == 0 && serves(&place.addrs[2])
        });
        let mut waiting: Vec<TcpStream> = (0..KEYS).map(|_| connect(&place.addrs[2])).collect();
        signal(stopped, Signal::STOP);
        let stop = Clock.now();
        // The writes are answered once server c is out of the views, so from then on the old values are stale.
        for (number, version) in versions.iter_mut().enumerate() {
            *version = set(&mut writer, &key(number), &round.to_string());
        }
        while Clock.now().since(stop) < BEYOND_THE_LEASE {
            refused_mapped += read_mapped(&reader, &versions, round);
            pause();
        }
        for (number, stream) in waiting.iter_mut().enumerate() {
            send(stream, &json!({"type": "GET", "key": key(number)}));
        }
        signal(stopped, Signal::CONT);
        // All the time, as it comes to its senses.
        let resumed = Clock.now();
        while Clock.now().since(resumed) < Duration::from_millis(50) {
            refused_mapped += read_mapped(&reader, &versions, round);
        }
        let answers = waiting.iter_mut().map(receive);
        refused_over_tcp += answers.filter(|answer| !is_of_now(answer, round)).count();
    }
    assert!(refused_over_tcp > 0, "it was asked while it had no lease, or this proves nothing");
    assert!(refused_mapped > 0, "its store was read while it had no lease, or this proves nothing");
}

/// Whether this server answers a read over TCP.
fn serves(addr: &str) -> bool {
    let mut stream = connect(addr);
    send(&mut stream, &json!({"type": "GET", "key": key(0)}));
    receive(&mut stream)["status"] == "OK"
}
