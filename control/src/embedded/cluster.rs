//! Talking to a control plane that several members keep together: what travels, and how a client finds the leader.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    future::{Future, poll_fn},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use star_core::{
    Clock, Time,
    message::{frame::FrameKind, from_postcard, to_postcard},
    network::{ClientOptions, NetworkError, TcpClient},
};

use super::Call;
use crate::{
    machine::{Answer, Command},
    plane::PlaneError,
};

/// The header of a `Control` frame that goes to a member of a replicated control plane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Envelope<'a> {
    /// A client's call; answered with a [`Reply`].
    Client(Call),
    /// What members say to one another, in their own encoding. It may hold a megabyte, and is not copied to be looked at.
    Member(&'a [u8]),
}

/// What a member answers to a client's call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The plane's answer: done, and known to a majority.
    Answer(Answer),
    /// Nothing was done: this member does not lead.
    NotLeader {
        /// The address of the member that does, as far as this one knows.
        leader: Option<String>,
    },
    /// What was asked for may or may not be done; the sentence says why nobody knows.
    Unsure(String),
}

/// Why a call got no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CarryError {
    /// It was not sent, so that nothing was done.
    #[error("{0}")]
    NotSent(String),
    /// It may have arrived, or not.
    #[error("{0}")]
    NoAnswer(String),
}

/// A call on its way.
pub type Carried<'a> = Pin<Box<dyn Future<Output = Result<Bytes, CarryError>> + Send + 'a>>;

/// Brings a call to a member and its answer back.
pub trait Carrier: Debug + Send + Sync + 'static {
    /// Sends `call`, an encoded [`Envelope`], to the member at `addr`, and waits at most `limit` for the answer.
    fn exchange<'a>(&'a self, addr: &'a str, call: Bytes, limit: Duration) -> Carried<'a>;
}

/// The longest that a member which could not be reached is left alone; then attempts begin anew from the shortest pause.
const RETRY_MS_MAX: u64 = 50;

/// Brings calls over TCP, in `Control` frames. One connection for each address; they live on the runtime that uses them.
#[derive(Debug)]
pub struct TcpCarrier {
    clients: Mutex<BTreeMap<String, TcpClient>>,
    options: ClientOptions,
}

impl TcpCarrier {
    /// A carrier that gives a connection up when it was silent for `silence` while calls timed out.
    pub fn new(silence: Duration) -> Self {
        let options = ClientOptions {
            pool_size: 1,
            connect_timeout: silence,
            request_timeout: silence,
            ..ClientOptions::default()
        };
        Self { clients: Mutex::default(), options }
    }

    fn client(&self, addr: &str) -> TcpClient {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || TcpClient::new(addr.to_owned(), self.options.clone());
        clients.entry(addr.to_owned()).or_insert_with(new).clone()
    }
}

impl Carrier for TcpCarrier {
    fn exchange<'a>(&'a self, addr: &'a str, call: Bytes, limit: Duration) -> Carried<'a> {
        let client = self.client(addr);
        Box::pin(async move {
            match client.exchange_within(FrameKind::Control, &call, Bytes::new(), limit).await {
                Ok((FrameKind::ControlAnswer, header, _)) => Ok(header),
                // A server that does not know such frames has done nothing.
                Ok((kind, ..)) => Err(CarryError::NotSent(format!(
                    "the server at {addr} is no member of the control plane (it sent a {kind:?} frame)"
                ))),
                Err(error @ NetworkError::Unreachable { retry_in_ms, .. }) => {
                    // A member that is back must be heard of well within a lease, however long it was away.
                    if retry_in_ms > RETRY_MS_MAX {
                        client.disconnect(&error);
                    }
                    Err(CarryError::NotSent(error.to_string()))
                }
                Err(error @ NetworkError::RequestTooLarge { .. }) => Err(CarryError::NotSent(error.to_string())),
                Err(error) => Err(CarryError::NoAnswer(error.to_string())),
            }
        })
    }
}

/// How long a client of a replicated control plane waits.
#[derive(Clone, Copy, Debug)]
pub struct ClusterTimes {
    /// For the outcome of a call, all attempts together. Default: 1 s.
    pub answer: Duration,
    /// Without an answer of one member to a call that may be repeated, until another one is asked as well. Default: 150 ms.
    pub attempt: Duration,
    /// For one member's answer to a call that may be repeated, while others are asked: the one that leads may answer late,
    /// because its disk is slow. Then it is asked again. Default: 500 ms, within which an answer is of use for a lease of
    /// 600 ms.
    pub late: Duration,
    /// Before the next attempt while nobody leads. Default: 15 ms.
    pub pause: Duration,
    /// For a change of a watched document, until it asks again: so late is a silent leader noticed. Default: 1 s.
    pub watch: Duration,
}

impl Default for ClusterTimes {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(1),
            attempt: Duration::from_millis(150),
            late: Duration::from_millis(500),
            pause: Duration::from_millis(15),
            watch: Duration::from_secs(1),
        }
    }
}

impl ClusterTimes {
    /// For leases of at most `ttl`: an answer is waited for as long as it may be of use.
    pub fn for_leases(ttl: Duration) -> Self {
        let default = Self::default();
        let late = default.late.max(ttl * 5 / 6);
        Self { late, answer: default.answer.max(late), ..default }
    }
}

/// The members, and who of them led last.
#[derive(Debug)]
pub(super) struct Cluster {
    carrier: Arc<dyn Carrier>,
    members: Vec<String>,
    /// An index into `members`.
    preferred: AtomicUsize,
    times: ClusterTimes,
}

/// Members that were asked and have not answered.
type Asked<'a> = Vec<(usize, Carried<'a>)>;

/// What became of one attempt.
enum Attempt {
    Done(Answer),
    /// Ask this one next; there is no need to wait.
    Ask(usize),
    /// Ask the next one after a pause; the sentence says what happened.
    Next(String),
    /// The outcome is unknown.
    Unsure(String),
}

impl Cluster {
    pub(super) fn new(carrier: Arc<dyn Carrier>, members: Vec<String>, times: ClusterTimes) -> Self {
        Self { carrier, members, preferred: AtomicUsize::new(0), times }
    }

    /// How long a watch waits until it asks again.
    pub(super) fn watch(&self) -> Duration {
        self.times.watch
    }

    pub(super) fn name(&self) -> String {
        self.members.join(", ")
    }

    /// Asks members until one answers that leads. A call that must not be done twice is given up as soon as it may have
    /// been done once: repeated, a compare-and-set would meet its own write and take it for a conflict.
    ///
    /// Whoever is silent may be dead, or slow: another one is asked as well, which knows better who leads, but the first one's
    /// answer is still waited for, and it is not asked again meanwhile.
    pub(super) async fn call(&self, call: &Call) -> Result<Answer, PlaneError> {
        let mut bytes = Vec::new();
        to_postcard(&Envelope::Client(call.clone()), &mut bytes);
        let bytes = Bytes::from(bytes);
        let (repeatable, wait) = (may_repeat(call), wait_of(call));
        let ends = Clock.now() + self.times.answer + wait;
        let (mut why, mut hops) = ("no member was asked".to_owned(), 0);
        let mut asked = Asked::new();
        loop {
            let left = ends.since(Clock.now());
            if left.is_zero() || self.members.is_empty() {
                return Err(self.unreachable(format!("none of its members led in time; at last: {why}")));
            }
            let within = |limit: Duration| if repeatable { left.min(limit + wait) } else { left };
            let member = self.preferred.load(Ordering::Relaxed) % self.members.len();
            if asked.iter().all(|(other, _)| *other != member) {
                let limit = within(self.times.late);
                asked.push((member, self.carrier.exchange(&self.members[member], bytes.clone(), limit)));
            }
            let answer = tokio::time::timeout(within(self.times.attempt), first(&mut asked)).await;
            let Ok((member, answer)) = answer else {
                if !repeatable {
                    return Err(self.unreachable(format!("{} does not answer", self.members[member])));
                }
                self.give_up_on(member);
                (why, hops) = (format!("{} does not answer", self.members[member]), 0);
                continue;
            };
            match self.attempt(member, answer)? {
                Attempt::Done(answer) => return Ok(answer),
                // Two members that each take the other for the leader must not keep a client busy.
                Attempt::Ask(next) if hops < self.members.len() => {
                    self.preferred.store(next, Ordering::Relaxed);
                    hops += 1;
                    continue;
                }
                Attempt::Ask(next) => {
                    self.preferred.store(next, Ordering::Relaxed);
                    "the members do not agree yet who leads".clone_into(&mut why);
                }
                Attempt::Next(reason) => {
                    self.give_up_on(member);
                    why = reason;
                }
                Attempt::Unsure(reason) => {
                    self.give_up_on(member);
                    if !repeatable {
                        return Err(self.unreachable(reason));
                    }
                    why = reason;
                }
            }
            hops = 0;
            self.pause(ends).await;
        }
    }

    fn attempt(&self, member: usize, answer: Result<Bytes, CarryError>) -> Result<Attempt, PlaneError> {
        let addr = &self.members[member];
        let bytes = match answer {
            Ok(bytes) => bytes,
            Err(CarryError::NotSent(why)) => return Ok(Attempt::Next(why)),
            Err(CarryError::NoAnswer(why)) => return Ok(Attempt::Unsure(why)),
        };
        Ok(match from_postcard::<Reply>(&bytes) {
            Ok(Reply::Answer(answer)) => Attempt::Done(answer),
            Ok(Reply::Unsure(why)) => Attempt::Unsure(why),
            Ok(Reply::NotLeader { leader }) => {
                match leader.and_then(|leader| self.members.iter().position(|member| *member == leader)) {
                    Some(leader) if leader != member => Attempt::Ask(leader),
                    _ => Attempt::Next(format!("{addr} knows no leader")),
                }
            }
            Err(why) => return Err(PlaneError::Corrupt { plane: addr.clone(), why }),
        })
    }

    /// Asks another one first from now on, unless that was changed meanwhile.
    fn give_up_on(&self, member: usize) {
        let next = (member + 1) % self.members.len();
        let _ = self.preferred.compare_exchange(member, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    async fn pause(&self, ends: Time) {
        tokio::time::sleep(self.times.pause.min(ends.since(Clock.now()))).await;
    }

    fn unreachable(&self, why: String) -> PlaneError {
        PlaneError::Unreachable { plane: self.name(), why }
    }
}

/// The first answer that comes, and whose it is.
async fn first(asked: &mut Asked<'_>) -> (usize, Result<Bytes, CarryError>) {
    poll_fn(|context| {
        for (place, (member, answer)) in asked.iter_mut().enumerate() {
            if let Poll::Ready(answer) = answer.as_mut().poll(context) {
                let member = *member;
                drop(asked.swap_remove(place));
                return Poll::Ready((member, answer));
            }
        }
        Poll::Pending
    })
    .await
}

/// Whether doing it twice is like doing it once. Giving a lease back is not: late, it would end the one taken since.
fn may_repeat(call: &Call) -> bool {
    match call {
        Call::Watch { .. } => true,
        Call::Apply(command) => match command {
            Command::Get { .. } | Command::Leases | Command::Acquire { .. } | Command::Renew { .. } => true,
            Command::CompareAndSet { .. } | Command::Release { .. } => false,
        },
    }
}

/// How long a call is meant to wait.
fn wait_of(call: &Call) -> Duration {
    match call {
        Call::Apply(_) => Duration::ZERO,
        Call::Watch { wait, .. } => *wait,
    }
}
