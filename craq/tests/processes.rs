//! The three processes as people start them.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
};

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a process that says where it listens.
fn start(args: &[&str]) -> (Running, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_craq"))
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
    let (_, addr) = line.trim().rsplit_once(' ').unwrap_or_else(|| panic!("where it listens, not {line:?}"));
    let port = addr.rsplit_once(':').expect("a port").1.to_owned();
    (Running(child), port)
}

/// What a client says to some lines.
fn shell(coordinator: &str, read: &str, lines: &str) -> Vec<String> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_craq"))
        .args(["client", "--coordinator", coordinator, "--read", read])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    child.stdin.take().expect("piped").write_all(lines.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    String::from_utf8(output.stdout).expect("text").lines().map(str::to_owned).collect()
}

#[test]
fn a_coordinator_two_nodes_and_a_client() {
    let directory = tempfile::tempdir().expect("a directory");
    let stores = directory.path().to_str().expect("a path");
    let (_coordinator, coordinator) = start(&["coordinator", "--port", "0", "--directory", stores]);
    let node = ["node", "--port", "0", "--coordinator", coordinator.as_str(), "--directory", stores];
    let (_first, first) = start(&node);
    // Each try of the shell is patient by itself; the first node heads the chain because it was alone when it began.
    let mut answers = Vec::new();
    for _ in 0..20 {
        answers = shell(&coordinator, &first, "write greeting hello\nread greeting\n");
        if answers.len() == 2 && answers[1].starts_with("hello (version ") {
            break;
        }
    }
    assert!(answers[0].starts_with("version "), "{answers:?}");
    let (_second, second) = start(&node);
    for _ in 0..20 {
        answers = shell(&coordinator, &second, "read greeting\nchain\ncas greeting 0 other\nlist g\nnonsense\n");
        if answers.iter().any(|line| line.ends_with(" tail")) {
            break;
        }
    }
    assert!(answers[0].starts_with("hello (version "), "{answers:?}");
    assert_eq!(&answers[1..3], [format!("127.0.0.1:{first} head"), format!("127.0.0.1:{second} tail")]);
    assert!(answers[3].starts_with("not done: the key has version "), "{answers:?}");
    assert_eq!(answers[4], "greeting");
    assert!(answers[5].starts_with("error: \"nonsense\" is nothing"), "{answers:?}");
}
