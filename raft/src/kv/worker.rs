//! Brings clients' requests to Raft, and its answers back to the desk.

use std::{rc::Rc, sync::Arc, time::Duration};

use openraft::{
    ServerState,
    error::{CheckIsLeaderError, ClientWriteError, RaftError},
};
use star_core::{
    ErrorCode,
    message::{RequestBody, Response, ResponseBody},
    protocol::{Input, Token},
    server::Handle,
};
use tokio::{sync::mpsc, task::spawn_local, time::timeout};

use super::{
    desk::{self, Answers, Asker, Desk, Work},
    machine::{Batch, Outcome},
    state::{Objects, SharedMachine},
};
use crate::seat::Seat;

/// What work is done with.
pub(crate) struct Worker {
    pub(crate) seat: Arc<Seat<Objects>>,
    pub(crate) machine: SharedMachine,
    pub(crate) handle: Handle<Desk>,
    pub(crate) servers: usize,
    /// How long a majority may take to answer.
    pub(crate) answer: Duration,
}

impl Worker {
    /// Works until nobody hands anything on any more. Entries enter the log in the order in which they were handed on, and
    /// do not wait for one another; nor do reads.
    pub(crate) async fn run(self, mut work: mpsc::UnboundedReceiver<Work>) {
        let worker = Rc::new(self);
        while let Some(work) = work.recv().await {
            let worker = Rc::clone(&worker);
            spawn_local(async move {
                let answers = match work {
                    Work::Write(batch, askers) => worker.write(batch, &askers).await,
                    Work::Read(reads) => worker.read(reads).await,
                };
                worker.handle.input(Input::Control(answers));
            });
        }
    }

    async fn write(&self, batch: Batch, askers: &[Asker]) -> Answers {
        let all = |refusal: &ResponseBody| askers.iter().map(|asker| (asker.token(), refusal.clone().into())).collect();
        if let Err(refusal) = self.leads() {
            return all(&refusal);
        }
        // From here on it may be in the log.
        let unsure = |why: &str| {
            let text = format!("{why}: the write may or may not be done; send it again with the same request id");
            ResponseBody::error(ErrorCode::Unfinished, text)
        };
        match timeout(self.answer, self.seat.raft.client_write(batch)).await {
            Ok(Ok(written)) => answers(askers, &written.data),
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))) => {
                all(&unsure("another server took the lead meanwhile"))
            }
            Ok(Err(error)) => all(&unsure(&error.to_string())),
            Err(_) => all(&unsure(&self.no_majority())),
        }
    }

    /// Reads what is decided now: a majority confirms that this server leads, and all that was committed is applied.
    async fn read(&self, reads: Vec<(Token, RequestBody)>) -> Answers {
        let confirmed = match self.leads() {
            Ok(()) => self.confirm().await,
            refused => refused,
        };
        match confirmed {
            Ok(()) => self
                .machine
                .look(|machine| reads.into_iter().map(|(token, body)| (token, desk::read(machine, &body))).collect()),
            Err(refusal) => {
                let answer = Response::from(refusal);
                reads.into_iter().map(|(token, _)| (token, answer.clone())).collect()
            }
        }
    }

    async fn confirm(&self) -> Result<(), ResponseBody> {
        match timeout(self.answer, self.seat.raft.ensure_linearizable()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(_)))) => Err(self.not_leader(None)),
            Ok(Err(_)) | Err(_) => {
                let text = format!("{}: nothing can be read until one does", self.no_majority());
                Err(ResponseBody::error(ErrorCode::NotServing, text))
            }
        }
    }

    /// Nothing was done if this refuses.
    fn leads(&self) -> Result<(), ResponseBody> {
        let raft = &self.seat.raft;
        let silent = raft.data_metrics().borrow().millis_since_quorum_ack.map(Duration::from_millis);
        let metrics = raft.server_metrics();
        let metrics = metrics.borrow();
        if metrics.state != ServerState::Leader || metrics.current_leader != Some(self.seat.store) {
            let leader = metrics.current_leader.filter(|leader| *leader != self.seat.store);
            let site = leader.and_then(|leader| metrics.membership_config.membership().get_node(&leader).cloned());
            return Err(self.not_leader(site.map(|site| site.addr)));
        }
        if silent.is_some_and(|silent| silent > self.answer) {
            let text = format!("{}: nothing can be written or read until one does", self.no_majority());
            return Err(ResponseBody::error(ErrorCode::NotServing, text));
        }
        Ok(())
    }

    fn not_leader(&self, leader: Option<String>) -> ResponseBody {
        let text = match leader {
            Some(leader) => format!("this server does not lead: ask {leader}"),
            None => {
                format!("no server leads: a majority of the {} servers must run, and reach each other", self.servers)
            }
        };
        ResponseBody::error(ErrorCode::NotServing, text)
    }

    fn no_majority(&self) -> String {
        format!("no majority of the {} servers has answered for {:?}", self.servers, self.answer)
    }
}

/// Deals the outcomes of an entry's writes out to those who wait for them.
fn answers(askers: &[Asker], outcomes: &[Outcome]) -> Answers {
    let mut outcomes = outcomes.iter().map(|outcome| Response::from(ResponseBody::from(*outcome)));
    let answer = |asker: &Asker| match *asker {
        Asker::One(token) => {
            let lost = || ResponseBody::error(ErrorCode::Internal, "an entry without its outcome").into();
            (token, outcomes.next().unwrap_or_else(lost))
        }
        Asker::Many(token, parts) => (token, desk::many(outcomes.by_ref().take(parts))),
    };
    askers.iter().map(answer).collect()
}

#[cfg(test)]
mod tests {
    use star_core::Version;

    use super::*;

    #[test]
    fn each_asker_gets_the_outcomes_of_its_own_writes() {
        let token = |request| Token { connection: 0, request };
        let askers = [Asker::One(token(1)), Asker::Many(token(2), 2), Asker::One(token(3))];
        let outcomes = [1, 2, 3, 4].map(|version| Outcome::Written(Version(version)));
        let answers = answers(&askers, &outcomes);
        let written = |version| ResponseBody::Written { version: Version(version) };
        assert_eq!((&answers[0].1.body, &answers[2].1.body), (&written(1), &written(4)));
        let ResponseBody::Many(parts) = &answers[1].1.body else { panic!("{answers:?}") };
        assert_eq!(parts.iter().map(|part| part.body.clone()).collect::<Vec<_>>(), [written(2), written(3)]);
    }
}
