//! `star chaos`: servers that are killed, stopped, cut off and restarted under load lose nothing, and say nothing old.

mod support;

use std::path::PathBuf;

use rustix::process::Signal;
use serde_json::Value;
use support::{Place, Running, star, wait_until};

/// Runs chaos for so long; nothing may be wrong, and nothing may be left.
fn chaos(args: &[&str]) -> Value {
    let place = Place::new(1);
    let report = place.run(&[&["chaos", "--json", "--history", "h.jsonl"], args].concat()).expect(0).json();
    for never in ["lost_writes", "stale_reads", "duplicated_effects"] {
        assert_eq!(report[never], 0, "{report:#}");
    }
    assert_eq!((&report["passed"], &report["history"]["linearizable"]), (&true.into(), &true.into()), "{report:#}");
    let count = |field: &str| report[field].as_u64().expect("a number");
    for field in ["acknowledged", "reads", "mapped_reads", "compared"] {
        assert!(count(field) > 200, "the clients were at work: {report:#}");
    }
    let check = place.run(&["check", "h.jsonl", "--json"]).expect(0).json();
    assert!(check["operations"].as_u64() >= report["acknowledged"].as_u64(), "{check}");
    assert_eq!(place.left_behind(), [place.path().join("h.jsonl")]);
    report
}

/// How often faults of this name were had.
fn had(report: &Value, name: &str) -> u64 {
    let of_kind = report["had"].as_object().expect("faults").iter().filter(|(kind, _)| kind.contains(name));
    of_kind.map(|(_, times)| times.as_u64().expect("a number")).sum()
}

#[test]
fn nothing_is_lost_with_the_embedded_control_plane() {
    let report = chaos(&["--seconds", "40", "--servers", "5"]);
    for kind in ["kill -9", "SIGSTOP", "link cut", "rolling"] {
        assert!(had(&report, kind) > 0, "{kind}: {report:#}");
    }
    assert!(had(&report, "control plane away") + had(&report, "control plane's leader") > 0, "{report:#}");
}

#[test]
fn nothing_is_lost_while_a_server_has_no_time() {
    // Whether anybody is taken out of a view depends on the machine: that is reported, and not asserted.
    let report = chaos(&["--seconds", "8", "--servers", "3", "--faults", "busy,link", "--busy-seconds", "3"]);
    let busy = &report["busy"];
    assert!(had(&report, "saturated") > 0 && busy["requests"].as_u64() > Some(0), "{report:#}");
    assert!(busy["epochs"].as_u64() >= busy["taken_out"].as_u64().map(|members| members.min(1)), "{report:#}");
}

#[test]
fn nothing_is_lost_with_redis() {
    if std::process::Command::new("redis-server").arg("--version").output().is_err() {
        eprintln!("SKIPPED: redis-server is not installed; `make test` installs it");
        return;
    }
    let report = chaos(&["--seconds", "20", "--servers", "4", "--control", "redis", "--faults", "kill,control,stop"]);
    for kind in ["kill -9", "control plane away"] {
        assert!(had(&report, kind) > 0, "{kind}: {report:#}");
    }
}

#[test]
fn ctrl_c_leaves_nothing_behind() {
    let place = Place::new(1);
    let temporary = place.path().join("tmp");
    std::fs::create_dir(&temporary).expect("a directory");
    let mut command = star(place.path(), &["chaos", "--servers", "3"]);
    let mut running = Running(vec![command.env("TMPDIR", &temporary).spawn().expect("the program runs")]);
    let stores = place.path().join("stores");
    let has_stores = || {
        let clusters = std::fs::read_dir(&stores).into_iter().flatten().flatten();
        clusters.flat_map(|cluster| std::fs::read_dir(cluster.path())).flatten().count() == 3
    };
    wait_until("the servers run", has_stores);
    support::pause();
    assert_eq!(running.end_first(Signal::INT), Some(130));
    assert_eq!(place.left_behind(), [temporary], "no store, no log");
    let none: Vec<PathBuf> = Vec::new();
    assert_eq!(std::fs::read_dir(place.path().join("tmp")).expect("a directory").count(), none.len());
}
