//! How a server registers, as the real agent does.

use std::sync::Arc;

use star_control::{
    ClusterState, Lease, Revision, ServerRecord,
    plan::{alive, may_end_soon, registered},
};
use star_core::ids::ServerId;

use super::{Call, Occasion, ViewAsk};
use crate::{
    subject::Subject,
    world::{World, plane::server_record, settings::ControlBug},
};

impl<S: Subject> World<S> {
    /// The document has come to a server that is to register.
    pub(super) fn register_in(
        &mut self,
        id: ServerId,
        revision: Revision,
        state: &Arc<ClusterState>,
        leases: &[Lease],
    ) {
        let me = ServerRecord { claims: self.claims(id), ..server_record(id, self.server(id).incarnation) };
        let seen = &mut self.server(id).agent.seen;
        seen.look(leases);
        if may_end_soon(state, &me, leases, seen) {
            let again = self.settings.lease.look_every().as_nanos() as u64;
            return self.occasion_in(id, again, Occasion::Register);
        }
        let (after, _) = registered(state, &me, &alive(state, leases));
        let after = self.with_claims_kept(state, after);
        if after == **state {
            return self.is_registered(id, revision, Arc::clone(state));
        }
        let after = Arc::new(after);
        let call = Call::Set { expected: revision, after: Arc::clone(&after) };
        self.ask_about_views(id, ViewAsk::Set(after), call);
    }

    pub(super) fn is_registered(&mut self, id: ServerId, revision: Revision, state: Arc<ClusterState>) {
        self.server(id).agent.is_registered = true;
        let _ = self.accept(id, revision, state); // It is the first that it knows.
        self.tend_lease(id);
        self.occasion_in(id, self.settings.lease.look_every().as_nanos() as u64, Occasion::Tend);
    }

    /// The planted bug: what a store held when a life began is believed for as long as that lasts.
    pub(super) fn with_claims_kept(&self, before: &ClusterState, mut after: ClusterState) -> ClusterState {
        if self.settings.control_bug == Some(ControlBug::ClaimKept) {
            for (now, then) in after.servers.iter_mut().zip(&before.servers) {
                if now.incarnation == then.incarnation {
                    now.claims.clone_from(&then.claims);
                }
            }
        }
        after
    }
}
