//! Large files that are written in place, and `star watch`.

mod support;

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

use serde_json::{Value, json};
use support::{Place, Running, star};

#[test]
fn changes_are_printed_and_large_files_stored_in_place() {
    let place = Place::new(3);
    let _servers = Running::serve(&place);
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    std::fs::write(place.path().join("large.bin"), &bytes).expect("a file");

    let args = ["watch", "a/", "--count", "3", "--json"];
    let mut watcher =
        star(place.path(), &args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program runs");
    let mut notes = BufReader::new(watcher.stderr.take().expect("a pipe")).lines();
    assert_eq!(notes.next().expect("a line").expect("text"), "watching");

    place.run(&["set", "b/other", "not told"]).expect(0);
    assert_eq!(place.run(&["set", "a/large", "@large.bin"]).expect(0).stdout, "version 1\n");
    place.run(&["set", "a/large", "@large.bin", "--if-absent"]).expect(4);
    assert_eq!(place.run(&["set", "a/large", "small"]).expect(0).stdout, "version 2\n");
    place.run(&["del", "a/large"]).expect(0);
    let output = watcher.wait_with_output().expect("it ends after three changes");
    assert_eq!(output.status.code(), Some(0));
    let told: Vec<Value> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line of JSON"))
        .collect();
    let wanted = json!([
        {"key": "a/large", "version": 1, "size": 3_000_000},
        {"key": "a/large", "version": 2, "size": 5},
        {"key": "a/large", "version": 2, "deleted": true},
    ]);
    assert_eq!(json!(told), wanted);

    let shell = support::run_with_input(place.path(), &["shell"], b"set a/again @large.bin\n");
    assert_eq!(shell.expect(0).stdout, "version 1\n");
    for addr in &place.addrs {
        let args = ["get", "a/again", "--output", "out.bin", "--connect", addr, "--transport", "tcp"];
        place.run(&args).expect(0);
        assert!(std::fs::read(place.path().join("out.bin")).expect("the file") == bytes, "at {addr}");
    }
}
