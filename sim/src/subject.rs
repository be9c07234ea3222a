//! What the world needs of a protocol beside [`Protocol`]: to start it, to feed it views and leases, and to look inside.

use std::sync::Arc;

use star_control::{Claim, ClusterState};
use star_core::{
    ids::{Epoch, Incarnation, Seq, ServerId, StarId, Version},
    key::Key,
    protocol::Protocol,
    time::Time,
};

/// A protocol that the world can host.
pub trait Subject: Protocol<Control: Clone> + Sized {
    /// What is the same for all servers of a world, planted bugs among it.
    type Settings: Clone;
    /// A server that starts, without any memory of a life before.
    fn start(settings: &Self::Settings, identity: &Identity) -> Self;

    /// The same, with what a life before has left in its store; it remembers nothing else.
    fn start_warm(settings: &Self::Settings, identity: &Identity, _before: Self) -> Self {
        Self::start(settings, identity)
    }

    /// What the store of this server holds of each star, as the control plane is to know it.
    fn claims(&self) -> Vec<Claim> {
        Vec::new()
    }

    /// The control plane's state, as this protocol is told of it.
    fn cluster(state: Arc<ClusterState>) -> Self::Control;

    /// A lease that ends at `until` on this server's clock.
    fn lease(until: Time) -> Self::Control;

    /// The stars in which this server may take its next step towards serving, in the epochs that it speaks of.
    fn may_advance(&self) -> Vec<(StarId, Epoch)>;

    /// What this server holds of a star.
    fn glance(&self, star: StarId) -> Glance;

    /// Calls `visit` for the stamps after `after` that are not committed, in order.
    fn stamps(&self, star: StarId, after: Seq, visit: &mut dyn FnMut(Seq, Stamped));

    /// Calls `visit` for each committed object.
    fn objects(&self, visit: &mut dyn FnMut(&Key, Version, &[u8]));

    /// A number that grows with every change of what [`Self::look_up`] says of any key, so that nothing is judged
    /// twice; `None` if this protocol does not count.
    fn store_changes(&self) -> Option<u64> {
        None
    }

    /// The version of a key's committed object, and whether the key is dirty.
    fn look_up(&self, key: &Key) -> (Option<Version>, bool);

    /// A digest of the results of requests that this server remembers as of `committed`: the same at all members.
    fn remembered(&self, _star: StarId) -> u64 {
        0
    }

    /// What is unfinished at this server, for people; `None` if nothing is.
    fn unfinished(&self) -> Option<String>;

    /// What is wrong inside this server, if anything.
    fn check(&self) -> Result<(), String>;

    /// How many of its writes went around slow links.
    fn went_around(&self) -> u64 {
        0
    }
}

/// Who a server is when it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its number.
    pub id: ServerId,
    /// Its name.
    pub name: String,
    /// This life of it.
    pub incarnation: Incarnation,
    /// Stars in the cluster.
    pub stars: u16,
}

/// What a server holds of one star.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Glance {
    /// The epoch that it acts in; 0 if it holds nothing of the star.
    pub epoch: Epoch,
    /// The epoch in which the history that it knows of the star began; 0 if it does not know.
    pub founded: Epoch,
    /// The epoch in which the star went on last with what a store held; 0 if it never did.
    pub resumed: Epoch,
    /// Whether it has taken over the order of that epoch.
    pub installed: bool,
    /// Whether it answers reads while its lease lasts.
    pub serving: bool,
    /// The members of its view.
    pub members: ServerSet,
    /// It holds every stamp and value up to here.
    pub ready: Seq,
    /// It has applied every write up to here.
    pub committed: Seq,
    /// The last seq of the order with which it took over its epoch.
    pub base: Seq,
}

/// A set of servers with numbers below 64, which is more than any cluster has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerSet(u64);

impl ServerSet {
    /// Whether a server is in it.
    pub fn contains(self, server: ServerId) -> bool {
        self.0 >> server.0 & 1 == 1
    }

    /// Its servers, the lowest number first.
    pub fn iter(self) -> impl Iterator<Item = ServerId> {
        (0..64).map(ServerId).filter(move |server| self.contains(*server))
    }
}

impl FromIterator<ServerId> for ServerSet {
    fn from_iter<I: IntoIterator<Item = ServerId>>(servers: I) -> Self {
        Self(servers.into_iter().fold(0, |bits, server| bits | 1 << server.0))
    }
}

/// A stamp, as numbers that two servers can compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamped {
    /// The write.
    pub write: u128,
    /// The version that it makes, if it changes anything.
    pub effect: Option<Version>,
}
