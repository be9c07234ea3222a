//! The Star protocol in the world, on a store in plain memory.

use std::{sync::Arc, time::Duration};

use star::protocol::{Bug, Control, DirtyReads, LinkWatch, NodeConfig, Route, StarNode};
use star_control::{Claim, ClusterState};
use star_core::{
    ids::{Epoch, Incarnation, Seq, ServerId, StarId, Version},
    key::Key,
    message::to_postcard,
    store::MemoryStore,
    time::Time,
};

use xxhash_rust::xxh3::xxh3_64;

use crate::{
    random::Random,
    subject::{Glance, Identity, Stamped, Subject},
};

/// So few that servers which catch up find that much is forgotten.
pub(crate) const SESSIONS_FEW: usize = 24;

/// Large enough that no world fills it.
const CAPACITY_BYTES: u64 = 64 << 20;

/// What the servers of a world have in common.
#[derive(Clone, Debug)]
pub struct StarSettings {
    /// How values reach the members.
    pub route: Route,
    /// What a read of a dirty key does.
    pub dirty_reads: DirtyReads,
    /// Values longer than this travel in pieces of this size, in bytes.
    pub piece_bytes: usize,
    /// From which size on `Route::Auto` takes the chain, in bytes.
    pub chain_from_bytes: usize,
    /// How `Route::Auto` finds slow links.
    pub link_watch: LinkWatch,
    /// The most bytes of unfinished writes at an origin.
    pub buffer_bytes_max: u64,
    /// How long nothing must have moved before lost messages are said again.
    pub repair_after: Duration,
    /// An answer to a server that catches up holds about so many bytes of objects.
    pub part_bytes: usize,
    /// The most keys or requests in such an answer.
    pub part_entries: usize,
    /// Results remembered per star.
    pub sessions_max: usize,
    /// A mistake put in on purpose.
    pub bug: Option<Bug>,
}

impl StarSettings {
    /// As servers have them by default.
    pub fn served() -> Self {
        let config = NodeConfig::new(ServerId(0), "", Incarnation(1), 1);
        Self {
            route: config.route,
            dirty_reads: config.dirty_reads,
            piece_bytes: config.piece_bytes,
            chain_from_bytes: config.chain_from_bytes,
            link_watch: config.link_watch,
            buffer_bytes_max: config.buffer_bytes_max,
            repair_after: config.repair_after,
            part_bytes: config.part_bytes,
            part_entries: config.part_entries,
            sessions_max: config.sessions_max,
            bug: None,
        }
    }

    /// Settings drawn at random, small enough that a short run meets every limit.
    pub fn random(random: &mut Random) -> Self {
        let routes = [Route::Auto, Route::Auto, Route::Fanout, Route::Chain];
        Self {
            route: *random.pick(&routes),
            dirty_reads: *random.pick(&[DirtyReads::Wait, DirtyReads::Wait, DirtyReads::Leader]),
            piece_bytes: random.between(16, 128) as usize,
            chain_from_bytes: random.between(16, 128) as usize,
            link_watch: LinkWatch::default(),
            buffer_bytes_max: *random.pick(&[600, 3_000, 1 << 20, 1 << 20]),
            repair_after: Duration::from_millis(random.between(40, 200)),
            part_bytes: *random.pick(&[1, 64, 1_000, 256 << 10]),
            part_entries: random.between(1, 8) as usize,
            sessions_max: *random.pick(&[SESSIONS_FEW, 1 << 16, 1 << 16, 1 << 16]),
            bug: None,
        }
    }

    /// The same, with servers that look for slow links however little is sent, believe in them soon, and try them again soon.
    #[must_use]
    pub fn with_link_watch(mut self, random: &mut Random) -> Self {
        self.route = Route::Auto;
        self.link_watch = LinkWatch {
            from_bytes: 1,
            every: Duration::from_millis(20),
            late_by: Duration::from_millis(random.between(1, 10)),
            late_times: random.between(1, 3) as u32,
            avoided_for: Duration::from_millis(random.between(50, 1_000)),
        };
        self
    }
}

fn config(settings: &StarSettings, identity: &Identity) -> NodeConfig {
    NodeConfig {
        route: settings.route,
        dirty_reads: settings.dirty_reads,
        piece_bytes: settings.piece_bytes,
        chain_from_bytes: settings.chain_from_bytes,
        link_watch: settings.link_watch,
        buffer_bytes_max: settings.buffer_bytes_max,
        repair_after: settings.repair_after,
        part_bytes: settings.part_bytes,
        part_entries: settings.part_entries,
        sessions_max: settings.sessions_max,
        bug: settings.bug,
        ..NodeConfig::new(identity.id, identity.name.clone(), identity.incarnation, identity.stars)
    }
}

impl Subject for StarNode<MemoryStore> {
    type Settings = StarSettings;

    fn start(settings: &StarSettings, identity: &Identity) -> Self {
        Self::new(config(settings, identity), MemoryStore::new(identity.stars, CAPACITY_BYTES))
    }

    fn start_warm(settings: &StarSettings, identity: &Identity, before: Self) -> Self {
        Self::new(config(settings, identity), before.into_store().after_crash())
    }

    fn claims(&self) -> Vec<Claim> {
        Self::claims(self)
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
            resumed: seen.resumed,
            installed: seen.installed,
            serving: seen.serving,
            members: seen.members.iter().copied().collect(),
            ready: seen.ready,
            committed: seen.committed,
            base: seen.base,
        }
    }

    fn stamps(&self, star: StarId, after: Seq, visit: &mut dyn FnMut(Seq, Stamped)) {
        for (seq, stamp) in self.replicas()[usize::from(star.0)].stamps_from(after) {
            let write = u128::from(stamp.write.origin.0) << 64 | u128::from(stamp.write.number);
            visit(seq, Stamped { write, effect: stamp.effect() });
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

    fn remembered(&self, star: StarId) -> u64 {
        let mut bytes = Vec::new();
        to_postcard(&self.replicas()[usize::from(star.0)].settled_results(), &mut bytes);
        xxh3_64(&bytes)
    }

    fn unfinished(&self) -> Option<String> {
        let me = self.config().me;
        let buffered: Vec<(u16, usize)> = self
            .replicas()
            .iter()
            .map(|replica| replica.observe(me))
            .filter(|seen| seen.buffered > 0)
            .map(|seen| (seen.star.0, seen.buffered))
            .collect();
        let (dirty, unpublished) = (self.store().dirty_keys().count(), self.store().unpublished());
        if self.is_idle() && buffered.is_empty() && dirty == 0 && unpublished == 0 {
            return None;
        }
        let idle = if self.is_idle() { "idle" } else { "not idle" };
        Some(format!(
            "{idle}, buffered (star, writes) {buffered:?}, {dirty} keys dirty, {unpublished} values unpublished"
        ))
    }

    fn check(&self) -> Result<(), String> {
        Self::check(self)
    }

    fn went_around(&self) -> u64 {
        self.counters().went_around
    }
}
