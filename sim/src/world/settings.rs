//! What kind of world it is: how many servers, how fast the links, how often something breaks.

use std::time::Duration;

use star_control::{LeaseConfig, PlanConfig};
use star_core::ids::ServerId;

use super::faults::FaultKind;
use crate::random::Random;

/// A millisecond in the world's nanoseconds.
pub const MS: u64 = 1_000_000;

/// A second in the world's nanoseconds.
pub const SECOND: u64 = 1_000 * MS;

/// The fastest and the slowest clock, in millionths: a little less than the share of the drift margin in a lease.
const DRIFT_MAX: u64 = 95_000;

/// The settings of a world. All times are in nanoseconds, all shares in millionths.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Servers.
    pub servers: u16,
    /// Stars.
    pub stars: u16,
    /// How many members a star has; `None`: all servers.
    pub replicas: Option<usize>,
    /// Inputs that the protocol takes until everything is healed and the end begins.
    pub steps: u64,
    /// How long the world runs until then at most.
    pub time_max: u64,
    /// The least and the most time that a message is under way.
    pub delay: (u64, u64),
    /// The most time from the arrival of an input to the server's turn.
    pub turn_delay_max: u64,
    /// Messages between servers, and calls of the control plane, that are lost although the link is up.
    pub loss: u64,
    /// How far a server's clock may start from the world's.
    pub clock_offset_max: u64,
    /// How much faster or slower a clock may run. Leases are safe up to the share that the drift margin has in them.
    pub clock_drift_max: u64,
    /// How long leases run, by the control plane's clock, which is the world's.
    pub lease: LeaseConfig,
    /// Whether the last copy of a star may be lost.
    pub loses_copies: bool,
    /// Whether every server starts anew at the end, one after another.
    pub restart_all: bool,
    /// Whether a client may send a write again that is named by a text: not where servers remember only a few requests.
    pub writes_again: bool,
    /// Links that are cut at a given time, beside the faults that come at random.
    pub script: Vec<ScriptedCut>,
    /// A mistake of the control plane or of the agents, put in on purpose.
    pub control_bug: Option<ControlBug>,
    /// The clients.
    pub workload: Workload,
    /// What breaks.
    pub faults: Faults,
}

/// A link that is cut in one direction.
#[derive(Clone, Copy, Debug)]
pub struct ScriptedCut {
    /// When.
    pub at: u64,
    /// For how long.
    pub lasts: u64,
    /// Who sends.
    pub from: ServerId,
    /// Who hears nothing.
    pub to: ServerId,
}

/// Mistakes around the protocol that can be planted; those of the protocol are `star::protocol::Bug`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlBug {
    /// The renewal of a lease that has run out counts: nobody reads the views first.
    LeaseRevived,
    /// Servers are taken out of views before their leases have run out.
    EvictionBeforeLeaseEnd,
    /// A lease that was just acquired counts before the views are read.
    LeaseBeforeViews,
    /// A member that should leave is taken out at once, without its word and with its lease in its hand.
    LeaverTakenOut,
    /// Servers follow whatever the control plane shows, also what is older than what they know.
    OldStateFollowed,
    /// What a server's store held when it started is still believed when the server is in the star's view again.
    ClaimKept,
}

impl ControlBug {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::LeaseRevived,
        Self::EvictionBeforeLeaseEnd,
        Self::LeaseBeforeViews,
        Self::LeaverTakenOut,
        Self::OldStateFollowed,
        Self::ClaimKept,
    ];
}

/// What the clients do.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Clients; each has one request under way.
    pub clients: u32,
    /// Different keys. Those with an odd number are never deleted.
    pub keys: u32,
    /// How many requests of a hundred go to the first key.
    pub hot_percent: u64,
    /// The most time between an answer and the client's next request.
    pub think_max: u64,
    /// How long a client waits for an answer before it tries another server.
    pub timeout: u64,
    /// How often a client tries before it leaves the outcome unknown.
    pub attempts_max: u32,
    /// The longest value, in bytes.
    pub value_bytes_max: u64,
    /// How often each kind of request comes: get, set, delete, compare-and-set, list, many gets, many sets.
    pub weights: [u64; 7],
}

/// How often each fault comes, and how long it lasts.
#[derive(Clone, Debug)]
pub struct Faults {
    /// The least and the most time between two faults.
    pub every: (u64, u64),
    /// How many may last at the same time.
    pub at_once_max: usize,
    /// How likely each kind is, in the order of [`super::faults::FaultKind::ALL`].
    pub weights: [u64; FaultKind::ALL.len()],
    /// The longest cut of a link.
    pub cut_max: u64,
    /// The longest pause of a server that is shorter than its lease.
    pub pause_max: u64,
    /// The longest pause that is longer than a lease.
    pub long_pause_max: u64,
    /// The most that a slow link adds to the delay.
    pub slow_max: u64,
    /// The longest absence of the control plane, for all or for one server.
    pub away_max: u64,
    /// The longest time until a crashed server starts again.
    pub down_max: u64,
}

impl Settings {
    /// A world drawn at random in which links are cut and servers pause for shorter than their leases.
    pub fn random(random: &mut Random) -> Self {
        let delay_max = *random.pick(&[200_000, MS, 5 * MS, 20 * MS]);
        let lease = random.between(300, 1_000) * MS;
        let servers = random.between(2, 5) as u16;
        let stars = random.between(1, 4) as u16;
        // With fewer members than servers no server answers for several stars at once, as lists and many keys want it.
        let replicas = (stars == 1 && servers > 2 && random.chance(300_000)).then(|| random.between(2, 4) as usize);
        Self {
            servers,
            stars,
            replicas,
            steps: 4_000,
            time_max: 60 * SECOND,
            delay: (random.between(10_000, 100_000), delay_max),
            turn_delay_max: random.between(1_000, 200_000),
            loss: *random.pick(&[0, 0, 0, 1_000, 20_000]),
            clock_offset_max: 1_000 * SECOND,
            clock_drift_max: *random.pick(&[200, 10_000, DRIFT_MAX]),
            lease: LeaseConfig { ttl: Duration::from_nanos(lease), drift_margin: Duration::from_nanos(lease / 10) },
            loses_copies: false,
            restart_all: false,
            writes_again: true,
            script: Vec::new(),
            control_bug: None,
            workload: Workload::random(random, delay_max),
            faults: Faults {
                every: (10 * MS, random.between(50, 1_000) * MS),
                at_once_max: random.between(1, 3) as usize,
                weights: [4, 3, 3, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
                cut_max: random.between(20, 1_000) * MS,
                pause_max: lease / 2,
                long_pause_max: 4 * lease,
                slow_max: 50 * MS,
                away_max: lease / 2,
                down_max: lease,
            },
        }
    }

    /// The same, with changes of leader among the faults.
    #[must_use]
    pub fn with_turnover(mut self) -> Self {
        self.faults.weights[FaultKind::Turnover as usize] = 4;
        self
    }

    /// The same, with everything else that ends leases and lives: crashes, stops, long pauses, a control plane that is
    /// away for long; and at the end every server starts anew.
    #[must_use]
    pub fn with_churn(mut self, random: &mut Random) -> Self {
        let lease = self.lease.ttl.as_nanos() as u64;
        self.faults.weights = [2, 2, 1, 2, 1, 2, 1, 2, 5, 2, 0, 0, 0, 0, 0, 0];
        self.faults.every = (lease / 10, random.between(1, 4) * lease);
        self.faults.away_max = random.between(1, 3) * lease;
        self.faults.cut_max = random.between(1, 4) * lease;
        self.faults.at_once_max = random.between(1, 4) as usize;
        self.workload.think_max = *random.pick(&[10 * MS, 50 * MS, 100 * MS]);
        (self.steps, self.time_max) = (15_000, random.between(10, 25) * lease);
        self.restart_all = random.chance(250_000);
        self
    }

    /// The same, with the loss of what churn always leaves: the last copy of a star, all servers at once, and the control
    /// plane's memory.
    #[must_use]
    pub fn with_loss(mut self) -> Self {
        self.loses_copies = true;
        let weights = [
            (FaultKind::LastCopyLost, 4),
            (FaultKind::PlaneOlder, 3),
            (FaultKind::PlaneEmpty, 2),
            (FaultKind::FullStop, 4),
            (FaultKind::FullCrash, 6),
        ];
        for (kind, weight) in weights {
            self.faults.weights[kind as usize] = weight;
        }
        self
    }

    /// The same, with links that are slow again and again, each for longer than it takes to find out.
    #[must_use]
    pub fn with_slow_links(mut self, random: &mut Random) -> Self {
        self.faults.weights[FaultKind::Slow as usize] = 30;
        self.faults.at_once_max = self.faults.at_once_max.max(3);
        self.faults.slow_max = random.between(20, 200) * MS;
        self
    }

    /// How long a server that stops tries to hand over.
    pub(crate) fn hand_over_max(&self) -> u64 {
        10 * self.lease.ttl.as_nanos() as u64
    }

    /// What the views should look like.
    pub fn plan(&self) -> PlanConfig {
        let (stars, replicas) = (self.stars, self.replicas);
        PlanConfig { stars, initial_servers: self.servers.into(), replicas, follow_alive: true }
    }
}

impl Workload {
    fn random(random: &mut Random, delay_max: u64) -> Self {
        Self {
            clients: random.between(2, 8) as u32,
            keys: random.between(1, 12) as u32,
            hot_percent: *random.pick(&[0, 30, 80]),
            think_max: *random.pick(&[MS, 5 * MS, 20 * MS]),
            timeout: delay_max * 6 + random.between(5, 200) * MS,
            attempts_max: random.between(2, 12) as u32,
            value_bytes_max: *random.pick(&[16, 64, 400]),
            weights: [30, 30, random.between(0, 10), random.between(0, 15), 4, 5, 5],
        }
    }
}
