//! What a server does with clients' requests: those of one turn go to Raft together.

use std::sync::Arc;

use bytes::Bytes;
use star_core::{
    ErrorCode, Time,
    admission::{refuse_key, refuse_parts, refuse_request_id, refuse_value},
    message::{Condition, ManyEntry, Request, RequestBody, Response, ResponseBody, Wire, from_postcard},
    protocol::{Effects, Input, Protocol, Token},
};
use tokio::sync::mpsc;

use super::{
    KEY_BYTES_MAX, VALUE_BYTES_MAX,
    machine::{Batch, Change, Machine, Write},
    status::Status,
};

/// The most writes, and the most bytes of values, in one entry of the log: it has to fit a frame between servers.
const ENTRY_WRITES_MAX: usize = 256;
const ENTRY_BYTES_MAX: usize = 256 << 10;
/// The most requests that wait for Raft; more are refused.
const WAITING_MAX: usize = 65_536;

/// What clients asked for in one turn.
#[derive(Debug)]
pub(crate) enum Work {
    /// An entry for the log, with who waits for its writes, in order.
    Write(Batch, Vec<Asker>),
    /// Reads, which a majority's confirmation that this server leads serves all together.
    Read(Vec<(Token, RequestBody)>),
}

/// Who waits for how many writes of an entry.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Asker {
    /// A request of one write.
    One(Token),
    /// A request of so many writes, answered part by part.
    Many(Token, usize),
}

impl Asker {
    pub(crate) fn token(&self) -> Token {
        match self {
            Self::One(token) | Self::Many(token, _) => *token,
        }
    }
}

/// The answers to requests that were handed on.
pub(crate) type Answers = Vec<(Token, Response)>;

/// Clients' requests at a server. Not a replication protocol by itself, and not pure: it hands requests to tasks.
#[derive(Debug)]
pub(crate) struct Desk {
    hand_on: mpsc::UnboundedSender<Work>,
    status: Arc<Status>,
    waiting: usize,
    writes: Vec<Write>,
    write_bytes: usize,
    askers: Vec<Asker>,
    reads: Vec<(Token, RequestBody)>,
}

impl Desk {
    pub(crate) fn new(hand_on: mpsc::UnboundedSender<Work>, status: Arc<Status>) -> Self {
        let (writes, askers, reads) = (Vec::new(), Vec::new(), Vec::new());
        Self { hand_on, status, waiting: 0, writes, write_bytes: 0, askers, reads }
    }

    /// Takes a request, or refuses it.
    fn take(&mut self, token: Token, request: Request) -> Result<(), ResponseBody> {
        if self.waiting >= WAITING_MAX {
            return Err(ResponseBody::error(ErrorCode::Overloaded, "too many requests wait: try again a little later"));
        }
        match request.body {
            RequestBody::Get { .. } | RequestBody::GetMany { .. } | RequestBody::List { .. } => {
                if let RequestBody::GetMany { keys } = &request.body {
                    refuse(refuse_parts(keys.len()))?;
                }
                self.reads.push((token, request.body));
            }
            RequestBody::Set { key, encoding, condition, request_id } => {
                let change = Change::Put { encoding, value: request.value };
                self.write(Write { key, change, condition, request_id })?;
                self.askers.push(Asker::One(token));
            }
            RequestBody::Delete { key, condition, request_id } => {
                self.write(Write { key, change: Change::Delete, condition, request_id })?;
                self.askers.push(Asker::One(token));
            }
            RequestBody::SetMany { entries, request_id } => {
                refuse(refuse_parts(entries.len()))?;
                let keys: usize = entries.iter().map(|entry| entry.key.len()).sum();
                refuse(refuse_value(request.value.len() + keys, VALUE_BYTES_MAX))?;
                let mut value = request.value;
                let before = (self.writes.len(), self.write_bytes);
                for (place, entry) in entries.iter().enumerate() {
                    let bytes = value.split_to(value.len().min(entry.value_bytes as usize));
                    let change = Change::Put { encoding: entry.encoding, value: bytes };
                    let request_id = request_id.part(place as u64);
                    let write = Write { key: entry.key.clone(), change, condition: Condition::Always, request_id };
                    if let Err(refusal) = self.write(write) {
                        // All of it or nothing.
                        self.writes.truncate(before.0);
                        self.write_bytes = before.1;
                        return Err(refusal);
                    }
                }
                self.askers.push(Asker::Many(token, entries.len()));
            }
            RequestBody::Status => return Err(ResponseBody::Status(self.status.json())),
        }
        self.waiting += 1;
        Ok(())
    }

    fn write(&mut self, write: Write) -> Result<(), ResponseBody> {
        refuse(refuse_key(&write.key, KEY_BYTES_MAX))?;
        // A part's id has a NUL character in it, which the id of the request has not.
        if !matches!(&write.request_id, star_core::RequestId::Text(text) if text.contains('\0')) {
            refuse(refuse_request_id(&write.request_id))?;
        }
        let value_bytes = match &write.change {
            Change::Put { value, .. } => value.len(),
            Change::Delete => 0,
        };
        refuse(refuse_value(value_bytes, VALUE_BYTES_MAX))?;
        self.write_bytes += write.bytes() as usize;
        self.writes.push(write);
        Ok(())
    }

    fn hand_on_writes(&mut self) -> Option<Work> {
        self.write_bytes = 0;
        let writes = std::mem::take(&mut self.writes);
        (!writes.is_empty()).then(|| Work::Write(Batch(writes), std::mem::take(&mut self.askers)))
    }

    /// Hands work on; refuses it where nobody takes it any more.
    fn hand<E: Effects<Nothing>>(&mut self, work: Option<Work>, effects: &mut E) {
        let Some(Err(mpsc::error::SendError(work))) = work.map(|work| self.hand_on.send(work)) else { return };
        let tokens: Vec<Token> = match work {
            Work::Write(_, askers) => askers.iter().map(Asker::token).collect(),
            Work::Read(reads) => reads.into_iter().map(|(token, _)| token).collect(),
        };
        for token in tokens {
            self.waiting -= 1;
            effects.reply(token, &ResponseBody::error(ErrorCode::Stopping, "the server is stopping"), &[]);
        }
    }
}

fn refuse(refusal: Option<ResponseBody>) -> Result<(), ResponseBody> {
    refusal.map_or(Ok(()), Err)
}

impl Protocol for Desk {
    type Message = Nothing;
    type Control = Answers;

    fn step<E: Effects<Nothing>>(&mut self, _now: Time, input: Input<Nothing, Answers>, effects: &mut E) {
        match input {
            Input::Request { token, request } => {
                if let Err(answer) = self.take(token, request) {
                    effects.reply(token, &answer, &[]);
                }
                if self.writes.len() >= ENTRY_WRITES_MAX || self.write_bytes >= ENTRY_BYTES_MAX {
                    let work = self.hand_on_writes();
                    self.hand(work, effects);
                }
            }
            Input::Control(answers) => {
                for (token, answer) in answers {
                    self.waiting -= 1;
                    effects.reply(token, &answer.body, &answer.value);
                }
            }
            Input::Message { .. } | Input::LinkUp(_) | Input::LinkDown(_) | Input::Tick => {}
        }
    }

    fn end_turn<E: Effects<Nothing>>(&mut self, _now: Time, effects: &mut E) {
        let work = self.hand_on_writes();
        self.hand(work, effects);
        let reads = std::mem::take(&mut self.reads);
        self.hand((!reads.is_empty()).then_some(Work::Read(reads)), effects);
    }
}

/// Answers a read.
pub(crate) fn read(machine: &Machine, body: &RequestBody) -> Response {
    let one = |key| match machine.get(key) {
        Some(object) => {
            let (version, encoding) = (object.version, object.encoding);
            Response { body: ResponseBody::Value { version, encoding }, value: object.value.clone() }
        }
        None => ResponseBody::NotFound.into(),
    };
    match body {
        RequestBody::Get { key } => one(key),
        RequestBody::GetMany { keys } => many(keys.iter().map(one)),
        // There is one log and so no stars: who asks for some is told everything.
        RequestBody::List { prefix, after, limit, stars: _ } => machine.list(prefix, after.as_deref(), *limit).into(),
        _ => ResponseBody::error(ErrorCode::Internal, "this is no read; please report it").into(),
    }
}

/// The answer to a request of many parts.
pub(crate) fn many(parts: impl Iterator<Item = Response>) -> Response {
    let mut values = Vec::new();
    let entry = |part: Response| {
        values.extend_from_slice(&part.value);
        ManyEntry { body: part.body, value_bytes: part.value.len() as u32 }
    };
    let entries = parts.map(entry).collect();
    Response { body: ResponseBody::Many(entries), value: values.into() }
}

/// Servers say nothing to one another but through Raft.
#[derive(Clone, Debug)]
pub(crate) struct Nothing(Bytes);

impl Wire for Nothing {
    fn encode_header(&self, _out: &mut Vec<u8>) {}

    fn tail(&self) -> &Bytes {
        &self.0
    }

    fn decode(header: &[u8], tail: Bytes) -> Result<Self, String> {
        from_postcard::<()>(header).map(|()| Self(tail))
    }
}

#[cfg(test)]
mod tests {
    use star_core::{Key, RequestId, protocol::Effect, store::Encoding};

    use super::*;

    fn desk() -> (Desk, mpsc::UnboundedReceiver<Work>) {
        let (hand_on, work) = mpsc::unbounded_channel();
        (Desk::new(hand_on, Arc::default()), work)
    }

    fn set(key: &str, value: &'static [u8]) -> Request {
        let (key, request_id) = (Key::new(key), RequestId::Unnamed);
        let body = RequestBody::Set { key, encoding: Encoding::Raw, condition: Condition::Always, request_id };
        Request { body, value: Bytes::from_static(value) }
    }

    #[test]
    fn the_writes_of_a_turn_are_one_entry_and_its_reads_one_confirmation() {
        let ((mut desk, mut work), mut effects) = (desk(), Vec::new());
        for request in 0..4 {
            let token = Token { connection: 1, request };
            let get = RequestBody::Get { key: Key::new("k") }.into();
            let request = if request < 2 { set("k", b"v") } else { get };
            desk.step(Time::ZERO, Input::Request { token, request }, &mut effects);
        }
        desk.end_turn(Time::ZERO, &mut effects);
        assert!(matches!(work.try_recv(), Ok(Work::Write(batch, askers)) if (batch.0.len(), askers.len()) == (2, 2)));
        assert!(matches!(work.try_recv(), Ok(Work::Read(reads)) if reads.len() == 2));
        assert!(work.try_recv().is_err() && effects.is_empty());
        desk.end_turn(Time::ZERO, &mut effects);
        assert!(work.try_recv().is_err(), "nothing came in this turn");
    }

    #[test]
    fn what_does_not_fit_an_entry_is_refused_or_goes_into_the_next() {
        static LARGE: [u8; VALUE_BYTES_MAX + 1] = [0; VALUE_BYTES_MAX + 1];
        let ((mut desk, mut work), mut effects) = (desk(), Vec::new());
        for (request, length) in [(0, ENTRY_BYTES_MAX), (1, 1), (2, LARGE.len())] {
            let token = Token { connection: 1, request };
            desk.step(Time::ZERO, Input::Request { token, request: set("k", &LARGE[..length]) }, &mut effects);
        }
        desk.end_turn(Time::ZERO, &mut effects);
        assert!(matches!(work.try_recv(), Ok(Work::Write(batch, _)) if batch.0.len() == 1));
        assert!(matches!(work.try_recv(), Ok(Work::Write(batch, _)) if batch.0.len() == 1));
        let refused: Vec<_> = effects
            .iter()
            .map(|effect| match effect {
                Effect::Reply { token, body: ResponseBody::Error(failure), .. } => (token.request, failure.code),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(refused, [(2, ErrorCode::TooLarge)]);
    }
}
