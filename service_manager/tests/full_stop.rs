//! All servers of the machine end, in order or by SIGKILL, and start again: what was acknowledged is there.

mod support;

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use support::{Place, eventually, files, kill, wire::Wire};

/// Keys of each writer.
const KEYS: u64 = 40;

#[allow(clippy::disallowed_methods, reason = "a test lets other processes work")]
fn pause_for(time: Duration) {
    thread::sleep(time);
}

/// What a writer was told of a key: the version and value that were confirmed last, and what may have been done since.
#[derive(Clone, Debug, Default)]
struct Told {
    version: u64,
    value: Option<String>,
    may_be: Vec<Option<String>>,
}

type Book = BTreeMap<String, Told>;

/// Writes and deletes under keys of its own through one server until it ends or is told to stop.
fn write(addr: &str, name: &str, stop: &AtomicBool) -> Book {
    let mut book = Book::new();
    let mut wire = Wire::connect(addr);
    for turn in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let key = format!("{name}{}", turn % KEYS);
        let told = book.entry(key.clone()).or_default();
        let value = (turn % 7 != 3).then(|| format!("{key} {turn}"));
        told.may_be.push(value.clone());
        let request = match &value {
            Some(value) => json!({"type": "SET", "key": key, "value": value}),
            None => json!({"type": "DELETE", "key": key}),
        };
        let Some(answer) = wire.try_ask(&request) else { break };
        match (answer["status"].as_str(), answer["code"].as_str()) {
            (Some("OK"), _) => {
                let version = answer["version"].as_u64().expect("a version");
                assert!(version > told.version, "{key}: {version} after {}", told.version);
                *told = Told { version, value, may_be: Vec::new() };
            }
            (Some("NOT_FOUND"), _) => told.may_be.clear(),
            (_, Some("NO_LEASE" | "NOT_SERVING" | "OVERLOADED")) => drop(told.may_be.pop()),
            (_, Some("UNFINISHED" | "TIMEOUT")) => {}
            _ => panic!("{answer}"),
        }
    }
    book
}

/// Asks until the server is a member that serves again, which it becomes by learning from the one that went on.
fn ask(place: &Place, server: usize, request: &Value) -> Value {
    let mut answer = Value::Null;
    eventually("the server answers", || {
        answer = Wire::connect(&place.addr(server)).ask(request);
        answer["retry"] != true
    });
    answer
}

/// Demands that everything that was confirmed is there, at every server, and that versions go on.
fn assert_all_there(place: &Place, books: &[Book]) {
    for (key, told) in books.iter().flatten() {
        for server in 0..place.ports.len() {
            let read = ask(place, server, &json!({"type": "GET", "key": key}));
            let value = match read["status"].as_str() {
                Some("OK") => Some(read["value"].as_str().expect("text").to_owned()),
                Some("NOT_FOUND") => None,
                _ => panic!("{key} at {server}: {read}"),
            };
            assert!(told.value == value || told.may_be.contains(&value), "{key} at {server}: {read}, but {told:?}");
        }
    }
    for (key, told) in books.iter().flatten() {
        let written = ask(place, 0, &json!({"type": "SET", "key": key, "value": "after"}));
        let version = written["version"].as_u64().expect("a version");
        assert!(version > told.version, "{key}: {version} after {}", told.version);
    }
}

/// Writes through all servers while `end` ends them; returns what was confirmed.
fn write_while(place: &Place, end: impl FnOnce()) -> Vec<Book> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let writers: Vec<_> = (0..2 * place.ports.len())
            .map(|number| {
                let (addr, name, stop) = (place.addr(number % place.ports.len()), format!("w{number}-"), &stop);
                scope.spawn(move || write(&addr, &name, stop))
            })
            .collect();
        pause_for(Duration::from_millis(1500));
        end();
        stop.store(true, Ordering::Relaxed);
        writers.into_iter().map(|writer| writer.join().expect("it does not panic")).collect()
    })
}

fn confirmed(books: &[Book]) -> usize {
    books.iter().flatten().filter(|(_, told)| told.version > 0).count()
}

/// Waits until every star has gone on with what a store held. Servers are up before: some stars may wait for the store of the
/// last one.
fn all_resume(place: &Place) {
    eventually("every star goes on with what a store held", || resumed(place) == 8);
}

/// How many stars went on with what a store held, at all servers together.
fn resumed(place: &Place) -> u64 {
    (0..place.ports.len())
        .map(|server| {
            let status: Value = Wire::connect(&place.addr(server)).ask(&json!({"type": "STATUS"}));
            let counters = &status["server"]["counters"];
            assert_eq!(counters["not_resumed"], 0, "{status}");
            counters["resumed"].as_u64().unwrap_or_else(|| panic!("{status}"))
        })
        .sum()
}

fn stopped_in_order(place: &Place, start: &[&str]) {
    place.succeed(start);
    let stop = AtomicBool::new(false);
    let books = thread::scope(|scope| {
        let stop = &stop;
        let writers: Vec<_> = (0..3)
            .map(|server| {
                let (addr, name) = (place.addr(server), format!("s{server}-"));
                scope.spawn(move || write(&addr, &name, stop))
            })
            .collect();
        pause_for(Duration::from_millis(700));
        stop.store(true, Ordering::Relaxed);
        writers.into_iter().map(|writer| writer.join().expect("it does not panic")).collect::<Vec<_>>()
    });
    assert!(confirmed(&books) > 60, "{}", confirmed(&books));
    let stopped = place.succeed(&["stop", "objstore"]);
    assert!(stopped.errors.contains("kept: the stores of "), "{stopped:#?}");
    assert!(!files(&place.stores()).is_empty());
    place.succeed(start);
    all_resume(place);
    assert_all_there(place, &books);
    // Once more, and a start of one server after the other has nothing to wait for but all of them.
    place.succeed(&["restart", "objstore"]);
    all_resume(place);
    let read = Wire::connect(&place.addr(1)).ask(&json!({"type": "GET", "key": "s0-0"}));
    assert_eq!(read["value"], "after", "{read}");
    place.succeed(&["stop", "objstore", "--lose-objects"]);
    assert!(!place.stores().exists(), "left: {:?}", files(&place.stores()));
    place.succeed(start);
    let read = Wire::connect(&place.addr(1)).ask(&json!({"type": "GET", "key": "s0-0"}));
    assert_eq!(read["status"], "NOT_FOUND", "{read}");
    place.succeed(&["stop", "all", "--lose-objects"]);
}

#[test]
fn what_was_stored_is_there_after_a_stop_and_a_start() {
    stopped_in_order(&Place::new(3), &["start", "objstore"]);
}

#[test]
fn the_same_on_redis() {
    let place = Place::new(3);
    place.succeed(&["start", "redis"]);
    stopped_in_order(&place, &["start", "objstore", "--control", "redis"]);
}

/// All are killed while clients write, at once or one after another: a round for each pause in between, in milliseconds.
fn killed(place: &Place, start: &[&str], pauses_ms: [u64; 3]) {
    for (round, pause) in pauses_ms.into_iter().map(Duration::from_millis).enumerate() {
        place.succeed(start);
        let pids = place.pids();
        let books = write_while(place, || {
            for pid in &pids {
                kill("-KILL", *pid);
                pause_for(pause);
            }
        });
        eventually("all have ended", || {
            let processes = place.status().1[1]["processes"].clone();
            let is_dead = |process: &Value| process["health"] == "dead";
            processes.as_array().is_some_and(|processes| processes.iter().all(is_dead))
        });
        assert!(confirmed(&books) > 60, "round {round}: {}", confirmed(&books));
        place.succeed(start);
        all_resume(place);
        assert_all_there(place, &books);
        place.succeed(&["stop", "objstore"]);
    }
    place.succeed(&["stop", "all", "--lose-objects"]);
}

#[test]
fn what_was_confirmed_is_there_after_all_were_killed_at_once() {
    killed(&Place::new(3), &["start", "objstore"], [0; 3]);
}

#[test]
fn what_was_confirmed_is_there_after_all_were_killed_at_once_on_redis() {
    let place = Place::new(3);
    place.succeed(&["start", "redis"]);
    killed(&place, &["start", "objstore", "--control", "redis"], [0; 3]);
}

/// The control plane ends with the second server, so the third stays in a view with that one and confirms nothing alone. With
/// all stores back it is certain which of them has everything, also where a kill met a takeover.
#[test]
fn what_was_confirmed_is_there_after_one_after_another_was_killed() {
    killed(&Place::new(3), &["start", "objstore"], [1200, 700, 300]);
}

#[test]
fn what_was_confirmed_is_there_after_one_after_another_was_killed_on_redis() {
    let place = Place::new(3);
    place.succeed(&["start", "redis"]);
    killed(&place, &["start", "objstore", "--control", "redis"], [1200; 3]);
}
