//! What an agent knows and what it has told its server: the one place where events are sent, so they are in order.

use std::{
    collections::BTreeMap,
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
    /// The parts whose latest call failed, and what that is.
    troubled: BTreeMap<Part, Trouble>,
    /// What the server was told last that keeps its agent from its work; `None`: nothing does.
    told: Option<Trouble>,
}

/// Why a part cannot do its work, the gravest last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Trouble {
    /// An earlier life's lease has to end.
    Waiting,
    /// No answer: nobody need do anything here.
    Unanswered,
    /// An answer that cannot be used: people must act.
    Unusable,
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

    /// Whether the server was told last that it holds a lease, which may have lapsed.
    pub(super) fn has_told_of_a_lease(&self) -> bool {
        self.inner().lease_until.is_some()
    }

    /// Takes in a document and tells the server, unless it is known already. Refuses what cannot belong to the same history.
    pub(super) fn accept(&self, document: &Versioned) -> Result<(), AgentError> {
        let mut inner = self.inner();
        let state = ClusterState::decode(&document.value).map_err(AgentError::Forgot)?;
        let known = inner.known.as_ref().map(|(revision, known)| (*revision, &**known));
        if !state.is_news(document.revision, known).map_err(AgentError::Forgot)? {
            return Ok(());
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

    /// A part's latest call went well. Tells the server if nothing is in its agent's way any more.
    pub(super) fn fine(&self, part: Part) {
        let mut inner = self.inner();
        inner.troubled.remove(&part);
        if inner.troubled.is_empty() && inner.told.take().is_some() {
            self.send(ControlEvent::Answers);
        }
    }

    /// Tells the server when the first part is in trouble, for the others will be too; and when the gravest trouble is
    /// another one, because people must be told to act, or no more. A Redis that was away and comes back without what it
    /// knew is both, one after the other.
    pub(super) fn trouble(&self, part: Part, error: &AgentError) {
        let trouble = if error.passes() { Trouble::Unanswered } else { Trouble::Unusable };
        let mut inner = self.inner();
        if inner.troubled.insert(part, trouble) != Some(trouble) {
            tracing::warn!(?part, %error, "the control plane cannot be used");
        }
        let gravest = inner.troubled.values().max().copied();
        if inner.told != gravest {
            inner.told = gravest;
            self.send(ControlEvent::Unreachable(error.to_string()));
        }
    }

    pub(super) fn waiting(&self, holder: &ServerRecord, ttl: Duration) {
        self.inner().told = Some(Trouble::Waiting);
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

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    use super::*;
    use crate::plane::PlaneError;

    fn away() -> AgentError {
        PlaneError::Unreachable { plane: "there".into(), why: "connection refused".into() }.into()
    }

    fn forgot() -> AgentError {
        PlaneError::WentBack { key: "cluster".into(), known: Revision(7), found: Revision(2) }.into()
    }

    fn said(events: &mut UnboundedReceiver<ControlEvent>) -> Option<ControlEvent> {
        events.try_recv().ok()
    }

    #[test]
    fn people_hear_what_to_do_when_a_plane_that_was_away_comes_back_without_what_it_knew() {
        let (sender, mut events) = unbounded_channel();
        let knowledge = Knowledge::new(ServerRecord::default(), sender);
        let told = |error: &AgentError| Some(ControlEvent::Unreachable(error.to_string()));
        knowledge.trouble(Part::Views, &away());
        assert_eq!(said(&mut events), told(&away()));
        knowledge.trouble(Part::Lease, &away());
        assert_eq!(said(&mut events), None, "the same again is no news");
        knowledge.trouble(Part::Views, &forgot());
        assert_eq!(said(&mut events), told(&forgot()));
        knowledge.trouble(Part::Lease, &AgentError::Slow(Duration::from_millis(200)));
        assert_eq!(said(&mut events), None, "what people must mend is not hidden by what passes");
        knowledge.trouble(Part::Views, &away());
        assert_eq!(said(&mut events), told(&away()), "it went away again");
        knowledge.fine(Part::Lease);
        assert_eq!(said(&mut events), None, "the views are still not to be had");
        knowledge.fine(Part::Views);
        assert_eq!(said(&mut events), Some(ControlEvent::Answers));
        knowledge.fine(Part::Views);
        assert_eq!(said(&mut events), None);
    }

    #[test]
    fn who_waited_for_an_earlier_life_says_when_that_is_over() {
        let (sender, mut events) = unbounded_channel();
        let knowledge = Knowledge::new(ServerRecord::default(), sender);
        knowledge.waiting(&ServerRecord::default(), Duration::from_millis(600));
        assert!(matches!(said(&mut events), Some(ControlEvent::Waiting(_))));
        knowledge.fine(Part::Registration);
        assert_eq!(said(&mut events), Some(ControlEvent::Answers));
    }
}
