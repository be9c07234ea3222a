//! `star bench` and `star check`: what is measured is recorded, and what is recorded is judged.

mod support;

use serde_json::Value;
use support::{Place, Running};

const SHORT: [&str; 8] = ["--seconds", "0.5", "--clients", "6", "--keys", "40", "--read-share", "0.6"];

fn bench(place: &Place, more: &[&str]) -> support::Run {
    let mut args = vec!["bench"];
    args.extend(SHORT);
    args.extend(more);
    place.run(&args)
}

#[test]
fn a_load_on_a_cluster_of_its_own_is_linearizable() {
    let place = Place::new(3);
    let report = bench(&place, &["--servers", "3", "--history", "h.jsonl", "--json"]).expect(0).json();
    assert_eq!((&report["system"], &report["servers"], &report["errors"]), (&"star".into(), &3.into(), &0.into()));
    for part in ["read", "write"] {
        for field in ["ops", "ops_per_s", "p50_us", "p99_us", "p999_us", "mean_ns"] {
            assert!(report[part][field].as_f64().expect("a number") > 0.0, "{part}.{field}: {report}");
        }
    }
    let check = place.run(&["check", "h.jsonl", "--json"]).expect(0).json();
    assert_eq!((&check["linearizable"], &check["keys"]), (&true.into(), &40.into()));
    let counted =
        report["read"]["ops"].as_u64().expect("a number") + report["write"]["ops"].as_u64().expect("a number");
    assert!(check["operations"].as_u64().expect("a number") >= counted, "every operation is in the history: {check}");
    assert!(!place.left_behind().iter().any(|path| !path.ends_with("h.jsonl")), "{:?}", place.left_behind());

    // The same history with one read of what no longer was there is none.
    let text = std::fs::read_to_string(place.path().join("h.jsonl")).expect("a file");
    let spoiled = with_a_stale_read(&text);
    std::fs::write(place.path().join("spoiled.jsonl"), spoiled).expect("a file");
    let check = place.run(&["check", "spoiled.jsonl"]).expect(1);
    assert!(check.stdout.contains("NOT linearizable"), "{check:#?}");
}

/// Adds a read of the very first version of a key, called after everything else.
fn with_a_stale_read(history: &str) -> String {
    let lines = history.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let end = lines.clone().filter_map(|line| line["ret"].as_u64()).max().expect("answers");
    let first = lines.clone().next().expect("a line");
    let overwritten =
        lines.filter(|line| line["op"] == "w" && line["ret"].is_u64() && line["key"] == first["key"]).count();
    assert!(overwritten > 1, "the load has overwritten {}", first["key"]);
    let mut read = first;
    read["op"] = "r".into();
    read["call"] = (end + 10).into();
    read["ret"] = (end + 20).into();
    format!("{history}{read}\n")
}

#[test]
fn loads_on_craq_and_raft_are_linearizable_too() {
    let place = Place::new(1);
    for system in ["craq", "raft"] {
        let report = bench(&place, &["--system", system, "--servers", "3", "--history", "h.jsonl", "--json"]).expect(0);
        let report = report.json();
        assert_eq!((&report["system"], &report["servers"]), (&system.into(), &3.into()), "{report}");
        for part in ["read", "write"] {
            assert!(report[part]["ops"].as_u64() > Some(0), "{part}: {report}");
        }
        let check = place.run(&["check", "h.jsonl", "--json"]).expect(0).json();
        assert_eq!((&check["linearizable"], &check["keys"]), (&true.into(), &40.into()));
    }
    let mapped = bench(&place, &["--system", "craq", "--transport", "shm", "--json"]).expect(0).json();
    assert!(mapped["mapped_reads"].as_u64() > Some(0), "{mapped}");
    let left = place.left_behind();
    assert!(left.iter().all(|path| path.ends_with("h.jsonl")), "{left:?}");
    let refused = bench(&place, &["--system", "redis", "--history", "h.jsonl"]).expect(2);
    assert!(refused.stderr.contains("--system star, craq or raft"), "{refused:#?}");
}

#[test]
fn a_load_on_the_running_cluster_takes_what_is_there() {
    let place = Place::new(3);
    let _servers = Running::serve(&place);
    place.run(&["set", "key-00000000", "from before"]).expect(0);
    for transport in ["tcp", "shm", "auto"] {
        let history = format!("{transport}.jsonl");
        let report = bench(&place, &["--transport", transport, "--history", &history, "--json"]).expect(0).json();
        assert_eq!((&report["servers"], &report["errors"]), (&3.into(), &0.into()));
        let mapped = report["mapped_reads"].as_u64().expect("a number");
        assert_eq!(mapped > 0, transport != "tcp", "{transport}: {report}");
        place.run(&["check", &history]).expect(0);
    }
    let people = bench(&place, &["--distribution", "zipf", "--pipeline", "4"]).expect(0).stdout;
    assert!(people.contains("p99.9") && people.contains("write"), "{people}");
    assert_eq!(place.run(&["get", "key-00000001"]).expect(0).stdout.len(), 100, "the cluster was not a new one");
}

#[test]
fn an_open_loop_asks_for_as_many_as_it_is_told() {
    let place = Place::new(1);
    let rate = ["--rate", "400", "--seconds", "1", "--history", "h.jsonl"];
    let args = ["bench", "--clients", "6", "--keys", "40", "--read-share", "0.6"];
    let report = place.run(&[&args[..], &rate, &["--json"]].concat()).expect(0).json();
    let number = |value: &Value| value.as_f64().expect("a number");
    let done = number(&report["read"]["ops"]) + number(&report["write"]["ops"]);
    let open_loop = &report["open_loop"];
    assert!((done + number(&open_loop["not_done"]) - 400.0).abs() <= 6.0, "one a client more or less: {report}");
    assert!(number(&open_loop["late_p99_us"]) >= number(&open_loop["late_p50_us"]), "{report}");
    assert_eq!(report["write"]["percentiles"].as_array().map(Vec::len), Some(11), "{report}");
    place.run(&["check", "h.jsonl"]).expect(0);
    let people = place.run(&["bench", "--rate", "200", "--seconds", "0.5", "--clients", "4"]).expect(0).stdout;
    assert!(people.contains("200 operations a second were due"), "{people}");
    for wrong in ["0", "-5", "nan", "fast", "1e9"] {
        let refused = place.run(&["bench", &format!("--rate={wrong}")]).expect(2);
        assert!(refused.stderr.contains("--rate"), "{refused:#?}");
    }
}

#[test]
fn histories_that_are_not_linearizable_are_rejected() {
    let place = Place::new(1);
    let write = r#"{"client":0,"op":"w","key":"k","value":"one","version":1,"call":0,"ret":10,"ok":true}"#;
    let again = r#"{"client":0,"op":"w","key":"k","value":"two","version":2,"call":20,"ret":30,"ok":true}"#;
    let good = r#"{"client":1,"op":"r","key":"k","value":"two","version":2,"call":25,"ret":35,"ok":true}"#;
    let stale = r#"{"client":2,"op":"r","key":"k","value":"one","version":1,"call":40,"ret":50,"ok":true}"#;
    let lost = r#"{"client":2,"op":"r","key":"k","call":40,"ret":50,"ok":true}"#;
    let judge = |lines: &[&str]| {
        std::fs::write(place.path().join("h.jsonl"), lines.join("\n")).expect("a file");
        place.run(&["check", "h.jsonl"])
    };
    let fine = judge(&[write, again, good]).expect(0);
    assert!(fine.stdout.contains("3 operations on 1 keys"), "{fine:#?}");
    for bad in [stale, lost] {
        let rejected = judge(&[write, again, good, bad]).expect(1);
        assert_eq!(rejected.stdout.matches("NOT linearizable (").count(), 2, "both checkers: {rejected:#?}");
        assert!(rejected.stdout.contains("client   2"), "the witness names who saw it: {rejected:#?}");
    }
    let broken = judge(&[write, "{\"client\":0}"]).expect(1);
    assert!(broken.stderr.contains("line 2"), "{broken:#?}");
    assert!(place.run(&["check", "nowhere.jsonl"]).expect(1).stderr.contains("nowhere.jsonl"));
}
