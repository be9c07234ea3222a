//! What no client should send: each gets an error or a closed connection for itself alone, while the servers go on
//! serving others in bounded memory.

mod support;

use std::{
    fs,
    io::Write,
    net::{Shutdown, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use star_core::{
    Clock, Key, RequestId,
    message::{Condition, Request, RequestBody, ResponseBody, Wire as _, frame::FrameKind},
    network::{ClientOptions, TcpClient},
    store::Encoding,
};
use support::{
    Place, is_running, resident_bytes,
    wire::{Wire, framed},
};

const MIB: u64 = 1 << 20;

/// A running cluster of three, and somebody who uses it properly all the time.
struct Cluster {
    place: Place,
    pids: Vec<u32>,
    bystander: Bystander,
    resident_before: Vec<u64>,
}

/// Writes and reads in turn, through all servers, and minds every error.
struct Bystander {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    thread: Option<JoinHandle<Result<(), String>>>,
}

impl Cluster {
    fn start(variables: &[(&str, &str)]) -> Self {
        let mut place = Place::new(3);
        for (name, value) in variables {
            place.set(name, value);
        }
        place.succeed(&["start", "objstore"]);
        let pids = place.pids();
        let bystander = Bystander::start((0..3).map(|server| place.addr(server)).collect());
        let resident_before = pids.iter().map(|pid| resident_bytes(*pid)).collect();
        Self { place, pids, bystander, resident_before }
    }

    fn addr(&self) -> String {
        self.place.addr(0)
    }

    fn connect(&self) -> Wire {
        Wire::connect(&self.addr())
    }

    /// Demands that no server has taken more memory than so much since the start.
    fn assert_grown_by_at_most(&self, bytes: u64) {
        for (pid, before) in self.pids.iter().zip(&self.resident_before) {
            let now = resident_bytes(*pid);
            assert!(now <= before + bytes, "{} MiB, after {} MiB at the start", now / MIB, before / MIB);
        }
    }

    /// Demands that the cluster has served others all the time, and still does.
    fn assert_served_others(mut self) {
        let rounds = self.bystander.rounds.load(Ordering::Relaxed);
        support::eventually("others are served", || self.bystander.rounds.load(Ordering::Relaxed) >= rounds + 6);
        self.bystander.end().expect("others are served without an error");
        assert!(self.pids.iter().all(|pid| is_running(*pid)));
        assert_eq!(self.place.status().0, 0, "{}", self.place.status().1);
        self.place.succeed(&["stop", "objstore"]);
        self.place.assert_nothing_left(&self.pids);
    }
}

/// On a machine that is busy with other things a server may lose its lease for a moment, and says "try again".
fn ask_until_done(wire: &mut Wire, message: &Value) -> Value {
    let began = Clock.now();
    loop {
        let answer = wire.ask(message);
        if answer["retry"] != true || Clock.now().since(began) > Duration::from_mins(1) {
            return answer;
        }
    }
}

impl Bystander {
    fn start(addrs: Vec<String>) -> Self {
        let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopping, counted) = (Arc::clone(&stop), Arc::clone(&rounds));
        let thread = std::thread::spawn(move || {
            let mut wires: Vec<Wire> = addrs.iter().map(|addr| Wire::connect(addr)).collect();
            for round in 0.. {
                if stopping.load(Ordering::Relaxed) {
                    break;
                }
                let (writer, reader) = (round % 3, (round + 1) % 3);
                let message = json!({"type": "SET", "key": "bystander", "value": round});
                expect(&ask_until_done(&mut wires[writer], &message), "status", "OK")?;
                let read = ask_until_done(&mut wires[reader], &json!({"type": "GET", "key": "bystander"}));
                if read["value"] != round {
                    return Err(format!("{round} was written, and read was {read}"));
                }
                counted.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
        let this = Self { stop, rounds, thread: Some(thread) };
        // Each of its connections has spoken: silent ones are closed first when there are too many.
        support::eventually("everybody is served", || this.rounds.load(Ordering::Relaxed) >= 3);
        this
    }

    fn end(&mut self) -> Result<(), String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map_or(Ok(()), |thread| thread.join().map_err(|_| "it panicked".to_owned())?)
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        // What it says counts where it is asked for; here a test has failed already.
        let _ = self.end();
    }
}

fn expect(answer: &Value, field: &str, value: &str) -> Result<(), String> {
    if answer[field] == value { Ok(()) } else { Err(format!("{field} is not {value} in {answer}")) }
}

/// Numbers that look random and are the same in every run.
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn bytes_that_make_no_sense() {
    let cluster = Cluster::start(&[]);
    let mut state = 0x5eed;
    for round in 0..300_u64 {
        let length = random(&mut state) % 4096 + 1;
        let mut bytes: Vec<u8> = (0..length).map(|_| random(&mut state) as u8).collect();
        // Every third begins as JSON does, every third as a compact frame does.
        match round % 3 {
            0 => bytes[0] = 0,
            1 => bytes[0] = 0xA7,
            _ => {}
        }
        let mut wire = cluster.connect();
        // The server may have closed the connection before all was written.
        let _ = wire.0.write_all(&bytes);
        let _ = wire.0.shutdown(Shutdown::Write);
        assert!(wire.is_closed(), "round {round}: the connection is still open");
    }
    cluster.assert_grown_by_at_most(64 * MIB);
    cluster.assert_served_others();
}

#[test]
fn absurd_lengths() {
    let cluster = Cluster::start(&[]);
    for length in [1_u64 << 63, u64::MAX, 1 << 55, 1 << 40] {
        let mut wire = cluster.connect();
        wire.0.write_all(&length.to_be_bytes()).expect("the server reads");
        wire.0.write_all(b"{\"type\":").expect("the server reads");
        let answer = wire.answer().expect("an answer");
        expect(&answer, "status", "ERROR").expect("a refusal");
        assert!(answer["message"].as_str().is_some_and(|text| text.contains("closed")), "{answer}");
        assert!(wire.is_closed(), "length {length}");
    }
    cluster.assert_grown_by_at_most(64 * MIB);
    cluster.assert_served_others();
}

#[test]
fn half_a_frame_then_silence() {
    let cluster =
        Cluster::start(&[("STAR_LIMITS__PARTIAL_AGE_MS_MAX", "1000"), ("STAR_LIMITS__PARTIAL_BYTES_MAX", "128 MiB")]);
    // Some stop early, some late; some of them speak the compact codec.
    let whole = framed(br#"{"type":"SET","key":"half","value":"never whole"}"#);
    let compact = [0xA7, 1, 0, 0, 20, 0, 0, 0, 0, 0, 16, 0, 7, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3];
    let mut halves: Vec<Wire> = Vec::new();
    for bytes in [&whole[..3], &whole[..8], &whole[..whole.len() - 1], &compact[..1], &compact[..12], &compact[..]] {
        let mut wire = cluster.connect();
        wire.0.write_all(bytes).expect("the server reads");
        halves.push(wire);
    }
    // And some together are more than all halves may be.
    let piece = vec![b' '; 30 << 20];
    let mut large: Vec<Wire> = (0..8).map(|_| cluster.connect()).collect();
    for wire in &mut large {
        // A connection that was closed for it takes no more.
        let _ = wire.0.write_all(&(60_u64 << 20).to_be_bytes()).and_then(|()| wire.0.write_all(&piece));
    }
    cluster.assert_grown_by_at_most((128 + 96) * MIB);
    for wire in halves.iter_mut().chain(&mut large) {
        assert!(wire.is_closed(), "a half frame is not waited for without end");
    }
    let read = ask_until_done(&mut cluster.connect(), &json!({"type": "GET", "key": "half"}));
    expect(&read, "status", "NOT_FOUND").expect("half a write is none");
    cluster.assert_served_others();
}

#[test]
fn messages_that_are_wrong_leave_the_connection_open() {
    let cluster = Cluster::start(&[]);
    let mut wire = cluster.connect();
    let cases: &[(&[u8], &str, &str)] = &[
        (br#"{"type":"FLY","key":"k"}"#, "UNKNOWN_TYPE", "FLY"),
        (br#"{"type":"ACK"}"#, "UNKNOWN_TYPE", "ACK"),
        (br#"{"key":"k"}"#, "BAD_REQUEST", "type"),
        (br#"{"type":"GET"}"#, "BAD_REQUEST", "key"),
        (br#"{"type":"SET","key":"k"}"#, "BAD_REQUEST", "value"),
        (br#"{"type":"SET","value":1}"#, "BAD_REQUEST", "key"),
        (br#"{"type":"CAS","key":"k","value":1}"#, "BAD_REQUEST", "if_version"),
        (br#"{"type":"GET","key":7}"#, "BAD_REQUEST", "key"),
        (br#"{"type":"SET","key":"k","value_b64":"!"}"#, "BAD_REQUEST", "value_b64"),
        (b"{\"type\":\"GET\",\"key\":\"\xff\xfe\"}", "BAD_REQUEST", ""),
        (b"{\"type\":\"SET\",\"key\":\"\xc3\",\"value\":1}", "BAD_REQUEST", ""),
        (b"[1,2]", "BAD_REQUEST", ""),
        (b"{", "BAD_REQUEST", ""),
        (b"", "BAD_REQUEST", ""),
    ];
    for (text, code, named) in cases {
        let answer = wire.ask_bytes(text);
        let shown = String::from_utf8_lossy(text);
        expect(&answer, "status", "ERROR").and_then(|()| expect(&answer, "code", code)).expect(&shown);
        let message = answer["message"].as_str().expect("a message for people");
        assert!(message.contains(named), "{shown}: {message}");
        assert_eq!(answer["retry"], false, "{shown}: {answer}");
    }
    let nested = [vec![b'['; 1_000_000], vec![b']'; 1_000_000]].concat();
    let deep = [br#"{"type":"SET","key":"deep","value":"#, nested.as_slice(), b"}"].concat();
    expect(&wire.ask_bytes(&deep), "status", "OK").expect("a value may be nested as deeply as its bytes allow");
    wire.0.write_all(&framed(br#"{"type":"GET","key":"deep"}"#)).expect("the server reads");
    let text = wire.answer_text().expect("an answer");
    assert!(
        text.starts_with(&[br#"{"status":"OK","value":"#.as_slice(), &nested].concat()),
        "it comes back as the same"
    );
    let deep_key = [br#"{"type":"GET","key":"#.as_slice(), &nested, b"}"].concat();
    expect(&wire.ask_bytes(&deep_key), "code", "BAD_REQUEST").expect("a key that is no string is refused");
    let set = json!({"type": "SET", "key": "k", "value": 1});
    expect(&ask_until_done(&mut wire, &set), "status", "OK").expect("it goes on");
    let long = json!({"type": "SET", "key": "k".repeat(1025), "value": 1});
    expect(&wire.ask(&long), "code", "TOO_LARGE").expect("a key over the limit is refused");

    let invalid_key = invalid_utf8_key();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let client = TcpClient::new(cluster.addr(), ClientOptions { pool_size: 1, ..Default::default() });
        let (kind, header, tail) =
            client.exchange(FrameKind::Request, &invalid_key, "v".into()).await.expect("an answer");
        assert_eq!(kind, FrameKind::Response);
        let answer = star_core::message::Response::decode(&header, tail).expect("a response");
        assert!(
            matches!(&answer.body, ResponseBody::Error(failure) if failure.code.name() == "BAD_REQUEST"),
            "{answer:?}"
        );
        let answer = client.call(&RequestBody::Get { key: Key::new("k") }.into()).await.expect("an answer");
        assert!(matches!(answer.body, ResponseBody::Value { .. }), "the connection goes on: {answer:?}");
    });
    cluster.assert_grown_by_at_most(64 * MIB);
    cluster.assert_served_others();
}

/// The header of a SET in the compact codec, its key no UTF-8.
fn invalid_utf8_key() -> Vec<u8> {
    let body = RequestBody::Set {
        key: Key::new("kkkk"),
        encoding: Encoding::Raw,
        condition: Condition::Always,
        request_id: RequestId::Unnamed,
    };
    let mut header = Vec::new();
    Request { body, value: "v".into() }.encode_header(&mut header);
    let at = header.windows(4).position(|bytes| bytes == b"kkkk").expect("the key is in the header");
    header[at..at + 4].fill(0xFF);
    header
}

#[test]
fn a_value_over_the_limit() {
    let cluster = Cluster::start(&[]);
    let mut wire = cluster.connect();
    for mebibytes in [65, 120] {
        let value = vec![b'x'; mebibytes << 20];
        let message = [br#"{"type":"SET","key":"large","value":""#.as_slice(), &value, br#""}"#].concat();
        let answer = wire.ask_bytes(&message);
        expect(&answer, "code", "TOO_LARGE").expect("a refusal");
        let get = json!({"type": "GET", "key": "large"});
        expect(&ask_until_done(&mut wire, &get), "status", "NOT_FOUND").expect("it goes on");
    }
    // What was taken in for it is given back.
    support::eventually("the memory is given back", || {
        resident_bytes(cluster.pids[0]) < cluster.resident_before[0] + 200 * MIB
    });
    cluster.assert_served_others();
}

#[test]
fn a_thousand_connections_that_never_speak() {
    // Each of them is a file of this process, too.
    let limits = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limits.maximum, ..limits }).expect("as many files as are allowed");
    let cluster = Cluster::start(&[]);
    let silent: Vec<TcpStream> =
        (0..1000).map(|_| TcpStream::connect(cluster.addr()).expect("the server listens")).collect();
    let mut others: Vec<Wire> = (0..10).map(|_| cluster.connect()).collect();
    for (number, wire) in others.iter_mut().enumerate() {
        expect(&wire.ask(&json!({"type": "SET", "key": "k", "value": number})), "status", "OK").expect("an answer");
    }
    cluster.assert_grown_by_at_most(64 * MIB);
    drop(silent);
    cluster.assert_served_others();
}

#[test]
fn more_silent_connections_than_are_taken() {
    let cluster = Cluster::start(&[("STAR_LIMITS__CONNECTIONS_MAX", "64")]);
    // Longer open than all of them, and in the middle of a message.
    let message = framed(json!({"type": "SET", "key": "slow", "value": "v"}).to_string().as_bytes());
    let mut slow = cluster.connect();
    slow.0.write_all(&message[..12]).expect("the server reads");
    // Once another one is answered the server has seen this.
    expect(&cluster.connect().ask(&json!({"type": "GET", "key": "none"})), "status", "NOT_FOUND").expect("an answer");
    let mut silent: Vec<Wire> = (0..200).map(|_| cluster.connect()).collect();
    // They make room for those who speak.
    let mut others: Vec<Wire> = Vec::new();
    for number in 0..20 {
        let mut wire = cluster.connect();
        expect(&wire.ask(&json!({"type": "SET", "key": "k", "value": number})), "status", "OK").expect("an answer");
        others.push(wire);
    }
    let mut closed = 0;
    for wire in &mut silent {
        wire.0.set_read_timeout(Some(Duration::from_millis(5))).expect("a timeout");
        closed += usize::from(wire.is_closed());
    }
    assert!(closed >= 200 - 64 + others.len(), "only {closed} of 200 were closed");
    // Nothing comes in on the connections of this server to the others, and still they are in use.
    let log = fs::read_to_string(cluster.place.services().join("logs/a.log")).expect("a log");
    assert!(log.contains("linked"), "{log}");
    assert!(!log.contains("the link is broken"), "{log}");
    for wire in &mut others {
        expect(&wire.ask(&json!({"type": "GET", "key": "k"})), "status", "OK").expect("who speaks is not closed");
    }
    slow.0.write_all(&message[12..]).expect("the server reads");
    expect(&slow.answer().expect("an answer"), "status", "OK").expect("who has begun to speak is not closed");
    cluster.assert_served_others();
}
