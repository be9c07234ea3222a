//! Servers that are killed find their mapped stores again: what is current in them is not copied, the rest is replaced.

mod support;

use bytes::Bytes;
use rustix::process::Signal;
use serde_json::Value;
use star::{BlockingClient, Options, Transport};
use star_core::message::Condition;
use support::{Place, Running, star, wait_until};

const OBJECTS: usize = 300;
const CHANGED: usize = 10;
const DELETED: usize = 5;

fn key(number: usize) -> String {
    format!("key {number}")
}

fn client(addrs: &[String], only_given: bool) -> BlockingClient {
    let options = Options { transport: Transport::Tcp, only_given, ..Options::default() };
    BlockingClient::connect(addrs, options).expect("a server answers")
}

/// Writes every object; tried again while stars are without a leader for a moment.
fn write(client: &BlockingClient, numbers: std::ops::Range<usize>, value: &str) {
    let keys: Vec<String> = numbers.map(key).collect();
    let objects: Vec<(&str, Bytes)> = keys.iter().map(|key| (key.as_str(), Bytes::from(value.to_owned()))).collect();
    wait_until("the objects are written", || client.set_many(&objects).is_ok());
}

/// Waits until every server has published every object: a read waits for what is under way.
fn published(addrs: &[String]) {
    let keys: Vec<String> = (0..OBJECTS).map(key).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    for addr in addrs {
        let server = client(std::slice::from_ref(addr), true);
        let all_are_there = |found: Vec<Option<star::Object>>| found.iter().all(Option::is_some);
        wait_until("all objects are there", || server.get_many(&keys).is_ok_and(all_are_there));
    }
}

fn start(place: &Place, name: &str) -> std::process::Child {
    let log = std::fs::File::create(place.path().join(format!("{name}.again.log"))).expect("a file");
    let mut command = star(place.path(), &["serve", "--name", name]);
    command.stdout(std::process::Stdio::null()).stderr(log).spawn().expect("the program runs")
}

/// The counters of a server, once it serves every star.
fn counters_when_serving(addr: &str) -> Value {
    let mut counters = Value::Null;
    wait_until("the server serves every star", || {
        let Ok(client) = BlockingClient::connect(&[addr.to_owned()], Options::one_server()) else { return false };
        let Some(Ok(status)) = client.status().pop().map(|(_, status)| status) else { return false };
        let status: Value = serde_json::from_str(&status).expect("JSON");
        counters = status["counters"].clone();
        let stars = status["stars"].as_array().cloned().unwrap_or_default();
        !stars.is_empty() && stars.iter().all(|star| star["serving"] == true && star["installed"] == true)
    });
    counters
}

#[test]
fn a_killed_server_takes_only_what_has_changed() {
    let place = Place::new(3);
    let mut servers = Running::serve(&place);
    let others = client(&place.addrs[..2], false);
    write(&others, 0..OBJECTS, "first");
    published(&place.addrs);
    let mut killed = servers.0.remove(2);
    killed.kill().expect("it runs");
    killed.wait().expect("it ends");
    write(&others, 0..CHANGED, "second");
    for number in CHANGED..CHANGED + DELETED {
        wait_until("the object is deleted", || others.delete(&key(number), Condition::Always).is_ok());
    }
    servers.0.push(start(&place, "c"));
    let counters = counters_when_serving(&place.addrs[2]);
    assert!(counters["objects_kept"].as_u64() >= Some((OBJECTS - CHANGED - DELETED) as u64), "{counters}");
    assert!((CHANGED as u64..OBJECTS as u64 / 2).contains(&counters["objects_taken"].as_u64().unwrap()), "{counters}");
    let killed = client(&place.addrs[2..], true);
    for number in 0..OBJECTS {
        let mut found = None;
        wait_until("the server answers", || killed.get(&key(number)).map(|object| found = object).is_ok());
        let wanted = match number {
            0..CHANGED => Some("second"),
            _ if number < CHANGED + DELETED => None,
            _ => Some("first"),
        };
        assert_eq!(found.map(|object| Bytes::from(object.value)), wanted.map(Bytes::from), "object {number}");
    }
}

#[test]
fn what_all_servers_left_when_they_were_killed_is_gone_on_with() {
    let place = Place::new(3);
    let mut servers = Running::serve(&place);
    write(&client(&place.addrs, false), 0..OBJECTS, "kept");
    published(&place.addrs);
    for mut server in servers.0.drain(..) {
        support::signal(server.id(), Signal::KILL);
        server.wait().expect("it ends");
    }
    servers.0.extend(["a", "b", "c"].map(|name| start(&place, name)));
    let counters: Vec<_> = place.addrs.iter().map(|addr| counters_when_serving(addr)).collect();
    let sum = |name: &str| counters.iter().filter_map(|one| one[name].as_u64()).sum::<u64>();
    assert!(sum("resumed") > 0 && sum("objects_dropped") == 0 && sum("not_resumed") == 0, "{counters:?}");
    for name in &place.names {
        let log = std::fs::read_to_string(place.path().join(format!("{name}.again.log"))).expect("a log");
        assert!(log.contains("a star goes on with it if it certainly holds everything"), "{log}");
    }
    let after = client(&place.addrs, false);
    for number in 0..OBJECTS {
        let mut found = None;
        wait_until("a server answers", || after.get(&key(number)).map(|object| found = object).is_ok());
        assert_eq!(found.map(|object| Bytes::from(object.value)), Some(Bytes::from("kept")), "object {number}");
    }
    write(&after, 0..1, "new");
}
