//! What a server does with a client's request before its protocol begins: limits are looked at, requests with many parts
//! are taken apart, and each answer finds its way to whoever asked.

use bytes::Bytes;
use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use crate::{
    admission::{refuse_key, refuse_parts, refuse_request_id, refuse_request_number, refuse_value},
    error::ErrorCode,
    gather::Gathers,
    ids::{RequestId, StarId},
    key::Key,
    message::{Condition, Request, RequestBody, ResponseBody, SetEntry},
    protocol::{Effects, Token},
    store::Encoding,
};

/// What a write is charged against the buffer limit beside its value, in bytes.
const WRITE_OVERHEAD_BYTES: u64 = 256;

/// What a write with a value of so many bytes is charged against the buffer limit.
pub fn charged_bytes(value_bytes: u32) -> u64 {
    u64::from(value_bytes) + WRITE_OVERHEAD_BYTES
}

/// Who is to get the answer to a read or a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// A client's request.
    Client(Token),
    /// Part of a client's request with many parts.
    Part {
        /// The request, in [`Gathers`].
        gather: u64,
        /// The part.
        index: u32,
    },
}

impl Asker {
    /// Answers; a part is kept until all parts of its request are there.
    pub fn answer<M>(self, effects: &mut impl Effects<M>, gathers: &mut Gathers, body: &ResponseBody, value: &[u8]) {
        match self {
            Self::Client(token) => effects.reply(token, body, value),
            Self::Part { gather, index } => {
                if let Some((token, body, value)) = gathers.add(gather, index, body, value) {
                    effects.reply(token, &body, &value);
                }
            }
        }
    }
}

/// What a write does if its condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// Make the value the key's object.
    Set(Encoding),
    /// Remove the key's object.
    Delete,
}

/// A client's write, as it came in.
#[derive(Clone, Debug)]
pub struct NewWrite {
    /// The key.
    pub key: Key,
    /// What to do.
    pub operation: Operation,
    /// When to do it.
    pub condition: Condition,
    /// What the client calls it.
    pub request_id: RequestId,
    /// The value; empty for a delete.
    pub value: Bytes,
    /// Part of a request that was admitted as a whole: the buffer limit was looked at already.
    pub is_admitted: bool,
}

/// What a server takes at most.
#[derive(Clone, Copy, Debug)]
pub struct RequestLimits {
    /// The bytes of a key.
    pub key_bytes_max: usize,
    /// The bytes of a value.
    pub value_bytes_max: usize,
}

/// A protocol at one server, as far as it answers clients. [`Self::on_request`] is what its driver's requests go to.
pub trait Requests<M> {
    /// See [`RequestLimits`].
    fn limits(&self) -> RequestLimits;

    /// The requests with many parts that are under way.
    fn gathers(&mut self) -> &mut Gathers;

    /// Why writes that are charged so many bytes together cannot be taken now, if so.
    fn refuse_overload(&self, charged: u64) -> Option<ResponseBody>;

    /// Reads a key that may be one.
    fn read<E: Effects<M>>(&mut self, effects: &mut E, asker: Asker, key: &Key);

    /// Begins a write that is within the limits.
    fn begin<E: Effects<M>>(&mut self, effects: &mut E, asker: Asker, write: NewWrite);

    /// Lists keys of some stars, or of all: those with the prefix, after a key, so many at most.
    fn list<E: Effects<M>>(
        &mut self,
        effects: &mut E,
        token: Token,
        range: (CompactString, Option<CompactString>),
        limit: u32,
        stars: &[StarId],
    );

    /// What people should know of the server, as JSON.
    fn status(&self) -> String;

    /// A client's request.
    fn on_request<E: Effects<M>>(&mut self, effects: &mut E, token: Token, request: Request) {
        let asker = Asker::Client(token);
        let (value, is_admitted) = (request.value, false);
        match request.body {
            RequestBody::Get { key } => self.get(effects, asker, &key),
            RequestBody::Set { key, encoding, condition, request_id } => {
                let operation = Operation::Set(encoding);
                self.write(effects, asker, NewWrite { key, operation, condition, request_id, value, is_admitted });
            }
            RequestBody::Delete { key, condition, request_id } => {
                let (operation, value) = (Operation::Delete, Bytes::new());
                self.write(effects, asker, NewWrite { key, operation, condition, request_id, value, is_admitted });
            }
            RequestBody::List { prefix, after, limit, stars } => {
                self.list(effects, token, (prefix, after), limit, &stars);
            }
            RequestBody::GetMany { keys } => self.get_many(effects, token, &keys),
            RequestBody::SetMany { entries, request_id } => {
                self.set_many(effects, token, entries, &request_id, &value);
            }
            RequestBody::Status => effects.reply(token, &ResponseBody::Status(self.status()), &[]),
        }
    }

    /// Reads a key, or refuses it.
    fn get<E: Effects<M>>(&mut self, effects: &mut E, asker: Asker, key: &Key) {
        match refuse_key(key, self.limits().key_bytes_max) {
            Some(refusal) => asker.answer(effects, self.gathers(), &refusal, &[]),
            None => self.read(effects, asker, key),
        }
    }

    /// Begins a write, or refuses it.
    fn write<E: Effects<M>>(&mut self, effects: &mut E, asker: Asker, write: NewWrite) {
        match refuse_write(self.limits(), &write) {
            Some(refusal) => asker.answer(effects, self.gathers(), &refusal, &[]),
            None => self.begin(effects, asker, write),
        }
    }

    /// Reads each of some keys by itself.
    fn get_many<E: Effects<M>>(&mut self, effects: &mut E, token: Token, keys: &[Key]) {
        if let Some(refusal) = refuse_parts(keys.len()) {
            return effects.reply(token, &refusal, &[]);
        }
        let gather = self.gathers().open(token, keys.len());
        for (index, key) in keys.iter().enumerate() {
            self.get(effects, Asker::Part { gather, index: index as u32 }, key);
        }
    }

    /// Writes each of some objects by itself.
    fn set_many<E: Effects<M>>(
        &mut self,
        effects: &mut E,
        token: Token,
        entries: Vec<SetEntry>,
        request_id: &RequestId,
        values: &Bytes,
    ) {
        // Admitted or refused as a whole: a client that sends it again must not find the same part refused each time.
        let charged = entries.iter().map(|entry| charged_bytes(entry.value_bytes)).sum();
        let refusal = refuse_set_many(&entries, request_id, values).or_else(|| self.refuse_overload(charged));
        if let Some(refusal) = refusal {
            return effects.reply(token, &refusal, &[]);
        }
        let gather = self.gathers().open(token, entries.len());
        let mut offset = 0;
        for (index, SetEntry { key, encoding, value_bytes }) in entries.into_iter().enumerate() {
            let value = values.slice(offset..offset + value_bytes as usize);
            offset += value_bytes as usize;
            let (operation, condition) = (Operation::Set(encoding), Condition::Always);
            let request_id = request_id.part(index as u64);
            let write = NewWrite { key, operation, condition, request_id, value, is_admitted: true };
            self.write(effects, Asker::Part { gather, index: index as u32 }, write);
        }
    }
}

fn refuse_write(limits: RequestLimits, write: &NewWrite) -> Option<ResponseBody> {
    let refusal = refuse_key(&write.key, limits.key_bytes_max)
        .or_else(|| refuse_value(write.value.len(), limits.value_bytes_max));
    // The id of a part is made from one that was looked at.
    if refusal.is_some() || write.is_admitted { refusal } else { refuse_request_id(&write.request_id) }
}

fn refuse_set_many(entries: &[SetEntry], request_id: &RequestId, values: &Bytes) -> Option<ResponseBody> {
    let value_bytes: u64 = entries.iter().map(|entry| u64::from(entry.value_bytes)).sum();
    let last_id = request_id.part(entries.len().saturating_sub(1) as u64);
    let refusal = refuse_parts(entries.len()).or_else(|| refuse_request_id(request_id));
    refusal.or_else(|| refuse_request_number(&last_id)).or_else(|| {
        (value_bytes != values.len() as u64).then(|| {
            let text = format!("the entries name {value_bytes} bytes of values, and {} came", values.len());
            ResponseBody::error(ErrorCode::BadRequest, text)
        })
    })
}
