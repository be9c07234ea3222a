//! Planted histories: each must be refused by both checkers, and its sound twin accepted; and long ones in good time.

use std::borrow::Cow;

use star_core::ids::Version;
use star_sim::{
    history::{History, Op, Record},
    linearizable::{Verdict, check, versions, wgl},
    random::Random,
};

/// Each line: client, operation, value, version, `if_version`, call, ret (`-` for none; `!` before op: not ok).
fn history(lines: &[&str]) -> History {
    let mut history = History::new();
    for line in lines {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |word: &str| (word != "-").then(|| word.parse::<u64>().expect("a number"));
        let op = match words[1].trim_start_matches('!') {
            "r" => Op::Read,
            "w" => Op::Write,
            "cas" => Op::CompareAndSet,
            "del" => Op::Delete,
            other => panic!("unknown operation {other}"),
        };
        let record = Record {
            client: number(words[0]).expect("a client") as u32,
            op,
            key: Cow::Borrowed("k"),
            value: (words[2] != "-").then_some(Cow::Borrowed(words[2])),
            version: number(words[3]).map(Version),
            if_version: number(words[4]).map(Version),
            call: number(words[5]).expect("a call"),
            ret: number(words[6]),
            ok: !words[1].starts_with('!') && words[6] != "-",
        };
        history.push(&record).unwrap_or_else(|why| panic!("{line}: {why}"));
    }
    history
}

fn refused(name: &str, lines: &[&str]) {
    let history = history(lines);
    let (by_versions, by_search) = (versions::check(&history), wgl::check(&history, wgl::STATES_MAX));
    assert!(by_versions.is_violation(), "{name}: versions say {by_versions:?}");
    assert!(by_search.is_violation(), "{name}: the search says {by_search:?}");
    assert!(check(&history, wgl::STATES_MAX).verdict.is_violation(), "{name}");
}

fn accepted(name: &str, lines: &[&str]) {
    let history = history(lines);
    let by_search = wgl::check(&history, wgl::STATES_MAX);
    assert!(by_search.is_linearizable(), "{name}: the search says {by_search:?}");
    assert!(!versions::check(&history).is_violation(), "{name}");
    assert!(check(&history, wgl::STATES_MAX).verdict.is_linearizable(), "{name}");
}

#[test]
fn a_stale_read_is_refused() {
    let writes = ["0 w a 1 - 0 10", "0 w b 2 - 20 30"];
    refused("the value before", &[writes[0], writes[1], "1 r a 1 - 40 50"]);
    accepted("overlapping", &[writes[0], writes[1], "1 r a 1 - 25 50"]);
    refused("new, then old", &["0 w a 1 - 0 10", "0 w b 2 - 20 90", "1 r b 2 - 30 40", "2 r a 1 - 50 60"]);
    accepted("old, then new", &["0 w a 1 - 0 10", "0 w b 2 - 20 90", "1 r a 1 - 30 40", "2 r b 2 - 50 60"]);
}

#[test]
fn a_lost_write_is_refused() {
    refused("nothing after a write", &["0 w a 1 - 0 10", "1 r - - - 20 30"]);
    accepted("nothing while writing", &["0 w a 1 - 0 25", "1 r - - - 20 30"]);
    accepted("nothing after a delete", &["0 w a 1 - 0 10", "0 del - 2 - 12 14", "1 r - - - 20 30"]);
    refused("back after a delete", &["0 w a 1 - 0 10", "0 del - 2 - 12 14", "1 r a 1 - 20 30"]);
}

#[test]
fn a_write_done_twice_is_refused() {
    refused("another version", &["0 w a 1 - 0 10", "1 w b 2 - 20 30", "2 r a 3 - 40 50"]);
    refused("one version twice", &["0 w a 1 - 0 10", "1 w b 1 - 0 10"]);
    refused("a version that falls", &["0 w a 2 - 0 10", "1 w b 1 - 20 30"]);
    refused("a value nobody wrote", &["0 w a 1 - 0 10", "1 r b 1 - 20 30"]);
}

#[test]
fn a_condition_that_did_not_hold_is_refused() {
    let start = "0 w a 1 - 0 10";
    refused("two from one version", &[start, "1 cas b 2 1 20 30", "2 cas c 3 1 20 30"]);
    accepted("one of two", &[start, "1 cas b 2 1 20 30", "2 !cas c 2 1 20 30"]);
    refused("a conflict with what was wanted", &[start, "1 !cas b 1 1 20 30"]);
    refused("created over an object", &[start, "1 cas b 2 0 20 30"]);
    refused("deleted twice", &[start, "1 del - 2 - 20 30", "2 del - 3 - 40 50"]);
    accepted("deleted once", &[start, "1 del - 2 - 20 30", "2 del - - - 40 50"]);
}

#[test]
fn an_unknown_outcome_explains_what_it_can_and_no_more() {
    let unknown = "0 w a - - 20 -";
    accepted("seen later", &[unknown, "1 r a 1 - 50 60"]);
    accepted("never seen", &[unknown, "1 r - - - 50 60"]);
    refused("seen before it was called", &["1 r a 1 - 0 10", unknown]);
    refused("seen and gone", &[unknown, "1 r a 1 - 50 60", "1 r - - - 70 80"]);
    refused("seen as two versions", &[unknown, "1 r a 1 - 50 60", "1 r a 2 - 70 80"]);
    let delete = "0 del - - - 20 -";
    accepted("gone by an unknown delete", &["1 w a 1 - 0 10", delete, "1 r - - - 50 60"]);
    // Versions alone cannot place a delete that left none; the search can.
    let gone_and_back = history(&["1 w a 1 - 0 10", delete, "1 r - - - 50 60", "1 r a 1 - 70 80"]);
    assert!(matches!(versions::check(&gone_and_back), Verdict::Undecided { .. }));
    let report = check(&gone_and_back, wgl::STATES_MAX);
    assert!(report.verdict.is_violation() && report.searched == 1, "{report:?}");
}

#[test]
fn a_violation_names_the_key_and_shows_the_operations() {
    let history = history(&["0 w a 1 - 0 10", "0 w b 2 - 20 30", "1 r a 1 - 40 50"]);
    for verdict in [versions::check(&history), wgl::check(&history, wgl::STATES_MAX)] {
        let Verdict::Violation(violation) = verdict else { panic!("a violation") };
        let text = violation.to_string();
        assert!(text.contains("key \"k\"") && text.contains("r \"a\" -> version 1  [40 .. 50] ns"), "{text}");
        assert!(violation.operations.contains(&2), "{violation:?}");
    }
}

#[test]
fn the_search_gives_up_when_told() {
    let history = history(&["0 w a 1 - 0 10", "1 w b 2 - 0 10", "2 r b 2 - 0 10"]);
    assert!(matches!(wgl::check(&history, 1), Verdict::Undecided { .. }));
}

/// A linearizable history of `count` operations by 64 clients that overlap.
fn long_history(count: u64, keys: u64) -> History {
    let mut random = Random::new(count);
    let mut history = History::new();
    let mut objects: Vec<(u64, String)> = vec![(0, String::new()); keys as usize];
    for number in 0..count {
        let point = (number + 1) * 100;
        let key = random.below(keys);
        let object = &mut objects[key as usize];
        let write = object.0 == 0 || random.chance(300_000);
        if write {
            *object = (object.0 + 1, format!("v{number}"));
        }
        let record = Record {
            client: (number % 64) as u32,
            op: if write { Op::Write } else { Op::Read },
            key: Cow::Owned(format!("k{key}")),
            value: Some(Cow::Owned(object.1.clone())),
            version: Some(Version(object.0)),
            if_version: None,
            call: point - random.below(point.min(3_000)),
            ret: Some(point + random.below(3_000)),
            ok: true,
        };
        history.push(&record).expect("a good record");
    }
    history
}

/// The same history, and one more read that is stale for sure.
fn with_stale_read(mut history: History) -> History {
    let first = history.record(0).clone();
    let end = u64::MAX - 10;
    let (key, value) = (first.key.into_owned(), first.value.map(Cow::into_owned));
    let record = Record {
        client: 99,
        op: Op::Read,
        key: Cow::Owned(key),
        value: value.map(Cow::Owned),
        version: first.version,
        if_version: None,
        call: end,
        ret: Some(end + 1),
        ok: true,
    };
    history.push(&record).expect("a good record");
    history
}

#[test]
fn versions_judge_a_million_operations() {
    let history = long_history(1_000_000, 1_000);
    assert_eq!(versions::check(&history), Verdict::Linearizable);
    assert!(versions::check(&with_stale_read(history)).is_violation());
}

#[test]
fn the_search_judges_fifty_thousand_operations_of_one_key() {
    let history = long_history(50_000, 1);
    assert_eq!(wgl::check(&history, wgl::STATES_MAX), Verdict::Linearizable);
    assert!(wgl::check(&with_stale_read(history), wgl::STATES_MAX).is_violation());
}
