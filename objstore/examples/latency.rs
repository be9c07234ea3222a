//! Prints what a read and a write cost here: `cargo run --release -p star-objstore --example latency`.
//!
//! Reads go through the public call of a [`Reader`], as another process would do them: key hashed beforehand, value
//! copied, lease checked. Writes are what a server does for one SET of its own: place, fill, mark, publish.

use std::{env, fs, hint::black_box, path::PathBuf};

use star_core::{
    Clock, Incarnation, Key, StarId, Time, Version,
    store::{Encoding, Store},
};
use star_objstore::{Answer, MappedStore, Options, Reader};

const VALUE_BYTES: usize = 100;
const STARS: u16 = 8;
const RUNS: usize = 5;

/// A cheap sequence that visits keys in no order that a processor could foresee.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((u128::from(self.0) * limit as u128) >> 64) as usize
    }
}

/// Nanoseconds per call: the median of a few runs.
fn measure(calls: usize, mut call: impl FnMut()) -> f64 {
    let mut runs: Vec<f64> = (0..RUNS)
        .map(|_| {
            let begin = Clock.now();
            (0..calls).for_each(|_| call());
            Clock.now().since(begin).as_nanos() as f64 / calls as f64
        })
        .collect();
    runs.sort_by(f64::total_cmp);
    runs[RUNS / 2]
}

fn set(store: &mut MappedStore, key: &Key, version: u64, value: &[u8]) {
    let place = store.place(key, Encoding::Raw, value.len()).expect("the store is large enough");
    store.fill(place, 0, value);
    store.mark_dirty(key).expect("the store is large enough");
    store.publish(key, place, Version(version), false);
}

fn row(path: PathBuf, count: usize) -> Result<(), Box<dyn std::error::Error>> {
    let capacity_bytes = (count as u64 * 192).max(1 << 24);
    let (entries_max, cluster) = (Some(count as u64 + 1024), "latency".into());
    let options = Options { path, capacity_bytes, entries_max, stars: STARS, cluster, incarnation: Incarnation(1) };
    let mut store = MappedStore::create(&options)?;
    (0..STARS).for_each(|star| store.set_serving(StarId(star), true));
    store.set_lease(Time(u64::MAX));

    let keys: Vec<Key> = (0..count).map(|i| Key::new(format!("key-{i:08}"))).collect();
    let absent: Vec<Key> = (0..count).map(|i| Key::new(format!("not-{i:08}"))).collect();
    let value = [7; VALUE_BYTES];
    let begin = Clock.now();
    for key in &keys {
        set(&mut store, key, 1, &value);
    }
    let insert = Clock.now().since(begin).as_nanos() as f64 / count as f64;

    let reader = Reader::open(&options.path)?;
    let (mut buffer, mut random, calls) = (Vec::new(), Random(1), 1_000_000);
    let read = measure(calls, || {
        let answer = reader.get(&keys[random.below(count)], &mut buffer);
        assert!(matches!(black_box(answer), Answer::Found { .. }));
    });
    let contains = measure(calls, || assert_eq!(reader.contains(&keys[random.below(count)]), Ok(true)));
    let miss = measure(calls, || assert_eq!(reader.get(&absent[random.below(count)], &mut buffer), Answer::NotFound));
    let own = measure(calls, || assert!(black_box(store.get(&keys[random.below(count)])).object.is_some()));
    let mut version = 1;
    let write = measure(calls / 2, || {
        version += 1;
        set(&mut store, &keys[random.below(count)], version, &value);
    });
    println!("{count:>9} {read:>10.0} {contains:>10.0} {miss:>10.0} {own:>10.0} {write:>10.0} {insert:>10.0}");
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = env::args_os().nth(1).map_or_else(|| PathBuf::from("/dev/shm"), PathBuf::from);
    let path = directory.join(format!("star-latency-{}", std::process::id()));
    println!(
        "ns per call, {VALUE_BYTES} B values, median of {RUNS} runs; clock {:.0} ns",
        measure(1_000_000, || {
            black_box(Clock.now());
        })
    );
    println!("     keys   get+copy   contains     absent server get  overwrite     insert");
    let result = [1_000, 100_000, 1_000_000].into_iter().try_for_each(|count| row(path.clone(), count));
    let _ = fs::remove_file(&path);
    result
}
