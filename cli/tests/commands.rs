//! Objects through three real servers: set, get, del, ls, status, shell.

mod support;

use rustix::process::Signal;
use serde_json::json;
use support::{Place, Running, run_with_input};

#[test]
fn objects_are_stored_read_changed_and_removed_through_any_server() {
    let place = Place::new(3);
    let mut servers = Running::serve(&place);
    let through = |addr: &str, args: &[&str]| {
        let mut all = args.to_vec();
        all.extend(["--connect", addr, "--transport", "tcp"]);
        place.run(&all)
    };
    let (a, b, c) = (place.addrs[0].as_str(), place.addrs[1].as_str(), place.addrs[2].as_str());

    assert_eq!(through(a, &["set", "greeting", "hello"]).expect(0).stdout, "version 1\n");
    for addr in [a, b, c] {
        assert_eq!(through(addr, &["get", "greeting"]).expect(0).stdout, "hello", "raw, without an end of line");
    }
    assert_eq!(place.run(&["get", "greeting", "--transport", "shm"]).expect(0).stdout, "hello");
    assert_eq!(through(b, &["get", "greeting", "--version"]).expect(0).stdout, "1\n");

    let missing = through(c, &["get", "missing"]).expect(3);
    assert_eq!(missing.stdout, "");
    assert_eq!(
        through(c, &["get", "missing", "--json"]).expect(3).json(),
        json!({"status": "NOT_FOUND", "key": "missing"})
    );

    // Conditions.
    let conflict = through(b, &["set", "greeting", "hi", "--if-absent", "--json"]).expect(4).json();
    assert_eq!(conflict, json!({"status": "CONFLICT", "key": "greeting", "version": 1}));
    through(b, &["set", "greeting", "hi", "--if-version", "7"]).expect(4);
    assert_eq!(through(b, &["get", "greeting"]).expect(0).stdout, "hello", "a conflict changes nothing");
    assert_eq!(through(c, &["set", "greeting", "hi", "--if-version", "1"]).expect(0).stdout, "version 2\n");
    through(a, &["set", "fresh", "x", "--if-absent"]).expect(0);

    // Keys.
    assert_eq!(place.run(&["ls"]).expect(0).stdout, "fresh\ngreeting\n");
    assert_eq!(place.run(&["ls", "gr", "--json"]).expect(0).json(), json!({"keys": ["greeting"], "more": false}));
    assert_eq!(place.run(&["ls", "--limit", "1", "--json"]).expect(0).json(), json!({"keys": ["fresh"], "more": true}));

    // Deletes.
    through(a, &["del", "greeting", "--if-version", "1"]).expect(4);
    through(a, &["del", "greeting"]).expect(0);
    through(b, &["get", "greeting"]).expect(3);
    through(c, &["del", "greeting"]).expect(3);

    for _ in &place.names {
        assert_eq!(servers.end_first(Signal::TERM), Some(0), "a server stops in good order");
    }
    let stores =
        place.left_behind().into_iter().filter(|path| path.parent().is_some_and(|one| one.ends_with("stores/test")));
    let kept = place.path().join("stores/test").join(&place.names[place.names.len() - 1]);
    assert_eq!(stores.collect::<Vec<_>>(), [kept], "only the last keeps its store: nobody was left to take over");
}

#[test]
fn values_come_from_words_files_and_stdin_and_go_to_files() {
    let place = Place::new(3);
    let _servers = Running::serve(&place);
    // Larger than any piece it travels in, and not text.
    let large: Vec<u8> = (0..5_000_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    std::fs::write(place.path().join("large"), &large).expect("a file");

    place.run(&["set", "large", "@large"]).expect(0);
    place.run(&["get", "large", "-o", "copy"]).expect(0);
    assert!(std::fs::read(place.path().join("copy")).expect("a file") == large, "5 MB come back byte for byte");
    assert!(place.run(&["get", "large", "--json"]).expect(0).json()["value_b64"].is_string());

    run_with_input(place.path(), &["set", "piped", "-"], b"from stdin").expect(0);
    assert_eq!(place.run(&["get", "piped"]).expect(0).stdout, "from stdin");
    run_with_input(place.path(), &["set", "piped"], b"also without a dash").expect(0);
    assert_eq!(place.run(&["get", "piped"]).expect(0).stdout, "also without a dash");
    place.run(&["set", "at", "@@home"]).expect(0);
    assert_eq!(place.run(&["get", "at"]).expect(0).stdout, "@home");
    place.run(&["set", "empty", ""]).expect(0);
    assert_eq!(place.run(&["get", "empty", "--json"]).expect(0).json()["value"], "");

    place.run(&["set", "json", r#"{"n": 12345678901234567890123}"#, "--json-value"]).expect(0);
    let raw = place.run(&["get", "json", "--json"]).expect(0).stdout;
    assert!(raw.contains(r#""value":{"n": 12345678901234567890123}"#), "{raw}");
    place.run(&["set", "json", "{", "--json-value"]).expect(2);
    let nowhere = place.run(&["set", "k", "@no/such/file"]).expect(1);
    assert!(nowhere.stderr.contains("no/such/file"), "{nowhere:?}");
}

#[test]
fn status_has_the_form_that_programs_read() {
    let place = Place::new(3);
    let mut servers = Running::serve(&place);
    let status = place.run(&["status", "--json"]).expect(0).json();
    let names = |value: &serde_json::Value| -> Vec<String> {
        value.as_array().expect("a list").iter().map(|name| name.as_str().expect("a name").to_owned()).collect()
    };
    let rows = status["servers"].as_array().expect("servers");
    assert_eq!(rows.len(), 3);
    for ((row, name), (addr, child)) in rows.iter().zip(&place.names).zip(place.addrs.iter().zip(&servers.0)) {
        assert_eq!(*row, json!({"name": name, "addr": addr, "pid": child.id(), "state": "up"}));
    }
    let stars = status["stars"].as_array().expect("stars");
    assert_eq!(stars.len(), 8);
    for (id, star) in stars.iter().enumerate() {
        assert_eq!(star["id"], id);
        assert!(star["epoch"].as_u64().expect("a number") >= 1);
        assert_eq!(names(&star["members"]), place.names);
        assert!(names(&star["members"]).contains(&star["leader"].as_str().expect("a name").to_owned()));
        assert_eq!((&star["joining"], &star["learners"]), (&json!([]), &json!([])));
    }
    // Also through a server that is asked alone, and for people.
    let one = place.run(&["status", "--json", "--connect", &place.addrs[2]]).expect(0).json();
    assert_eq!(one["servers"].as_array().expect("servers").len(), 3);
    assert!(place.run(&["status"]).expect(0).stdout.contains("leads stars"));

    // A server that is gone is down.
    servers.0.remove(2).kill().expect("it runs");
    let status = place.run(&["status", "--json"]).expect(0).json();
    let row = &status["servers"][2];
    assert_eq!((&row["name"], &row["state"], &row["pid"]), (&json!("c"), &json!("down"), &json!(null)));
}

#[test]
fn the_shell_runs_scripts() {
    let place = Place::new(3);
    let _servers = Running::serve(&place);
    let script = b"# a script\nset greeting \"good morning\"\nget greeting\nuse b\nget greeting\ncas greeting 1 hi\nls\nservers\nuse\ndel greeting\nquit\nget never\n";
    let run = run_with_input(place.path(), &["shell"], script).expect(0);
    let begin = "version 1\ngood morning\ngood morning\nversion 2\ngreeting\n";
    assert!(run.stdout.starts_with(begin) && run.stdout.ends_with("deleted\n"), "{run:#?}");

    let failing = run_with_input(place.path(), &["shell"], b"cas k 3 x\nget missing\nset k v\n").expect(3);
    assert!(failing.stdout.ends_with("version 1\n"), "a script goes on after a failure: {failing:#?}");
    let unknown = run_with_input(place.path(), &["shell"], b"get missing\nfrobnicate\n").expect(2);
    assert!(unknown.stderr.contains("frobnicate"), "{unknown:#?}");
    let json = run_with_input(place.path(), &["shell", "--json"], b"get k\n").expect(0).json();
    assert_eq!(json, json!({"status": "OK", "key": "k", "value": "v", "version": 1}));
}
