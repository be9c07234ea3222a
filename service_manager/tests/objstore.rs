//! The objstore service on real processes: start, status, restart, stop, on both control planes; and what goes wrong.

mod support;

use std::{
    fs,
    io::{BufRead, BufReader},
    net::TcpListener,
};

use serde_json::{Value, json};
use support::{Done, Place, eventually, files, is_running, kill, wire::Wire};

/// Writes through one server and reads through each.
fn assert_serves(place: &Place, value: &str) {
    let written = Wire::connect(&place.addr(0)).ask(&json!({"type": "SET", "key": "k", "value": value}));
    assert_eq!(written["status"], "OK", "{written}");
    for server in 0..place.ports.len() {
        let read = Wire::connect(&place.addr(server)).ask(&json!({"type": "GET", "key": "k"}));
        assert_eq!(read["value"], value, "server {server}: {read}");
    }
}

/// Starts, uses, restarts and stops servers whose control plane is `control`.
fn live_and_end(place: &Place, control: &str, start: &[&str]) {
    let started = place.succeed(start);
    assert!(started.out.contains(&format!("objstore: ready on the {control} control plane")), "{started:#?}");
    let (code, services) = place.status();
    let objstore = &services[1];
    assert_eq!((code, &objstore["state"], &objstore["control"]), (0, &json!("running"), &json!(control)), "{objstore}");
    for (process, (name, port)) in
        objstore["processes"].as_array().expect("processes").iter().zip(place.names().zip(&place.ports))
    {
        assert_eq!((&process["name"], &process["port"]), (&json!(name), &json!(port)));
        assert_eq!(process["health"], "healthy", "{process}");
        assert!(process["uptime_s"].as_u64().is_some_and(|uptime| uptime < 60), "{process}");
    }
    assert_serves(place, "first");
    let before = place.pids();
    assert!(before.iter().all(|pid| is_running(*pid)));
    assert_eq!(files(&place.stores()).len(), before.len(), "a mapped store for each server");

    let again = place.succeed(start);
    assert!(again.out.contains(&format!("objstore: already running on the {control} control plane")), "{again:#?}");
    assert_eq!(place.pids(), before);

    let restarted = place.succeed(&["restart", "objstore"]);
    assert!(restarted.out.contains("objstore: stopped") && restarted.out.contains("objstore: ready"), "{restarted:#?}");
    let after = place.pids();
    assert!(before.iter().all(|pid| !after.contains(pid) && !is_running(*pid)), "{before:?} {after:?}");
    assert_serves(place, "second");

    let stopped = place.succeed(&["stop", "all"]);
    assert!(!stopped.errors.contains("killed"), "all end by themselves: {stopped:#?}");
    place.assert_nothing_left(&after);
    let (code, services) = place.status();
    assert_eq!((code, &services[0]["state"], &services[1]["state"]), (0, &json!("stopped"), &json!("stopped")));
    let nothing = place.succeed(&["stop", "all", "--json"]).json();
    let results: Vec<_> = nothing["services"].as_array().expect("services").iter().map(|one| &one["result"]).collect();
    assert_eq!(results, ["not_running", "not_running"]);
}

#[test]
fn lives_on_the_embedded_control_plane() {
    live_and_end(&Place::new(3), "embedded", &["start", "objstore"]);
}

#[test]
fn lives_on_redis_if_the_redis_service_runs() {
    let place = Place::new(3);
    let redis = place.succeed(&["start", "redis", "--json"]).json();
    assert_eq!(redis["services"][0]["result"], "started", "{redis}");
    live_and_end(&place, "redis", &["start", "objstore"]);
}

#[test]
fn lives_on_redis_if_the_configuration_says_so() {
    let mut place = Place::new(2);
    place.set("STAR_CONTROL__BACKEND", "redis");
    let refused = place.call(&["start", "objstore"]);
    assert_eq!(refused.code, 1, "{refused:#?}");
    assert!(refused.errors.contains("hint: start it: service_manager start redis"), "{refused:#?}");
    place.assert_nothing_left(&[]);
    live_and_end(&place, "redis", &["start", "all"]);
}

#[test]
fn a_killed_server_is_started_again_beside_the_others() {
    let place = Place::new(3);
    place.succeed(&["start", "objstore"]);
    assert_serves(&place, "kept");
    let before = place.pids();
    kill("-KILL", before[0]);
    eventually("the killed server has ended", || !is_running(before[0]));
    let started = place.succeed(&["start", "objstore", "--timeout", "60s"]);
    assert!(started.errors.contains(&format!("a is dead (was pid {})", before[0])), "{started:#?}");
    let after = place.pids();
    assert_eq!(after[1..], before[1..], "the others were left alone");
    assert_ne!(after[0], before[0]);
    let read = Wire::connect(&place.addr(0)).ask(&json!({"type": "GET", "key": "k"}));
    assert_eq!(read["value"], "kept", "it serves what the others kept: {read}");
    place.succeed(&["stop", "objstore"]);
    place.assert_nothing_left(&after);
}

#[test]
fn a_server_that_ends_while_a_start_waits_for_it_is_started_again() {
    let place = Place::new(3);
    place.succeed(&["start", "objstore"]);
    let before = place.pids();
    // It runs when the start looks, and does not answer.
    kill("-STOP", before[0]);
    let mut start = place.command(&["start", "objstore"]).spawn().expect("it starts");
    let mut said = BufReader::new(start.stderr.take().expect("a pipe")).lines().map_while(Result::ok);
    let waits = said.find(|line| line.contains("ready; a: "));
    assert!(waits.is_some(), "it waits for the server");
    kill("-KILL", before[0]);
    let dead = format!("a is dead (was pid {})", before[0]);
    assert!(said.any(|line| line.contains(&dead)), "it sees that it has ended");
    assert_eq!(said.filter(|line| line.contains("stopping what was started")).count(), 0);
    let done = Done::from(start.wait_with_output().expect("it ends"));
    assert!(done.code == 0 && done.out.contains("objstore: ready"), "{done:#?}");
    let after = place.pids();
    assert_eq!(after[1..], before[1..], "the others were left alone");
    assert_ne!(after[0], before[0]);
    place.succeed(&["stop", "objstore"]);
    place.assert_nothing_left(&after);
}

#[test]
fn status_tells_that_a_server_was_killed_and_stop_clears_up_after_it() {
    let place = Place::new(3);
    place.succeed(&["start", "objstore"]);
    let pids = place.pids();
    kill("-KILL", pids[2]);
    eventually("the killed server has ended", || !is_running(pids[2]));
    assert_eq!(files(&place.stores()).len(), 3, "the store of a server that was killed stays behind");

    let (code, services) = place.status();
    let (objstore, dead) = (&services[1], &services[1]["processes"][2]);
    assert_eq!((code, &objstore["state"]), (3, &json!("degraded")), "{objstore}");
    assert_eq!((&dead["health"], &dead["pid"]), (&json!("dead"), &Value::Null));
    assert_eq!(dead["detail"], format!("dead (was pid {})", pids[2]));
    let table = place.call(&["status", "objstore"]);
    assert_eq!(table.code, 3);
    assert!(table.out.contains(&format!("dead (was pid {})", pids[2])), "{}", table.out);
    // The others go on, and say so, once the lease of the dead one is over and it is out of their views.
    eventually("the others are healthy", || {
        let processes = place.status().1[1]["processes"].clone();
        processes[0]["health"] == "healthy" && processes[1]["health"] == "healthy"
    });

    let stopped = place.succeed(&["stop", "objstore"]);
    assert!(stopped.errors.contains(&format!("c was dead already (was pid {})", pids[2])), "{stopped:#?}");
    place.assert_nothing_left(&pids);
}

#[test]
fn a_server_that_does_not_end_by_itself_is_killed() {
    let place = Place::new(3);
    place.succeed(&["start", "objstore"]);
    let pids = place.pids();
    kill("-STOP", pids[1]);
    // One that says nothing is not healthy, though it is there.
    let (code, services) = place.status();
    let process = &services[1]["processes"][1];
    assert_eq!((code, &process["health"], &process["pid"]), (3, &json!("unhealthy"), &json!(pids[1])), "{process}");
    let stopped = place.succeed(&["stop", "objstore", "--grace", "500ms"]);
    assert!(stopped.errors.contains("b did not end by itself and was killed"), "{stopped:#?}");
    place.assert_nothing_left(&pids);
}

#[test]
fn a_number_that_another_process_has_now_is_left_alone() {
    let place = Place::new(1);
    place.succeed(&["start", "objstore"]);
    let pid = place.pids()[0];
    let record = place.services().join("objstore.json");
    let text = fs::read_to_string(&record).expect("a record");
    place.succeed(&["stop", "objstore"]);
    // A record of long ago that names this very test.
    let mut old: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(old["processes"][0]["pid"], pid);
    old["processes"][0]["pid"] = json!(std::process::id());
    old["processes"][0]["start_ticks"] = json!(1);
    fs::write(&record, old.to_string()).expect("a file");
    let (code, services) = place.status();
    assert_eq!((code, &services[1]["processes"][0]["health"]), (3, &json!("dead")), "{services}");
    place.succeed(&["stop", "objstore"]);
    place.assert_nothing_left(&[pid]);
}

#[test]
fn a_busy_port_is_named_with_the_process_that_has_it() {
    let place = Place::new(3);
    let busy = TcpListener::bind(("127.0.0.1", place.ports[1])).expect("the port");
    let refused = place.call(&["start", "objstore"]);
    assert_eq!(refused.code, 1, "{refused:#?}");
    let holder = format!("port {} is in use by process {}", place.ports[1], std::process::id());
    assert!(refused.errors.contains(&holder) && refused.errors.contains("hint: stop process"), "{refused:#?}");
    drop(busy);
    place.assert_nothing_left(&[]);
    place.succeed(&["start", "objstore"]);
}

#[test]
fn two_starts_at_once_start_it_once() {
    let place = Place::new(3);
    let both = [(); 2].map(|()| place.command(&["start", "objstore", "--json"]).spawn().expect("it starts"));
    let both = both.map(|child| Done::from(child.wait_with_output().expect("it ends")));
    let mut results: Vec<_> = both
        .iter()
        .map(|done| {
            assert_eq!(done.code, 0, "{done:#?}");
            done.json()["services"][0].clone()
        })
        .collect();
    assert_eq!(results[0]["processes"], results[1]["processes"], "both speak of the same processes");
    results.sort_by_key(|result| result["result"].to_string());
    assert_eq!([&results[0]["result"], &results[1]["result"]], ["already_running", "started"]);
}

#[test]
fn a_start_that_fails_stops_what_it_has_started() {
    let mut place = Place::new(2);
    // The second server, and it alone, cannot make its store.
    fs::create_dir_all(place.stores().join("test").join("b").join("in the way")).expect("a directory");
    let failed = place.call(&["start", "objstore", "--timeout", "20s"]);
    assert_eq!(failed.code, 1, "{failed:#?}");
    assert!(failed.errors.contains("b ended at once: exit status"), "{failed:#?}");
    assert!(failed.errors.contains("its last") && failed.errors.contains("logs/b.log"), "{failed:#?}");
    assert!(failed.errors.contains("stopping what was started again"), "{failed:#?}");
    fs::remove_dir_all(place.stores()).expect("it can be removed");
    place.assert_nothing_left(&[]);

    // A value that no configuration allows is refused before anything is started.
    place.set("STAR_CLUSTER__STARS", "0");
    let refused = place.call(&["start", "objstore", "--json"]);
    assert_eq!(refused.code, 2, "{refused:#?}");
    let message = refused.json()["error"]["message"].to_string();
    assert!(message.contains("STAR_CLUSTER__STARS") && message.contains("between 1 and 1024"), "{message}");
    place.set("STAR_CLUSTER__STARS", "8");
}

#[test]
fn an_interrupted_start_leaves_nothing() {
    let mut place = Place::new(2);
    // A server of another machine, for which those of this one wait.
    let servers = format!(
        r#"[{{name="a",addr="{}"}},{{name="b",addr="{}"}},{{name="far",addr="192.0.2.1:7000"}}]"#,
        place.addr(0),
        place.addr(1)
    );
    place.set("STAR_CLUSTER__SERVERS", &servers);
    let start = place.command(&["start", "objstore"]).spawn().expect("it starts");
    eventually("both servers run", || {
        let processes = place.status().1[1]["processes"].clone();
        processes.as_array().is_some_and(|processes| {
            processes.len() == 2 && processes.iter().all(|process| process["health"] == "unhealthy")
        })
    });
    let pids = place.pids();
    kill("-INT", start.id());
    let done = Done::from(start.wait_with_output().expect("it ends"));
    assert_eq!(done.code, 130, "{done:#?}");
    place.assert_nothing_left(&pids);
}
