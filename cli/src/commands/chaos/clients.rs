//! The clients: writers, readers over TCP, readers of mapped stores, and probes that measure how long nothing goes.

use std::{rc::Rc, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use star_core::Time;
use tokio::task::{JoinHandle, spawn_local};

use super::shared::{Change, Shared};
use super::verdict::FIRST_LAST_READER;

/// Writers of each star. A star that stands still holds up its own writers alone.
const WRITERS: usize = 2;
/// Readers over TCP at each server.
const READERS: usize = 2;
/// Between two operations of one client, at full rate.
const WRITE_EVERY: Duration = Duration::from_millis(60);
const READ_EVERY: Duration = Duration::from_millis(40);
const MAPPED_EVERY: Duration = Duration::from_millis(25);
/// The resolution of the read gaps.
const PROBE_EVERY: Duration = Duration::from_millis(10);
/// The most operations that are recorded, so that history and checkers fit in memory: some 100 bytes each.
const RECORDED_MAX: f64 = 4e6;

const FIRST_READER: u32 = 100;
const FIRST_MAPPED_READER: u32 = 300;
/// Clients of what is sent to a server that stands still.
pub(super) const FIRST_WAITING_READER: u32 = 500;

/// All clients of a run.
pub(super) struct Clients {
    shared: Rc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

impl Clients {
    /// Starts them all, for a run that takes about so long.
    pub(super) fn start(shared: &Rc<Shared>, run: Duration) -> Self {
        let (stars, servers) = (usize::from(shared.stars), shared.servers.len());
        let rate = |clients: usize, every: Duration| clients as f64 / every.as_secs_f64();
        let full =
            rate(stars * WRITERS, WRITE_EVERY) + rate(servers * READERS, READ_EVERY) + rate(servers, MAPPED_EVERY);
        // Longer runs go slower.
        let slower = (full * run.as_secs_f64() / RECORDED_MAX).max(1.0);
        let mut tasks = Vec::new();
        for writer in 0..stars * WRITERS {
            tasks.push(spawn_local(write(Rc::clone(shared), writer, WRITE_EVERY.mul_f64(slower))));
        }
        for reader in 0..servers * READERS {
            tasks.push(spawn_local(read(Rc::clone(shared), reader, READ_EVERY.mul_f64(slower))));
        }
        for server in 0..servers {
            tasks.push(spawn_local(read_mapped(Rc::clone(shared), server, MAPPED_EVERY.mul_f64(slower))));
            tasks.push(spawn_local(probe(Rc::clone(shared), server)));
        }
        Self { shared: Rc::clone(shared), tasks }
    }

    /// Ends them, each after its operation.
    pub(super) async fn stop(self) {
        self.shared.is_over.set(true);
        for task in self.tasks {
            // One that panicked has said so.
            let _ = task.await;
        }
    }
}

/// Reads every changing object at every server once more; returns reads that were not answered.
pub(super) async fn read_everything(shared: &Shared) -> u64 {
    let mut silent = 0;
    for server in 0..shared.servers.len() {
        for key in shared.hot.iter().flatten() {
            let is_answered = shared.read(FIRST_LAST_READER + server as u32, server, key).await;
            silent += u64::from(!is_answered);
        }
    }
    silent
}

async fn write(shared: Rc<Shared>, writer: usize, every: Duration) {
    let keys = &shared.hot[writer % shared.hot.len()];
    let mut pace = Pace::new(&shared, every);
    while !shared.is_over.get() {
        let key = &keys[shared.below(keys.len())];
        let change = match shared.below(10) {
            0 => Change::Delete,
            1 | 2 => Change::CompareAndSet(value(&shared), shared.version(key)),
            _ => Change::Set(value(&shared)),
        };
        shared.write(writer as u32, key, change).await;
        pace.next(&shared).await;
    }
}

/// A value that no other write has: mostly small, now and then so large that it travels in pieces.
fn value(shared: &Shared) -> Bytes {
    let text = format!("value {} ", shared.next_number());
    let bytes = match shared.below(100) {
        0 => 300 << 10,
        1..10 => 4 << 10,
        _ => 20 + shared.below(120),
    };
    let mut value = BytesMut::with_capacity(bytes + text.len());
    while value.len() < bytes {
        value.put_slice(text.as_bytes());
    }
    value.freeze()
}

async fn read(shared: Rc<Shared>, reader: usize, every: Duration) {
    let mut pace = Pace::new(&shared, every);
    while !shared.is_over.get() {
        let key = any_hot_key(&shared);
        shared.read(FIRST_READER + reader as u32, reader % shared.servers.len(), &key).await;
        pace.next(&shared).await;
    }
}

async fn read_mapped(shared: Rc<Shared>, server: usize, every: Duration) {
    let mut buffer = Vec::new();
    let mut pace = Pace::new(&shared, every);
    while !shared.is_over.get() {
        // Where the store cannot answer, the readers over TCP ask.
        shared.read_mapped(FIRST_MAPPED_READER + server as u32, server, &any_hot_key(&shared), &mut buffer);
        pace.next(&shared).await;
    }
}

async fn probe(shared: Rc<Shared>, server: usize) {
    let mut buffer = Vec::new();
    let mut pace = Pace::new(&shared, PROBE_EVERY);
    while !shared.is_over.get() {
        let key = &shared.still[shared.below(shared.still.len())];
        shared.probe(server, key, &mut buffer).await;
        pace.next(&shared).await;
    }
}

/// A key that is changed all the time.
pub(super) fn any_hot_key(shared: &Shared) -> String {
    let keys = &shared.hot[shared.below(shared.hot.len())];
    keys[shared.below(keys.len())].clone()
}

/// Keeps a client to its rate. After a pause it does not catch up.
struct Pace {
    every: Duration,
    next: Time,
}

impl Pace {
    fn new(shared: &Shared, every: Duration) -> Self {
        // Clients that begin together must not go on in step.
        let offset = every.mul_f64(shared.below(1000) as f64 / 1000.0);
        Self { every, next: shared.now() + offset }
    }

    async fn next(&mut self, shared: &Shared) {
        let now = shared.now();
        self.next = (self.next + self.every).max(now);
        tokio::time::sleep(self.next.since(now)).await;
    }
}
