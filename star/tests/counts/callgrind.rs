//! Runs this program again under valgrind, which counts the instructions of one function and of what it calls.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

/// Instructions, by the function that they were counted in, with all that it called.
pub(crate) type Counts = BTreeMap<String, u64>;

/// Whether valgrind is here, and can run a program.
pub(crate) fn is_there() -> bool {
    let tried = Command::new("valgrind").args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "true"]).output();
    tried.is_ok_and(|output| output.status.success())
}

/// Has valgrind run the ignored test `test` of this program, and counts while `function` runs: in it as a whole, under its
/// own name, and in each of `parts`, functions that it calls at any depth.
pub(crate) fn count(test: &str, function: &str, parts: &[&str]) -> Counts {
    let folder = tempfile::tempdir().expect("a folder for what valgrind writes");
    let out = folder.path().join("callgrind.out");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--read-inline-info=no"])
        .arg(format!("--toggle-collect=*::{function}"))
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe().expect("this program has a path"))
        .args(["--exact", test, "--ignored", "--test-threads=1"])
        .output()
        .expect("valgrind can be started");
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
    let counts = read(&out, function, parts);
    assert_eq!(counts.len(), parts.len() + 1, "no instruction of some function was counted: {counts:?}");
    counts
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Reads callgrind's own format: each call stands as the caller's `fn=`, the callee's `cfn=`, `calls=`, and on the next line
/// what all of these calls cost. A name is written out once, as `(number) name`, and then named by its number.
fn read(out: &Path, function: &str, parts: &[&str]) -> Counts {
    let written = std::fs::read_to_string(out).expect("valgrind has written what it counted");
    let wanted: BTreeSet<&str> = parts.iter().copied().collect();
    let mut names: BTreeMap<&str, &str> = BTreeMap::new();
    let (mut callee, mut is_cost) = ("", false);
    let mut counts = Counts::new();
    for line in written.lines() {
        if let Some(named) = line.strip_prefix("cfn=").or_else(|| line.strip_prefix("fn=")) {
            let (number, name) = named.split_once(' ').unwrap_or((named, ""));
            if !name.is_empty() {
                names.insert(number, name.rsplit("::").next().unwrap_or(name));
            }
            if line.starts_with('c') {
                callee = names.get(number).copied().unwrap_or("");
            }
        } else if line.starts_with("calls=") {
            is_cost = true;
        } else if std::mem::take(&mut is_cost) {
            let cost = line.split_whitespace().nth(1).and_then(|cost| cost.parse().ok()).unwrap_or(0);
            if wanted.contains(callee) {
                *counts.entry(callee.to_owned()).or_default() += cost;
            }
        } else if let Some(total) = line.strip_prefix("totals: ") {
            counts.insert(function.to_owned(), total.trim().parse().expect("one number"));
        }
    }
    counts.retain(|_, count| *count > 0);
    counts
}
