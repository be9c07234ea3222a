//! Instructions and bytes that an operation costs, without sockets, beside what is recorded in `counts.toml`: so a change
//! that makes the hot path longer shows without a clock, on any machine.
//!
//! `STAR_RECORD_COUNTS=1 cargo test --workspace --test counts` records anew. The numbers are those of the test profile; the
//! compiler's own progress moves them too, which is what the margin is for.

#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

mod callgrind;
mod cluster;
mod load;

use std::{collections::BTreeMap, fmt::Write, path::PathBuf};

use load::{MANY, OPERATIONS};

/// By how much a count may be above the recorded one, in percent.
const MARGIN_PERCENT: u64 = 25;

/// What is counted: the name in the file, the function of the load, and whether each server is counted by itself.
const COUNTED: [(&str, &str, bool); 5] = [
    ("set_one", "sets_one_at_a_time", true),
    ("set_many", "sets_many_at_a_time", true),
    ("get_many", "gets_many_at_a_time", false),
    ("get_mapped", "mapped_reads", false),
    ("set_json", "json_requests", false),
];

const SERVERS: [(&str, &str); 3] = [("origin", "origin_turn"), ("leader", "leader_turn"), ("member", "member_turn")];

/// By operation: the whole of it, or each server's part.
type Table = BTreeMap<String, BTreeMap<String, u64>>;

#[test]
#[ignore = "the load: run by the tests below, under valgrind"]
fn load() {
    load::run();
}

#[test]
fn no_operation_takes_more_instructions_than_recorded() {
    if !callgrind::is_there() {
        eprintln!("SKIPPED: valgrind is not installed, or runs nothing here; `make test` installs it");
        return;
    }
    let mut table = Table::new();
    for (name, function, by_server) in COUNTED {
        let parts: Vec<&str> = if by_server { SERVERS.iter().map(|(_, turn)| *turn).collect() } else { Vec::new() };
        let counts = callgrind::count("load", function, &parts);
        let each = |function: &str| counts[function] / OPERATIONS;
        let row = if by_server {
            SERVERS.iter().map(|(server, turn)| ((*server).to_owned(), each(turn))).collect()
        } else {
            BTreeMap::from([("all".to_owned(), each(function))])
        };
        table.insert(name.to_owned(), row);
    }
    compare("instructions", &table);
}

#[test]
fn no_write_takes_more_bytes_than_recorded() {
    let mut table = Table::new();
    for (name, sent) in ["set_one", "set_many"].into_iter().zip(load::run()) {
        let each = sent.map(|bytes| (bytes as u64).div_ceil(OPERATIONS));
        table.insert(name.to_owned(), SERVERS.iter().map(|(server, _)| (*server).to_owned()).zip(each).collect());
    }
    compare("bytes", &table);
}

/// Fails where a count is above the recorded one and the margin, and says how to record; or records.
fn compare(what: &str, counted: &Table) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/counts").join(format!("{what}.toml"));
    if std::env::var_os("STAR_RECORD_COUNTS").is_some() {
        std::fs::write(&path, written(what, counted)).expect("the folder of this test can be written to");
    }
    let recorded = std::fs::read_to_string(&path).expect("what was recorded is part of the repository");
    let recorded: Table = toml::from_str(&recorded).expect("names with numbers");
    let mut over = String::new();
    for (operation, row) in counted {
        for (part, count) in row {
            let before = recorded.get(operation).and_then(|row| row.get(part)).copied().unwrap_or(0);
            println!("{operation} {part}: {count} {what}, {before} recorded");
            if count * 100 > before * (100 + MARGIN_PERCENT) {
                let _ = writeln!(over, "  {operation} {part}: {count}, {before} recorded");
            }
        }
    }
    assert!(
        over.is_empty(),
        "an operation takes over {MARGIN_PERCENT} % more {what} than recorded in {}:\n{over}\
         find out why (DESIGN/cost.md says how to look); where the new cost is meant, record it:\n  \
         STAR_RECORD_COUNTS=1 cargo test --workspace --test counts",
        path.display()
    );
}

fn written(what: &str, counted: &Table) -> String {
    let mut text = format!(
        "# The {what} that an operation costs each server, in the test profile; {MANY} requests under way where it says\n\
         # many. Recorded by STAR_RECORD_COUNTS=1 cargo test --workspace --test counts\n"
    );
    for (operation, row) in counted {
        let _ = write!(text, "\n[{operation}]\n");
        for (part, count) in row {
            let _ = writeln!(text, "{part} = {count}");
        }
    }
    text
}
