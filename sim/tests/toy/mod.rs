//! The simplest protocol that can be right: server 0 holds everything, the others pass requests on to it. It shows that
//! the world is fair to a sound protocol and hard on an unsound one.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use star_control::ClusterState;
use star_core::{
    ErrorCode,
    ids::{Epoch, RequestId, Seq, ServerId, StarId, Version},
    key::Key,
    message::{Condition, ManyEntry, Request, RequestBody, Response, ResponseBody, Wire, from_postcard, to_postcard},
    protocol::{Effects, Input, Protocol, Token},
    store::Encoding,
    time::Time,
};
use star_sim::subject::{Glance, Identity, Stamped, Subject};

/// Mistakes of the toy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ToyBug {
    /// Server 0 does a repeated request again.
    ForgetsRequests,
    /// The others answer reads with the last thing they heard.
    AnswersFromMemory,
    /// Server 0 loses every twentieth write after it was answered.
    LosesWrites,
    /// The others answer nothing that takes more than one try.
    GivesUp,
}

/// One server.
pub(crate) struct Toy {
    me: ServerId,
    bug: Option<ToyBug>,
    lease_until: Time,
    cluster: Arc<ClusterState>,
    objects: BTreeMap<Key, (Version, Bytes)>,
    last_version: u64,
    done: BTreeMap<RequestId, ResponseBody>,
    waiting: BTreeMap<u64, (Token, Request)>,
    last_asked: u64,
    heard: BTreeMap<Key, Response>,
}

/// What the servers say to one another.
#[derive(Clone, Debug)]
pub(crate) struct ToyMessage {
    number: u64,
    body: ToyBody,
    tail: Bytes,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum ToyBody {
    Ask(RequestBody),
    Told(ResponseBody),
}

#[derive(Clone, Debug)]
pub(crate) enum ToyControl {
    Cluster(Arc<ClusterState>),
    Lease(Time),
}

impl Wire for ToyMessage {
    fn encode_header(&self, out: &mut Vec<u8>) {
        to_postcard(&(self.number, &self.body), out);
    }

    fn tail(&self) -> &Bytes {
        &self.tail
    }

    fn decode(header: &[u8], tail: Bytes) -> Result<Self, String> {
        let (number, body) = from_postcard(header)?;
        Ok(Self { number, body, tail })
    }
}

impl Protocol for Toy {
    type Message = ToyMessage;
    type Control = ToyControl;

    fn step<E: Effects<ToyMessage>>(&mut self, now: Time, input: Input<ToyMessage, ToyControl>, effects: &mut E) {
        match input {
            Input::Request { token, request } => self.on_request(now, token, request, effects),
            Input::Message { from, message } => match message.body {
                ToyBody::Ask(body) => {
                    let answer = self.perform(&Request { body, value: message.tail });
                    let body = ToyBody::Told(answer.body);
                    effects.send(from, &ToyMessage { number: message.number, body, tail: answer.value });
                }
                ToyBody::Told(body) => {
                    if let Some((token, request)) = self.waiting.remove(&message.number) {
                        let answer = Response { body, value: message.tail };
                        if let RequestBody::Get { key } = &request.body {
                            self.heard.insert(key.clone(), answer.clone());
                        }
                        self.answer(now, token, &request.body, &answer, effects);
                    }
                }
            },
            Input::Control(ToyControl::Lease(until)) => self.lease_until = until,
            Input::Control(ToyControl::Cluster(cluster)) => self.cluster = cluster,
            Input::Tick if self.bug != Some(ToyBug::GivesUp) => {
                for (number, (_, request)) in &self.waiting {
                    effects.send(ServerId(0), &ask(*number, request));
                }
            }
            Input::Tick | Input::LinkUp(_) | Input::LinkDown(_) => {}
        }
    }

    fn end_turn<E: Effects<ToyMessage>>(&mut self, _now: Time, _effects: &mut E) {}
}

fn ask(number: u64, request: &Request) -> ToyMessage {
    ToyMessage { number, body: ToyBody::Ask(request.body.clone()), tail: request.value.clone() }
}

impl Toy {
    fn on_request<E: Effects<ToyMessage>>(&mut self, now: Time, token: Token, mut request: Request, effects: &mut E) {
        self.last_asked += 1;
        if let RequestBody::Set { request_id, .. }
        | RequestBody::Delete { request_id, .. }
        | RequestBody::SetMany { request_id, .. } = &mut request.body
        {
            *request_id = self.name(request_id);
        }
        if self.me == ServerId(0) {
            let answer = self.perform(&request);
            return self.answer(now, token, &request.body, &answer, effects);
        }
        if let (Some(ToyBug::AnswersFromMemory), RequestBody::Get { key }) = (self.bug, &request.body)
            && let Some(answer) = self.heard.get(key).cloned()
        {
            return self.answer(now, token, &request.body, &answer, effects);
        }
        effects.send(ServerId(0), &ask(self.last_asked, &request));
        self.waiting.insert(self.last_asked, (token, request));
    }

    /// What a write is remembered by: it has a name even if its client gave none, for it is asked for again and again; and
    /// what its client says of its other writes is no part of it.
    fn name(&self, id: &RequestId) -> RequestId {
        match id {
            RequestId::Unnamed => RequestId::Text(format!("unnamed {} {}", self.me, self.last_asked).into()),
            RequestId::Counted { client, number, .. } => {
                RequestId::Counted { client: *client, number: *number, behind: 0 }
            }
            RequestId::Text(text) => RequestId::Text(text.clone()),
        }
    }

    fn answer<E: Effects<ToyMessage>>(
        &mut self,
        now: Time,
        token: Token,
        asked: &RequestBody,
        answer: &Response,
        effects: &mut E,
    ) {
        let reads = matches!(asked, RequestBody::Get { .. } | RequestBody::GetMany { .. } | RequestBody::List { .. });
        if reads && now >= self.lease_until {
            return effects.reply(token, &ResponseBody::error(ErrorCode::NoLease, "no lease here"), &[]);
        }
        effects.reply(token, &answer.body, &answer.value);
    }

    fn perform(&mut self, request: &Request) -> Response {
        match &request.body {
            RequestBody::Get { key } => self.read(key),
            RequestBody::Set { key, condition, request_id, .. } => {
                self.write(key, Some(request.value.clone()), *condition, request_id).into()
            }
            RequestBody::Delete { key, condition, request_id } => self.write(key, None, *condition, request_id).into(),
            RequestBody::GetMany { keys } => many(&keys.iter().map(|key| self.read(key)).collect::<Vec<_>>()),
            RequestBody::SetMany { entries, request_id } => {
                let mut offset = 0;
                let mut answers = Vec::new();
                for (index, entry) in entries.iter().enumerate() {
                    let end = offset + entry.value_bytes as usize;
                    let value = request.value.slice(offset..end);
                    offset = end;
                    let request_id = self.name(&request_id.part(index as u64));
                    answers.push(self.write(&entry.key, Some(value), Condition::Always, &request_id).into());
                }
                many(&answers)
            }
            RequestBody::List { prefix, after, limit, .. } => {
                let fits = |key: &&Key| {
                    key.as_str().starts_with(prefix.as_str())
                        && after.as_ref().is_none_or(|after| key.as_str() > after.as_str())
                };
                let mut keys: Vec<_> = self.objects.keys().filter(fits).map(|key| key.as_str().into()).collect();
                let more = keys.len() > *limit as usize;
                keys.truncate(*limit as usize);
                ResponseBody::Keys { keys, more }.into()
            }
            RequestBody::Status => ResponseBody::Status("{}".into()).into(),
        }
    }

    fn read(&self, key: &Key) -> Response {
        match self.objects.get(key) {
            None => ResponseBody::NotFound.into(),
            Some((version, value)) => Response {
                body: ResponseBody::Value { version: *version, encoding: Encoding::Raw },
                value: value.clone(),
            },
        }
    }

    fn write(&mut self, key: &Key, value: Option<Bytes>, condition: Condition, id: &RequestId) -> ResponseBody {
        if let Some(done) = self.done.get(id).filter(|_| self.bug != Some(ToyBug::ForgetsRequests)) {
            return done.clone();
        }
        let version = self.objects.get(key).map_or(Version(0), |(version, _)| *version);
        let next = Version(self.last_version + 1);
        let answer = match value {
            _ if !condition.holds(version) => ResponseBody::Conflict { version },
            None if version == Version(0) => ResponseBody::NotFound,
            None => {
                self.last_version += 1;
                self.objects.remove(key);
                ResponseBody::Written { version: next }
            }
            Some(value) => {
                self.last_version += 1;
                if self.bug != Some(ToyBug::LosesWrites) || !self.last_version.is_multiple_of(20) {
                    self.objects.insert(key.clone(), (next, value));
                }
                ResponseBody::Written { version: next }
            }
        };
        self.done.insert(id.clone(), answer.clone());
        answer
    }
}

fn many(answers: &[Response]) -> Response {
    let entry = |answer: &Response| ManyEntry { body: answer.body.clone(), value_bytes: answer.value.len() as u32 };
    let body = ResponseBody::Many(answers.iter().map(entry).collect());
    let value: Vec<u8> = answers.iter().flat_map(|answer| answer.value.to_vec()).collect();
    Response { body, value: value.into() }
}

impl Subject for Toy {
    type Settings = Option<ToyBug>;

    fn start(settings: &Option<ToyBug>, identity: &Identity) -> Self {
        Self {
            me: identity.id,
            bug: *settings,
            lease_until: Time::ZERO,
            cluster: Arc::default(),
            objects: BTreeMap::new(),
            last_version: 0,
            done: BTreeMap::new(),
            waiting: BTreeMap::new(),
            last_asked: 0,
            heard: BTreeMap::new(),
        }
    }

    fn cluster(state: Arc<ClusterState>) -> ToyControl {
        ToyControl::Cluster(state)
    }

    fn lease(until: Time) -> ToyControl {
        ToyControl::Lease(until)
    }

    /// Views mean nothing to it: it is ready for every step.
    fn may_advance(&self) -> Vec<(StarId, Epoch)> {
        self.cluster.stars.iter().map(|view| (view.star, view.epoch)).collect()
    }

    fn glance(&self, star: StarId) -> Glance {
        let epoch = self.cluster.stars.get(usize::from(star.0)).map_or(Epoch(0), |view| view.epoch);
        if self.me != ServerId(0) {
            return Glance { epoch, ..Glance::default() };
        }
        let (ready, committed) = (Seq(self.last_version), Seq(self.last_version));
        Glance {
            epoch,
            founded: Epoch(0),
            resumed: Epoch(0),
            installed: true,
            serving: true,
            members: [self.me].into_iter().collect(),
            ready,
            committed,
            base: committed,
        }
    }

    fn stamps(&self, _star: StarId, _after: Seq, _visit: &mut dyn FnMut(Seq, Stamped)) {}

    fn objects(&self, visit: &mut dyn FnMut(&Key, Version, &[u8])) {
        self.objects.iter().for_each(|(key, (version, value))| visit(key, *version, value));
    }

    fn look_up(&self, key: &Key) -> (Option<Version>, bool) {
        (self.objects.get(key).map(|(version, _)| *version), false)
    }

    fn unfinished(&self) -> Option<String> {
        (!self.waiting.is_empty()).then(|| format!("{} requests wait", self.waiting.len()))
    }

    fn check(&self) -> Result<(), String> {
        Ok(())
    }
}
