//! CRAQ in the world, on a store in plain memory, under the same faults and checks as Star.

use std::{sync::Arc, time::Duration};

use craq::protocol::{Acks, Bug, Control, CraqNode, NodeConfig, Reads};
use star_control::ClusterState;
use star_core::{
    ids::{Epoch, Incarnation, Seq, ServerId, StarId, Version},
    key::Key,
    store::MemoryStore,
    time::Time,
};

use crate::{
    campaign::Mode,
    random::Random,
    star::SESSIONS_FEW,
    subject::{Glance, Identity, Stamped, Subject},
    world::{Failure, Settings, Summary, Trace, World},
};

/// Large enough that no world fills it.
const CAPACITY_BYTES: u64 = 64 << 20;

/// CRAQ on a store in plain memory.
pub type Craq = CraqNode<MemoryStore>;

/// What the servers of a world have in common.
#[derive(Clone, Debug)]
pub struct CraqSettings {
    /// How reads are answered; one of the linearizable ways.
    pub reads: Reads,
    /// The way of acknowledgements.
    pub acks: Acks,
    /// Values longer than this travel in pieces of this size, in bytes.
    pub piece_bytes: usize,
    /// The most bytes of unfinished writes at an origin.
    pub buffer_bytes_max: u64,
    /// How long nothing must have moved before lost messages are said again.
    pub repair_after: Duration,
    /// An answer to a server that catches up holds about so many bytes of objects.
    pub part_bytes: usize,
    /// The most keys or requests in such an answer.
    pub part_entries: usize,
    /// The latest changes that a server which catches up may ask for.
    pub changes_max: usize,
    /// A mistake put in on purpose.
    pub bug: Option<Bug>,
}

impl CraqSettings {
    /// As servers have them by default.
    pub fn served() -> Self {
        let config = NodeConfig::new(ServerId(0), "", Incarnation(1), 1);
        Self {
            reads: config.reads,
            acks: config.acks,
            piece_bytes: config.piece_bytes,
            buffer_bytes_max: config.buffer_bytes_max,
            repair_after: config.repair_after,
            part_bytes: config.part_bytes,
            part_entries: config.part_entries,
            changes_max: config.changes_max,
            bug: None,
        }
    }

    /// Settings drawn at random, small enough that a short run meets every limit.
    pub fn random(random: &mut Random) -> Self {
        Self {
            reads: *random.pick(&[Reads::Apportioned, Reads::Apportioned, Reads::Apportioned, Reads::Tail]),
            acks: *random.pick(&[Acks::Chain, Acks::Chain, Acks::Direct]),
            piece_bytes: random.between(16, 128) as usize,
            buffer_bytes_max: *random.pick(&[600, 3_000, 1 << 20, 1 << 20]),
            repair_after: Duration::from_millis(random.between(40, 200)),
            part_bytes: *random.pick(&[1, 64, 1_000, 256 << 10]),
            part_entries: random.between(1, 8) as usize,
            changes_max: *random.pick(&[SESSIONS_FEW, 1 << 16, 1 << 16, 1 << 16]),
            bug: None,
        }
    }
}

impl Subject for Craq {
    type Settings = CraqSettings;

    fn start(settings: &CraqSettings, identity: &Identity) -> Self {
        let config = NodeConfig {
            reads: settings.reads,
            acks: settings.acks,
            piece_bytes: settings.piece_bytes,
            buffer_bytes_max: settings.buffer_bytes_max,
            repair_after: settings.repair_after,
            part_bytes: settings.part_bytes,
            part_entries: settings.part_entries,
            changes_max: settings.changes_max,
            bug: settings.bug,
            ..NodeConfig::new(identity.id, identity.name.clone(), identity.incarnation, identity.stars)
        };
        Self::new(config, MemoryStore::new(identity.stars, CAPACITY_BYTES))
    }

    fn cluster(state: Arc<ClusterState>) -> Control {
        Control::Cluster(state)
    }

    fn lease(until: Time) -> Control {
        Control::Lease { until }
    }

    fn may_advance(&self) -> Vec<(StarId, Epoch)> {
        Self::may_advance(self)
    }

    fn glance(&self, star: StarId) -> Glance {
        let seen = self.replicas()[usize::from(star.0)].observe(self.config().me);
        Glance {
            epoch: seen.epoch,
            founded: seen.founded,
            resumed: Epoch(0),
            installed: seen.installed,
            serving: seen.serving,
            members: seen.members.iter().copied().collect(),
            ready: seen.ready,
            committed: seen.committed,
            base: seen.base,
        }
    }

    fn stamps(&self, star: StarId, after: Seq, visit: &mut dyn FnMut(Seq, Stamped)) {
        for (seq, entry) in self.replicas()[usize::from(star.0)].pending_after(after) {
            let write = u128::from(entry.write.origin.0) << 64 | u128::from(entry.write.number);
            visit(seq, Stamped { write, effect: entry.effect() });
        }
    }

    fn objects(&self, visit: &mut dyn FnMut(&Key, Version, &[u8])) {
        self.store().objects().for_each(|(key, version, value)| visit(key, version, value));
    }

    fn store_changes(&self) -> Option<u64> {
        Some(self.store().changes())
    }

    fn look_up(&self, key: &Key) -> (Option<Version>, bool) {
        self.store().look_up(key)
    }

    fn unfinished(&self) -> Option<String> {
        let me = self.config().me;
        let seen = self.replicas().iter().map(|replica| replica.observe(me));
        let pending: Vec<(u16, usize)> =
            seen.filter(|seen| seen.unfinished > 0).map(|seen| (seen.star.0, seen.unfinished)).collect();
        let (dirty, unpublished) = (self.store().dirty_keys().count(), self.store().unpublished());
        if self.is_idle() && pending.is_empty() && dirty == 0 && unpublished == 0 {
            return None;
        }
        let idle = if self.is_idle() { "idle" } else { "not idle" };
        Some(format!(
            "{idle}, unfinished (star, writes) {pending:?}, {dirty} keys dirty, {unpublished} values unpublished"
        ))
    }

    fn check(&self) -> Result<(), String> {
        Self::check(self)
    }
}

/// Runs of CRAQ: what is the same for all seeds; the rest is drawn from the seed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Campaign {
    /// What happens beside the clients' requests.
    pub mode: Mode,
    /// Servers; by default 2 to 5, from the seed.
    pub servers: Option<u16>,
    /// How reads are answered; by default from the seed.
    pub reads: Option<Reads>,
    /// A mistake put in on purpose.
    pub bug: Option<Bug>,
}

impl Campaign {
    /// The world of a seed, before its first event.
    pub fn world(&self, seed: u64, trace: Trace) -> World<Craq> {
        let mut random = Random::new(seed ^ 0x4352_4151);
        let mut settings = Settings::random(&mut random);
        let mut subject = CraqSettings::random(&mut random);
        settings = match self.mode {
            Mode::Links => settings,
            Mode::Turnover => settings.with_turnover(),
            Mode::Churn => settings.with_churn(&mut random),
            Mode::Loss => settings.with_churn(&mut random).with_loss(),
            Mode::Slow => settings.with_churn(&mut random).with_slow_links(&mut random),
        };
        (subject.reads, subject.bug) = (self.reads.unwrap_or(subject.reads), self.bug);
        if settings.replicas.is_some() {
            settings.workload.weights[4] = 0;
        }
        settings.servers = self.servers.unwrap_or(settings.servers);
        World::new(seed, settings, subject, trace)
    }

    /// Runs a seed.
    pub fn run(&self, seed: u64) -> Result<Summary, Failure> {
        self.world(seed, Trace::silent()).run()
    }

    /// The command that runs a seed again and shows every event.
    pub fn replay(&self, seed: u64) -> String {
        let servers = self.servers.map_or_else(String::new, |servers| format!(" --servers {servers}"));
        let bug = self.bug.map_or_else(String::new, |bug| format!(" --bug {bug:?}"));
        let reads = self.reads.map_or_else(String::new, |reads| format!(" --reads {reads:?}").to_lowercase());
        let mode = self.mode.name();
        format!("cargo run -p star-sim --bin sim_craq -- --seed {seed} --mode {mode}{servers}{reads}{bug}")
    }
}
