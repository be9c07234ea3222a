//! The control plane of the simulated world: it keeps the views and grants the leases.

use std::sync::Arc;

use star_control::{ClusterState, ServerRecord, View};
use star_core::ids::{Epoch, Incarnation, ServerId, StarId};

/// The control plane.
#[derive(Debug)]
pub(crate) struct Plane {
    state: Arc<ClusterState>,
    /// How many faults keep it away.
    pub(crate) absences: u32,
    /// Until when, on the world's clock, each server holds the lease that it was granted last.
    lease_until: Vec<u64>,
}

impl Plane {
    /// Every server is a member of every star; leaders are spread over the servers.
    pub(crate) fn new(servers: u16, stars: u16) -> Self {
        let members: Vec<ServerId> = (0..servers).map(ServerId).collect();
        let view = |star: u16| View {
            star: StarId(star),
            epoch: Epoch(1),
            members: members.clone(),
            leader: ServerId(star % servers),
            ..View::default()
        };
        let record = |id: &ServerId| ServerRecord {
            id: *id,
            name: server_name(*id),
            addr: format!("127.0.0.1:{}", 7000 + id.0),
            incarnation: Incarnation(1),
            pid: 1 + u32::from(id.0),
            store: None,
        };
        let state = ClusterState {
            format: ClusterState::FORMAT,
            cluster: "simulated".to_owned(),
            servers: members.iter().map(record).collect(),
            stars: (0..stars).map(view).collect(),
        };
        Self { state: Arc::new(state), absences: 0, lease_until: vec![0; usize::from(servers)] }
    }

    pub(crate) fn state(&self) -> Arc<ClusterState> {
        Arc::clone(&self.state)
    }

    pub(crate) fn is_there(&self) -> bool {
        self.absences == 0
    }

    /// Grants a lease to this life of a server; refused to a life that is over.
    pub(crate) fn renew(&mut self, server: ServerId, incarnation: Incarnation, until: u64) -> bool {
        let current = self.state.server(server).is_some_and(|record| record.incarnation == incarnation);
        if current {
            self.lease_until[usize::from(server.0)] = until;
        }
        current
    }

    /// A new life of a server: not a member of anything, until the planner takes it in.
    pub(crate) fn register(&mut self, server: ServerId, incarnation: Incarnation) {
        let state = Arc::make_mut(&mut self.state);
        if let Some(record) = state.servers.iter_mut().find(|record| record.id == server) {
            record.incarnation = incarnation;
        }
    }

    /// Gives a star another leader among its members.
    pub(crate) fn turn_over(&mut self, star: StarId, leader: ServerId) {
        let view = &mut Arc::make_mut(&mut self.state).stars[usize::from(star.0)];
        if view.is_member(leader) {
            view.leader = leader;
            view.epoch = view.epoch.next();
        }
    }

    /// Takes a server that is gone out of all views, once its lease has run out; true if anything changed.
    /// A star whose last member it is keeps its view.
    pub(crate) fn take_out(&mut self, server: ServerId, now: u64) -> bool {
        if now <= self.lease_until[usize::from(server.0)] {
            return false;
        }
        let state = Arc::make_mut(&mut self.state);
        let mut changed = false;
        for view in &mut state.stars {
            if view.is_member(server) && view.members.len() > 1 {
                view.members.retain(|member| *member != server);
                if view.leader == server {
                    view.leader = view.members[usize::from(view.star.0) % view.members.len()];
                }
                view.epoch = view.epoch.next();
                changed = true;
            }
        }
        changed
    }
}

pub(crate) fn server_name(id: ServerId) -> String {
    char::from_u32(u32::from(b'a') + u32::from(id.0)).map_or_else(|| format!("s{id}"), String::from)
}
