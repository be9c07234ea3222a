//! A client in another language, with no library: it needs a length, a socket and JSON.

mod support;

use std::{path::Path, process::Command};

use support::Place;

#[test]
fn a_few_lines_of_python_are_a_client() {
    let place = Place::new(3);
    place.succeed(&["start", "objstore"]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wire_client.py");
    let ports = place.ports.iter().map(u16::to_string);
    let run = Command::new("python3").arg(script).args(ports).output().expect("python3 is installed");
    let (out, errors) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{out}{errors}");
    assert_eq!(out, "all as it should be\n");
}
