//! What the clients ask for, and how their answers become records of the history.

use std::borrow::Cow;

use bytes::Bytes;
use compact_str::CompactString;
use star_core::{
    ids::{RequestId, StarId, Version},
    key::Key,
    message::{Condition, Request, RequestBody, ResponseBody, SetEntry},
    store::Encoding,
};

use super::{client::Client, settings};
use crate::history::{Op, Record};

/// Makes requests.
#[derive(Debug)]
pub(crate) struct Workload {
    settings: settings::Workload,
    keys: Vec<Key>,
}

/// A request as its client thinks of it.
#[derive(Clone, Debug)]
pub(crate) enum Asked {
    /// Operations on keys; more than one for requests of many keys.
    Parts(Vec<Part>),
    /// A list of keys.
    List { prefix: CompactString, after: Option<CompactString>, limit: u32 },
}

/// One operation on one key.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) op: Op,
    pub(crate) number: u32,
    pub(crate) key: Key,
    pub(crate) value: Option<String>,
    pub(crate) if_version: Option<Version>,
}

impl Asked {
    pub(crate) fn is_write(&self) -> bool {
        matches!(self, Self::Parts(parts) if parts.iter().any(|part| part.op != Op::Read))
    }

    /// Whether it is about one key.
    pub(crate) fn is_one(&self) -> bool {
        matches!(self, Self::Parts(parts) if parts.len() == 1)
    }

    /// The star of a part.
    pub(crate) fn star(&self, part: usize, stars: u16) -> StarId {
        match self {
            Self::Parts(parts) => parts[part].key.star(stars),
            Self::List { .. } => StarId(0),
        }
    }

    /// The parts with the answer to each.
    pub(crate) fn answers<'a>(&'a self, body: &'a ResponseBody) -> impl Iterator<Item = (&'a Part, &'a ResponseBody)> {
        let parts: &[Part] = if let Self::Parts(parts) = self { parts } else { &[] };
        parts.iter().enumerate().filter_map(move |(place, part)| match body {
            ResponseBody::Many(entries) => Some((part, &entries.get(place)?.body)),
            body => Some((part, body)),
        })
    }

    /// A record for each part.
    pub(crate) fn records<'a>(
        &'a self,
        client: u32,
        call: u64,
        answer: Option<(u64, &ResponseBody, &Bytes)>,
    ) -> Vec<(u32, Record<'a>)> {
        let parts: &[Part] = if let Self::Parts(parts) = self { parts } else { &[] };
        let mut offset = 0;
        let mut records = Vec::with_capacity(parts.len());
        for (place, part) in parts.iter().enumerate() {
            let mut record = Record {
                client,
                op: part.op,
                key: Cow::Borrowed(part.key.as_str()),
                value: part.value.as_deref().map(Cow::Borrowed),
                version: None,
                if_version: part.if_version,
                call,
                ret: None,
                ok: false,
            };
            if let Some((ret, body, values)) = answer {
                let (body, value) = match body {
                    ResponseBody::Many(entries) => {
                        let end = offset + entries[place].value_bytes as usize;
                        let value = values.slice(offset..end);
                        offset = end;
                        (&entries[place].body, value)
                    }
                    body => (body, values.clone()),
                };
                fill(&mut record, ret, body, &value);
            }
            records.push((part.number, record));
        }
        records
    }
}

fn fill(record: &mut Record<'_>, ret: u64, body: &ResponseBody, value: &Bytes) {
    record.ret = Some(ret);
    match body {
        ResponseBody::Written { version } => (record.ok, record.version) = (true, Some(*version)),
        ResponseBody::Value { version, .. } => {
            (record.ok, record.version) = (true, Some(*version));
            record.value = Some(Cow::Owned(String::from_utf8_lossy(value).into_owned()));
        }
        ResponseBody::NotFound => record.ok = true,
        ResponseBody::Conflict { version } => record.version = Some(*version),
        _ => record.ret = None,
    }
}

impl Workload {
    pub(crate) fn new(settings: settings::Workload) -> Self {
        let keys = (0..settings.keys).map(|number| Key::new(format!("k{number:02}"))).collect();
        Self { settings, keys }
    }

    /// A client's next request.
    pub(crate) fn next(&self, client: &mut Client) -> (Asked, Request) {
        match client.random.weighted(&self.settings.weights) {
            0 => self.get(client),
            1 => self.set(client, None),
            2 => self.delete(client),
            3 => {
                let number = self.key(client);
                let seen = client.versions.get(&number).copied().unwrap_or_default();
                self.set(client, Some((number, seen)))
            }
            4 => self.list(client),
            5 => self.get_many(client),
            _ => self.set_many(client),
        }
    }

    fn key(&self, client: &mut Client) -> u32 {
        let random = &mut client.random;
        let hot = random.below(100) < self.settings.hot_percent;
        if hot { 0 } else { random.below(self.settings.keys.into()) as u32 }
    }

    fn part(&self, op: Op, number: u32) -> Part {
        Part { op, number, key: self.keys[number as usize].clone(), value: None, if_version: None }
    }

    fn get(&self, client: &mut Client) -> (Asked, Request) {
        let part = self.part(Op::Read, self.key(client));
        let body = RequestBody::Get { key: part.key.clone() };
        (Asked::Parts(vec![part]), body.into())
    }

    fn set(&self, client: &mut Client, condition: Option<(u32, Version)>) -> (Asked, Request) {
        let number = condition.map_or_else(|| self.key(client), |(number, _)| number);
        let op = if condition.is_some() { Op::CompareAndSet } else { Op::Write };
        let (request_id, value) = self.new_write(client, 0);
        let if_version = condition.map(|(_, version)| version);
        let part = Part { value: Some(value.clone()), if_version, ..self.part(op, number) };
        let condition = match if_version {
            None => Condition::Always,
            Some(Version(0)) if client.random.chance(500_000) => Condition::IfAbsent,
            Some(version) => Condition::IfVersion(version),
        };
        let body = RequestBody::Set { key: part.key.clone(), encoding: Encoding::Raw, condition, request_id };
        (Asked::Parts(vec![part]), Request { body, value: Bytes::from(value) })
    }

    /// A write to a key, whatever it is now.
    #[cfg(test)]
    pub(crate) fn set_key(&self, client: &mut Client, key: &str) -> (Asked, Request) {
        let (request_id, value) = self.new_write(client, 0);
        let part = Part { value: Some(value.clone()), key: Key::new(key), ..self.part(Op::Write, 0) };
        let (key, condition) = (part.key.clone(), Condition::Always);
        let body = RequestBody::Set { key, encoding: Encoding::Raw, condition, request_id };
        (Asked::Parts(vec![part]), Request { body, value: Bytes::from(value) })
    }

    fn delete(&self, client: &mut Client) -> (Asked, Request) {
        let number = self.key(client) & !1;
        let seen = client.versions.get(&number).copied();
        let if_version = seen.filter(|_| client.random.chance(300_000));
        let (request_id, _) = self.new_write(client, 0);
        let part = Part { if_version, ..self.part(Op::Delete, number) };
        let condition = if_version.map_or(Condition::Always, Condition::IfVersion);
        let body = RequestBody::Delete { key: part.key.clone(), condition, request_id };
        (Asked::Parts(vec![part]), body.into())
    }

    fn list(&self, client: &mut Client) -> (Asked, Request) {
        let random = &mut client.random;
        let prefix = CompactString::from(*random.pick(&["", "k", "k0"]));
        let after = random.pick(&[None, None, self.keys.first()]).map(|key| CompactString::from(key.as_str()));
        let limit = *random.pick(&[3, 100]);
        let body = RequestBody::List { prefix: prefix.clone(), after: after.clone(), limit, stars: Vec::new() };
        (Asked::List { prefix, after, limit }, body.into())
    }

    fn some_keys(&self, client: &mut Client) -> Vec<u32> {
        let count = client.random.between(1, 4);
        let mut numbers: Vec<u32> = (0..count).map(|_| self.key(client)).collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }

    fn get_many(&self, client: &mut Client) -> (Asked, Request) {
        let numbers = self.some_keys(client);
        self.get_these(&numbers)
    }

    /// Reads all keys in one request.
    pub(crate) fn get_all(&self) -> (Asked, Request) {
        let numbers: Vec<u32> = (0..self.settings.keys).collect();
        self.get_these(&numbers)
    }

    fn get_these(&self, numbers: &[u32]) -> (Asked, Request) {
        let parts: Vec<Part> = numbers.iter().map(|number| self.part(Op::Read, *number)).collect();
        let body = RequestBody::GetMany { keys: parts.iter().map(|part| part.key.clone()).collect() };
        (Asked::Parts(parts), body.into())
    }

    fn set_many(&self, client: &mut Client) -> (Asked, Request) {
        let numbers = self.some_keys(client);
        let (mut parts, mut entries, mut values) = (Vec::new(), Vec::new(), String::new());
        let request_id = client.request_id(client.last_write + 1);
        for number in numbers {
            let (_, value) = self.new_write(client, values.len());
            let part = Part { value: Some(value.clone()), ..self.part(Op::Write, number) };
            let (key, value_bytes) = (part.key.clone(), value.len() as u32);
            entries.push(SetEntry { key, encoding: Encoding::Raw, value_bytes });
            values += &value;
            parts.push(part);
        }
        let body = RequestBody::SetMany { entries, request_id };
        (Asked::Parts(parts), Request { body, value: Bytes::from(values) })
    }

    /// A request id and a value that no other write has.
    fn new_write(&self, client: &mut Client, salt: usize) -> (RequestId, String) {
        client.last_write += 1;
        let (client_number, number) = (u64::from(client.number), client.last_write);
        let mut value = format!("{client_number}.{number}");
        let wanted = client.random.between(1, self.settings.value_bytes_max) as usize;
        while value.len() < wanted {
            value.push(char::from(b'a' + ((value.len() + salt) % 26) as u8));
        }
        let request_id = match number % 10 {
            4 | 9 => RequestId::Text(format!("{client_number}:{number}").into()),
            6 => RequestId::Unnamed,
            _ => client.request_id(number),
        };
        (request_id, value)
    }
}
