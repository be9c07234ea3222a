//! Prints what reads of a mapped store cost here, beside what they could cost at best and what LMDB takes:
//! `cargo run --release -p star-replication --example reads [keys] [value bytes]`.
//!
//! All take turns in one run. The time that counts is the thread's processor time, so that what else the machine does
//! counts less; for Redis, where most of a call is another process's work and waiting, it is what passes. The keys come in no
//! order that a processor could foresee, but lie in that order before the caller: who asks for a key has it at hand, and
//! waiting for its text in a table of all keys would be counted to whoever answers. They are hashed beforehand for the bare
//! lookup and the [`Reader`], as a client does it once per call.

mod bare;
mod client;
mod crowd;
mod redis;

use std::{env, error::Error, hint::black_box, path::Path, sync::Arc};

use bare::Bare;
use client::Client;
use crowd::{Crowd, crowd};
use heed::types::Bytes;
use redis::Redis;
use rustix::time::{ClockId, clock_gettime};
use star_core::{
    Clock, Incarnation, Key, StarId, Time, Version,
    config::GroupAccess,
    store::{Encoding, Store},
};
use star_objstore::{Answer, MappedStore, Options, Reader};

const STARS: u16 = 8;
const TURNS: usize = 31;
const CALLS_MAX: usize = 30_000;
const WARM_UP_MAX: usize = 200_000;
/// A turn copies no more than about this many bytes.
const TURN_BYTES: usize = 1 << 27;
/// Keys that are read in one call, where a call takes many.
const MANY: usize = 64;
/// More objects than this take a Redis server minutes to be given, one by one.
const REDIS_KEYS_MAX: usize = 1_000_000;

/// A cheap sequence.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((u128::from(self.0) * limit as u128) >> 64) as usize
    }
}

/// Nanoseconds that this thread had a processor.
fn processor_time() -> u64 {
    nanoseconds(ClockId::ThreadCPUTime)
}

fn nanoseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// What takes part, by name; a call reads these keys one after the other.
type Contestant<'a> = (&'static str, Box<dyn FnMut(&[Key]) + 'a>);

/// One that reads key by key.
fn each<'a>(name: &'static str, mut read: impl FnMut(&Key) + 'a) -> Contestant<'a> {
    (name, Box::new(move |keys| keys.iter().for_each(&mut read)))
}

/// One that reads many keys in one call.
fn batches<'a>(name: &'static str, mut read: impl FnMut(&[Key]) + 'a) -> Contestant<'a> {
    (name, Box::new(move |keys| keys.chunks(MANY).for_each(&mut read)))
}

fn compare(keys: &[Key], calls: usize, contestants: &mut [Contestant<'_>]) {
    let some = |calls: usize, mut random: Random| -> Vec<Key> {
        (0..calls).map(|_| keys[random.below(keys.len())].clone()).collect()
    };
    let mut turns = vec![Vec::new(); contestants.len()];
    for turn in 0..TURNS {
        let first = some(calls.max(keys.len()).min(WARM_UP_MAX), Random(!(turn as u64)));
        let counted = some(calls, Random(turn as u64));
        for ((_, read), times) in contestants.iter_mut().zip(&mut turns) {
            // What others read has pushed this one's objects out of the caches: not what a reader finds who goes on reading.
            read(&first);
            let begin = (processor_time(), nanoseconds(ClockId::Monotonic));
            read(&counted);
            let passed = nanoseconds(ClockId::Monotonic) - begin.1;
            times.push([processor_time() - begin.0, passed].map(|time| time as f64 / calls as f64));
        }
    }
    println!("{:<34} {:>10} {:>10} {:>14}", "ns per call", "median", "least", "median, passed");
    for ((name, _), times) in contestants.iter().zip(&turns) {
        let [mut processor, mut passed] =
            [0, 1].map(|which| times.iter().map(|time| time[which]).collect::<Vec<f64>>());
        processor.sort_by(f64::total_cmp);
        passed.sort_by(f64::total_cmp);
        println!("{name:<34} {:>10.0} {:>10.0} {:>14.0}", processor[TURNS / 2], processor[0], passed[TURNS / 2]);
    }
}

fn filled(path: &Path, keys: &[Key], value: &[u8], huge_pages: bool) -> Result<MappedStore, Box<dyn Error>> {
    let count = keys.len() as u64;
    let mut store = MappedStore::create(&Options {
        path: path.to_path_buf(),
        capacity_bytes: (count * (value.len() as u64 + 96) * 5 / 4).max(1 << 24),
        entries_max: Some(count + 1024),
        stars: STARS,
        cluster: "reads".into(),
        incarnation: Incarnation(1),
        group: GroupAccess::None,
        huge_pages,
    })?;
    (0..STARS).for_each(|star| store.set_serving(StarId(star), true));
    store.set_lease(Time(u64::MAX));
    for key in keys {
        let place = store.place(key, Encoding::Raw, value.len())?;
        store.fill(place, 0, value);
        store.mark_dirty(key)?;
        store.publish(key, place, Version(1), false);
    }
    Ok(store)
}

#[allow(unsafe_code, reason = "the name of its function that maps a file")]
fn lmdb(
    directory: &Path,
    keys: &[Key],
    value: &[u8],
) -> Result<(heed::Env, heed::Database<Bytes, Bytes>), heed::Error> {
    let map_bytes = (keys.len() * (value.len() + 4096)).next_multiple_of(4096) + (1 << 26);
    // SAFETY: the directory is new, and nobody else knows of it.
    let env = unsafe { heed::EnvOpenOptions::new().map_size(map_bytes).open(directory)? };
    let mut write = env.write_txn()?;
    let database = env.create_database(&mut write, None)?;
    for key in keys {
        database.put(&mut write, key.as_str().as_bytes(), value)?;
    }
    write.commit()?;
    Ok((env, database))
}

/// The rows of one mapped store; each call checks what it read.
fn mapped<'a>(names: [&'static str; 4], reader: &'a Arc<Reader>, value: &'a [u8]) -> Vec<Contestant<'a>> {
    let mut buffer = Vec::new();
    vec![
        each(names[0], |key| assert_eq!(reader.contains(key), Ok(true))),
        each(names[1], move |key| assert!(matches!(reader.get(key, &mut buffer), Answer::Found { .. }))),
        each(names[2], |key| {
            let found = reader.get_ref(key).map(|found| found.map(|at| at.first().copied()));
            assert_eq!(found, Ok(Some(value.first().copied())));
        }),
        batches(names[3], |keys| {
            reader.get_many(keys, |_, answer, read| {
                assert!(matches!(answer, Answer::Found { .. }) && read.len() == value.len());
            });
        }),
    ]
}

/// The rows of the client's public calls, which take the key's text and hash it.
fn of_client<'a>(names: [&'static str; 3], client: &'a Client, value: &'a [u8]) -> Vec<Contestant<'a>> {
    vec![
        each(names[0], |key| assert_eq!(client.get(key), value.len())),
        each(names[1], |key| assert_eq!(client.get_ref(key), value.first().copied())),
        batches(names[2], |keys| {
            let texts: Vec<&str> = keys.iter().map(Key::as_str).collect();
            assert_eq!(client.get_many(&texts), keys.len());
        }),
    ]
}

fn main() -> Result<(), Box<dyn Error>> {
    let argument = |at: usize, default| env::args().nth(at).map_or(Ok(default), |text| text.parse::<usize>());
    let (count, value_bytes) = (argument(1, 100_000)?, argument(2, 100)?);
    let calls = (TURN_BYTES / value_bytes.max(1)).clamp(8, CALLS_MAX);
    let directory = tempfile::tempdir_in(Path::new("/dev/shm"))?;
    let keys: Vec<Key> = (0..count).map(|i| Key::new(format!("key-{i:08}"))).collect();
    let value = vec![7; value_bytes];
    let mut store = filled(&directory.path().join("store"), &keys, &value, false)?;
    let reader = Arc::new(Reader::open(directory.path().join("store"))?);
    let huge_store = filled(&directory.path().join("huge"), &keys, &value, true)?;
    let huge = Arc::new(Reader::open(directory.path().join("huge"))?);
    let client = Client::start(directory.path(), false, &keys, &value)?;
    let huge_client = Client::start(directory.path(), true, &keys, &value)?;
    let bare = Bare::new(&keys, &value);
    let (env, database) = lmdb(directory.path(), &keys, &value)?;
    let (mut bare_buffer, mut clocked) = (Vec::new(), Vec::new());
    println!("{count} keys, values of {value_bytes} B; {TURNS} turns of {calls} calls, one after the other");
    let mut all: Vec<Contestant<'_>> = vec![
        each("bare sequence lock", |key| assert!(bare.get(key.hash(), None))),
        each("  and a copy", |key| assert!(bare.get(key.hash(), Some(&mut bare_buffer)))),
        each("  and the system's clock", |key| {
            assert!(bare.get(key.hash(), Some(&mut clocked)));
            black_box(Clock.now());
        }),
    ];
    let names = ["Reader::contains", "Reader::get, a copy", "Reader::get_ref, in place", "Reader::get_many, of 64"];
    all.extend(mapped(names, &reader, &value));
    let names = ["  contains, huge pages", "  get, huge pages", "  get_ref, huge pages", "  get_many, huge pages"];
    all.extend(mapped(names, &huge, &value));
    let names = ["StarClient::get", "StarClient::get_ref", "StarClient::get_many, of 64"];
    all.extend(client.iter().flat_map(|client| of_client(names, client, &value)));
    let names = ["  ::get, huge pages", "  ::get_ref, huge pages", "  ::get_many, huge pages"];
    all.extend(huge_client.iter().flat_map(|client| of_client(names, client, &value)));
    all.push(each("LMDB, transaction and get", |key| {
        let read = env.read_txn().expect("a transaction");
        let found = database.get(&read, key.as_str().as_bytes()).expect("a read");
        assert_eq!(found.map(|at| at.first()), Some(value.first()));
    }));
    all.push(each("the server's own get", |key| assert!(store.get(key).object.is_some())));
    if calls < MANY {
        all.retain(|(name, _)| !name.contains("get_many"));
    }
    compare(&keys, calls, &mut all);
    drop(all);
    println!("{} of {} B in huge pages where asked", huge_store.huge_bytes(), huge_store.file_bytes());
    println!("{:.0} B of the file for each object", store.usage().used_bytes as f64 / count as f64);
    if count <= REDIS_KEYS_MAX {
        ask_redis(directory.path(), &keys, &value, calls)?;
    }
    for (readers, writes) in [(1, false), (2, false), (1, true), (2, true)] {
        let Crowd { nanoseconds, asked, writes: written } =
            crowd(&reader, &mut store, &keys, &value, (readers, calls), writes);
        println!(
            "{readers} readers, {written} writes meanwhile: {nanoseconds:.0} ns per get; {asked:.0} of a million left to the server"
        );
    }
    Ok(())
}

/// Redis has fewer calls to a turn, and a turn of its own after the others: its process must not take theirs.
fn ask_redis(directory: &Path, keys: &[Key], value: &[u8], calls: usize) -> Result<(), Box<dyn Error>> {
    let Some(server) = Redis::start(directory)? else {
        println!("no redis-server here");
        return Ok(());
    };
    let (mut unix, mut tcp) = (server.unix()?, server.tcp()?);
    keys.iter().try_for_each(|key| unix.set(key, value))?;
    let (mut of_unix, mut of_tcp) = (Vec::new(), Vec::new());
    compare(
        keys,
        calls.min(500),
        &mut [
            each("Redis, Unix socket", |key| assert!(unix.get(key, &mut of_unix).expect("an answer"))),
            each("Redis, TCP", |key| assert!(tcp.get(key, &mut of_tcp).expect("an answer"))),
        ],
    );
    Ok(())
}
