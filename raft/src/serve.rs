//! Answers calls: of clients, if this member leads, and of other members.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use openraft::{
    ServerState,
    error::{CheckIsLeaderError, ClientWriteError, InstallSnapshotError, RaftError},
};
use star_control::{
    Revision,
    embedded::{Call, Envelope, Reply},
    machine::{Answer, Command},
};
use star_core::{
    Clock,
    message::{from_postcard, to_postcard},
};
use tokio::sync::Semaphore;

use crate::{
    network::CALL_BYTES_MAX,
    rpc::{Ask, MemberCall, Presence, Told},
    store::{Log, SharedReplica},
    types::{Proposal, Raft, Site, StoreId},
};

/// The most calls of clients that are under way at one time.
const CALLS_MAX: usize = 1024;
/// The most calls that wait for a change at one time.
const WATCHES_MAX: usize = 1024;
/// The longest that one call may wait for a change; a client that waits longer calls again.
const WATCH_WAIT_MAX: Duration = Duration::from_secs(30);
/// How often a member that answers a watch makes sure that it still leads.
const WATCH_LOOK_EVERY: Duration = Duration::from_millis(250);
/// What surrounds a proposal on its way to the other members, in bytes.
const PROPOSAL_MARGIN: usize = 4096;

/// What is needed to answer.
pub(crate) struct Service {
    pub(crate) raft: Raft,
    pub(crate) replica: SharedReplica,
    pub(crate) log: Arc<Mutex<Log>>,
    pub(crate) store: StoreId,
    pub(crate) plane: u64,
    /// How long a client's call may take.
    pub(crate) answer: Duration,
    pub(crate) calls: Semaphore,
    pub(crate) watches: Semaphore,
}

impl Service {
    pub(crate) fn new(
        raft: Raft,
        replica: SharedReplica,
        log: Arc<Mutex<Log>>,
        (store, plane): (StoreId, u64),
        answer: Duration,
    ) -> Self {
        let (calls, watches) = (Semaphore::new(CALLS_MAX), Semaphore::new(WATCHES_MAX));
        Self { raft, replica, log, store, plane, answer, calls, watches }
    }

    /// Whether this member has ever voted or taken an entry.
    pub(crate) fn is_founded(&self) -> bool {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).is_founded()
    }

    /// Who this member is, and what it knows of the plane.
    pub(crate) fn presence(&self) -> Presence {
        let metrics = self.raft.server_metrics();
        let members = metrics.borrow().membership_config.membership().voter_ids().collect();
        Presence { store: self.store, is_founded: self.is_founded(), members }
    }

    /// Founds the plane.
    pub(crate) async fn initialize(&self, sites: BTreeMap<StoreId, Site>) -> Result<(), String> {
        self.raft.initialize(sites).await.map_err(|error| error.to_string())
    }

    /// Answers one call, an encoded [`Envelope`]. Whatever comes in, there is an answer.
    pub(crate) async fn handle(&self, call: &[u8]) -> Vec<u8> {
        let mut answer = Vec::new();
        match from_postcard(call) {
            Ok(Envelope::Client(call)) => to_postcard(&self.client(call).await, &mut answer),
            Ok(Envelope::Member(call)) => to_postcard(&self.member(&call).await, &mut answer),
            Err(why) => {
                let why = format!("this is no call to a replicated control plane: {why}");
                to_postcard(&Reply::Answer(Answer::Refused(why)), &mut answer);
            }
        }
        answer
    }

    async fn client(&self, call: Call) -> Reply {
        match call {
            Call::Apply(command) => {
                let Ok(_permit) = self.calls.try_acquire() else {
                    return Reply::Answer(Answer::Busy);
                };
                self.in_time(self.command(command)).await
            }
            Call::Watch { key, after, wait } => {
                let Ok(_permit) = self.watches.try_acquire() else {
                    return Reply::Answer(Answer::Busy);
                };
                self.watch(key, after, wait.min(WATCH_WAIT_MAX)).await
            }
        }
    }

    async fn in_time(&self, reply: impl Future<Output = Reply>) -> Reply {
        let unsure = || Reply::Unsure(format!("no majority of the members agreed within {:?}", self.answer));
        tokio::time::timeout(self.answer, reply).await.unwrap_or_else(|_| unsure())
    }

    async fn command(&self, command: Command) -> Reply {
        if let Err(not_leader) = self.leads() {
            return not_leader;
        }
        if matches!(command, Command::Get { .. } | Command::Leases) {
            return self.read(command).await;
        }
        self.propose(command).await
    }

    /// Nothing was done yet if this says that another member leads.
    fn leads(&self) -> Result<(), Reply> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow();
        if metrics.state == ServerState::Leader && metrics.current_leader == Some(self.store) {
            return Ok(());
        }
        let membership = metrics.membership_config.membership();
        let leader = metrics.current_leader.filter(|leader| *leader != self.store);
        let leader = leader.and_then(|leader| membership.get_node(&leader)).map(|site| site.addr.clone());
        Err(Reply::NotLeader { leader })
    }

    /// Reads what is decided now: a majority confirms that this member leads, and all that was committed is applied.
    async fn read(&self, command: Command) -> Reply {
        match self.raft.ensure_linearizable().await {
            Ok(_) => {}
            Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(to))) => {
                return Reply::NotLeader { leader: to.leader_node.map(|site| site.addr) };
            }
            Err(_) => return Reply::NotLeader { leader: None },
        }
        let answer = self.replica.lock().read(Clock.now(), command.clone());
        match answer {
            Some(answer) => Reply::Answer(answer),
            None => self.propose(command).await,
        }
    }

    async fn propose(&self, command: Command) -> Reply {
        let stamp = self.replica.lock().stamp(Clock.now());
        let proposal = Proposal { stamp, command };
        let mut bytes = Vec::new();
        to_postcard(&proposal, &mut bytes);
        if bytes.len() > CALL_BYTES_MAX - PROPOSAL_MARGIN {
            let why = format!("a command of {} bytes does not fit the log: ask for less at a time", bytes.len());
            return Reply::Answer(Answer::Refused(why));
        }
        match self.raft.client_write(proposal).await {
            Ok(written) => match written.data {
                Some(answer) => Reply::Answer(answer),
                None => Reply::Unsure("another member had led when it was asked for".into()),
            },
            // It may have been appended already, and then it may still be committed.
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => {
                Reply::Unsure("another member took the lead meanwhile".into())
            }
            Err(error) => Reply::Unsure(error.to_string()),
        }
    }

    async fn watch(&self, key: String, after: Revision, wait: Duration) -> Reply {
        // Listening before looking: a change between the two is heard.
        let mut changes = self.replica.changes();
        let ends = Clock.now() + wait;
        loop {
            changes.mark_unchanged();
            let reply = self.in_time(self.command(Command::Get { key: key.clone() })).await;
            let Reply::Answer(Answer::Document(document)) = &reply else {
                return reply;
            };
            let revision = document.as_ref().map_or(Revision::ABSENT, |document| document.revision);
            let left = ends.since(Clock.now());
            if revision != after || left.is_zero() {
                return reply;
            }
            // No news is no error: time to make sure that this member still leads.
            let _ = tokio::time::timeout(left.min(WATCH_LOOK_EVERY), changes.changed()).await;
        }
    }

    async fn member(&self, call: &[u8]) -> Told {
        let MemberCall { plane, to, ask } = match from_postcard(call) {
            Ok(call) => call,
            Err(why) => return Told::Refused(format!("this is no call of a member: {why}")),
        };
        if plane != self.plane {
            return Told::Refused("this member belongs to another plane, or is configured otherwise".into());
        }
        if to.is_some_and(|to| to != self.store) {
            return Told::Refused("this member has lost the store that is meant".into());
        }
        match ask {
            Ask::Probe => Told::Probe(self.presence()),
            Ask::Vote(vote) => self.raft.vote(vote).await.map_or_else(refused, Told::Vote),
            Ask::Append(append) => self.raft.append_entries(append).await.map_or_else(refused, Told::Append),
            Ask::Snapshot(part) => match self.raft.install_snapshot(part).await {
                Ok(response) => Told::Snapshot(response),
                Err(RaftError::APIError(InstallSnapshotError::SnapshotMismatch(mismatch))) => Told::Mismatch(mismatch),
                Err(error) => refused(error),
            },
        }
    }
}

fn refused(error: impl std::fmt::Display) -> Told {
    Told::Refused(error.to_string())
}
