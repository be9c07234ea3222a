//! The agent's part in the lease: its requests, of which several may be under way, and what their answers mean.

use star_core::time::Time;
use tokio::task::JoinSet;

use super::{Agent, AgentError, knowledge::Part, tend::Reluctance, within};
use crate::{
    document::CLUSTER_KEY,
    lease::{LeaseDue, LeaseReply, LeaseRequest, LeaseRequests, LeaseState},
    plane::{Acquired, ControlPlane, PlaneError, Renewed, Revision, Versioned},
};

/// What the plane said.
enum Said {
    Acquired(Acquired),
    Renewed(Renewed),
    /// The views, and the revision that was known when they were asked for.
    Views(Option<Versioned>, Revision),
}

/// An answer, under the number of its request.
type Answered = (u64, Result<Said, AgentError>);

impl<P: ControlPlane> Agent<P> {
    pub(super) async fn keep_lease(&self) -> AgentError {
        let (mut requests, mut reluctance) = (LeaseRequests::new(self.config.lease), Reluctance::default());
        // Ended with this future, like all that is waited for in it.
        let mut calls = JoinSet::new();
        loop {
            let now = self.clock.now();
            if let Some((_, state)) = self.knowledge.state()
                && reluctance.is_overdue(now, &self.config.lease, &state, self.me.id, &self.word.ready.borrow())
            {
                // It runs out by itself, at the plane and, a little earlier, here; whatever is answered still.
                requests.forget();
                calls.abort_all();
                self.knowledge.lease(requests.state(now));
                self.pause().await;
                continue;
            }
            if let Err(error) = self.tell_lease(&requests, now) {
                return error;
            }
            match requests.due(now) {
                LeaseDue::Ask(what) => {
                    let number = requests.sent(what, now);
                    calls.spawn(self.ask(number, what));
                }
                LeaseDue::Wait(at) => tokio::select! {
                    () = tokio::time::sleep(at.since(now)) => {}
                    Some(answered) = calls.join_next() => {
                        // One that was aborted says nothing.
                        if let Ok(answered) = answered
                            && let Err(error) = self.take(&mut requests, answered)
                        {
                            return error;
                        }
                    }
                },
            }
        }
    }

    /// Tells the server what it may count on. Where that is nothing any more because there was no answer in time, people are
    /// told that first.
    fn tell_lease(&self, requests: &LeaseRequests, now: Time) -> Result<(), AgentError> {
        let state = requests.state(now);
        if state == LeaseState::Lost && self.knowledge.has_told_of_a_lease() && requests.is_waiting() {
            self.knowledge.judge(Part::Lease, Err(AgentError::Slow(self.config.lease.useful())))?;
        }
        self.knowledge.lease(state);
        Ok(())
    }

    /// A request on its way, given up when no answer can be of use any more.
    fn ask(&self, number: u64, what: LeaseRequest) -> impl Future<Output = Answered> + Send + 'static + use<P> {
        let (plane, name, holder) = (self.plane.clone(), self.me.name.clone(), self.me.incarnation);
        let (lease, known) = (self.config.lease, self.knowledge.revision());
        async move {
            let call = async {
                Ok(match what {
                    LeaseRequest::Acquire => Said::Acquired(plane.acquire(&name, holder, lease.ttl).await?),
                    LeaseRequest::Renew => Said::Renewed(plane.renew(&name, holder, lease.ttl).await?),
                    LeaseRequest::ReadViews => Said::Views(plane.get(CLUSTER_KEY).await?, known),
                })
            };
            (number, within(lease.useful(), call).await)
        }
    }

    fn take(&self, requests: &mut LeaseRequests, (number, said): Answered) -> Result<(), AgentError> {
        let reply = said.and_then(|said| match said {
            Said::Acquired(Acquired::Held) | Said::Renewed(Renewed::Held) => Ok(LeaseReply::Done),
            Said::Acquired(Acquired::Refused { .. }) | Said::Renewed(Renewed::Lost) => Ok(LeaseReply::Refused),
            Said::Views(found, known) => self.take_views(found, known).map(|()| LeaseReply::Done),
        });
        let (reply, outcome) = match reply {
            Ok(reply) => (reply, Ok(())),
            Err(error) => (LeaseReply::Failed, Err(error)),
        };
        self.knowledge.judge(Part::Lease, outcome)?;
        requests.answered(number, reply, self.clock.now());
        Ok(())
    }

    fn take_views(&self, found: Option<Versioned>, known: Revision) -> Result<(), AgentError> {
        let revision = found.as_ref().map_or(Revision::ABSENT, |found| found.revision);
        match found {
            Some(found) if revision >= known => self.knowledge.accept(&found),
            _ => Err(PlaneError::WentBack { key: CLUSTER_KEY.into(), known, found: revision }.into()),
        }
    }
}
