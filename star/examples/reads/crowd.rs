//! Several readers at once, with and without a writer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
};

use star_core::{
    Key, Version,
    store::{Encoding, Store},
};
use star_objstore::{Answer, MappedStore, Reader};

use crate::{Random, TURNS, processor_time};

/// What came of some readers at once.
pub(crate) struct Crowd {
    /// Processor time of a call, the median of all readers' turns.
    pub(crate) nanoseconds: f64,
    /// Of a million reads, how many had to be left to the server: dirty at that moment, or changing.
    pub(crate) asked: f64,
    /// Writes meanwhile, each of them dirty for as long as it takes to store its value.
    pub(crate) writes: u64,
}

/// Lets `readers` threads read keys at random, while this one writes if `writes` says so.
pub(crate) fn crowd(
    reader: &Arc<Reader>,
    store: &mut MappedStore,
    keys: &[Key],
    value: &[u8],
    (readers, calls): (usize, usize),
    writes: bool,
) -> Crowd {
    let (done, mut written) = (AtomicBool::new(false), 0);
    let turns: Vec<(f64, u64)> = thread::scope(|scope| {
        let threads: Vec<_> = (0..readers)
            .map(|number| {
                scope.spawn(move || {
                    (0..TURNS).map(|turn| one_turn(reader, keys, calls, number * TURNS + turn)).collect::<Vec<_>>()
                })
            })
            .collect();
        let alone = writes.then(|| {
            let done = &done;
            scope.spawn(move || {
                let (mut random, mut version) = (Random(99), 1);
                while !done.load(Relaxed) {
                    version += 1;
                    write(store, &keys[random.below(keys.len())], value, version);
                }
                version - 1
            })
        });
        let turns = threads.into_iter().flat_map(|thread| thread.join().expect("a reader does not panic")).collect();
        done.store(true, Relaxed);
        written = alone.map_or(0, |thread| thread.join().expect("the writer does not panic"));
        turns
    });
    let mut times: Vec<f64> = turns.iter().map(|(time, _)| *time).collect();
    times.sort_by(f64::total_cmp);
    let asked: u64 = turns.iter().map(|(_, asked)| asked).sum();
    let asked = asked as f64 * 1e6 / (turns.len() * calls) as f64;
    Crowd { nanoseconds: times[times.len() / 2], asked, writes: written }
}

/// Nanoseconds per call, and how many calls could not be answered.
fn one_turn(reader: &Reader, keys: &[Key], calls: usize, seed: usize) -> (f64, u64) {
    let (mut random, mut buffer, mut asked) = (Random(seed as u64), Vec::new(), 0);
    let begin = processor_time();
    for _ in 0..calls {
        match reader.get(&keys[random.below(keys.len())], &mut buffer) {
            Answer::Found { .. } => {}
            Answer::Ask(_) => asked += 1,
            Answer::NotFound => panic!("every key has an object all the time"),
        }
    }
    ((processor_time() - begin) as f64 / calls as f64, asked)
}

/// A write as a server does it, without the network.
fn write(store: &mut MappedStore, key: &Key, value: &[u8], version: u64) {
    let place = store.place(key, Encoding::Raw, value.len()).expect("room for one value more");
    store.fill(place, 0, value);
    store.mark_dirty(key).expect("the key has a slot");
    store.publish(key, place, Version(version), false);
}
