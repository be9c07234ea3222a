//! Answers calls: of clients, if this member leads, and of other members.

use std::time::Duration;

use openraft::{
    ServerState,
    error::{CheckIsLeaderError, ClientWriteError, RaftError},
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
    door::Answers,
    network::CALL_BYTES_MAX,
    seat::Seat,
    store::SharedReplica,
    types::{LogId, Proposal, Types},
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
    pub(crate) seat: Seat<Types>,
    pub(crate) replica: SharedReplica,
    /// How long a client's call may take.
    pub(crate) answer: Duration,
    pub(crate) calls: Semaphore,
    pub(crate) watches: Semaphore,
}

impl Answers for Service {
    async fn handle(&self, call: &[u8]) -> Vec<u8> {
        let mut answer = Vec::new();
        match from_postcard(call) {
            Ok(Envelope::Client(call)) => to_postcard(&self.client(call).await, &mut answer),
            Ok(Envelope::Member(call)) => to_postcard(&self.seat.answer(call).await, &mut answer),
            Err(why) => {
                let why = format!("this is no call to a replicated control plane: {why}");
                to_postcard(&Reply::Answer(Answer::Refused(why)), &mut answer);
            }
        }
        answer
    }
}

impl Service {
    pub(crate) fn new(seat: Seat<Types>, replica: SharedReplica, answer: Duration) -> Self {
        let (calls, watches) = (Semaphore::new(CALLS_MAX), Semaphore::new(WATCHES_MAX));
        Self { seat, replica, answer, calls, watches }
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
        let metrics = self.seat.raft.server_metrics();
        let metrics = metrics.borrow();
        if metrics.state == ServerState::Leader && metrics.current_leader == Some(self.seat.store) {
            return Ok(());
        }
        let membership = metrics.membership_config.membership();
        let leader = metrics.current_leader.filter(|leader| *leader != self.seat.store);
        let leader = leader.and_then(|leader| membership.get_node(&leader)).map(|site| site.addr.clone());
        Err(Reply::NotLeader { leader })
    }

    /// Reads what is decided now: a majority confirms that this member leads, and all that was committed is applied.
    async fn read(&self, command: Command) -> Reply {
        match self.seat.raft.ensure_linearizable().await {
            Ok(_) => {}
            Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(to))) => {
                return Reply::NotLeader { leader: to.leader_node.map(|site| site.addr) };
            }
            Err(_) => return Reply::NotLeader { leader: None },
        }
        let (answer, applied) = {
            let mut replica = self.replica.lock();
            (replica.read(Clock.now(), command.clone()), replica.applied())
        };
        match answer {
            Some(answer) => self.once_on_disks(applied, answer).await,
            None => self.propose(command).await,
        }
    }

    /// Gives an answer that follows from what was applied up to here, when nothing can undo that any more.
    async fn once_on_disks(&self, applied: Option<LogId>, answer: Answer) -> Reply {
        match self.seat.on_most_disks(applied.map_or(0, |applied| applied.index)).await {
            Ok(()) => Reply::Answer(answer),
            Err(why) => Reply::Unsure(why),
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
        match self.seat.raft.client_write(proposal).await {
            Ok(written) => match written.data {
                Some(answer) => self.once_on_disks(Some(written.log_id), answer).await,
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
}
