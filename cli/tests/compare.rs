//! `star compare`: the same loads on several systems.

mod support;

use support::Place;

#[test]
fn systems_stand_side_by_side_and_nothing_is_left() {
    let place = Place::new(1);
    let args = ["compare", "--rows", "SET, 1", "--systems", "star,redis", "--seconds", "0.3", "--rounds", "1"];
    let run = place.run(&[&args[..], &["--out", "report", "--json"]].concat()).expect(0);
    let cells = run.json();
    let cells = cells.as_array().expect("cells");
    assert_eq!(cells.len(), 4, "two rows of two systems: {run:#?}");
    for cell in cells {
        let report = &cell["reports"][0];
        assert_eq!(report["errors"], 0, "{cell}");
        assert!(report["write"]["ops"].as_u64() > Some(0) && report["cpu_us_per_op"].as_f64() > Some(0.0), "{cell}");
    }
    let table = std::fs::read_to_string(place.path().join("report/table.md")).expect("a table");
    assert!(table.contains("| SET, 16 clients |"), "{table}");
    let plot = std::fs::read_to_string(place.path().join("report/throughput.svg")).expect("a plot");
    assert_eq!((plot.matches("<rect").count(), plot.matches("</svg>").count()), (1 + 2 + 4, 1), "{plot}");
    let left = place.left_behind();
    assert!(left.iter().all(|path| path.starts_with(place.path().join("report"))), "{left:?}");
}

#[test]
fn what_is_not_there_is_left_out_and_what_makes_no_sense_is_refused() {
    let place = Place::new(1);
    let unknown = place.run(&["compare", "--rows", "FLY"]).expect(2);
    assert!(unknown.stderr.contains("SET, 1 client"), "{unknown:#?}");
    let nowhere = support::star(place.path(), &["compare", "--systems", "nats", "--rows", "SET, 1 client"])
        .env("PATH", place.path())
        .output()
        .expect("the program runs");
    let nowhere = support::Run::of(&nowhere).expect(0);
    assert!(nowhere.stderr.contains("nats is left out: cannot start nats-server"), "{nowhere:#?}");
}
