//! Hands what the control plane says to the command queue.

use std::sync::Arc;

use star_control::{ClusterState, ControlEvent, ServerRecord, Standing};
use star_core::{
    Time,
    protocol::Input,
    server::{Handle, Hello, Peer},
};
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::Hosted;

/// What follows the control plane's word, on the server's thread.
pub(crate) struct Follow<P: Hosted> {
    pub(crate) name: String,
    pub(crate) addr: String,
    pub(crate) has_joined: bool,
    /// See [`super::Companions::listener`].
    pub(crate) listener: Box<dyn FnMut(&ControlEvent)>,
    pub(crate) handle: Handle<P>,
}

impl<P: Hosted> Follow<P> {
    pub(crate) async fn news(mut self, mut news: mpsc::UnboundedReceiver<ControlEvent>) {
        while let Some(event) = news.recv().await {
            (self.listener)(&event);
            match event {
                ControlEvent::Cluster(cluster) => self.cluster(cluster),
                ControlEvent::Lease { until } => self.tell(P::lease(until)),
                ControlEvent::LeaseLost => {
                    warn!("the lease is lost: no reads until there is another");
                    self.tell(P::lease(Time::ZERO));
                }
                ControlEvent::Waiting(why) => info!(%why, "waiting"),
                ControlEvent::Unreachable(why) => warn!(%why, "trouble with the control plane"),
                ControlEvent::Awaited(Some(why)) => warn!(%why, "waiting"),
                ControlEvent::Awaited(None) => info!("no star waits for servers that have ended any more"),
                ControlEvent::Answers => info!("the control plane can be used again"),
                ControlEvent::Left => self.handle.stop(),
            }
        }
    }

    fn cluster(&mut self, cluster: Arc<ClusterState>) {
        if !self.has_joined {
            self.join(&cluster);
        }
        let peers = cluster.servers.iter().filter(|one| one.standing != Standing::Removed).map(peer).collect();
        self.handle.set_peers(peers);
        self.tell(P::cluster(cluster));
    }

    /// The first state of the cluster that the agent speaks of holds this server's number and the name of this life, and
    /// names the cluster for good.
    fn join(&mut self, cluster: &ClusterState) {
        let Some(record) = cluster.server_named(&self.name) else { return };
        self.has_joined = true;
        let (addr, id, incarnation) = (&self.addr, record.id, record.incarnation);
        info!(%addr, %id, %incarnation, cluster = %cluster.cluster, "serving");
        self.handle.join(Hello { cluster: cluster.cluster.clone(), to: id, server: id, incarnation });
        self.tell(P::joined(id, incarnation));
    }

    fn tell(&self, control: P::Control) {
        self.handle.input(Input::Control(control));
    }
}

fn peer(server: &ServerRecord) -> Peer {
    Peer { id: server.id, name: server.name.clone(), addr: server.addr.clone() }
}
