//! What kind of world it is: how many servers, how fast the links, how often something breaks.

use crate::random::Random;

/// A millisecond in the world's nanoseconds.
pub const MS: u64 = 1_000_000;

/// A second in the world's nanoseconds.
pub const SECOND: u64 = 1_000 * MS;

/// The settings of a world. All times are in nanoseconds, all shares in millionths.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Servers; all of them are members of every star at first.
    pub servers: u16,
    /// Stars.
    pub stars: u16,
    /// Events until everything is healed and the end begins.
    pub steps: u64,
    /// The least and the most time that a message is under way.
    pub delay: (u64, u64),
    /// The most time from the arrival of an input to the server's turn.
    pub turn_delay_max: u64,
    /// Messages between servers that are lost although the link is up.
    pub loss: u64,
    /// How far a server's clock may start from the world's.
    pub clock_offset_max: u64,
    /// How much faster or slower a clock may run.
    pub clock_drift_max: u64,
    /// How long a lease lasts at the control plane.
    pub lease: u64,
    /// What a server takes off its lease, because its clock may be slower than the control plane's.
    pub lease_margin: u64,
    /// How often a server renews its lease.
    pub renew_every: u64,
    /// The clients.
    pub workload: Workload,
    /// What breaks.
    pub faults: Faults,
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
    pub weights: [u64; 8],
    /// The longest cut of a link.
    pub cut_max: u64,
    /// The longest pause of a server.
    pub pause_max: u64,
    /// The most that a slow link adds to the delay.
    pub slow_max: u64,
    /// The longest absence of the control plane.
    pub away_max: u64,
    /// The longest time until a crashed server starts again.
    pub down_max: u64,
}

impl Settings {
    /// A world drawn at random: delays, link cuts and heals, pauses shorter than a lease; one view per star.
    pub fn random(random: &mut Random) -> Self {
        let delay_max = *random.pick(&[200_000, MS, 5 * MS, 20 * MS]);
        let lease = SECOND;
        Self {
            servers: random.between(2, 5) as u16,
            stars: random.between(1, 3) as u16,
            steps: 4_000,
            delay: (random.between(10_000, 100_000), delay_max),
            turn_delay_max: random.between(1_000, 200_000),
            loss: *random.pick(&[0, 0, 0, 1_000, 20_000]),
            clock_offset_max: 1_000 * SECOND,
            clock_drift_max: 200,
            lease,
            lease_margin: lease / 100,
            renew_every: lease / 4,
            workload: Workload::random(random, delay_max),
            faults: Faults {
                every: (10 * MS, random.between(50, 1_000) * MS),
                at_once_max: random.between(1, 3) as usize,
                weights: [4, 3, 3, 2, 1, 0, 0, 0],
                cut_max: random.between(20, 1_000) * MS,
                pause_max: lease / 2,
                slow_max: 50 * MS,
                away_max: 2 * lease,
                down_max: 3 * lease,
            },
        }
    }

    /// The same, with changes of leader among the faults: views of the same members under other leaders.
    #[must_use]
    pub fn with_turnover(mut self) -> Self {
        self.faults.weights[5] = 4;
        self
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
