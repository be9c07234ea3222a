//! JSON messages: what any language can speak. An 8-byte big-endian length, then a JSON object in UTF-8.
//!
//! A request has a `"type"`, an answer a `"status"`. [`asked`] and [`response`] map them to the [`super::Asked`]
//! and [`super::ResponseBody`] that both codecs share. A value that is a JSON string is stored as its UTF-8 bytes; any
//! other JSON value as its own text, which comes back as it was written.

mod request;
mod response;

pub use request::{LIST_LIMIT_DEFAULT, asked};
pub use response::response;
use serde_json::{Map, Value};

use super::frame::JSON_LENGTH_BYTES;
use crate::error::{ErrorCode, Failure};

/// A JSON object as a message: a request with a `"type"`, or an answer with a `"status"`.
///
/// For programs that read and write messages field by field. Numbers are kept as 64-bit integers or floats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonMessage {
    fields: Map<String, Value>,
}

impl JsonMessage {
    /// A message of this type, without further fields.
    pub fn new(kind: &str) -> Self {
        let mut fields = Map::new();
        fields.insert("type".to_owned(), kind.into());
        Self { fields }
    }

    /// The message with this field set.
    #[must_use]
    pub fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.fields.insert(field.to_owned(), value.into());
        self
    }

    /// What a request asks for; `None` if the message has no type, as an answer has none.
    pub fn kind(&self) -> Option<&str> {
        self.text("type")
    }

    /// What an answer says came of it: `OK`, `NOT_FOUND`, `CONFLICT` or `ERROR`; `None` for a request.
    pub fn status(&self) -> Option<&str> {
        self.text("status")
    }

    /// A field's value.
    pub fn get(&self, field: &str) -> Option<&Value> {
        self.fields.get(field)
    }

    /// A field's value, if it is a string.
    pub fn text(&self, field: &str) -> Option<&str> {
        self.get(field)?.as_str()
    }

    /// A field's value, if it is a whole number from 0 to 2^64 - 1.
    pub fn number(&self, field: &str) -> Option<u64> {
        self.get(field)?.as_u64()
    }

    /// The message as it travels: its length, then its text.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        framed(&mut out, |out| {
            serde_json::to_writer(out, &self.fields).expect("a JSON object can be written to memory");
        });
        out
    }

    /// The message of this text (without the length in front of it).
    pub fn decode(text: &[u8]) -> Result<Self, Failure> {
        serde_json::from_slice(text).map(|fields| Self { fields }).map_err(|error| not_an_object(&error))
    }
}

/// Appends what `write` writes to `out`, with its length in front.
fn framed(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; JSON_LENGTH_BYTES]);
    write(out);
    let text_bytes = (out.len() - start - JSON_LENGTH_BYTES) as u64;
    out[start..start + JSON_LENGTH_BYTES].copy_from_slice(&text_bytes.to_be_bytes());
}

fn not_an_object(error: &serde_json::Error) -> Failure {
    Failure::new(ErrorCode::BadRequest, format!("a message is one JSON object in UTF-8, and this is not: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_travels_with_its_length_in_front() {
        let message = JsonMessage::new("SET").with("key", "k").with("n", 3);
        let bytes = message.encode();
        let text = br#"{"type":"SET","key":"k","n":3}"#;
        assert_eq!(bytes[..8], (text.len() as u64).to_be_bytes());
        assert_eq!(&bytes[8..], text);
        let back = JsonMessage::decode(&bytes[8..]).unwrap();
        assert_eq!(back, message);
        assert_eq!(
            (back.kind(), back.status(), back.text("key"), back.number("n")),
            (Some("SET"), None, Some("k"), Some(3))
        );
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for text in [&b"[]"[..], b"1", b"", b"{", b"{} {}", b"\xff"] {
            assert_eq!(JsonMessage::decode(text).unwrap_err().code, ErrorCode::BadRequest, "{text:?}");
        }
    }
}
