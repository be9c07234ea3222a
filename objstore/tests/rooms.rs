//! Values that producers write in place: what becomes of them, and of producers that end before they have said so.

mod common;

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use common::{allow, mix, options, set};
use star_core::{
    Clock, Incarnation, Key, Version,
    message::{Capacity, RoomPlace},
    store::{Encoding, Place, Store},
};
use star_objstore::{Answer, Claim, MappedStore, Options, ROOM_BYTES_MIN, Reader, Room, RoomError};

const CAPACITY_BYTES: u64 = 8 << 20;
const KILLS: u64 = 200;
/// How long what needs no time may take on a machine that has none.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is in a value of this seed.
fn value(seed: u64, bytes: usize) -> Vec<u8> {
    (0..bytes.div_ceil(8) as u64).flat_map(|i| mix(seed ^ i << 20).to_le_bytes()).take(bytes).collect()
}

fn store(path: &Path) -> MappedStore {
    let mut store = MappedStore::create(&options(path, CAPACITY_BYTES)).unwrap();
    allow(&mut store);
    store
}

/// Looks after the rooms until what is used is what is said: a process that was forked meanwhile and has not begun its
/// program holds the locks of this one for a moment.
fn settle(store: &mut MappedStore, wanted: Capacity) {
    let end = Clock.now() + PATIENCE;
    loop {
        store.look_after_rooms();
        // An empty page or two may be kept for small objects.
        let found = Capacity { largest_free_bytes: wanted.largest_free_bytes, ..store.capacity() };
        if found == wanted {
            return;
        }
        assert!(Clock.now() < end, "{found:?} is not {wanted:?}");
    }
}

fn enter(store: &mut MappedStore, path: &Path, key: &Key, bytes: usize) -> (RoomPlace, Room) {
    let claim = Claim::take(path).unwrap();
    assert_eq!(claim.cluster(), "test-cluster");
    let place = store.create_room(key, Encoding::Raw, bytes as u64, claim.lock()).unwrap();
    (place, claim.enter(&place, bytes as u64).unwrap())
}

fn seal(store: &mut MappedStore, key: &Key, room: u64, version: u64) -> Place {
    let sealed = store.seal_room(room).unwrap();
    let place = store.place_value(&sealed.key, sealed.encoding, &sealed.value).unwrap();
    assert_eq!(store.placed(place).as_ptr(), sealed.value.as_ptr(), "it stays where it was written");
    store.mark_dirty(key).unwrap();
    store.publish(key, place, Version(version), false);
    place
}

/// Sets small and large objects until there is no room, and returns what they are.
fn fill_up(store: &mut MappedStore, tag: &str) -> Vec<(Key, Vec<u8>)> {
    let mut all = Vec::new();
    for number in 0.. {
        let key = Key::new(format!("{tag}-{number}"));
        let bytes = value(number, [3000, 17_000, 70_000][number as usize % 3]);
        if !set(store, &key, 1, &bytes) {
            break;
        }
        all.push((key, bytes));
    }
    all
}

fn check_and_remove(store: &mut MappedStore, all: Vec<(Key, Vec<u8>)>) {
    for (key, bytes) in all {
        assert!(store.get(&key).object.unwrap().value == bytes, "{} was damaged", key.as_str());
        store.mark_dirty(&key).unwrap();
        store.remove(&key, false);
    }
}

#[test]
fn what_is_written_in_place_becomes_an_object() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let mut store = store(&path);
    let empty = store.capacity();
    let reader = Reader::open(&path).unwrap();
    let mut read = Vec::new();
    for (number, bytes) in (0_u64..).zip([ROOM_BYTES_MIN as usize, 100_000, 2 << 20, (2 << 20) + 4097]) {
        let key = Key::new(format!("key/{}", "x".repeat(number as usize * 300)));
        let wanted = value(number, bytes);
        let (place, mut room) = enter(&mut store, &path, &key, bytes);
        assert!(room.as_ptr().addr().is_multiple_of(64) && room.len() == bytes);
        room.copy_from_slice(&wanted);
        assert_eq!(reader.get(&key, &mut read), Answer::NotFound, "nobody sees it before it is sealed");
        seal(&mut store, &key, place.room, number + 1);
        drop(room);
        assert!(matches!(reader.get(&key, &mut read), Answer::Found { version, .. } if version.0 == number + 1));
        assert!(read == wanted);
    }
    assert_eq!(store.capacity().objects, 4);
    for number in 0..4 {
        let key = Key::new(format!("key/{}", "x".repeat(number * 300)));
        store.mark_dirty(&key).unwrap();
        store.remove(&key, false);
    }
    settle(&mut store, empty);
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let mut store = store(&path);
    let empty = store.capacity();
    let key = Key::new("key");
    let create = |store: &mut MappedStore, bytes, lock| store.create_room(&key, Encoding::Raw, bytes, lock);
    let small = ROOM_BYTES_MIN - 1;
    assert_eq!(create(&mut store, small, 0), Err(RoomError::Small { value_bytes: small }));
    for lock in [0, 255, 256, u16::MAX] {
        assert_eq!(create(&mut store, ROOM_BYTES_MIN, lock), Err(RoomError::NotLocked { lock }));
    }
    let claim = Claim::take(&path).unwrap();
    let lock = claim.lock();
    for bytes in [CAPACITY_BYTES / 2, CAPACITY_BYTES * 2, u64::from(u32::MAX) + 1, u64::MAX] {
        assert!(matches!(create(&mut store, bytes, lock), Err(RoomError::NoSpace(_))), "{bytes} bytes");
    }
    assert_eq!(store.capacity(), empty);
    let place = create(&mut store, ROOM_BYTES_MIN, lock).unwrap();
    let unknown = place.room + 1;
    assert_eq!(store.seal_room(unknown).unwrap_err(), RoomError::Unknown { room: unknown });
    assert_eq!(store.abort_room(unknown), Err(RoomError::Unknown { room: unknown }));
    for strange in [
        RoomPlace { pages_at: 0, ..place },
        RoomPlace { pages_at: place.pages_at + 1, ..place },
        RoomPlace { pages_bytes: u64::MAX, ..place },
        RoomPlace { pages_bytes: CAPACITY_BYTES * 2, ..place },
        RoomPlace { value_at: place.pages_at - 8, ..place },
        RoomPlace { value_at: u64::MAX, ..place },
        RoomPlace { value_at: place.pages_at + place.pages_bytes, ..place },
    ] {
        assert!(Claim::take(&path).unwrap().enter(&strange, ROOM_BYTES_MIN).is_err(), "{strange:?}");
    }
    let room = claim.enter(&place, ROOM_BYTES_MIN).unwrap();
    assert_eq!(create(&mut store, ROOM_BYTES_MIN, lock), Err(RoomError::LockInUse { lock }));
    seal(&mut store, &key, place.room, 1);
    assert_eq!(store.seal_room(place.room).unwrap_err(), RoomError::Sealed { room: place.room });
    assert_eq!(store.abort_room(place.room), Err(RoomError::Sealed { room: place.room }));
    let (other, other_room) = enter(&mut store, &path, &Key::new("other"), ROOM_BYTES_MIN as usize);
    store.abort_room(other.room).unwrap();
    assert_eq!(store.seal_room(other.room).unwrap_err(), RoomError::Aborted { room: other.room });
    drop((room, other_room));
    store.remove(&key, false);
    settle(&mut store, empty);
    assert_eq!(store.seal_room(place.room).unwrap_err(), RoomError::Unknown { room: place.room });
}

/// Bytes in a room become another key's object by a copy, and a seal that came to nothing leaves the room open.
#[test]
fn only_the_value_of_its_own_key_keeps_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let mut store = store(&path);
    let (place, mut room) = enter(&mut store, &path, &Key::new("key"), 70_000);
    room.fill(7);
    let sealed = store.seal_room(place.room).unwrap();
    let other = Key::new("other");
    let copied = store.place_value(&other, Encoding::Raw, &sealed.value).unwrap();
    let part = store.place_value(&sealed.key, Encoding::Raw, &sealed.value.slice(1..)).unwrap();
    for (place, bytes) in [(copied, 70_000), (part, 69_999)] {
        assert!(store.placed(place) == vec![7; bytes] && store.placed(place).as_ptr() != sealed.value.as_ptr());
        store.discard(place);
    }
    drop(sealed);
    seal(&mut store, &Key::new("key"), place.room, 1);
}

#[test]
fn room_is_not_used_again_while_its_producer_may_write() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let mut store = store(&path);
    let empty = store.capacity();
    for (round, is_sealed) in [false, true].into_iter().enumerate() {
        let key = Key::new("key");
        let (place, mut room) = enter(&mut store, &path, &key, 1_000_001);
        if is_sealed {
            seal(&mut store, &key, place.room, 1);
            store.remove(&key, false);
        } else {
            store.abort_room(place.room).unwrap();
        }
        let others = fill_up(&mut store, "other");
        // A producer that does not know, or does not care.
        room.fill(0xee);
        let before = others.len();
        check_and_remove(&mut store, others);
        assert!(store.capacity().room_bytes >= 1_000_001);
        drop(room);
        settle(&mut store, empty);
        let more = fill_up(&mut store, "more");
        assert!(more.len() > before, "round {round}: the room is used again");
        check_and_remove(&mut store, more);
        settle(&mut store, empty);
    }
}

#[test]
fn a_value_that_is_being_sent_stays_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let mut store = store(&path);
    let empty = store.capacity();
    let key = Key::new("key");
    let (place, mut room) = enter(&mut store, &path, &key, 300_000);
    let wanted = value(5, 300_000);
    room.copy_from_slice(&wanted);
    let sent = store.seal_room(place.room).unwrap().value.slice(100..200_000);
    seal(&mut store, &key, place.room, 1);
    let sent_too = sent.clone();
    drop((room, sent));
    store.remove(&key, false);
    let others = fill_up(&mut store, "other");
    assert!(*sent_too == wanted[100..200_000]);
    check_and_remove(&mut store, others);
    drop(store);
    assert!(*sent_too == wanted[100..200_000], "also after the store was closed");
    drop(sent_too);
    let mut store = MappedStore::open(&options(&path, CAPACITY_BYTES)).unwrap().0;
    settle(&mut store, empty);
}

/// Objects are moved to make room in one piece, but not those that a producer still maps.
#[test]
fn what_a_producer_maps_is_not_moved() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let mut store = store(&path);
    let keys: Vec<Key> = (0..12).map(|number| Key::new(format!("room-{number}"))).collect();
    let mut rooms = Vec::new();
    let others = |number: u64| Key::new(format!("other-{}", mix(number) % 400));
    for (number, key) in (0..).zip(&keys) {
        let (place, room) = enter(&mut store, &path, key, 70_000 + number * 3000);
        rooms.push(room);
        seal(&mut store, key, place.room, 1);
        for turn in 0..8 {
            assert!(set(&mut store, &others(number as u64 * 8 + turn), 1, &value(turn, 20_000)));
        }
    }
    let places = |store: &MappedStore| -> Vec<usize> {
        keys.iter().map(|key| store.get(key).object.unwrap().value.as_ptr().addr()).collect()
    };
    let (before, mut number) = (places(&store), 0);
    while store.moved_bytes() < 16 << 20 {
        number += 1;
        let key = others(number);
        if mix(number) >> 40 & 1 == 1 && store.get(&key).object.is_some() {
            store.mark_dirty(&key).unwrap();
            store.remove(&key, false);
        } else {
            set(&mut store, &key, number, &vec![1; 100 + mix(number + 77) as usize % 150_000]);
        }
        assert!(number < 1_000_000, "nothing is ever moved");
    }
    assert_eq!(places(&store), before);
    drop(rooms);
}

#[test]
fn the_next_life_of_a_server_finds_the_rooms_of_the_last() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let mut first = store(&path);
    let empty = first.capacity();
    let (kept, gone) = (Key::new("kept"), Key::new("gone"));
    let wanted = value(3, 500_001);
    let (_, mut open) = enter(&mut first, &path, &Key::new("open"), 400_001);
    let (place, mut sealed) = enter(&mut first, &path, &kept, 500_001);
    sealed.copy_from_slice(&wanted);
    seal(&mut first, &kept, place.room, 1);
    let (place, mut replaced) = enter(&mut first, &path, &gone, 600_001);
    seal(&mut first, &gone, place.room, 1);
    first.remove(&gone, false);
    let late = Claim::take(&path).unwrap();
    let late_place = first.create_room(&Key::new("late"), Encoding::Raw, 70_000, late.lock()).unwrap();
    drop(first);

    let again = Options { incarnation: Incarnation(2), ..options(&path, CAPACITY_BYTES) };
    let (mut store, recovered) = MappedStore::open(&again).unwrap();
    allow(&mut store);
    assert_eq!((recovered.objects, recovered.torn), (1, 0));
    assert!(late.enter(&late_place, 70_000).is_err(), "room of an earlier life is given to others");
    let rooms = store.capacity().room_bytes;
    assert!((1_500_000..1_540_000).contains(&rooms), "{rooms}");
    let others = fill_up(&mut store, "other");
    // All of its pages, too.
    open.fill(0xee);
    replaced.fill(0xee);
    assert!(store.get(&kept).object.unwrap().value == wanted);
    check_and_remove(&mut store, others);
    drop((open, sealed, replaced));
    store.remove(&kept, false);
    settle(&mut store, empty);
}

/// The lock that a producer let go of is taken by the next one before the server has looked.
#[test]
fn a_lock_goes_from_one_producer_to_the_next() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let mut store = store(&path);
    let key = Key::new("key");
    let (first, room) = enter(&mut store, &path, &key, 70_000);
    seal(&mut store, &key, first.room, 1);
    let (second, second_room) = enter(&mut store, &path, &key, 70_000);
    drop((room, second_room));
    let claims: Vec<Claim> = (0..2).map(|_| Claim::take(&path).unwrap()).collect();
    for claim in &claims {
        store.create_room(&key, Encoding::Raw, 70_000, claim.lock()).unwrap();
    }
    assert_eq!(store.seal_room(second.room).unwrap_err(), RoomError::Unknown { room: second.room });
    assert_eq!(store.get(&key).object.unwrap().version, Version(1));
}

#[test]
fn as_many_rooms_as_there_are_locks() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = store(&path);
    let all: Vec<Claim> = (0..256).map(|_| Claim::take(&path).unwrap()).collect();
    let locks: Vec<u16> = all.iter().map(Claim::lock).collect();
    assert_eq!(locks, (0..256).collect::<Vec<u16>>());
    let error = Claim::take(&path).unwrap_err().to_string();
    assert!(error.contains("try again later"), "{error}");
    drop((all, store));
}

/// Not a test by itself: the producer that is killed. Says which lock it has, is told of its room, and writes there.
#[test]
fn producing_process() {
    let Some(path) = std::env::var_os("STAR_TEST_PRODUCE") else { return };
    let claim = Claim::take(path).unwrap();
    eprintln!("{}", claim.lock());
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    let numbers: Vec<u64> = line.split_whitespace().map(|word| word.parse().unwrap()).collect();
    let [room, value_at, pages_at, pages_bytes, value_bytes] = numbers[..] else { panic!("{line}") };
    let place = RoomPlace { room, value_at, pages_at, pages_bytes };
    let mut room = claim.enter(&place, value_bytes).unwrap();
    eprintln!("writing");
    for round in 0_u8.. {
        room.fill(round % 251);
    }
}

fn spawn(path: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["producing_process", "--exact", "--nocapture"])
        .env("STAR_TEST_PRODUCE", path)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Producers die between create and seal, wherever they are. While they live nobody else gets their pages; when they are
/// dead all of it comes back.
#[test]
fn killed_producers_leave_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let mut store = store(&path);
    let empty = store.capacity();
    for round in 0..KILLS {
        let mut child = spawn(&path);
        let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut next = || said.next().expect("the producer speaks").unwrap();
        let lock: u16 = next().parse().unwrap();
        let bytes = ROOM_BYTES_MIN + mix(round) % (2 << 20);
        let place = store.create_room(&Key::new("key"), Encoding::Raw, bytes, lock).unwrap();
        // Some are killed before they know.
        if round % 4 != 0 {
            let RoomPlace { room, value_at, pages_at, pages_bytes } = place;
            let stdin = child.stdin.as_mut().unwrap();
            writeln!(stdin, "{room} {value_at} {pages_at} {pages_bytes} {bytes}").unwrap();
            assert_eq!(next(), "writing");
        }
        if round % 4 == 2 {
            store.abort_room(place.room).unwrap();
        }
        if round % 16 >= 13 {
            let others = fill_up(&mut store, "other");
            check_and_remove(&mut store, others);
        }
        store.look_after_rooms();
        assert!(store.capacity().room_bytes >= bytes, "round {round}: a living producer keeps its room");
        child.kill().unwrap();
        child.wait().unwrap();
        settle(&mut store, empty);
    }
}
