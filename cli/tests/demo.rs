//! `star demo` on a small directory: all proofs hold, and nothing is left behind.

mod support;

use std::{fs, path::PathBuf};

use rustix::process::Signal;
use support::{Place, Running, star, wait_until};

fn fill(place: &Place) {
    fs::create_dir_all(place.path().join("tree/inner")).expect("a directory");
    for number in 0..12_usize {
        let bytes: Vec<u8> = (0..number * 1000).map(|place| (place * 31 + number) as u8).collect();
        fs::write(place.path().join(format!("tree/inner/file-{number}")), bytes).expect("a file");
    }
    fs::write(place.path().join("tree/read me.txt"), "blanks in the name").expect("a file");
}

fn remove_tree(place: &Place) {
    fs::remove_dir_all(place.path().join("tree")).expect("a directory");
}

#[test]
fn every_object_is_proved_at_every_server() {
    let place = Place::new(1);
    fill(&place);
    let report = place.run(&["demo", "tree", "--servers", "3", "--seconds", "1", "--json"]).expect(0).json();
    assert_eq!((&report["passed"], &report["objects"], &report["servers"]), (&true.into(), &13.into(), &3.into()));
    let checks = report["checks"].as_array().expect("checks");
    assert!(checks.len() == 6 && checks.iter().all(|check| check["passed"] == true), "{report}");
    assert_eq!(report["changed_on_disk"], serde_json::json!([]));
    // Each of the three byte-for-byte proofs asks every server for every object, and mostly its mapped store too.
    let proofs: Vec<_> = checks.iter().filter(|check| check["mapped"].as_u64() > Some(0)).collect();
    assert_eq!(proofs.len(), 3, "{report}");
    for proof in proofs {
        let (compared, mapped) = (proof["compared"].as_u64(), proof["mapped"].as_u64());
        assert_eq!(compared.zip(mapped).map(|(compared, mapped)| compared - mapped), Some(13 * 3), "{proof}");
    }
    for part in ["read", "write"] {
        assert!(report[part]["ops"].as_u64() > Some(100), "{report}");
    }
    let by_server = report["reads_by_server"].as_object().expect("servers");
    assert!(by_server.len() == 3 && by_server.values().all(|reads| reads.as_u64() > Some(0)), "{report}");
    remove_tree(&place);
    assert_eq!(place.left_behind(), Vec::<PathBuf>::new());
}

#[test]
fn people_get_a_table() {
    let place = Place::new(1);
    fill(&place);
    let run = place.run(&["demo", "tree", "--servers", "2", "--seconds", "0.2", "--limit", "30KiB"]).expect(0);
    for wanted in ["all proofs hold", "dirty reads", "mapped reads", "p99", "left out"] {
        assert!(run.stdout.contains(wanted), "{wanted} is missing: {run:#?}");
    }
    assert!(run.stderr.contains("✓ stored"), "{run:#?}");
}

#[test]
fn ctrl_c_ends_it_and_leaves_nothing() {
    let place = Place::new(1);
    fill(&place);
    let log = place.path().join("demo.err");
    let err = fs::File::create(&log).expect("a file");
    let child = star(place.path(), &["demo", "tree", "--servers", "3", "--seconds", "60"]).stderr(err).spawn();
    let child = child.expect("the program runs");
    let id = child.id();
    let mut running = Running(vec![child]);
    wait_until("the load runs", || fs::read_to_string(&log).is_ok_and(|text| text.contains("byte for byte")));
    assert_eq!(running.end_first(Signal::INT), Some(130));
    fs::remove_file(log).expect("a file");
    remove_tree(&place);
    assert_eq!(place.left_behind(), Vec::<PathBuf>::new());
    assert!(!std::env::temp_dir().join(format!("star-demo-{id}")).exists(), "the logs are gone");
}
