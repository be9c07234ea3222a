//! Values of all lengths at which reads take another way, and those at the end of the file.

use star_core::{
    Incarnation, Key, StarId, Time, Version,
    config::GroupAccess,
    store::{Encoding, NoSpace, Store},
};
use star_objstore::{Answer, MappedStore, Options, Reader, SHORT_BYTES};

const CAPACITY_BYTES: u64 = 1 << 20;

fn store(directory: &std::path::Path) -> (MappedStore, Reader) {
    let path = directory.join("store");
    let mut store = MappedStore::create(&Options {
        path: path.clone(),
        capacity_bytes: CAPACITY_BYTES,
        entries_max: None,
        stars: 1,
        cluster: "c".into(),
        incarnation: Incarnation(1),
        group: GroupAccess::None,
        huge_pages: false,
    })
    .expect("a store");
    store.set_serving(StarId(0), true);
    store.set_lease(Time(u64::MAX));
    (store, Reader::open(path).expect("a reader"))
}

fn put(store: &mut MappedStore, key: &Key, encoding: Encoding, value: &[u8], version: u64) -> Result<(), NoSpace> {
    let place = store.place(key, encoding, value.len())?;
    store.fill(place, 0, value);
    store.mark_dirty(key)?;
    store.publish(key, place, Version(version), false);
    Ok(())
}

/// Reads a key in all ways, and says whether the shortest of them answered.
fn reads(reader: &Reader, key: &Key, wanted: (&[u8], Encoding, u64)) -> bool {
    let (value, encoding, version) = wanted;
    let (length, version) = (value.len(), Version(version));
    let mut buffer = vec![1; 7];
    assert_eq!(reader.get(key, &mut buffer), Answer::Found { version, encoding }, "{length} bytes");
    assert_eq!(buffer, value, "{length} bytes");
    let found = reader.get_ref(key).expect("an answer").expect("an object");
    assert_eq!((&*found, found.version(), found.encoding()), (value, version, encoding), "{length} bytes");
    let mut short = [1; SHORT_BYTES];
    let seen = reader.try_get(key, |found| {
        assert_eq!(found.bytes(), length);
        found.copy_short(&mut short).then_some(())
    });
    if let Some(((), seen_version, seen_encoding)) = seen {
        assert!(length <= SHORT_BYTES, "{length} bytes are not short");
        assert_eq!((&short[..length], seen_version, seen_encoding), (value, version, encoding));
    }
    seen.is_some()
}

#[test]
fn values_of_any_length_come_back_whole() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut store, reader) = store(directory.path());
    for (at, length) in
        [0, 1, 7, 8, 15, 16, 17, 48, 100, 111, 112, 113, 128, 4095, 4096, 4097, 70_000].into_iter().enumerate()
    {
        let key = Key::new(format!("key-of-{length}"));
        let value: Vec<u8> = (0..length).map(|i| (i * 7 + length) as u8).collect();
        let encoding = if at % 2 == 0 { Encoding::Raw } else { Encoding::Json };
        put(&mut store, &key, encoding, &value, at as u64 + 1).expect("room");
        // The first read in place is never the short one: this thread has no pin yet.
        let _ = reader.get_ref(&key);
        assert_eq!(reads(&reader, &key, (&value, encoding, at as u64 + 1)), length <= SHORT_BYTES, "{length} bytes");
    }
}

#[test]
fn the_last_object_of_a_full_store_is_read_too() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut store, reader) = store(directory.path());
    let value = [9; 5];
    let mut keys = Vec::new();
    loop {
        let key = Key::new(format!("{}", keys.len()));
        if put(&mut store, &key, Encoding::Raw, &value, 1).is_err() {
            break;
        }
        keys.push(key);
    }
    assert!(keys.len() > 1000, "{}", keys.len());
    let short = keys.iter().filter(|key| reads(&reader, key, (&value, Encoding::Raw, 1))).count();
    assert!(short > keys.len() * 9 / 10, "{short} of {} at once", keys.len());
}
