//! [`StarServer`]: one server of a cluster, on threads of its own; see [`star_host`].

mod local;
mod options;
mod plane;

use std::{net::TcpListener, sync::Arc};

use star_control::{ClusterState, ControlEvent};
use star_core::{
    Epoch, Incarnation, ServerId, StarId, Time,
    config::Config,
    server::{Server, bind},
};
use star_host::{Companions, ControlPlane, Host, HostOptions, Hosted, new_incarnation};
use star_objstore::{MappedStore, OpenError, Recovered};
use tokio::sync::watch;
use tracing::{info, warn};

pub use self::{
    options::{ServerOptions, StartError},
    plane::control_plane,
};
use crate::protocol::{Control, StarNode, claims};

type Node = StarNode<MappedStore>;

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

    fn settled(&self) -> Vec<(StarId, Epoch)> {
        self.settled()
    }

    fn held(&self) -> Vec<StarId> {
        self.held()
    }

    fn slow_links(&self) -> Vec<ServerId> {
        self.slow_links()
    }

    fn into_store(self) -> MappedStore {
        self.into_store()
    }
}

/// A running server. Dropping it stops it.
#[derive(Debug)]
pub struct StarServer {
    host: Host<Node>,
}

impl StarServer {
    /// Starts the server of this name: when this returns it listens, and joins its cluster by itself.
    pub fn start(config: &Config, name: &str) -> Result<Self, StartError> {
        let options = ServerOptions::from_config(config, name)?;
        let listener = bind(&options.addr)?;
        Self::start_on(listener, options)
    }

    /// Starts a server on a socket from [`bind`].
    pub fn start_on(listener: TcpListener, options: ServerOptions) -> Result<Self, StartError> {
        let incarnation = new_incarnation();
        let plane = ControlPlane::start(&options.control, &options.cluster, &options.name, options.lease.ttl)?;
        let mut node = options.node;
        (node.incarnation, node.name) = (incarnation, options.name.clone());
        let store = open_store(&star_objstore::Options {
            path: options.store_path.clone(),
            capacity_bytes: options.store_capacity_bytes,
            entries_max: options.store_entries_max,
            stars: node.stars,
            cluster: options.cluster.clone(),
            incarnation,
            group: options.store_group,
            huge_pages: options.store_huge_pages,
        })?;
        if options.store_huge_pages {
            let (huge_bytes, file_bytes) = (store.huge_bytes(), store.file_bytes());
            info!(huge_bytes, file_bytes, "huge pages were asked for; the rest of the file lies in ordinary ones");
        }
        let host = HostOptions {
            name: options.name,
            cluster: options.cluster,
            incarnation,
            store_path: options.store_path,
            claims: claims(&store, node.stars),
            keeps_store: options.keeps_store,
            limits: options.limits,
            plane: plane.clone(),
            plan: options.plan,
            lease: options.lease,
            allows_faults: options.allows_faults,
        };
        let protocol = move || StarNode::new(node, store);
        Ok(Self { host: Host::start(listener, host, protocol, move |server| companions(server, plane))? })
    }

    /// The server's name.
    pub fn name(&self) -> &str {
        self.host.name()
    }

    /// Where the server listens.
    pub fn addr(&self) -> &str {
        self.host.addr()
    }

    /// Says why the server had to end by itself, if it did.
    pub fn failure(&self) -> watch::Receiver<Option<String>> {
        self.host.failure()
    }

    /// Breaks the link to another server, for tests: nothing is sent to it or taken from it.
    pub fn fail_link(&self, to: ServerId) {
        self.host.fail_link(to);
    }

    /// Mends the link to another server.
    pub fn fix_link(&self, to: ServerId) {
        self.host.fix_link(to);
    }

    /// See [`Host::stop`].
    pub fn stop(self) {
        self.host.stop();
    }
}

/// Answers processes of this machine, and tells people of the control plane and of full stops.
fn companions(server: &mut Server<Node>, plane: ControlPlane) -> Companions {
    server.serve_local(Box::<local::StoreService>::default());
    let (report_trouble, trouble) = watch::channel(None);
    let mut known: Option<Arc<ClusterState>> = None;
    let listener = move |event: &ControlEvent| {
        plane::note(&report_trouble, event);
        if let ControlEvent::Cluster(cluster) = event {
            tell_of_full_stops(known.as_deref(), cluster);
            known = Some(Arc::clone(cluster));
        }
    };
    Companions { listener: Box::new(listener), task: Box::pin(plane::report(plane, trouble, server.handle())) }
}

/// Says so when a star went on with what a store held after all of its servers had ended, and when it was founded anew, empty,
/// because no store certainly held everything.
fn tell_of_full_stops(before: Option<&ClusterState>, after: &ClusterState) {
    let Some(before) = before else { return };
    let (mut resumed, mut lost) = (Vec::new(), Vec::new());
    for (old, new) in before.stars.iter().zip(&after.stars) {
        if new.founded > old.founded && old.founded > Epoch(0) {
            lost.push(new.star.to_string());
        } else if new.resumed > old.resumed {
            resumed.push(new.star.to_string());
        }
    }
    if !resumed.is_empty() {
        let stars = resumed.join(" ");
        info!(%stars, "all servers of these stars had ended: they go on with what a store held");
    }
    if !lost.is_empty() {
        let stars = lost.join(" ");
        warn!(%stars, "the objects of these stars are lost: all servers that held them have ended, and no store certainly has \
             them all. They begin empty");
    }
}

/// The store that a life of this server left when it was killed, or a new one. What is in it is compared with what the
/// other members have before anybody reads it.
fn open_store(options: &star_objstore::Options) -> Result<MappedStore, OpenError> {
    let path = options.path.display();
    match MappedStore::open(options) {
        Ok((store, Recovered { objects, dropped, torn, .. })) => {
            info!(%path, objects, dropped, torn,
                "found the store of an earlier life: what other serving members have as well is kept; where all servers had \
                 ended, a star goes on with it if it certainly holds everything");
            Ok(store)
        }
        Err(OpenError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            MappedStore::create(options)
        }
        Err(error) => {
            warn!(%error, "the store of an earlier life cannot be used, a new one is made");
            MappedStore::create(options)
        }
    }
}
