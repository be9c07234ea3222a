//! The part of a server that talks to the control plane: it registers the server, keeps its lease, hears of new views,
//! and installs what the planner proposes.
//!
//! It belongs on a thread of its own, away from the work of the server: a lease must not lapse because there is much to
//! do. All its futures are `Send`.

mod keep;
mod knowledge;
mod tend;

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use star_core::{
    ids::{Epoch, ServerId, StarId},
    time::{Clock, Time},
};
use tokio::sync::{mpsc::UnboundedSender, watch};

pub use self::tend::{Reluctance, handed_over};
use self::{
    knowledge::{Knowledge, Part},
    tend::asked_to_leave,
};
use crate::{
    document::CLUSTER_KEY,
    lease::{LeaseConfig, LeaseState},
    plan::{PlanConfig, SeenRenewed, alive, ended_lives, may_end_soon, registered},
    plane::{CasOutcome, ControlPlane, PlaneError, Revision, Versioned, WAY_OUT},
    view::{ClusterState, ServerRecord},
};

/// What the server has to know. Events come in an order that is safe to act on: a [`ControlEvent::Lease`] that counts
/// comes after the [`ControlEvent::Cluster`] with all that was decided before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlEvent {
    /// The cluster's state has changed; some states may be skipped.
    Cluster(Arc<ClusterState>),
    /// The server may answer reads before this time of its own clock.
    Lease {
        /// The first moment at which it may not any more.
        until: Time,
    },
    /// The server must answer no read until the next [`ControlEvent::Lease`].
    LeaseLost,
    /// Registration waits for something to end by itself; a sentence for people.
    Waiting(String),
    /// The control plane gives no answer, or none that can be used; it is tried again all the time. What the server
    /// knows still holds, and its lease until it ends. A sentence for people.
    Unreachable(String),
    /// What [`ControlEvent::Waiting`] or [`ControlEvent::Unreachable`] said is over.
    Answers,
    /// Which stars wait for servers that have ended, and what to do; `None`: none does any more.
    Awaited(Option<String>),
    /// What the server had was handed over, or cannot be in time: it may end now. Once, after [`Word::leave`].
    Left,
}

/// What a server tells its agent.
#[derive(Clone, Debug)]
pub struct Word {
    /// The stars in which the server may take its next step, in their epochs; see [`crate::plan::advanced`].
    pub ready: watch::Receiver<Vec<(StarId, Epoch)>>,
    /// The servers that it cannot reach, and since when.
    pub cut: watch::Receiver<BTreeMap<ServerId, Time>>,
    /// The stars in which everything that it knows of is done and noted in its store, in their epochs, once it is about to
    /// end; `None` for a server whose store goes with it.
    pub settled: Option<watch::Receiver<Vec<(StarId, Epoch)>>>,
    /// Whether it is about to end, so that its part is to be handed over.
    pub leave: watch::Receiver<bool>,
}

impl Word {
    /// Of a server that never says anything.
    pub fn silent() -> Self {
        Self {
            ready: watch::channel(Vec::new()).1,
            cut: watch::channel(BTreeMap::new()).1,
            settled: None,
            leave: watch::channel(false).1,
        }
    }
}

/// What an agent must know besides its server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentConfig {
    /// The name of the cluster.
    pub cluster: String,
    /// What the views should look like.
    pub plan: PlanConfig,
    /// How long leases run; the same at all servers.
    pub lease: LeaseConfig,
}

/// Why an agent ended, or what keeps it from its work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AgentError {
    /// See [`PlaneError`].
    #[error(transparent)]
    Plane(#[from] PlaneError),
    /// The plane may be there, but not in time for a lease.
    #[error("the control plane gave no answer within {0:?}; it is tried again until it is back")]
    Slow(Duration),
    /// The plane holds a state that cannot follow what this server knows.
    #[error("the control plane lost what it knew: {0}; {way_out}", way_out = WAY_OUT)]
    Forgot(String),
    /// This server's configuration does not fit the cluster: mend one of them.
    #[error("this server does not fit the cluster: {0}")]
    Mismatch(String),
    /// Another process has taken this server's name: stop.
    #[error("server {name:?} was started again as process {pid} at {addr}: this one must stop")]
    Superseded {
        /// The name of both.
        name: String,
        /// The other one's address.
        addr: String,
        /// The other one's process.
        pid: u32,
    },
    /// This server was taken out of the cluster for good: stop.
    #[error("server {name:?} was removed from the cluster: this process must stop; start it again to have it back")]
    Removed {
        /// Its name.
        name: String,
    },
}

impl AgentError {
    /// Whether going on makes no sense. Everything else may end without this server's doing.
    fn is_final(&self) -> bool {
        matches!(self, Self::Mismatch(_) | Self::Superseded { .. } | Self::Removed { .. })
    }

    /// Whether it may end without anybody mending anything here.
    fn passes(&self) -> bool {
        match self {
            Self::Slow(_) => true,
            Self::Plane(error) => error.retry(),
            _ => false,
        }
    }
}

/// One server's agent.
#[derive(Debug)]
pub struct Agent<P> {
    plane: P,
    me: ServerRecord,
    config: AgentConfig,
    word: Word,
    clock: Clock,
    knowledge: Knowledge,
    registered: bool,
    /// Of other servers, while this one registers.
    seen: SeenRenewed,
}

impl<P: ControlPlane> Agent<P> {
    /// An agent for the server `me`; `me.id` is not looked at, the cluster gives it. A server that has kept its memory
    /// comes with the same incarnation, any other with a guess: if the one before was not lower, because a date went back,
    /// it becomes one after that, which the state shows.
    pub fn new(
        plane: P,
        me: ServerRecord,
        config: AgentConfig,
        events: UnboundedSender<ControlEvent>,
        word: Word,
    ) -> Self {
        let knowledge = Knowledge::new(me.clone(), events);
        let (registered, seen) = (false, SeenRenewed::default());
        Self { plane, me, config, word, clock: Clock, knowledge, registered, seen }
    }

    /// Enters the server in the cluster and returns its number. Waits as long as the control plane cannot be reached, or
    /// an earlier life of this server may still hold its lease; says so by events.
    pub async fn register(&mut self) -> Result<ServerId, AgentError> {
        self.config.lease.check().map_err(AgentError::Mismatch)?;
        let mut waiting = false;
        loop {
            match self.try_register().await {
                Ok(Registered::As(id)) => {
                    self.me.id = id;
                    self.registered = true;
                    self.knowledge.fine(Part::Registration);
                    return Ok(id);
                }
                Ok(Registered::Raced) => {}
                Ok(Registered::Early) => self.pause().await,
                Ok(Registered::MustWait(holder)) => {
                    if !std::mem::replace(&mut waiting, true) {
                        self.knowledge.waiting(&holder, self.config.lease.ttl);
                    }
                    self.pause().await;
                }
                Err(AgentError::Plane(error)) if error.retry() => {
                    self.knowledge.trouble(Part::Registration, &error.into());
                    self.pause().await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Works until `stop` is ready, or until the server must stop. Registers first if that was not done.
    ///
    /// The server must have stopped to answer reads and to ack before `stop` is ready: the lease is given back then, and
    /// from that moment others may go on without this server. Where the agent ends by itself, or is dropped, the lease
    /// runs out instead.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Result<(), AgentError> {
        let work = async {
            if !self.registered {
                let mut leave = self.word.leave.clone();
                tokio::select! {
                    registered = self.register() => drop(registered?),
                    () = asked_to_leave(&mut leave) => {
                        // Nothing was begun that could be handed over.
                        self.knowledge.send(ControlEvent::Left);
                        std::future::pending::<()>().await;
                    }
                }
            }
            let this = &self;
            Err(tokio::select! {
                error = this.follow_views() => error,
                error = this.keep_lease() => error,
                error = this.tend_views() => error,
                error = this.leave_in_order() => error,
            })
        };
        let outcome = tokio::select! {
            biased;
            () = stop => Ok(()),
            outcome = work => outcome,
        };
        self.knowledge.lease(LeaseState::Lost);
        if outcome.is_ok() && self.registered {
            let release = self.plane.release(&self.me.name, self.me.incarnation);
            let given_back = within(self.config.lease.renew_every(), release).await;
            if let Err(error) = given_back {
                tracing::warn!(%error, "the lease was not given back; it runs out by itself");
            }
        }
        outcome
    }

    async fn try_register(&mut self) -> Result<Registered, AgentError> {
        let found = self.plane.get(CLUSTER_KEY).await?;
        let (expected, before) = match &found {
            None => {
                // Never given twice, because no incarnation is: two clusters of one name do not mix.
                let cluster = format!("{}-{:x}", self.config.cluster, self.me.incarnation.0);
                (Revision::ABSENT, ClusterState::new(cluster, self.config.plan.stars))
            }
            Some(found) => (found.revision, ClusterState::decode(&found.value).map_err(AgentError::Mismatch)?),
        };
        self.check_fits(&before)?;
        // Lives of a name only grow: what an earlier one said must never be taken for this one's.
        if let Some(record) = before.server_named(&self.me.name).filter(|one| one.incarnation > self.me.incarnation) {
            self.me.incarnation = record.incarnation.after();
            self.knowledge.rename_life(self.me.incarnation);
        }
        let leases = self.plane.leases().await?;
        self.seen.look(&leases);
        if may_end_soon(&before, &self.me, &leases, &self.seen) {
            return Ok(Registered::Early);
        }
        let (after, id) = registered(&before, &self.me, &alive(&before, &leases));
        if let Some(found) = found.filter(|_| after == before) {
            self.knowledge.accept(&found)?;
            return Ok(Registered::As(id));
        }
        match self.install(expected, &before, &after).await? {
            CasOutcome::Done(_) => Ok(Registered::As(id)),
            CasOutcome::Conflict => Ok(Registered::Raced),
            CasOutcome::Leased(name) if name != self.me.name => Ok(Registered::Early),
            CasOutcome::Leased(_) => {
                let holder = before.server_named(&self.me.name).cloned();
                Ok(Registered::MustWait(holder.unwrap_or_else(|| self.me.clone())))
            }
        }
    }

    fn check_fits(&self, state: &ClusterState) -> Result<(), AgentError> {
        let name = state.name();
        if name != self.config.cluster {
            let ours = &self.config.cluster;
            return Err(AgentError::Mismatch(format!(
                "it is called {name:?} there and {ours:?} here: choose one name"
            )));
        }
        let (theirs, ours) = (state.stars.len(), self.config.plan.stars);
        if theirs != usize::from(ours) {
            return Err(AgentError::Mismatch(format!(
                "it was made with {theirs} stars, and {ours} are configured here: the number cannot be changed later"
            )));
        }
        if state.servers.len() > usize::from(u16::MAX) - 1 {
            return Err(AgentError::Mismatch("it has had as many servers as it may: make a new cluster".into()));
        }
        Ok(())
    }

    /// Writes `after`, unless it ends the life of a server as a member while that server's lease runs.
    async fn install(
        &self,
        expected: Revision,
        before: &ClusterState,
        after: &ClusterState,
    ) -> Result<CasOutcome, AgentError> {
        let value = after.encode();
        let by = self.registered.then_some(self.me.id);
        let unleased = ended_lives(before, after, by);
        let outcome = self.plane.compare_and_set(CLUSTER_KEY, expected, value.clone(), &unleased).await?;
        if let CasOutcome::Done(revision) = outcome {
            self.knowledge.accept(&Versioned { revision, value })?;
        }
        Ok(outcome)
    }

    async fn follow_views(&self) -> AgentError {
        loop {
            let news = self.plane.changed(CLUSTER_KEY, self.knowledge.revision()).await;
            let accepted = news.map_err(AgentError::from).and_then(|news| self.knowledge.accept(&news));
            match self.knowledge.judge(Part::Views, accepted) {
                Ok(true) => {}
                Ok(false) => self.pause().await,
                Err(error) => return error,
            }
        }
    }

    /// What the plane answers as long as it could answer anything of use for a lease: its disk may be slow.
    async fn in_time<T>(&self, call: impl Future<Output = Result<T, PlaneError>>) -> Result<T, AgentError> {
        within(self.config.lease.useful(), call).await
    }

    async fn pause(&self) {
        tokio::time::sleep(self.config.lease.look_every()).await;
    }
}

async fn within<T>(limit: Duration, call: impl Future<Output = Result<T, PlaneError>>) -> Result<T, AgentError> {
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(AgentError::Slow(limit)),
    }
}

enum Registered {
    As(ServerId),
    /// Somebody else changed the document meanwhile.
    Raced,
    /// Another server has just ended, or so it seems: in a moment more is known.
    Early,
    /// The lease of an earlier life, which this record shows, may still be held.
    MustWait(ServerRecord),
}
