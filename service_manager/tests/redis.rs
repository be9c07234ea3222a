//! The redis service on a real Redis server.

mod support;

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    time::Duration,
};

use serde_json::json;
use support::{Place, eventually, is_running, kill};

/// Says something to Redis, after the password, and returns all that comes back.
fn redis(place: &Place, commands: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", place.redis_port)).expect("Redis listens");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    write!(stream, "AUTH \"pass word\"\r\n{commands}\r\nQUIT\r\n").expect("Redis reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("Redis answers and closes");
    answer
}

#[test]
fn starts_with_its_data_on_disk_and_stops_without_a_trace_but_that() {
    let place = Place::new(1);
    let started = place.succeed(&["start", "redis"]);
    assert!(started.out.starts_with("redis: ready after "), "{started:#?}");
    assert!(redis(&place, "SET key kept").contains("+OK\r\n+OK"));
    let settings = redis(&place, "CONFIG GET append*\r\nCONFIG GET save\r\nCONFIG GET bind");
    for (key, value) in [("appendonly", "yes"), ("appendfsync", "always"), ("save", ""), ("bind", "127.0.0.1")] {
        let pair = format!("${}\r\n{key}\r\n${}\r\n{value}\r\n", key.len(), value.len());
        assert!(settings.contains(&pair), "{key} {value}: {settings}");
    }
    assert!(place.succeed(&["start", "redis"]).out.starts_with("redis: already running"));
    let (code, services) = place.status();
    let pid = services[0]["processes"][0]["pid"].as_u64().expect("a pid") as u32;
    assert_eq!((code, &services[0]["state"]), (0, &json!("running")));
    assert_eq!(services[0]["processes"][0]["detail"], "answers PING");
    place.succeed(&["stop", "redis"]);
    place.assert_nothing_left(&[pid]);

    place.succeed(&["restart", "redis"]);
    assert!(redis(&place, "GET key").contains("$4\r\nkept"), "what was confirmed is still there");
}

#[test]
fn status_tells_that_it_was_killed_and_start_starts_it_again() {
    let place = Place::new(1);
    place.succeed(&["start", "redis"]);
    let pid = place.status().1[0]["processes"][0]["pid"].as_u64().expect("a pid") as u32;
    kill("-KILL", pid);
    eventually("Redis has ended", || !is_running(pid));
    let (code, services) = place.status();
    assert_eq!(code, 3);
    assert_eq!(services[0]["processes"][0]["detail"], format!("dead (was pid {pid})"));
    let started = place.succeed(&["start", "redis"]);
    assert!(started.errors.contains(&format!("redis is dead (was pid {pid})")), "{started:#?}");
    assert_eq!(place.status().0, 0);
}

#[test]
fn one_that_cannot_be_managed_here_is_refused() {
    let mut place = Place::new(1);
    let busy = TcpListener::bind(("127.0.0.1", place.redis_port)).expect("the port");
    let refused = place.call(&["start", "redis"]);
    assert_eq!(refused.code, 1, "{refused:#?}");
    assert!(refused.errors.contains(&format!("in use by process {}", std::process::id())), "{refused:#?}");
    drop(busy);
    place.set("PATH", "/nonexistent");
    let refused = place.call(&["start", "redis"]);
    assert_eq!(refused.code, 1, "{refused:#?}");
    assert!(refused.errors.contains("hint: install it: apt-get install redis-server"), "{refused:#?}");
    place.assert_nothing_left(&[]);
    place.set("STAR_CONTROL__REDIS_URL", "redis://192.0.2.1:6379");
    let refused = place.call(&["start", "redis"]);
    assert_eq!(refused.code, 2, "{refused:#?}");
    assert!(refused.errors.contains("192.0.2.1 is not the loopback address"), "{refused:#?}");
    place.set("STAR_CONTROL__REDIS_URL", "redis+sentinel://127.0.0.1:1/main");
    let refused = place.call(&["start", "redis"]);
    assert_eq!(refused.code, 2, "{refused:#?}");
    assert!(refused.errors.contains("it names sentinels"), "{refused:#?}");
    place.set("STAR_CONTROL__BACKEND", "redis");
    let refused = place.call(&["start", "objstore"]);
    assert_eq!(refused.code, 1, "{refused:#?}");
    assert!(refused.errors.contains("127.0.0.1:1: ") && refused.errors.contains("no sentinel names"), "{refused:#?}");
}
