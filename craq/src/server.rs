//! [`CraqServer`]: one node, on threads of its own; see [`star_host`].

use std::{net::TcpListener, path::PathBuf, sync::Arc};

use star_control::{ClusterState, LeaseConfig, PlanConfig};
use star_core::{
    Epoch, Incarnation, ServerId, StarId, Time,
    config::GroupAccess,
    server::{BindError, Limits},
};
use star_host::{Companions, ControlOptions, ControlPlane, Host, HostError, HostOptions, Hosted, new_incarnation};
use star_objstore::{MappedStore, OpenError};
use tokio::sync::watch;

use crate::protocol::{Control, CraqNode, NodeConfig};

type Node = CraqNode<MappedStore>;

/// Everything that one node needs to know before it starts.
#[derive(Clone, Debug)]
pub struct CraqOptions {
    /// The protocol's settings and the node's name, unique in the cluster; number and life get filled in.
    pub node: NodeConfig,
    /// The cluster's name; the same at all nodes.
    pub cluster: String,
    /// How much is taken from outside.
    pub limits: Limits,
    /// The file of the mapped store.
    pub store_path: PathBuf,
    /// Bytes for objects in the mapped store.
    pub store_capacity_bytes: u64,
    /// Where views and leases are kept: at a coordinator, or at nodes of the cluster, or at a Redis.
    pub control: ControlOptions,
    /// What the views should look like; each star of it is a chain.
    pub plan: PlanConfig,
    /// How long leases run.
    pub lease: LeaseConfig,
    /// Whether clients may ask for faults.
    pub allows_faults: bool,
}

/// Why a node or a coordinator cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It cannot listen.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Its store cannot be made.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// It cannot be run.
    #[error(transparent)]
    Host(#[from] HostError),
}

/// A node notes nothing in its store that a later life could go on with: of [`Hosted`] it needs no more than this.
impl Hosted for Node {
    fn joined(id: ServerId, incarnation: Incarnation) -> Control {
        Control::Joined { id, incarnation }
    }

    fn cluster(state: Arc<ClusterState>) -> Control {
        Control::Cluster(state)
    }

    fn lease(until: Time) -> Control {
        Control::Lease { until }
    }

    fn may_advance(&self) -> Vec<(StarId, Epoch)> {
        self.may_advance()
    }

    fn into_store(self) -> MappedStore {
        self.into_store()
    }
}

/// A running node. Dropping it stops it.
#[derive(Debug)]
pub struct CraqServer {
    host: Host<Node>,
}

impl CraqServer {
    /// Starts a node on a socket from [`star_core::server::bind`]; it joins its chains by itself.
    pub fn start_on(listener: TcpListener, options: CraqOptions) -> Result<Self, StartError> {
        let CraqOptions { mut node, cluster, limits, store_path, control, plan, lease, allows_faults, .. } = options;
        let incarnation = new_incarnation();
        node.incarnation = incarnation;
        let plane = ControlPlane::start(&control, &cluster, &node.name, lease.ttl)?;
        if let Some(directory) = store_path.parent() {
            std::fs::create_dir_all(directory).map_err(HostError::from)?;
        }
        let store = MappedStore::create(&star_objstore::Options {
            path: store_path.clone(),
            capacity_bytes: options.store_capacity_bytes,
            entries_max: None,
            stars: node.stars,
            cluster: cluster.clone(),
            incarnation,
            group: GroupAccess::None,
            huge_pages: false,
        })?;
        let (name, claims, keeps_store) = (node.name.clone(), Vec::new(), false);
        let host = HostOptions {
            name,
            cluster,
            incarnation,
            store_path,
            claims,
            keeps_store,
            limits,
            plane,
            plan,
            lease,
            allows_faults,
        };
        let protocol = move || CraqNode::new(node, store);
        Ok(Self { host: Host::start(listener, host, protocol, |_| Companions::none())? })
    }

    /// The node's name.
    pub fn name(&self) -> &str {
        self.host.name()
    }

    /// Where the node listens.
    pub fn addr(&self) -> &str {
        self.host.addr()
    }

    /// Says why the node had to end by itself, if it did.
    pub fn failure(&self) -> watch::Receiver<Option<String>> {
        self.host.failure()
    }

    /// Breaks the link to another node, for tests: nothing is sent to it or taken from it.
    pub fn fail_link(&self, to: ServerId) {
        self.host.fail_link(to);
    }

    /// Mends the link to another node.
    pub fn fix_link(&self, to: ServerId) {
        self.host.fix_link(to);
    }

    /// See [`Host::stop`].
    pub fn stop(self) {
        self.host.stop();
    }
}
