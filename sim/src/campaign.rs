//! Runs of the Star protocol: what a seed stands for, and how to run it again.

use star::protocol::{Bug as StarBug, StarNode};
use star_core::store::MemoryStore;

use crate::{
    random::Random,
    star::{SESSIONS_FEW, StarSettings},
    world::{Failure, Settings, Summary, Trace, World, settings::ControlBug},
};

/// The Star protocol on a store in plain memory.
pub type Star = StarNode<MemoryStore>;

/// What is the same for all seeds of a campaign; the rest is drawn from the seed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Campaign {
    /// Servers; by default 2 to 5, from the seed.
    pub servers: Option<u16>,
    /// Inputs until everything is healed; by default some thousands.
    pub steps: Option<u64>,
    /// What happens beside the clients' requests.
    pub mode: Mode,
    /// A mistake put in on purpose.
    pub bug: Option<Bug>,
}

/// What happens in the worlds of a campaign, the first four each with all that is in the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Links are cut and slow, servers pause, the control plane is away, all for shorter than a lease.
    #[default]
    Links,
    /// Stars get other leaders while they work.
    Turnover,
    /// Servers crash and stop, pause for longer than a lease, lose the control plane for long, and come back.
    Churn,
    /// Stars lose all copies of their objects and are founded anew; the control plane comes back with an earlier state, or
    /// with nothing.
    Loss,
    /// As churn, with links that are slow more often than anything else breaks, and servers that send values around them.
    Slow,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Links, Self::Turnover, Self::Churn, Self::Loss, Self::Slow];

    /// Its name as an option.
    pub fn name(self) -> &'static str {
        match self {
            Self::Links => "links",
            Self::Turnover => "turnover",
            Self::Churn => "churn",
            Self::Loss => "loss",
            Self::Slow => "slow",
        }
    }
}

/// A mistake put in on purpose: in the protocol, or in what is around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// In the protocol.
    Star(StarBug),
    /// In the control plane or the agents.
    Control(ControlBug),
}

impl Bug {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        StarBug::ALL.into_iter().map(Self::Star).chain(ControlBug::ALL.into_iter().map(Self::Control))
    }

    /// Its name as an option.
    pub fn name(self) -> String {
        match self {
            Self::Star(bug) => format!("{bug:?}"),
            Self::Control(bug) => format!("{bug:?}"),
        }
    }
}

impl Campaign {
    /// The world of a seed, before its first event.
    pub fn world(&self, seed: u64, trace: Trace) -> World<Star> {
        let mut random = Random::new(seed ^ 0x5354_4152);
        let mut settings = Settings::random(&mut random);
        let mut subject = StarSettings::random(&mut random);
        settings = match self.mode {
            Mode::Links => settings,
            Mode::Turnover => settings.with_turnover(),
            Mode::Churn => settings.with_churn(&mut random),
            Mode::Loss => settings.with_churn(&mut random).with_loss(),
            Mode::Slow => {
                subject = subject.with_link_watch(&mut random);
                settings.with_churn(&mut random).with_slow_links(&mut random)
            }
        };
        match self.bug {
            Some(Bug::Star(bug)) => subject.bug = Some(bug),
            Some(Bug::Control(bug)) => settings.control_bug = Some(bug),
            None => {}
        }
        if settings.replicas.is_some() {
            settings.workload.weights[4] = 0;
        }
        // A write that is named by a text may be sent again as long as it is remembered, which here is not long at all.
        settings.writes_again = subject.sessions_max > SESSIONS_FEW;
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

    /// The options of `sim` that stand for this campaign.
    pub fn options(&self) -> String {
        let option = |name: &str, value: Option<String>| value.map(|value| format!(" --{name} {value}"));
        let options = [
            option("servers", self.servers.map(|servers| servers.to_string())),
            option("steps", self.steps.map(|steps| steps.to_string())),
            option("mode", Some(self.mode.name().to_owned())),
            option("bug", self.bug.map(Bug::name)),
        ];
        options.into_iter().flatten().collect()
    }

    /// The command that runs a seed again and shows every event.
    pub fn replay(&self, seed: u64) -> String {
        format!("cargo run -p star-sim -- --seed {seed} --trace{}", self.options())
    }
}
