//! The clients: each asks one thing at a time, at any server, and asks again elsewhere with the same request id.

use std::{collections::BTreeMap, rc::Rc};

use bytes::Bytes;
use star_core::{
    error::ErrorCode,
    ids::{ClientId, RequestId, ServerId, Version},
    message::{Request, RequestBody, ResponseBody},
    protocol::Token,
};

use super::{Event, World, foundations::Place, parcel::digest, server::Arrival, settings::MS, workload::Asked};
use crate::{history::Op, random::Random, subject::Subject};

/// The most time that a client waits before it asks another server.
const BACKOFF_MAX: u64 = 20 * MS;

/// One client.
pub(crate) struct Client {
    pub(crate) number: u32,
    pub(crate) random: Random,
    /// The number of its last write.
    pub(crate) last_write: u64,
    /// The version that it last saw of each key, for compare-and-set.
    pub(crate) versions: BTreeMap<u32, Version>,
    pub(crate) under_way: Option<UnderWay>,
    /// What it was told of each write, so that a second answer can be compared.
    told: BTreeMap<u64, (ResponseBody, Vec<Place>)>,
    attempts: BTreeMap<u64, Attempt>,
    last_attempt: u64,
    operations: u64,
    /// If set, it only asks this server.
    pub(crate) bound_to: Option<ServerId>,
    /// When its id was drawn; it draws another where it is forgotten.
    born: u64,
}

/// A request on its way to one server.
pub(crate) struct Attempt {
    operation: u64,
    pub(crate) call: u64,
    pub(crate) asked: Rc<Asked>,
    /// By part: which foundation answered. Empty before any star was founded again.
    pub(crate) places: Vec<Place>,
    /// Whether it was sent before, with a text, and how often stars had gone on with what a store held when it was asked.
    text_again: Option<u64>,
}

/// What a client waits for.
pub(crate) struct UnderWay {
    pub(crate) asked: Rc<Asked>,
    pub(crate) request: Request,
    pub(crate) call: u64,
    /// The latest attempt; answers to earlier ones count as well.
    attempt: u64,
    attempts: u32,
    operation: u64,
    /// How often stars had gone on with what a store held when it was asked.
    resumed: u64,
}

impl Client {
    pub(crate) fn new(number: u32, random: Random) -> Self {
        Self {
            number,
            random,
            last_write: 0,
            versions: BTreeMap::new(),
            under_way: None,
            told: BTreeMap::new(),
            attempts: BTreeMap::new(),
            last_attempt: 0,
            operations: 0,
            bound_to: None,
            born: 1,
        }
    }

    /// The id of a write. Nothing earlier is sent again, which the client says at once or later; from time to time it
    /// goes on as another client, as a process that was started anew.
    pub(crate) fn request_id(&mut self, number: u64) -> RequestId {
        self.born += u64::from(self.random.chance(40_000));
        let client = ClientId { born: self.born, draw: self.number };
        RequestId::Counted { client, number, behind: self.random.below(4).min(number) }
    }

    pub(crate) fn attempt(&mut self, attempt: u64) -> Option<&mut Attempt> {
        self.attempts.get_mut(&attempt)
    }
}

impl<S: Subject> World<S> {
    /// A client that waits for nothing asks something new, unless the end has begun.
    pub(super) fn wake(&mut self, client: u32) {
        let now = self.now;
        if self.healing {
            return;
        }
        let me = &mut self.clients[client as usize];
        let (asked, request) = self.workload.next(me);
        self.book.called(now, &asked);
        self.ask(client, asked, request);
    }

    pub(super) fn ask(&mut self, client: u32, asked: Asked, request: Request) {
        let call = self.now;
        let resumed = self.resumed;
        let me = &mut self.clients[client as usize];
        me.operations += 1;
        let (operation, asked) = (me.operations, Rc::new(asked));
        me.under_way = Some(UnderWay { asked, request, call, attempt: 0, attempts: 0, operation, resumed });
        self.attempt(client);
    }

    /// Sends the request to a server drawn at random.
    pub(super) fn attempt(&mut self, client: u32) {
        let servers = u64::from(self.settings.servers);
        let me = &mut self.clients[client as usize];
        let Some(under_way) = &mut me.under_way else { return };
        me.last_attempt += 1;
        (under_way.attempt, under_way.attempts) = (me.last_attempt, under_way.attempts + 1);
        let (operation, call, asked) = (under_way.operation, under_way.call, Rc::clone(&under_way.asked));
        let has_text = matches!(request_id(&mut under_way.request.body), Some(RequestId::Text(_)));
        let text_again = (has_text && under_way.attempts > 1).then_some(under_way.resumed);
        me.attempts.insert(me.last_attempt, Attempt { operation, call, asked, places: Vec::new(), text_again });
        let server = me.bound_to.unwrap_or_else(|| ServerId(me.random.below(servers) as u16));
        let token = Token { connection: client.into(), request: me.last_attempt };
        let request = under_way.request.clone();
        let patience = self.settings.workload.timeout;
        let life = self.servers[usize::from(server.0)].life;
        let at = self.now + self.network.other_delay();
        self.queue.plan(at, Event::Ask { server, life, token, request: Box::new(request) });
        self.queue.plan(self.now + patience, Event::Patience { client, attempt: token.request });
    }

    pub(super) fn reach(&mut self, server: ServerId, token: Token, request: Box<Request>) {
        let attempt = self.clients[token.connection as usize].attempts.get(&token.request);
        // On its way while a star went on with a store after a full stop: no client may count on that, see `again_or_give_up`.
        if attempt.and_then(|attempt| attempt.text_again).is_some_and(|resumed| resumed != self.resumed) {
            return;
        }
        self.arrive(server, Arrival::Request { token, request });
    }

    /// A client has waited long enough for an answer.
    pub(super) fn lose_patience(&mut self, client: u32, attempt: u64) {
        let waits = self.clients[client as usize].under_way.as_ref().is_some_and(|asked| asked.attempt == attempt);
        if waits {
            self.again_or_give_up(client);
        }
    }

    fn again_or_give_up(&mut self, client: u32) {
        let attempts_max = self.settings.workload.attempts_max;
        let (writes_again, resumed) = (self.settings.writes_again, self.resumed);
        let me = &mut self.clients[client as usize];
        let Some(under_way) = &mut me.under_way else { return };
        under_way.attempt = 0;
        let may_again = match request_id(&mut under_way.request.body) {
            // A text is remembered in no store, and no number says that it is of the time before.
            Some(RequestId::Text(_)) => writes_again && under_way.resumed == resumed,
            Some(RequestId::Unnamed) => false,
            Some(RequestId::Counted { .. }) | None => true,
        };
        let goes_on = under_way.attempts < attempts_max || self.healing || me.bound_to.is_some();
        if may_again && goes_on {
            let at = self.now + me.random.between(0, BACKOFF_MAX);
            let operation = under_way.operation;
            self.queue.plan(at, Event::Again { client, operation });
        } else if let Some(under_way) = me.under_way.take() {
            self.unknown += 1;
            self.trace.event(self.now, &[20, client.into()], &[], || format!("client {client} gives up"));
            self.record_unknown(client, &under_way);
            self.plan_wake(client);
        }
    }

    /// The time to ask again has come, if the request is not answered by a late answer meanwhile.
    pub(super) fn again(&mut self, client: u32, operation: u64) {
        let me = &self.clients[client as usize];
        if me.under_way.as_ref().is_some_and(|asked| asked.operation == operation && asked.attempt == 0) {
            self.attempt(client);
        }
    }

    fn plan_wake(&mut self, client: u32) {
        let think_max = self.settings.workload.think_max;
        let at = self.now + self.clients[client as usize].random.between(0, think_max);
        self.queue.plan(at, Event::Wake(client));
    }

    /// An answer has reached its client.
    pub(super) fn answered(&mut self, token: Token, body: &ResponseBody, value: &Bytes) -> Result<(), String> {
        let client = token.connection as u32;
        self.trace.event(self.now, &[21, client.into(), token.request, digest(body)], &[], || {
            format!("client {client} <- #{}  {body:?}", token.request)
        });
        let me = &mut self.clients[client as usize];
        let Some(Attempt { operation, places, .. }) = me.attempts.get(&token.request) else { return Ok(()) };
        let (operation, places) = (*operation, places.clone());
        let mut late = me.under_way.take_if(|asked| asked.operation == operation);
        if is_forgotten(body) {
            if let Some(asked) = late {
                self.forgotten(client, asked, body);
            }
            return Ok(());
        }
        if may_come_right(body)? {
            if late.as_ref().is_some_and(|asked| asked.attempt == token.request) {
                me.under_way = late;
                self.again_or_give_up(client);
            } else if late.is_some() {
                me.under_way = late;
            }
            return Ok(());
        }
        let is_write = matches!(
            body,
            ResponseBody::Written { .. }
                | ResponseBody::Conflict { .. }
                | ResponseBody::Many(_)
                | ResponseBody::NotFound
        );
        if let Some(asked) = late.take() {
            if asked.asked.is_write() && is_write {
                me.told.insert(operation, (body.clone(), places.clone()));
            }
            self.answers += 1;
            self.record(client, &asked, Some((body, value)), &places)?;
            let Self { foundations, book, settings, .. } = self;
            book.answered(&asked.asked, (asked.call, self.now), body, |part| {
                let star = asked.asked.star(part, settings.stars);
                places.get(part).is_none_or(|place| *place == foundations.latest_place(star))
            })?;
            self.plan_wake(client);
            return Ok(());
        }
        match me.told.get(&operation) {
            Some((first, before)) if first != body && *before == places => {
                Err(format!("client {client} was told {first:?} of a write, and then {body:?} of the same"))
            }
            _ => Ok(()),
        }
    }

    /// The servers do not know this client any more. A write that was sent only once was not done then.
    fn forgotten(&mut self, client: u32, mut asked: UnderWay, body: &ResponseBody) {
        self.forgotten += 1;
        let now = self.now;
        let me = &mut self.clients[client as usize];
        me.born = (me.born + 1).max(now / 1000);
        let id = ClientId { born: me.born, draw: me.number };
        if let (1, ResponseBody::Error(_), Some(RequestId::Counted { client: before, .. })) =
            (asked.attempts, body, request_id(&mut asked.request.body))
        {
            *before = id;
            let Asked::Parts(_) = &*asked.asked else { return };
            me.operations += 1;
            (asked.attempt, asked.attempts, asked.operation) = (0, 0, me.operations);
            me.under_way = Some(asked);
            self.attempt(client);
        } else {
            self.unknown += 1;
            self.record_unknown(client, &asked);
            self.plan_wake(client);
        }
    }

    /// Writes down that nobody knows what came of a request.
    fn record_unknown(&mut self, client: u32, done: &UnderWay) {
        self.record(client, done, None, &[]).expect("what nobody knows contradicts nothing");
    }

    /// Writes down what came of a request; `None`: nobody knows. `places`: which foundations answered.
    fn record(
        &mut self,
        client: u32,
        done: &UnderWay,
        answer: Option<(&ResponseBody, &Bytes)>,
        places: &[Place],
    ) -> Result<(), String> {
        let now = self.now;
        let me = &mut self.clients[client as usize];
        let records = done.asked.records(me.number, done.call, answer.map(|(body, value)| (now, body, value)));
        for (part, (key, record)) in records.into_iter().enumerate() {
            if let (Some(version), true) = (record.version, record.ret.is_some()) {
                let gone = record.op == Op::Delete && record.ok;
                me.versions.insert(key, if gone { Version(0) } else { version });
            }
            let star = done.asked.star(part, self.settings.stars);
            for record in self.foundations.records(star, record, places.get(part).copied())? {
                self.history.push(&record).expect("the world writes good records");
            }
        }
        Ok(())
    }
}

/// The request id of a write; of all its parts, if it has many.
fn request_id(body: &mut RequestBody) -> Option<&mut RequestId> {
    match body {
        RequestBody::Set { request_id, .. }
        | RequestBody::Delete { request_id, .. }
        | RequestBody::SetMany { request_id, .. } => Some(request_id),
        _ => None,
    }
}

/// Whether a request, or a part of it, was refused because its client is forgotten.
fn is_forgotten(body: &ResponseBody) -> bool {
    match body {
        ResponseBody::Error(failure) => failure.code == ErrorCode::Forgotten,
        ResponseBody::Many(parts) => parts.iter().any(|entry| is_forgotten(&entry.body)),
        _ => false,
    }
}

/// Whether a refusal may be gone after a while; the error is one that these clients never deserve.
fn may_come_right(body: &ResponseBody) -> Result<bool, String> {
    let part = |body: &ResponseBody| match body {
        ResponseBody::Error(failure) if failure.code.retry() => Ok(true),
        ResponseBody::Error(failure) => Err(format!("a good request was refused for good: {failure}")),
        _ => Ok(false),
    };
    match body {
        ResponseBody::Many(parts) => {
            parts.iter().try_fold(false, |any, entry| part(&entry.body).map(|retry| any || retry))
        }
        body => part(body),
    }
}
