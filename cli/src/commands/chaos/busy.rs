//! A server that has no time: load without end at it, and a thread that spins on every core. Nobody should be taken out
//! of a view for that.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use serde::Serialize;
use star_bench::{Distribution, Options, System, Target};

use crate::{
    error::CliError,
    status::{ClusterStatus, StarLine},
};

/// What came of all saturations of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Busy {
    /// How often a server was saturated.
    pub(super) times: u64,
    /// Requests that the saturated servers answered to the load.
    pub(super) requests: u64,
    /// Members that were taken out of views meanwhile, each time and each star by itself.
    pub(super) taken_out: u64,
    /// Changes of views meanwhile, of whatever kind.
    pub(super) epochs: u64,
}

impl Busy {
    /// Adds what came of one more.
    pub(super) fn add(&mut self, requests: u64, changes: &Changes) {
        self.times += 1;
        self.requests += requests;
        self.taken_out += changes.taken_out;
        self.epochs += changes.epochs;
    }
}

/// Watches the views.
#[derive(Debug)]
pub(super) struct Changes {
    views: BTreeMap<u16, (u64, Vec<String>)>,
    taken_out: u64,
    epochs: u64,
}

impl Changes {
    pub(super) fn since(before: &ClusterStatus) -> Self {
        let view = |star: &StarLine| (star.id, (star.epoch, star.members.clone()));
        Self { views: before.stars.iter().map(view).collect(), taken_out: 0, epochs: 0 }
    }

    /// Counts what has changed since the last look. Of what came and went between two looks the epochs tell.
    pub(super) fn look(&mut self, now: &ClusterStatus) {
        for star in &now.stars {
            let (epoch, members) = self.views.entry(star.id).or_insert_with(|| (star.epoch, star.members.clone()));
            // A server that is behind tells an older view.
            if star.epoch > *epoch {
                self.epochs += star.epoch - *epoch;
                self.taken_out += members.iter().filter(|member| !star.members.contains(member)).count() as u64;
                (*epoch, *members) = (star.epoch, star.members.clone());
            }
        }
    }
}

/// Load that leaves a server no time.
#[derive(Debug)]
pub(super) struct Saturation {
    is_over: Arc<AtomicBool>,
    spinning: Vec<JoinHandle<()>>,
    load: JoinHandle<u64>,
}

impl Saturation {
    /// Begins; the requests go on for `time`.
    pub(super) fn begin(addr: &str, time: Duration) -> Result<Self, CliError> {
        let is_over = Arc::new(AtomicBool::new(false));
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let spin = || {
            let is_over = Arc::clone(&is_over);
            thread::Builder::new().name("busy".to_owned()).spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })
        };
        let spinning = (0..cores).map(|_| spin()).collect::<Result<_, _>>()?;
        let options = Options {
            system: System::Star,
            targets: vec![Target { addr: addr.to_owned(), store: None }],
            leaders: Vec::new(),
            pids: Vec::new(),
            servers: 1,
            clients: 16,
            pipeline: 64,
            seconds: time.as_secs_f64(),
            warm_up_seconds: 0.0,
            read_share: 0.8,
            keys: 1000,
            distribution: Distribution::Uniform,
            rate: None,
            value_bytes: 100,
            fill: false,
            record: false,
            seed: 1,
        };
        let load = thread::Builder::new().name("load".to_owned()).spawn(move || load(options))?;
        Ok(Self { is_over, spinning, load })
    }

    /// Ends it and says how many requests were answered. Blocks until the last of them is.
    pub(super) fn end(self) -> u64 {
        self.is_over.store(true, Ordering::Relaxed);
        for thread in self.spinning {
            // A thread that spins has nothing to panic about.
            let _ = thread.join();
        }
        self.load.join().unwrap_or(0)
    }
}

/// What the load could not do is no failure: it is there to take time, and what it wrote is nobody's.
fn load(options: Options) -> u64 {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return 0 };
    let report = runtime.block_on(star_bench::run(options, |_| {}));
    report.map_or(0, |report| report.read.ops + report.write.ops)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn views(stars: &[(u16, u64, &str)]) -> ClusterStatus {
        let line = |(id, epoch, members): &(u16, u64, &str)| StarLine {
            id: *id,
            epoch: *epoch,
            leader: None,
            members: members.chars().map(String::from).collect(),
            joining: Vec::new(),
            leaving: Vec::new(),
            learners: Vec::new(),
        };
        let stars = stars.iter().map(line).collect();
        ClusterStatus { servers: Vec::new(), stars, arriving: Vec::new(), plane: None }
    }

    #[test]
    fn who_is_taken_out_counts_in_every_star() {
        let mut changes = Changes::since(&views(&[(0, 1, "abc"), (1, 4, "abc")]));
        changes.look(&views(&[(0, 1, "abc"), (1, 4, "abc")]));
        assert_eq!((changes.taken_out, changes.epochs), (0, 0));
        changes.look(&views(&[(0, 2, "ac"), (1, 5, "ac")]));
        changes.look(&views(&[(0, 1, "abc"), (1, 5, "ac")]));
        changes.look(&views(&[(0, 4, "abc"), (1, 5, "ac")]));
        assert_eq!((changes.taken_out, changes.epochs), (2, 4), "an old view does not count, and coming back does not");
        let mut busy = Busy::default();
        busy.add(10, &changes);
        busy.add(5, &changes);
        assert_eq!(busy, Busy { times: 2, requests: 15, taken_out: 4, epochs: 8 });
    }
}
