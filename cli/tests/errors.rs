//! What people see when something is wrong: what, why, and what to do next; with exit codes for scripts.

mod support;

use std::net::TcpListener;

use support::{Place, run};

#[test]
fn wrong_flags_are_usage_errors() {
    let place = Place::new(3);
    for (args, wanted) in [
        (&["frobnicate"][..], "frobnicate"),
        (&["get"], "<KEY>"),
        (&["set", "k", "v", "--if-version", "one"], "one"),
        (&["set", "k", "v", "--if-version", "1", "--if-absent"], "cannot be used with"),
        (&["get", "k", "--transport", "pigeon"], "pigeon"),
        (&["get", "k", "--timeout", "soon"], "soon"),
        (&["get", "k", "--set", "nonsense"], "section.key=value"),
        (&["bench", "--system", "paxos"], "possible values: star"),
        (&["bench", "--read-share", "2"], "between 0 and 1"),
        (&["bench", "--seconds", "0"], "more than 0"),
        (&["bench", "--history", "h", "--value-size", "8"], "at least 24 bytes"),
        (&["up", "--servers", "0"], "0"),
        (&["up", "--servers", "9", "--base-port", "65530"], "port"),
        (&["demo", "--seconds", "-1"], "-1"),
    ] {
        let wrong = place.run(args).expect(2);
        assert!(wrong.stderr.contains(wanted), "{args:?} should mention {wanted}: {wrong:#?}");
        assert_eq!(wrong.stdout, "");
    }
}

#[test]
fn a_wrong_configuration_names_the_line() {
    let directory = tempfile::tempdir().expect("a directory");
    let text = "[cluster]\nname = \"x\"\n\n[limits]\nkey_bytes_maxx = 7\n";
    std::fs::write(directory.path().join("config.toml"), text).expect("a file");
    for args in [&["get", "k"][..], &["serve", "--name", "a"], &["up"], &["bench"], &["demo"]] {
        let wrong = run(directory.path(), args).expect(2);
        assert!(wrong.stderr.starts_with("error: config.toml:5: limits.key_bytes_maxx"), "{args:?}: {wrong:#?}");
        assert!(wrong.stderr.contains("key_bytes_max`") && wrong.stderr.contains("hint:"), "{wrong:#?}");
    }
    let flag = run(directory.path(), &["get", "k", "--config", "/dev/null", "--set", "cluster.stars=many"]).expect(2);
    assert!(flag.stderr.contains("command line: cluster.stars"), "{flag:#?}");
    let nowhere = run(directory.path(), &["get", "k", "--config", "nowhere.toml"]).expect(2);
    assert!(nowhere.stderr.contains("nowhere.toml"), "{nowhere:#?}");
}

#[test]
fn what_is_not_utf_8_in_the_environment_is_no_trouble() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
    let place = Place::new(1);
    let odd = OsStr::from_bytes(b"\xff");
    let run = |name: &str| {
        let output = support::star(place.path(), &["ls"]).env(name, odd).output().expect("the program runs");
        support::Run::of(&output)
    };
    assert!(run("ODD").expect(1).stderr.contains("star up"));
    assert!(run("STAR_CLUSTER__STARS").expect(2).stderr.contains("STAR_CLUSTER__STARS"));
}

#[test]
fn a_server_that_cannot_start_says_why() {
    let place = Place::new(3);
    let unknown = place.run(&["serve", "--name", "zebra"]).expect(2);
    assert!(unknown.stderr.contains("zebra") && unknown.stderr.contains("a, b, c"), "{unknown:#?}");

    let _held = TcpListener::bind(&place.addrs[0]).expect("a free port");
    let busy = place.run(&["serve", "--name", "a"]).expect(1);
    assert!(busy.stderr.contains(&place.addrs[0]) && busy.stderr.contains("in use"), "{busy:#?}");
    let busy = place.run(&["up"]).expect(1);
    assert!(busy.stderr.contains("server a ended") && busy.stderr.contains("in use"), "{busy:#?}");
    assert_eq!(place.left_behind(), Vec::<std::path::PathBuf>::new(), "a failed start leaves nothing behind");
}

#[test]
fn without_a_cluster_every_command_says_so() {
    let place = Place::new(3);
    for args in [&["get", "k"][..], &["set", "k", "v"], &["del", "k"], &["ls"], &["shell"]] {
        let alone = place.run(args).expect(1);
        assert!(alone.stderr.contains("star up"), "{args:?}: {alone:#?}");
    }
    let json = place.run(&["get", "k", "--json"]).expect(1).json();
    assert_eq!((&json["status"], &json["retry"]), (&"ERROR".into(), &false.into()));
    let status = place.run(&["status", "--json"]).expect(1).json();
    assert!(status["servers"].as_array().expect("servers").iter().all(|server| server["state"] == "down"));
    assert_eq!(status["stars"], serde_json::json!([]));
    let bench = place.run(&["bench", "--connect", &place.addrs[0]]).expect(1);
    assert!(bench.stderr.contains("does not serve"), "{bench:#?}");
}

#[test]
fn help_and_completions_come_without_a_cluster() {
    let place = Place::new(1);
    let help = place.run(&["--help"]).expect(0).stdout;
    assert!(help.contains("Examples:") && help.contains("Exit codes:"), "{help}");
    for shell in ["bash", "zsh", "fish"] {
        let script = place.run(&["completions", shell]).expect(0).stdout;
        assert!(script.contains("status") && script.contains("bench"), "{shell}: {script}");
    }
}
