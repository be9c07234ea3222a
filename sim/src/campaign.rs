//! Runs of the Star protocol: what a seed stands for, and how to run it again.

use star::protocol::{Bug, StarNode};
use star_core::store::MemoryStore;

use crate::{
    random::Random,
    star::StarSettings,
    world::{Failure, Settings, Summary, Trace, World},
};

/// The Star protocol on a store in plain memory.
pub type Star = StarNode<MemoryStore>;

/// What is the same for all seeds of a campaign; the rest is drawn from the seed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Campaign {
    /// Servers; by default 2 to 5, from the seed.
    pub servers: Option<u16>,
    /// Inputs until everything is healed; by default a few thousand.
    pub steps: Option<u64>,
    /// Whether stars get other leaders while they work.
    pub turnover: bool,
    /// Whether a server crashes.
    pub crash: bool,
    /// A mistake put in on purpose.
    pub bug: Option<Bug>,
}

impl Campaign {
    /// The world of a seed, before its first event.
    pub fn world(&self, seed: u64, trace: Trace) -> World<Star> {
        let mut random = Random::new(seed ^ 0x5354_4152);
        let mut settings = Settings::random(&mut random);
        let subject = StarSettings::random(&mut random).with_bug(self.bug);
        if self.turnover {
            settings = settings.with_turnover();
        }
        if self.crash {
            settings.faults.weights[6] = 1;
        }
        settings.servers = self.servers.unwrap_or(settings.servers);
        settings.steps = self.steps.unwrap_or(settings.steps);
        World::new(seed, settings, subject, trace)
    }

    /// Runs a seed.
    pub fn run(&self, seed: u64) -> Result<Summary, Failure> {
        self.world(seed, Trace::silent()).run()
    }

    /// The first of `seeds` that fails.
    pub fn first_failure(&self, seeds: impl IntoIterator<Item = u64>) -> Option<(u64, Failure)> {
        seeds.into_iter().find_map(|seed| self.run(seed).err().map(|failure| (seed, failure)))
    }

    /// The command that runs a seed again and shows every event.
    pub fn replay(&self, seed: u64) -> String {
        let option = |name: &str, value: Option<String>| value.map(|value| format!(" --{name} {value}"));
        let flag = |name: &str, set: bool| set.then(|| format!(" --{name}"));
        let options = [
            option("servers", self.servers.map(|servers| servers.to_string())),
            option("steps", self.steps.map(|steps| steps.to_string())),
            flag("turnover", self.turnover),
            flag("crash", self.crash),
            option("bug", self.bug.map(|bug| format!("{bug:?}"))),
        ];
        let options: String = options.into_iter().flatten().collect();
        format!("cargo run -p star-sim -- --seed {seed} --trace{options}")
    }
}
