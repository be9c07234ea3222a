//! What the load consists of: which keys, how often which operation, which values.

use std::path::PathBuf;

use crate::{BenchError, dialect::System};

/// A server that the load goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Where it listens: `host:port`.
    pub addr: String,
    /// Its mapped store, for reads without a message.
    pub store: Option<PathBuf>,
}

/// How the keys are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distribution {
    /// Every key as often as any other.
    Uniform,
    /// Few keys often: the k-th most frequent in proportion to 1/k^0.99.
    Zipf,
}

/// The load.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the servers are.
    pub system: System,
    /// The servers; client `i` talks to server `i % targets`.
    pub targets: Vec<Target>,
    /// For each star the target that leads it, where clients send each write there, as `StarClient` does while it has few
    /// under way; then every client has a connection to every target. Empty: to the client's own target.
    pub leaders: Vec<usize>,
    /// Servers of the system: at least those that the load goes to.
    pub servers: usize,
    /// The processes of the servers, and of what belongs to them, where they run on this machine: their use of the processor is counted.
    pub pids: Vec<u32>,
    /// Connections.
    pub clients: usize,
    /// Requests under way on each connection.
    pub pipeline: usize,
    /// Operations per second that are due, of all clients together, whether earlier ones were answered or not (an open loop).
    /// `None`: each is due when one before it is answered (a closed loop).
    pub rate: Option<f64>,
    /// How long the load lasts after the warm-up, in seconds.
    pub seconds: f64,
    /// How long the load runs before anything is counted, in seconds.
    pub warm_up_seconds: f64,
    /// The share of reads, from 0 to 1.
    pub read_share: f64,
    /// Different keys.
    pub keys: u64,
    /// How the keys are chosen.
    pub distribution: Distribution,
    /// The length of each value, in bytes.
    pub value_bytes: usize,
    /// Write every key once before the load.
    pub fill: bool,
    /// Whether every operation is recorded for the linearizability check (then values differ from one another).
    pub record: bool,
    /// The seed of the choices.
    pub seed: u64,
}

/// Operations a second: more than one thread could begin.
const RATE_MAX: f64 = 1e7;

impl Options {
    pub(crate) fn validate(&self) -> Result<(), BenchError> {
        let wrong = |text: &str| Err(BenchError::Options(text.to_owned()));
        if self.targets.is_empty() {
            return wrong("there is no server to put a load on");
        }
        if self.clients == 0 || self.pipeline == 0 || self.keys == 0 {
            return wrong("--clients, --pipeline and --keys must be at least 1");
        }
        if self.pipeline > 65_536 || self.clients > 10_000 {
            return wrong("at most 10000 clients with 65536 requests under way each");
        }
        if !(0.0..=1.0).contains(&self.read_share) {
            return wrong("--read-share must be between 0 and 1");
        }
        if !(self.seconds > 0.0 && self.seconds <= 86_400.0) {
            return wrong("--seconds must be more than 0 and at most 86400");
        }
        if self.rate.is_some_and(|rate| !(rate > 0.0 && rate <= RATE_MAX)) {
            return wrong("--rate must be more than 0 and at most 10000000 operations a second");
        }
        if self.rate.is_some_and(|rate| rate * self.seconds < 1.0) {
            return wrong("with this --rate nothing is due within --seconds");
        }
        if self.record && self.value_bytes < 24 {
            return wrong("a recorded load needs values of at least 24 bytes, so that they differ");
        }
        Ok(())
    }
}

/// A small generator of random numbers (`SplitMix64`); the same seed gives the same load.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// From 0 up to but not including 1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Chooses keys.
#[derive(Clone, Debug)]
pub(crate) enum Keys {
    Uniform {
        keys: u64,
    },
    /// Gray and others, "Quickly generating billion-record synthetic databases", section 3.2.
    Zipf {
        keys: u64,
        zeta: f64,
        alpha: f64,
        eta: f64,
        half: f64,
    },
}

const ZIPF_THETA: f64 = 0.99;

impl Keys {
    pub(crate) fn new(distribution: Distribution, keys: u64) -> Self {
        if distribution == Distribution::Uniform || keys == 1 {
            return Self::Uniform { keys };
        }
        let zeta: f64 = (1..=keys).map(|k| 1.0 / (k as f64).powf(ZIPF_THETA)).sum();
        let half = 0.5_f64.powf(ZIPF_THETA);
        let eta = (1.0 - (2.0 / keys as f64).powf(1.0 - ZIPF_THETA)) / (1.0 - (1.0 + half) / zeta);
        Self::Zipf { keys, zeta, alpha: 1.0 / (1.0 - ZIPF_THETA), eta, half }
    }

    pub(crate) fn next(&self, random: &mut Random) -> u64 {
        match *self {
            Self::Uniform { keys } => random.next() % keys,
            Self::Zipf { keys, zeta, alpha, eta, half } => {
                let unit = random.unit();
                let scaled = unit * zeta;
                if scaled < 1.0 {
                    0
                } else if scaled < 1.0 + half {
                    1
                } else {
                    ((keys as f64 * (eta * unit - eta + 1.0).powf(alpha)) as u64).min(keys - 1)
                }
            }
        }
    }
}

/// The text of a key.
pub(crate) fn key_text(key: u64) -> String {
    format!("key-{key:08}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zipf_prefers_the_first_keys_in_the_stated_proportion() {
        let keys = Keys::new(Distribution::Zipf, 1000);
        let mut random = Random::new(7);
        let mut counts = vec![0_u32; 1000];
        for _ in 0..1_000_000 {
            counts[keys.next(&mut random) as usize] += 1;
        }
        let ratio = f64::from(counts[0]) / f64::from(counts[9]);
        assert!((7.0..13.0).contains(&ratio), "the first key came {ratio} times as often as the tenth");
        assert!(counts.iter().all(|count| *count > 0), "every key comes at times");
    }

    #[test]
    fn uniform_gives_every_key_its_share() {
        let keys = Keys::new(Distribution::Uniform, 10);
        let mut random = Random::new(7);
        let mut counts = [0_u32; 10];
        for _ in 0..100_000 {
            counts[keys.next(&mut random) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (9_000..11_000).contains(count)), "{counts:?}");
    }
}
