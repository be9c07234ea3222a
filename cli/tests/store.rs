//! `star store`: what is in a store's file, whoever runs.

mod support;

use std::{fs, path::Path};

use star_core::{
    Incarnation, Key, Version,
    config::GroupAccess,
    store::{Encoding, Store},
};
use star_objstore::{MappedStore, Options};
use support::run;

fn store(path: &Path) -> MappedStore {
    let mut store = MappedStore::create(&Options {
        path: path.to_path_buf(),
        capacity_bytes: 1 << 20,
        entries_max: Some(1000),
        stars: 8,
        cluster: "looked-at".into(),
        incarnation: Incarnation(5),
        group: GroupAccess::None,
        huge_pages: false,
    })
    .expect("a store");
    for (i, (name, encoding, bytes)) in [
        ("text", Encoding::Raw, &b"a value"[..]),
        ("json", Encoding::Json, b"[1.50]"),
        ("bytes", Encoding::Raw, b"\xff\xfe"),
    ]
    .into_iter()
    .enumerate()
    {
        let key = Key::new(name);
        let place = store.place(&key, encoding, bytes.len()).expect("room");
        store.fill(place, 0, bytes);
        store.publish(&key, place, Version(i as u64 + 1), false);
    }
    store
}

#[test]
fn a_store_in_use_and_one_that_was_left_are_shown() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("stores/looked-at/a");
    let open = store(&path);
    let (set_directory, set_cluster) = ("--set=store.directory=stores", "--set=cluster.name=looked-at");
    let stat = ["store", "stat", set_directory, set_cluster];
    let text = run(directory.path(), &stat).expect(0).stdout;
    for part in ["cluster looked-at", &format!("process {}, which runs", std::process::id()), "objects 3 of 1,000"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let shown = run(directory.path(), &[&stat[..], &["--json"]].concat()).expect(0).json();
    assert_eq!((&shown["objects"], &shown["in_use"], &shown["has_lease"]), (&3.into(), &true.into(), &false.into()));
    assert_eq!((&shown["incarnation"], &shown["value_bytes"]), (&5.into(), &15.into()));
    drop(open);
    let text = run(directory.path(), &stat).expect(0).stdout;
    assert!(text.contains("stopped in good order"), "{text}");
}

#[test]
fn a_dump_shows_objects_as_get_does() {
    let directory = tempfile::tempdir().expect("a directory");
    drop(store(&directory.path().join("a")));
    let mut lines: Vec<String> =
        run(directory.path(), &["store", "dump", "a"]).expect(0).stdout.lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["1\t7\ttext", "2\t6\tjson", "3\t2\tbytes"]);
    let json = run(directory.path(), &["store", "dump", "a", "--json"]).expect(0).stdout;
    for line in [
        r#"{"status":"OK","key":"text","value":"a value","version":1}"#,
        r#"{"status":"OK","key":"json","value":[1.50],"version":2}"#,
        r#"{"status":"OK","key":"bytes","value_b64":"//4=","version":3}"#,
    ] {
        assert!(json.lines().any(|found| found == line), "{line}: {json}");
    }
    let some = run(directory.path(), &["store", "dump", "a", "--prefix", "te"]).expect(0);
    assert_eq!(some.stdout, "1\t7\ttext\n");
}

#[test]
fn damage_is_named_and_other_files_are_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("a");
    drop(store(&path));
    let sound = run(directory.path(), &["store", "verify", "a"]).expect(0);
    assert!(sound.stdout.contains("3 objects whole, 0 damaged places"), "{sound:#?}");

    let bytes = fs::read(&path).expect("the file");
    let at = bytes.windows(7).position(|part| part == b"a value").expect("the value");
    let mut bad = bytes.clone();
    bad[at] ^= 1;
    fs::write(&path, &bad).expect("written");
    let damaged = run(directory.path(), &["store", "verify", "a"]).expect(1);
    assert!(damaged.stdout.contains("2 objects whole, 1 damaged places"), "{damaged:#?}");
    assert!(damaged.stdout.contains("an object that does not match its checksum"), "{damaged:#?}");
    let json = run(directory.path(), &["store", "verify", "a", "--json"]).expect(1).json();
    assert_eq!(json["damage"][0]["what"], "an object that does not match its checksum");

    let mut newer = bytes.clone();
    newer[8] = 9;
    for (name, contents, wanted) in [
        ("foreign", &vec![b'x'; 9000][..], "is not an object store file"),
        ("cut", &bytes[..bytes.len() / 2], "is cut short"),
        ("newer", &newer, "has format 9"),
    ] {
        fs::write(directory.path().join(name), contents).expect("written");
        for verb in ["stat", "verify", "dump"] {
            let refused = run(directory.path(), &["store", verb, name]).expect(1);
            assert!(refused.stderr.contains(wanted) && refused.stdout.is_empty(), "{name}: {refused:#?}");
        }
    }
    // One that is refused keeps nobody from seeing the others.
    let both = run(directory.path(), &["store", "stat", "foreign", "a"]).expect(1);
    assert!(both.stdout.contains("objects 3"), "{both:#?}");
    let none = run(directory.path(), &["store", "stat", "--set=store.directory=nowhere"]).expect(1);
    assert!(none.stderr.contains("there is no store in nowhere/"), "{none:#?}");
}
