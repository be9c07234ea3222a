//! How far a run of many seeds has come: shown while it runs, kept in a file, summed up at its end.

use std::{
    fmt::Write as _,
    fs,
    io::{self, Write as _},
    ops::Range,
    path::PathBuf,
};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use star_sim::{campaign::Campaign, fleet::Reached, world::faults::FaultKind};
use xxhash_rust::xxh3::xxh3_64;

/// How often it is shown and kept, in seconds.
const EVERY: f64 = 2.0;

/// A run of many seeds.
pub(crate) struct Run {
    pub(crate) reached: Reached,
    pub(crate) end: u64,
    /// Names the program and the options, which decide what a seed does.
    what: String,
    file: Option<PathBuf>,
    /// Seconds of CPU and of the clock that earlier parts of the run took.
    spent: Spent,
    began: Spent,
    began_with: u64,
    noted: f64,
}

/// Seconds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Spent {
    cpu: f64,
    clock: f64,
}

/// What is in the file.
#[derive(Serialize, Deserialize)]
struct Kept {
    what: String,
    spent: Spent,
    reached: Reached,
}

impl Run {
    /// Begins a run, or goes on with the one that `file` tells of.
    pub(crate) fn begin(campaign: &Campaign, seeds: Range<u64>, file: Option<PathBuf>) -> Self {
        let program = std::env::current_exe().and_then(fs::read).map_or(0, |bytes| xxh3_64(&bytes));
        let what = format!("{program:016x}{}", campaign.options());
        let mut run = Self {
            reached: Reached::nothing(seeds.start),
            end: seeds.end,
            what,
            file,
            spent: Spent::default(),
            began: now(),
            began_with: seeds.start,
            noted: now().clock,
        };
        let text = run.file.as_ref().and_then(|file| fs::read(file).ok());
        let kept: Option<Kept> = text.and_then(|text| serde_json::from_slice(&text).ok());
        match kept {
            Some(Kept { what, spent, reached })
                if what == run.what && reached.first == seeds.start && reached.next <= seeds.end =>
            {
                eprintln!("going on with seed {} after {:.0} s", reached.next, spent.clock);
                (run.began_with, run.spent, run.reached) = (reached.next, spent, reached);
            }
            Some(_) => eprintln!("beginning anew: the kept run is of another program or has other options"),
            None => {}
        }
        run
    }

    /// More seeds have passed.
    pub(crate) fn note(&mut self, reached: &Reached) {
        self.reached = reached.clone();
        if now().clock - self.noted >= EVERY {
            self.noted = now().clock;
            self.keep();
            let (done, count) = (self.reached.next - self.reached.first, self.end - self.reached.first);
            let rate = (self.reached.next - self.began_with) as f64 / (self.noted - self.began.clock).max(1e-9);
            let left = (self.end - self.reached.next) as f64 / rate.max(1e-9);
            let total = &self.reached.total;
            eprint!(
                "\r{done} of {count} seeds, {rate:.0} a second, {} left; {} faults, {:.0} simulated seconds per CPU second \x1b[K",
                clock(left),
                total.faults,
                total.simulated as f64 / 1e9 / self.spent().cpu,
            );
            let _ = io::stderr().flush();
        }
    }

    /// All seeds have passed: there is nothing to go on with.
    pub(crate) fn finish(&mut self) {
        if let Some(file) = &self.file {
            let _ = fs::remove_file(file);
        }
        eprintln!();
        println!("{}", self.summary());
    }

    fn spent(&self) -> Spent {
        let now = now();
        let cpu = self.spent.cpu + now.cpu - self.began.cpu;
        Spent { cpu: cpu.max(1e-9), clock: self.spent.clock + now.clock - self.began.clock }
    }

    fn keep(&self) {
        let Some(file) = &self.file else { return };
        let kept = Kept { what: self.what.clone(), spent: self.spent(), reached: self.reached.clone() };
        let text = serde_json::to_vec(&kept).expect("numbers and a text can be written");
        // A new file in place of the old one, so that a stop in between leaves one of them whole.
        let new = file.with_extension("new");
        if let Err(error) = fs::write(&new, text).and_then(|()| fs::rename(&new, file)) {
            eprintln!("\n{}: {error}; the run goes on, but could not be continued after a stop", file.display());
        }
    }

    fn summary(&self) -> String {
        let (total, spent) = (&self.reached.total, self.spent());
        let simulated = total.simulated as f64 / 1e9;
        let mut text = format!(
            "{} seeds without a failure: {} steps, {} operations ({} answered requests, {} of unknown outcome, {} refused as forgotten), {} faults, \
             {} changes of views, {} stars founded again, {} resumed, {} of {} messages lost\n\
             {} keys judged, {} by versions alone, {} undecided\nfaults:",
            self.reached.next - self.reached.first,
            total.steps,
            total.operations,
            total.answers,
            total.unknown,
            total.forgotten,
            total.faults,
            total.views,
            total.founded_again,
            total.resumed,
            total.lost,
            total.messages,
            total.keys,
            total.by_versions_alone,
            total.undecided,
        );
        for (kind, count) in FaultKind::ALL.iter().zip(total.faults_by_kind) {
            let _ = write!(text, " {kind:?} {count}");
        }
        if total.went_around > 0 {
            let _ = write!(
                text,
                "\n{} writes around slow links, as far as the last lives of servers know",
                total.went_around
            );
        }
        let _ = write!(
            text,
            "\n{simulated:.0} simulated seconds in {:.1} s of CPU time ({} on the clock): {:.0} simulated seconds and {:.0} \
             faults per CPU second, a fault every {:.2} simulated seconds",
            spent.cpu,
            clock(spent.clock),
            simulated / spent.cpu,
            total.faults as f64 / spent.cpu,
            simulated / (total.faults as f64).max(1.0)
        );
        text
    }
}

fn now() -> Spent {
    let seconds = |id| {
        let time = clock_gettime(id);
        time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
    };
    Spent { cpu: seconds(ClockId::ProcessCPUTime), clock: seconds(ClockId::Monotonic) }
}

/// Seconds as people say them.
fn clock(seconds: f64) -> String {
    let seconds = seconds.round().max(0.0) as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}
