//! Requests in JSON.

use std::borrow::Cow;

use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::Bytes;
use compact_str::CompactString;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::not_an_object;
use crate::{
    error::{ErrorCode, Failure},
    ids::{RequestId, StarId, Version},
    key::Key,
    message::{Asked, Condition, Fault, Local, Request, RequestBody, SetEntry},
    store::Encoding,
};

/// How many keys a `LIST` without a limit returns at most.
pub const LIST_LIMIT_DEFAULT: u32 = 1000;

/// How long a `WATCH` without `wait_ms` waits for a change.
const WAIT_MS_DEFAULT: u32 = 1000;

/// What a client may ask for.
const TYPES: &str = "SET, GET, DELETE, CAS, LIST, STATUS, CREATE, SEAL, ABORT, CAPACITY, WATCH, FAIL_LINK, FIX_LINK, \
                     FAIL_PROCESS";

/// What servers say to one another; known here only to explain themselves.
const TYPES_BETWEEN_SERVERS: [&str; 10] =
    ["ACK", "WRITE", "PIECE", "STAMP", "STAMPS", "FETCH", "REPORT", "INSTALL", "HELLO", "SNAPSHOT"];

/// Base64 with or without its padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The fields of all requests, as they were written. A field that is `null` counts as absent, but for `value`.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    key: Option<&'a RawValue>,
    #[serde(borrow)]
    keys: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "even_null")]
    value: Option<&'a RawValue>,
    #[serde(borrow)]
    value_b64: Option<&'a RawValue>,
    #[serde(borrow)]
    entries: Option<&'a RawValue>,
    #[serde(borrow)]
    request_id: Option<&'a RawValue>,
    #[serde(borrow)]
    if_version: Option<&'a RawValue>,
    #[serde(borrow)]
    if_absent: Option<&'a RawValue>,
    #[serde(borrow)]
    prefix: Option<&'a RawValue>,
    #[serde(borrow)]
    after: Option<&'a RawValue>,
    #[serde(borrow)]
    limit: Option<&'a RawValue>,
    #[serde(borrow)]
    stars: Option<&'a RawValue>,
    #[serde(borrow)]
    server: Option<&'a RawValue>,
    #[serde(borrow)]
    size: Option<&'a RawValue>,
    #[serde(borrow)]
    lock: Option<&'a RawValue>,
    #[serde(borrow)]
    room: Option<&'a RawValue>,
    #[serde(borrow)]
    wait_ms: Option<&'a RawValue>,
}

/// One of the `entries` of a `SET`.
#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    key: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "even_null")]
    value: Option<&'a RawValue>,
    #[serde(borrow)]
    value_b64: Option<&'a RawValue>,
}

fn even_null<'a, D: Deserializer<'a>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// What a JSON message's text (without the length in front of it) asks for. A write without a
/// `request_id` must not be sent twice.
pub fn asked(text: &[u8]) -> Result<Asked, Failure> {
    let fields: Fields<'_> = serde_json::from_slice(text).map_err(|error| not_an_object(&error))?;
    let kind = text_field("type", fields.kind)?;
    let fault = match &*kind {
        "FAIL_LINK" => Fault::FailLink { server: fields.server()? },
        "FIX_LINK" => Fault::FixLink { server: fields.server()? },
        "FAIL_PROCESS" => Fault::FailProcess,
        "CREATE" | "SEAL" | "ABORT" | "CAPACITY" | "WATCH" => return local(&kind, &fields).map(Asked::Local),
        kind => return request(kind, &fields).map(Asked::Request),
    };
    Ok(Asked::Fault(fault))
}

fn local(kind: &str, fields: &Fields<'_>) -> Result<Local, Failure> {
    Ok(match kind {
        "CREATE" => Local::Create {
            key: key_field("key", fields.key)?,
            encoding: Encoding::Raw,
            value_bytes: required_number("size", fields.size)?,
            lock: u16::try_from(required_number("lock", fields.lock)?).unwrap_or(u16::MAX),
        },
        "SEAL" => Local::Seal {
            room: required_number("room", fields.room)?,
            condition: fields.condition()?,
            request_id: fields.request_id()?,
        },
        "ABORT" => Local::Abort { room: required_number("room", fields.room)? },
        "CAPACITY" => Local::Capacity,
        _ => fields.watch()?,
    })
}

fn request(kind: &str, fields: &Fields<'_>) -> Result<Request, Failure> {
    match kind {
        "GET" => fields.get(),
        "SET" if fields.entries.is_some() => fields.set_many(),
        "SET" => fields.set(fields.condition()?),
        "CAS" => match fields.condition()? {
            Condition::Always => {
                Err(bad(r#"a CAS needs "if_version" (a version, 0 for no object) or "if_absent": true"#))
            }
            condition => fields.set(condition),
        },
        "DELETE" => fields.delete(),
        "LIST" => fields.list(),
        "STATUS" => Ok(RequestBody::Status.into()),
        other => Err(unknown_type(other)),
    }
}

impl Fields<'_> {
    fn get(&self) -> Result<Request, Failure> {
        match (self.key, self.keys) {
            (Some(_), Some(_)) => Err(bad(r#"a GET takes "key" or "keys", not both"#)),
            (None, Some(keys)) => {
                let keys: Vec<&RawValue> = list_field("keys", keys)?;
                let keys = keys.into_iter().map(|key| key_field("keys", Some(key))).collect::<Result<_, _>>()?;
                Ok(RequestBody::GetMany { keys }.into())
            }
            (key, None) => Ok(RequestBody::Get { key: key_field("key", key)? }.into()),
        }
    }

    fn set(&self, condition: Condition) -> Result<Request, Failure> {
        let key = key_field("key", self.key)?;
        let (encoding, value) = value_field(self.value, self.value_b64)?;
        let request_id = self.request_id()?;
        Ok(Request {
            body: RequestBody::Set { key, encoding, condition, request_id },
            value: value.into_owned().into(),
        })
    }

    fn set_many(&self) -> Result<Request, Failure> {
        if self.key.is_some() || self.value.is_some() || self.value_b64.is_some() {
            return Err(bad(r#"a SET takes "key" and a value, or "entries", not both"#));
        }
        if self.condition()? != Condition::Always {
            return Err(bad(r#"a SET of many "entries" takes no condition: send one CAS for each key"#));
        }
        let Some(raw) = self.entries else { return Err(missing("entries")) };
        let parts: Vec<Entry<'_>> = list_field("entries", raw)?;
        let mut entries = Vec::with_capacity(parts.len());
        let mut values = Vec::new();
        for (index, part) in parts.iter().enumerate() {
            let in_entry = |failure: Failure| bad(format!("entry {index}: {}", failure.message));
            let key = key_field("key", part.key).map_err(in_entry)?;
            let (encoding, value) = value_field(part.value, part.value_b64).map_err(in_entry)?;
            let value_bytes = u32::try_from(value.len())
                .map_err(|_| Failure::new(ErrorCode::TooLarge, format!("entry {index}: a value of 4 GiB or more")))?;
            values.extend_from_slice(&value);
            entries.push(SetEntry { key, encoding, value_bytes });
        }
        let request_id = self.request_id()?;
        Ok(Request { body: RequestBody::SetMany { entries, request_id }, value: Bytes::from(values) })
    }

    fn delete(&self) -> Result<Request, Failure> {
        let condition = self.condition()?;
        if condition == Condition::IfAbsent {
            return Err(bad(r#"a DELETE takes "if_version", not "if_absent": there would be nothing to delete"#));
        }
        let key = key_field("key", self.key)?;
        Ok(RequestBody::Delete { key, condition, request_id: self.request_id()? }.into())
    }

    fn list(&self) -> Result<Request, Failure> {
        let prefix = self.prefix.map(|raw| text_field("prefix", Some(raw))).transpose()?;
        let after = self.after.map(|raw| text_field("after", Some(raw))).transpose()?;
        let limit = self.limit()?;
        let stars = match self.stars {
            None => Vec::new(),
            Some(raw) => match serde_json::from_str::<Vec<u16>>(raw.get()) {
                Ok(stars) if !stars.is_empty() => stars.into_iter().map(StarId).collect(),
                _ => return Err(wrong("stars", "a list of one or more numbers of stars", raw)),
            },
        };
        Ok(RequestBody::List {
            stars,
            prefix: prefix.map_or_else(CompactString::default, CompactString::from),
            after: after.map(CompactString::from),
            limit,
        }
        .into())
    }

    fn watch(&self) -> Result<Local, Failure> {
        let prefix = self.prefix.map(|raw| text_field("prefix", Some(raw))).transpose()?;
        let position = |raw: &RawValue| {
            let position = text_field("after", Some(raw)).ok().and_then(|text| text.parse().ok());
            position.ok_or_else(|| wrong("after", "the \"next\" of an earlier answer", raw))
        };
        let wait_ms = self.wait_ms.map(|raw| number_field("wait_ms", raw)).transpose()?;
        Ok(Local::Watch {
            prefix: prefix.map_or_else(CompactString::default, CompactString::from),
            after: self.after.map(position).transpose()?,
            limit: self.limit()?,
            wait_ms: wait_ms.map_or(WAIT_MS_DEFAULT, |wait| u32::try_from(wait).unwrap_or(u32::MAX)),
        })
    }

    fn limit(&self) -> Result<u32, Failure> {
        match self.limit.map(|raw| number_field("limit", raw)).transpose()? {
            Some(0) => Err(bad(r#"field "limit" must be 1 or more"#)),
            limit => Ok(limit.map_or(LIST_LIMIT_DEFAULT, |limit| u32::try_from(limit).unwrap_or(u32::MAX))),
        }
    }

    fn server(&self) -> Result<CompactString, Failure> {
        text_field("server", self.server).map(CompactString::from)
    }

    fn condition(&self) -> Result<Condition, Failure> {
        let if_absent = match self.if_absent {
            None => false,
            Some(raw) => serde_json::from_str(raw.get()).map_err(|_| wrong("if_absent", "true or false", raw))?,
        };
        match (if_absent, self.if_version) {
            (true, Some(_)) => Err(bad(r#"a write takes "if_version" or "if_absent", not both"#)),
            (true, None) => Ok(Condition::IfAbsent),
            (false, Some(raw)) => Ok(Condition::IfVersion(Version(number_field("if_version", raw)?))),
            (false, None) => Ok(Condition::Always),
        }
    }

    fn request_id(&self) -> Result<RequestId, Failure> {
        let Some(raw) = self.request_id else { return Ok(RequestId::Unnamed) };
        let text = text_field("request_id", Some(raw))?;
        match text.len() {
            0 => Err(bad(r#"field "request_id" must not be empty; leave it out if the write is sent only once"#)),
            bytes if bytes > RequestId::TEXT_BYTES_MAX => Err(Failure::new(
                ErrorCode::TooLarge,
                format!(r#"field "request_id" has {bytes} bytes, and at most {} are taken"#, RequestId::TEXT_BYTES_MAX),
            )),
            _ => Ok(RequestId::Text(text.into())),
        }
    }
}

fn key_field(name: &str, raw: Option<&RawValue>) -> Result<Key, Failure> {
    let text = text_field(name, raw)?;
    if text.is_empty() {
        return Err(bad(format!("field {name:?}: a key must not be empty")));
    }
    Ok(Key::new(text))
}

fn value_field<'a>(
    value: Option<&'a RawValue>,
    base64: Option<&RawValue>,
) -> Result<(Encoding, Cow<'a, [u8]>), Failure> {
    match (value, base64) {
        (Some(_), Some(_)) => Err(bad(r#"a write takes "value" or "value_b64", not both"#)),
        (None, None) => Err(bad(r#"field "value" is missing (any JSON value; or "value_b64" with bytes in Base64)"#)),
        (None, Some(raw)) => {
            let text = text_field("value_b64", Some(raw))?;
            let bytes = BASE64.decode(&*text).map_err(|error| bad(format!(r#"field "value_b64": {error}"#)))?;
            Ok((Encoding::Raw, bytes.into()))
        }
        (Some(raw), None) if raw.get().starts_with('"') => match string(raw) {
            Some(Cow::Borrowed(text)) => Ok((Encoding::Raw, text.as_bytes().into())),
            Some(Cow::Owned(text)) => Ok((Encoding::Raw, text.into_bytes().into())),
            // A string with half of a surrogate pair is JSON, but no UTF-8: only its text can keep it.
            None => Ok((Encoding::Json, raw.get().as_bytes().into())),
        },
        (Some(raw), None) => Ok((Encoding::Json, raw.get().as_bytes().into())),
    }
}

fn text_field<'a>(name: &str, raw: Option<&'a RawValue>) -> Result<Cow<'a, str>, Failure> {
    let raw = raw.ok_or_else(|| missing(name))?;
    string(raw).ok_or_else(|| wrong(name, "a string of Unicode text", raw))
}

fn string(raw: &RawValue) -> Option<Cow<'_, str>> {
    /// Borrows where the string has no escapes; a bare `Cow` would always copy.
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

    serde_json::from_str::<Text<'_>>(raw.get()).ok().map(|Text(text)| text)
}

fn number_field(name: &str, raw: &RawValue) -> Result<u64, Failure> {
    serde_json::from_str(raw.get()).map_err(|_| wrong(name, "a whole number from 0 to 2^64 - 1", raw))
}

fn required_number(name: &str, raw: Option<&RawValue>) -> Result<u64, Failure> {
    number_field(name, raw.ok_or_else(|| missing(name))?)
}

fn list_field<'a, T: Deserialize<'a>>(name: &str, raw: &'a RawValue) -> Result<Vec<T>, Failure> {
    if !raw.get().starts_with('[') {
        return Err(wrong(name, "a list", raw));
    }
    serde_json::from_str(raw.get()).map_err(|error| bad(format!("field {name:?}: {error}")))
}

fn bad(message: impl Into<String>) -> Failure {
    Failure::new(ErrorCode::BadRequest, message)
}

fn missing(name: &str) -> Failure {
    bad(format!("field {name:?} is missing"))
}

fn wrong(name: &str, wanted: &str, raw: &RawValue) -> Failure {
    bad(format!("field {name:?} must be {wanted}, and is {}", shortened(raw.get())))
}

fn unknown_type(kind: &str) -> Failure {
    let message = if TYPES_BETWEEN_SERVERS.contains(&kind) {
        format!("messages of type {kind} travel between servers only, in compact frames; a client may send {TYPES}")
    } else {
        format!("type {} is unknown; a client may send {TYPES}", shortened(&format!("{kind:?}")))
    };
    Failure::new(ErrorCode::UnknownType, message)
}

/// As much of a text as an error message needs.
fn shortened(text: &str) -> Cow<'_, str> {
    const CHARS_MAX: usize = 40;
    match text.char_indices().nth(CHARS_MAX) {
        None => text.into(),
        Some((end, _)) => format!("{} …", &text[..end]).into(),
    }
}

#[cfg(test)]
mod tests;
