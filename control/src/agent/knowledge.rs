//! What an agent knows and what it has told its server: the one place where events are sent, so they are in order.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use star_core::{ids::Incarnation, time::Time};
use tokio::sync::mpsc::UnboundedSender;

use super::{AgentError, ControlEvent};
use crate::{
    lease::LeaseState,
    plane::{Revision, Versioned},
    view::{ClusterState, ServerRecord, Standing},
};

/// The parts of an agent that work side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Registration,
    Views,
    Lease,
    Planning,
}

#[derive(Debug)]
pub(super) struct Knowledge {
    me: ServerRecord,
    events: UnboundedSender<ControlEvent>,
    /// Never held across an await.
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Only ever replaced by a state that may follow it.
    known: Option<(Revision, Arc<ClusterState>)>,
    /// What the server was told last; `None`: that it holds no lease.
    lease_until: Option<Time>,
    /// The parts whose latest call failed.
    troubled: BTreeSet<Part>,
}

impl Knowledge {
    pub(super) fn new(me: ServerRecord, events: UnboundedSender<ControlEvent>) -> Self {
        Self { me, events, inner: Mutex::default() }
    }

    /// This life of the server has another name than it came with.
    pub(super) fn rename_life(&mut self, incarnation: Incarnation) {
        self.me.incarnation = incarnation;
    }

    pub(super) fn revision(&self) -> Revision {
        self.inner().known.as_ref().map_or(Revision::ABSENT, |known| known.0)
    }

    pub(super) fn state(&self) -> Option<(Revision, Arc<ClusterState>)> {
        self.inner().known.clone()
    }

    pub(super) fn holds_lease(&self, now: Time) -> bool {
        self.inner().lease_until.is_some_and(|until| now < until)
    }

    /// Takes in a document and tells the server, unless it is known already. Refuses what cannot belong to the same history.
    pub(super) fn accept(&self, document: &Versioned) -> Result<(), AgentError> {
        let mut inner = self.inner();
        let state = ClusterState::decode(&document.value).map_err(AgentError::Forgot)?;
        if let Some((revision, known)) = &inner.known {
            // A plane that forgot may have come to any revision since, so this is looked at even where nothing is new.
            let (earlier, later) = if document.revision < *revision { (&state, &**known) } else { (&**known, &state) };
            later.check_follows(earlier).map_err(AgentError::Forgot)?;
            if document.revision == *revision && state != **known {
                return Err(AgentError::Forgot(format!("it holds another state under the same revision {revision}")));
            }
            if document.revision <= *revision {
                return Ok(());
            }
        }
        match state.server_named(&self.me.name) {
            None => return Err(AgentError::Forgot(format!("it does not know server {:?}", self.me.name))),
            Some(record) if record.incarnation != self.me.incarnation => {
                let (name, addr, pid) = (record.name.clone(), record.addr.clone(), record.pid);
                return Err(AgentError::Superseded { name, addr, pid });
            }
            Some(record) if record.standing == Standing::Removed => {
                return Err(AgentError::Removed { name: record.name.clone() });
            }
            Some(_) => {}
        }
        let state = Arc::new(state);
        inner.known = Some((document.revision, Arc::clone(&state)));
        self.send(ControlEvent::Cluster(state));
        Ok(())
    }

    /// Tells the server of its lease, if that is news.
    pub(super) fn lease(&self, state: LeaseState) {
        let until = match state {
            LeaseState::Holding { until } => Some(until),
            LeaseState::Lost | LeaseState::NeedViews => None,
        };
        let mut inner = self.inner();
        if inner.lease_until != until {
            inner.lease_until = until;
            self.send(until.map_or(ControlEvent::LeaseLost, |until| ControlEvent::Lease { until }));
        }
    }

    /// What an outcome means for a part: go on, try again a little later, or end the agent.
    pub(super) fn judge(&self, part: Part, outcome: Result<(), AgentError>) -> Result<bool, AgentError> {
        match outcome {
            Ok(()) => {
                self.fine(part);
                Ok(true)
            }
            Err(error) if error.is_final() => Err(error),
            Err(error) => {
                self.trouble(part, &error);
                Ok(false)
            }
        }
    }

    pub(super) fn fine(&self, part: Part) {
        self.inner().troubled.remove(&part);
    }

    /// Tells the server when the first part is in trouble: the others will be too, and for the same reason.
    pub(super) fn trouble(&self, part: Part, error: &AgentError) {
        let mut inner = self.inner();
        let first = inner.troubled.is_empty();
        if inner.troubled.insert(part) {
            tracing::warn!(?part, %error, "the control plane cannot be used");
        }
        if first {
            self.send(ControlEvent::Unreachable(error.to_string()));
        }
    }

    pub(super) fn waiting(&self, holder: &ServerRecord, ttl: Duration) {
        self.send(ControlEvent::Waiting(format!(
            "server {:?} was process {} at {} before, and its lease may still run; if that process is gone this takes \
             about {ttl:?}, else stop it",
            holder.name, holder.pid, holder.addr
        )));
    }

    pub(super) fn send(&self, event: ControlEvent) {
        // A server that does not listen any more is stopping, and stops its agent in a moment.
        let _ = self.events.send(event);
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
