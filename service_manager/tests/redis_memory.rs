//! A Redis that lost what it knew, by FLUSHALL or by data of an earlier day, under servers that run: they answer right or
//! not at all, say what happened and what to do, and that helps.

mod support;

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};
use star_core::key::Key;
use star_objstore::{Answer, Reader};
use support::{Place, eventually, files, is_running, kill, wire::Wire};

/// What every message must name: what happened, and both ways out.
const SAID: [&str; 3] = ["lost what it knew", "until its latest data are restored", "stop all servers, empty it"];

/// How many keys there are: of most of the stars.
const KEYS: usize = 9;

/// How often everything is read and written again once all servers refuse.
const ROUNDS: usize = 10;

/// Servers on a Redis of the redis service, and what their objects may be.
struct Cluster {
    place: Place,
    /// For each key the values that a read may give: the last one that was confirmed, and those of writes since whose
    /// outcome is unknown.
    objects: BTreeMap<String, Vec<String>>,
    writes: usize,
}

impl Cluster {
    fn start() -> Self {
        let place = Place::new(3);
        place.succeed(&["start", "all", "--timeout", "2m"]);
        let mut cluster = Self { place, objects: BTreeMap::new(), writes: 0 };
        cluster.write_until_done();
        cluster
    }

    fn redis(&self, commands: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.place.redis_port)).expect("Redis listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        write!(stream, "AUTH \"pass word\"\r\n{commands}\r\nQUIT\r\n").expect("Redis reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("Redis answers and closes");
        answer
    }

    fn ask(&self, server: usize, message: &Value) -> Value {
        Wire::connect(&self.place.addr(server)).ask(message)
    }

    /// Tries to write a key through a server, once; true if it is confirmed. A refusal that leaves the outcome open is
    /// remembered.
    fn write(&mut self, server: usize, key: &str) -> bool {
        self.writes += 1;
        let value = format!("{key} {}", self.writes);
        let answer = self.ask(server, &json!({"type": "SET", "key": key, "value": value}));
        let may_be = self.objects.entry(key.to_owned()).or_default();
        match (answer["status"].as_str(), answer["code"].as_str()) {
            (Some("OK"), _) => *may_be = vec![value],
            (_, Some("NO_LEASE" | "NOT_SERVING" | "OVERLOADED")) => {}
            (_, Some("UNFINISHED" | "TIMEOUT")) => may_be.push(value),
            _ => panic!("{answer}"),
        }
        answer["status"] == "OK"
    }

    /// Writes every key, each through some server until it is confirmed.
    fn write_until_done(&mut self) {
        for number in 0..KEYS {
            let key = format!("k{number}");
            let what = format!("{key} is written through server {}", number % 3);
            eventually(&what, || self.write(number % 3, &key));
        }
    }

    /// Reads every key at every server, over TCP and from the mapped store, and demands that no answer is wrong.
    /// Returns how many answers there were.
    fn read(&self) -> usize {
        let mut answers = 0;
        for (server, name) in self.place.names().enumerate() {
            let mapped = Reader::open(self.place.stores().join("test").join(&name)).expect("a mapped store");
            for (key, may_be) in &self.objects {
                let answer = self.ask(server, &json!({"type": "GET", "key": key}));
                if answer["status"] == "OK" {
                    let value = answer["value"].as_str().expect("text");
                    assert!(may_be.iter().any(|one| one == value), "{key} at {name}: {answer}, and not of {may_be:?}");
                    answers += 1;
                } else {
                    assert_eq!((&answer["status"], &answer["retry"]), (&json!("ERROR"), &json!(true)), "{answer}");
                }
                let mut buffer = Vec::new();
                match mapped.get(&Key::new(key.as_str()), &mut buffer) {
                    Answer::Found { .. } => {
                        let value = String::from_utf8(buffer).expect("text");
                        assert!(may_be.contains(&value), "{key} in the store of {name}: {value}, not of {may_be:?}");
                        answers += 1;
                    }
                    Answer::NotFound => panic!("{key} is not in the store of {name}, and it answers"),
                    Answer::Ask(_) => {}
                }
            }
        }
        answers
    }

    /// Each server's own status.
    fn statuses(&self) -> Vec<Value> {
        let status = |server| {
            let answer = self.ask(server, &json!({"type": "STATUS"}));
            let own = &answer["server"];
            assert!(own.is_object(), "{answer}");
            own.clone()
        };
        (0..self.place.ports.len()).map(status).collect()
    }

    /// Goes on reading and writing while the servers lose their leases, and then for some rounds in which each refuses
    /// everything; demands that all that people look at says what happened and what to do.
    fn assert_nothing_wrong_is_served(&mut self) {
        eventually("every server holds no lease and says why", || {
            self.read();
            self.write(0, "k0");
            let tells = |own: &Value| {
                let note = own["plane"]["note"].as_str().unwrap_or_default();
                own["lease_ms"] == 0 && SAID.iter().all(|part| note.contains(part))
            };
            self.statuses().iter().all(tells)
        });
        for round in 0..ROUNDS {
            assert_eq!(self.read(), 0, "no server may answer");
            for server in 0..self.place.ports.len() {
                assert!(!self.write(server, &format!("k{}", round % KEYS)), "server {server} may confirm nothing");
            }
        }
        let (code, services) = self.place.status();
        assert_eq!((code, &services[0]["state"], &services[1]["state"]), (3, &json!("running"), &json!("degraded")));
        for process in services[1]["processes"].as_array().expect("processes") {
            let detail = process["detail"].as_str().expect("text");
            assert!(SAID.iter().all(|part| detail.contains(part)), "{detail}");
            let log = fs::read_to_string(process["log"].as_str().expect("a path")).expect("a log");
            assert!(SAID.iter().all(|part| log.contains(part)), "{log}");
        }
    }

    /// Waits until all is well, then demands the same of all objects.
    fn assert_serves_again(&mut self) {
        eventually("all services are healthy", || self.place.status().0 == 0);
        eventually("every server has an answer for every key, twice", || {
            self.read() == 2 * self.place.ports.len() * self.objects.len()
        });
        self.write_until_done();
        self.read();
    }

    /// Where Redis keeps its data.
    fn data(&self) -> PathBuf {
        self.place.services().join("redis").join("appendonlydir")
    }

    /// Stops Redis, does something with its data, and starts it again.
    fn change_data(&self, change: impl FnOnce(&Path)) {
        self.place.succeed(&["stop", "redis"]);
        change(&self.data());
        self.place.succeed(&["start", "redis", "--timeout", "1m"]);
    }
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to).expect("a directory");
    for file in files(from) {
        fs::copy(&file, to.join(file.file_name().expect("a name"))).expect("a copy");
    }
}

/// Takes the last FLUSHALL, and what came after it, out of an append-only file.
fn unflush(data: &Path) {
    const FLUSHALL: &[u8] = b"*1\r\n$8\r\nFLUSHALL\r\n";
    let is_log = |path: &PathBuf| path.to_string_lossy().ends_with(".incr.aof");
    let log = files(data).into_iter().find(is_log).expect("an append-only file");
    let bytes = fs::read(&log).expect("a file");
    let at = bytes.windows(FLUSHALL.len()).rposition(|part| part == FLUSHALL).expect("it was flushed");
    fs::write(log, &bytes[..at]).expect("written");
}

#[test]
fn under_a_redis_that_was_flushed_nothing_wrong_is_served_until_its_data_are_restored() {
    let mut cluster = Cluster::start();
    assert!(cluster.redis("FLUSHALL").contains("+OK\r\n+OK"));
    cluster.assert_nothing_wrong_is_served();
    cluster.change_data(unflush);
    cluster.assert_serves_again();
}

#[test]
fn under_a_redis_of_an_earlier_day_nothing_wrong_is_served_until_all_start_anew() {
    let mut cluster = Cluster::start();
    let kept = tempfile::tempdir().expect("a directory");
    let (earlier, latest) = (kept.path().join("earlier"), kept.path().join("latest"));
    copy(&cluster.data(), &earlier);
    // Views change, and objects do, after the copy.
    let pid = cluster.place.pids()[2];
    kill("-KILL", pid);
    eventually("the killed server has ended", || !is_running(pid));
    eventually("the others go on without it", || cluster.write(0, "k0") && cluster.write(1, "k1"));
    cluster.place.succeed(&["start", "objstore", "--timeout", "2m"]);
    cluster.write_until_done();
    cluster.change_data(|data| {
        copy(data, &latest);
        copy(&earlier, data);
    });
    cluster.assert_nothing_wrong_is_served();
    // The one way out, with nothing lost.
    cluster.change_data(|data| copy(&latest, data));
    cluster.assert_serves_again();
    // The other one, where the latest data are lost.
    cluster.change_data(|data| copy(&earlier, data));
    cluster.assert_nothing_wrong_is_served();
    cluster.place.succeed(&["stop", "objstore"]);
    assert!(cluster.redis("FLUSHALL").contains("+OK\r\n+OK"));
    cluster.place.succeed(&["start", "objstore", "--timeout", "2m"]);
    let lost = cluster.ask(0, &json!({"type": "GET", "key": "k8"}));
    assert_eq!(lost["status"], "NOT_FOUND", "it begins empty: {lost}");
    cluster.objects.clear();
    cluster.write_until_done();
    cluster.assert_serves_again();
}
