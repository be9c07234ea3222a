//! `star server`: servers come into a running cluster, are drained and forgotten.

mod support;

use std::{
    process::{Child, Stdio},
    time::Duration,
};

use bytes::Bytes;
use rustix::process::Signal;
use serde_json::{Value, json};
use star::{BlockingClient, Options};
use star_core::Clock;
use support::{Place, Run, Running, free_ports, signal, star, wait_until};

/// A process that ends with the test.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn list(place: &Place) -> Value {
    place.run(&["server", "list", "--json"]).expect(0).json()
}

fn line<'a>(list: &'a Value, name: &str) -> &'a Value {
    list["servers"].as_array().expect("servers").iter().find(|server| server["name"] == name).unwrap_or(&Value::Null)
}

fn serves_all(place: &Place, name: &str) -> bool {
    let list = list(place);
    let one = line(&list, name);
    one["views"] == 8 && one["moving"] == 0
}

#[test]
fn a_server_is_added_drained_stopped_removed_and_addedagain() {
    let place = Place::new(3);
    let mut up = place.up();
    place.up_output();
    place.run(&["set", "k", "v"]).expect(0);

    let addr = format!("127.0.0.1:{}", free_ports(1));
    let add = || {
        let mut command = star(place.path(), &["server", "add", "x", &addr]);
        Guard(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program runs"))
    };
    let mut added = add();
    wait_until("the new server serves every star", || serves_all(&place, "x"));
    assert_eq!(place.run(&["get", "k", "--connect", &addr]).expect(0).stdout, "v");

    let running = place.run(&["server", "remove", "x"]).expect(1);
    assert!(running.stderr.contains("drain it first"), "{running:?}");
    let drained = place.run(&["server", "drain", "x", "--json"]).expect(0).json();
    assert_eq!((&drained["status"], &drained["standing"]), (&"OK".into(), &"draining".into()));
    assert_eq!(line(&list(&place), "x")["views"], 0);
    let running = place.run(&["server", "remove", "x"]).expect(1);
    assert!(running.stderr.contains("stop it first"), "{running:?}");

    signal(added.0.id(), Signal::TERM);
    assert!(added.0.wait().expect("it ends").success());
    place.run(&["server", "remove", "x"]).expect(0);
    assert_eq!(*line(&list(&place), "x"), Value::Null, "it is forgotten");
    let unknown = place.run(&["server", "drain", "y"]).expect(2);
    assert!(unknown.stderr.contains("there is no server \"y\""), "{unknown:?}");

    let again = add();
    wait_until("it is back", || serves_all(&place, "x"));
    // What is drained comes back, too.
    place.run(&["server", "drain", "b"]).expect(0);
    place.run(&["set", "k", "without b"]).expect(0);
    place.run(&["server", "drain", "b", "--undo"]).expect(0);
    wait_until("b serves again", || serves_all(&place, "b"));
    drop(again);
    up.end_first(Signal::INT);
}

#[test]
fn status_says_how_far_a_new_server_is() {
    let place = Place::new(3);
    let _servers = Running::serve(&place);
    let keys: Vec<String> = (0..3000).map(|number| format!("key {number}")).collect();
    let value = Bytes::from(vec![b'v'; 4096]);
    let objects: Vec<(&str, Bytes)> = keys.iter().map(|key| (key.as_str(), value.clone())).collect();
    let client = BlockingClient::connect(&place.addrs, Options::default()).expect("a server answers");
    objects.chunks(500).for_each(|some| drop(client.set_many(some).expect("they are written")));

    let addr = format!("127.0.0.1:{}", free_ports(1));
    // Twelve megabytes, of which so many come in a second.
    let bound = "replication.copy_bytes_per_second=4194304";
    let began = Clock.now();
    let mut command = star(place.path(), &["server", "add", "x", &addr, "--set", bound]);
    let _added = Guard(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program runs"));
    wait_until("it is said how far the new server is", || {
        let status = place.run(&["status"]).expect(0).stdout;
        let mut lines = status.lines().filter(|line| line.starts_with("x is on the way into stars "));
        lines.any(|line| line.contains(": has ") && line.ends_with(" of 3,000 objects"))
    });
    wait_until("it is not on the way any more", || {
        let status = place.run(&["status", "--json"]).expect(0).json();
        serves_all(&place, "x") && status["arriving"] == json!([])
    });
    let took = Clock.now().since(began);
    assert!(took > Duration::from_secs(2), "three seconds of copying took {took:?}");
}

/// What `star status` says of stars whose objects nobody has who is there.
const AWAITED: &str = "are with servers that have not come back: d; start them, or give up what only they have: star server \
                       remove NAME --lose-objects";

fn get(place: &Place, key: &str) -> Run {
    place.run(&["get", key, "--timeout", "500ms"])
}

#[test]
fn a_server_that_alone_had_the_objects_is_given_up() {
    // The first three keep the control plane, so that views can change when d, which alone has the objects, has ended.
    let place = Place::new(4);
    let mut servers = Running::serve(&place);
    place.run(&["set", "early", "all have it"]).expect(0);
    for name in ["a", "b", "c"] {
        place.run(&["server", "drain", name]).expect(0);
    }
    place.run(&["set", "late", "d has it"]).expect(0);
    servers.kill_last();
    for name in ["a", "b", "c"] {
        place.run(&["server", "drain", name, "--undo"]).expect(0);
    }
    wait_until("it is said whom the stars wait for", || {
        let status = place.run(&["status"]).expect(0).stdout;
        ["a", "b", "c"]
            .iter()
            .all(|name| status.contains(&format!("{name}: the objects of stars 0 1 2 3 4 5 6 7 {AWAITED}")))
    });
    let waits = get(&place, "early").expect(1);
    assert_eq!(waits.stdout, "", "{waits:?}");

    let refused = place.run(&["server", "remove", "d"]).expect(1);
    assert!(refused.stderr.contains("star server remove d --lose-objects"), "{refused:?}");
    assert!(place.run(&["status"]).expect(0).stdout.contains(AWAITED), "nothing was changed");

    let removed = place.run(&["server", "remove", "d", "--lose-objects"]).expect(0);
    assert!(removed.stdout.contains("the objects of stars 0 1 2 3 4 5 6 7 are lost"), "{removed:?}");
    wait_until("the others serve", || place.run(&["set", "after", "empty", "--timeout", "500ms"]).code == Some(0));
    assert_eq!(get(&place, "after").expect(0).stdout, "empty");
    for key in ["early", "late"] {
        assert_eq!(get(&place, key).expect(3).stdout, "", "{key} is lost");
    }
    wait_until("nothing is waited for any more", || {
        let status = place.run(&["status"]).expect(0).stdout;
        !status.contains("have not come back") && ["a", "b", "c"].iter().all(|name| serves_all(&place, name))
    });
}
