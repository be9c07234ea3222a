//! Runs a load: all connections on one thread, each with its window of requests under way.

use std::{cell::RefCell, rc::Rc, time::Duration};

use star_core::{ClientId, Clock, Key, Time};
use tokio::task::{LocalSet, spawn_local};

use crate::{
    BenchError,
    client::Client,
    connection::Connections,
    fill::fill,
    report::Report,
    tally::Tally,
    usage::{PerOperation, Usage},
    workload::{Keys, Options, key_text},
};

/// How far a load is, for whoever watches.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// Operations done so far.
    pub ops: u64,
    /// Seconds since the load began, the warm-up included.
    pub seconds: f64,
}

/// What the clients of a load share.
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) keys: Keys,
    pub(crate) clock: Clock,
    /// The keys, made once: a load generator must not spend its time on that.
    names: Vec<Key>,
    /// The first client of this run in request ids.
    pub(crate) client: ClientId,
    pub(crate) begin: Time,
    pub(crate) count_from: Time,
    pub(crate) end: Time,
    pub(crate) tally: RefCell<Tally>,
}

/// Keys are kept as text up to this number; more are made when they are needed.
const NAMES_MAX: u64 = 1 << 20;

/// Runs the load to its end and says what came of it. `watch` is called about five times a second.
pub async fn run(options: Options, watch: impl FnMut(Progress) + 'static) -> Result<Report, BenchError> {
    options.validate()?;
    LocalSet::new().run_until(run_local(options, watch)).await
}

async fn run_local(options: Options, watch: impl FnMut(Progress) + 'static) -> Result<Report, BenchError> {
    let clock = Clock;
    if options.fill {
        fill(&options).await?;
    }
    let mut connections = Vec::new();
    for client in 0..options.clients {
        let leads = !options.leaders.is_empty();
        connections.push(Connections::dial(&options, client, leads).await?);
    }
    // Before the clock starts: with many keys this takes as long as many operations.
    let keys = Keys::new(options.distribution, options.keys);
    let names = (0..options.keys.min(NAMES_MAX)).map(|key| Key::new(key_text(key))).collect();
    let begin = clock.now();
    let count_from = begin + Duration::from_secs_f64(options.warm_up_seconds);
    let shared = Rc::new(Shared {
        keys,
        names,
        clock,
        client: ClientId::draw(),
        begin,
        count_from,
        end: count_from + Duration::from_secs_f64(options.seconds),
        tally: RefCell::new(Tally::new()),
        options,
    });
    let counting = spawn_local(count_usage(Rc::clone(&shared)));
    let watcher = spawn_local(report_progress(Rc::clone(&shared), watch));
    let tasks: Vec<_> = connections
        .into_iter()
        .enumerate()
        .map(|(number, all)| {
            let shared = Rc::clone(&shared);
            spawn_local(async move { Client::new(shared, number, all)?.run().await })
        })
        .collect();
    let mut failed = None;
    for task in tasks {
        if let Err(error) = task.await.expect("a client of the load does not panic") {
            failed.get_or_insert(error);
        }
    }
    watcher.abort();
    match failed {
        Some(error) => {
            counting.abort();
            Err(error)
        }
        None => {
            counting.await.expect("counting does not panic");
            Ok(shared.report())
        }
    }
}

async fn report_progress(shared: Rc<Shared>, mut watch: impl FnMut(Progress)) {
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let seconds = shared.clock.now().since(shared.begin).as_secs_f64();
        watch(Progress { ops: shared.tally.borrow().ops, seconds });
    }
}

/// Notes what servers and network have done at the beginning and at the end of what is counted.
async fn count_usage(shared: Rc<Shared>) {
    for end in [shared.count_from, shared.end] {
        tokio::time::sleep(end.since(shared.clock.now())).await;
        let usage = Usage::now(&shared.options.pids);
        shared.tally.borrow_mut().usage.push(usage);
    }
}

impl Shared {
    pub(crate) fn name(&self, key: u64) -> Key {
        self.names.get(key as usize).cloned().unwrap_or_else(|| Key::new(key_text(key)))
    }

    fn report(&self) -> Report {
        let mut tally = self.tally.borrow_mut();
        let seconds = self.options.seconds;
        let (read, write) = (tally.read.part(seconds), tally.write.part(seconds));
        let usage = match *tally.usage.as_slice() {
            [before, after] if !self.options.pids.is_empty() => after.per_operation(before, read.ops + write.ops),
            _ => PerOperation::default(),
        };
        Report {
            system: self.options.system.name().to_owned(),
            servers: self.options.servers,
            seconds,
            errors: tally.error_codes.values().sum(),
            open_loop: self.options.rate.map(|rate| tally.open_loop(rate)),
            read,
            write,
            mapped_reads: tally.mapped_reads,
            cpu_us_per_op: usage.cpu_us,
            messages_per_op: usage.messages,
            bytes_per_op: usage.bytes,
            error_codes: std::mem::take(&mut tally.error_codes),
            history: std::mem::take(&mut tally.history),
        }
    }
}
