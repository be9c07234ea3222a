//! `star up`: whatever ends it, no process and no file is left behind.

mod support;

use std::path::PathBuf;

use rustix::process::Signal;
use serde_json::Value;
use support::{Place, is_running, signal, wait_until};

fn pids(ready: &Value) -> Vec<u64> {
    let servers = ready["servers"].as_array().expect("servers");
    servers.iter().map(|server| server["pid"].as_u64().expect("a pid")).collect()
}

#[test]
fn ctrl_c_leaves_no_process_and_no_file() {
    let place = Place::new(3);
    let mut up = place.up();
    let (ready, _) = place.up_output();
    let pids = pids(&ready);
    assert_eq!((pids.len(), &ready["ready"]), (3, &true.into()));
    assert!(pids.iter().all(|pid| is_running(*pid)));
    for name in &place.names {
        assert!(place.path().join("stores/test").join(name).is_file(), "server {name} has a store while it runs");
    }
    place.run(&["set", "k", "v"]).expect(0);
    assert_eq!(place.run(&["get", "k"]).expect(0).stdout, "v");

    assert_eq!(up.end_first(Signal::INT), Some(0));
    assert!(!pids.iter().any(|pid| is_running(*pid)), "no process");
    place.remove_up_output();
    assert_eq!(place.left_behind(), Vec::<PathBuf>::new(), "no store, no log");
}

#[test]
fn servers_end_with_the_program_however_it_ends() {
    let place = Place::new(3);
    let mut up = place.up();
    let pids = pids(&place.up_output().0);
    assert_eq!(up.end_first(Signal::KILL), None);
    wait_until("all servers have ended", || !pids.iter().any(|pid| is_running(*pid)));
    wait_until("all stores are gone", || !place.left_behind().iter().any(|path| path.ends_with("stores/test/a")));
}

#[test]
fn a_server_that_dies_is_shown_with_its_log() {
    let place = Place::new(3);
    let mut up = place.up();
    let pids = pids(&place.up_output().0);
    signal(pids[1] as u32, Signal::KILL);
    wait_until("it is said", || place.up_output().1.contains("server b ended"));
    let text = place.up_output().1;
    assert!(text.contains("SIGKILL") && text.contains("INFO"), "how it ended, and its log: {text}");
    let status = place.run(&["status", "--json"]).expect(0).json();
    assert_eq!(status["servers"][1]["state"], "down");

    let code = up.end_first(Signal::TERM);
    assert_eq!(code, Some(1), "one of the servers did not end well");
    place.remove_up_output();
    assert_eq!(place.left_behind(), Vec::<PathBuf>::new(), "also the store of the server that was killed is gone");
}

#[test]
fn a_second_cluster_of_the_same_name_does_no_harm_to_the_first() {
    let place = Place::new(2);
    let mut up = place.up();
    place.run(&["set", "k", "v"]).expect(0);
    place.run(&["up"]).expect(1);
    let port = support::free_ports(2).to_string();
    let second = place.run(&["up", "--servers", "2", "--base-port", &port]).expect(1);
    assert!(second.stderr.contains("in use"), "{second:#?}");
    assert_eq!(place.run(&["get", "k", "--transport", "shm"]).expect(0).stdout, "v", "its stores are still there");
    assert_eq!(up.end_first(Signal::INT), Some(0));
}
