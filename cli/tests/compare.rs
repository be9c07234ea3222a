//! `star compare`: the same loads on several systems.

mod support;

use std::process::Stdio;

use rustix::process::Signal;
use support::Place;

fn compare(place: &Place, more: &[&str]) -> support::Run {
    place
        .run(&[&["compare", "--seconds", "0.3", "--rounds", "1", "--out", "report", "--json"], more].concat())
        .expect(0)
}

fn report(place: &Place, name: &str) -> String {
    std::fs::read_to_string(place.path().join("report").join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn systems_stand_side_by_side_and_nothing_is_left() {
    let place = Place::new(1);
    let run = compare(&place, &["--rows", "SET, 1", "--systems", "star,redis"]);
    let cells = run.json();
    let cells = cells.as_array().expect("cells");
    assert_eq!(cells.len(), 4, "two rows of two systems: {run:#?}");
    for cell in cells {
        let report = &cell["reports"][0];
        assert_eq!((&report["errors"], &cell["servers"]), (&0.into(), &3.into()), "{cell}");
        for counted in ["cpu_us_per_op", "messages_per_op", "bytes_per_op"] {
            assert!(report[counted].as_f64() > Some(0.0), "{counted}: {cell}");
        }
        // At the least the value goes to two other servers, and comes from the client.
        assert!(report["bytes_per_op"].as_f64() > Some(300.0), "{cell}");
    }
    let table = report(&place, "table.md");
    assert_eq!(table.matches("| SET, 16 clients |").count(), 2, "how fast, and what it takes: {table}");
    let plot = report(&place, "throughput.svg");
    assert!(plot.contains("SET, 16 clients") && plot.contains("redis") && plot.ends_with("</svg>\n"), "{plot}");
    let left = place.left_behind();
    assert!(left.iter().all(|path| path.starts_with(place.path().join("report"))), "{left:?}");
    assert!(!place.path().join("report/by_servers.svg").exists(), "one number of servers makes no line");
}

#[test]
fn numbers_of_servers_shares_of_writes_and_fixed_rates_are_drawn() {
    let place = Place::new(1);
    let cells = compare(&place, &["--systems", "star", "--servers", "3,1"]).json();
    let servers: Vec<_> = cells.as_array().expect("cells").iter().map(|cell| cell["servers"].clone()).collect();
    assert_eq!((&servers[0], servers.last()), (&1.into(), Some(&3.into())), "in order: {servers:?}");
    let at_a_rate = |cell: &&serde_json::Value| cell["row"] == "SET, 2,000 a second";
    let rated = cells.as_array().expect("cells").iter().find(at_a_rate).expect("a row at a fixed rate");
    assert_eq!(rated["reports"][0]["open_loop"]["wanted_per_s"], 2000.0, "{rated}");
    for (plot, says) in [
        ("by_servers.svg", "GET, 256 under way on 16 connections"),
        ("by_write_share.svg", "writes, in per cent"),
        ("by_percentile.svg", "per cent that took no longer"),
        ("throughput_1.svg", "operations per second, 1 server"),
        ("throughput_3.svg", "operations per second, 3 servers"),
    ] {
        let svg = report(&place, plot);
        assert!(svg.contains(says) && svg.contains("<poly") | svg.contains("<rect"), "{plot}: {svg}");
    }
    assert!(report(&place, "by_servers.svg").contains("<polyline"), "a line");
}

#[test]
fn what_was_measured_by_then_is_kept_when_it_is_interrupted() {
    let place = Place::new(1);
    let report = place.path().join("report/table.md");
    let args = ["--seconds", "0.2", "--rounds", "99", "--servers", "1", "--systems", "star", "--rows", "SET, 1"];
    let compare = support::star(place.path(), &[&["compare", "--out", "report"], &args[..]].concat())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    support::wait_until("figures of the first round", || report.exists());
    support::signal(compare.id(), Signal::INT);
    let run = support::Run::of(&compare.wait_with_output().expect("it ends")).expect(130);
    assert!(run.stdout.contains("SET, 16 clients"), "{run:#?}");
    let table = std::fs::read_to_string(&report).expect("a table");
    assert!(table.contains("medians of what was measured until it was ended"), "{table}");
    let left = place.left_behind();
    assert!(left.iter().all(|path| path.starts_with(place.path().join("report"))), "{left:?}");
}

#[test]
fn what_is_not_there_is_left_out_and_what_makes_no_sense_is_refused() {
    let place = Place::new(1);
    let unknown = place.run(&["compare", "--rows", "FLY"]).expect(2);
    assert!(unknown.stderr.contains("SET, 1 client"), "{unknown:#?}");
    std::fs::write(place.path().join("file"), "").expect("a file");
    let no_directory = place.run(&["compare", "--out", "file/report"]).expect(1);
    assert!(no_directory.stderr.contains("cannot make file/report"), "{no_directory:#?}");
    let nowhere = support::star(place.path(), &["compare", "--systems", "nats", "--rows", "SET, 1 client"])
        .env("PATH", place.path())
        .output()
        .expect("the program runs");
    let nowhere = support::Run::of(&nowhere).expect(0);
    assert!(nowhere.stderr.contains("nats is left out: cannot start nats-server"), "{nowhere:#?}");
}
