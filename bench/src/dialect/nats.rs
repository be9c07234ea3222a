//! The client protocol of NATS, and of its key-value buckets the part that reads and writes: a bucket is a stream, a key
//! a subject, an object the subject's last message.

use std::{
    io::Write,
    sync::atomic::{AtomicU64, Ordering},
};

use bytes::{Buf, Bytes, BytesMut};
use star_core::{Key, RequestId};

use super::{Answer, Dialect, Outcome, line};

/// Connections of this process, for the name of each one's inbox: whoever subscribes to another's is sent its answers too.
static CONNECTIONS: AtomicU64 = AtomicU64::new(0);

#[derive(Debug)]
pub(super) struct Nats {
    /// What a write is published to; the key follows.
    write: String,
    /// What a read is asked of; the key follows.
    read: String,
    /// Where answers go; the request's id follows.
    inbox: String,
}

impl Nats {
    pub(super) fn new(bucket: &str) -> Self {
        Self {
            write: format!("$KV.{bucket}."),
            read: format!("$JS.API.DIRECT.GET.KV_{bucket}.$KV.{bucket}."),
            inbox: format!("_INBOX.{}-{}.", std::process::id(), CONNECTIONS.fetch_add(1, Ordering::Relaxed)),
        }
    }
}

impl Dialect for Nats {
    fn greeting(&self, out: &mut Vec<u8>) {
        let connect = r#"CONNECT {"verbose":false,"pedantic":false,"headers":true,"no_responders":true,"name":"load"}"#;
        write!(out, "{connect}\r\nSUB {}* 1\r\n", self.inbox).expect("memory takes all");
    }

    fn get(&mut self, id: u64, key: &Key, out: &mut Vec<u8>) {
        write!(out, "PUB {}{} {}{id}r 0\r\n\r\n", self.read, key.as_str(), self.inbox).expect("memory takes all");
    }

    fn set(&mut self, id: u64, key: &Key, value: &[u8], _: RequestId, out: &mut Vec<u8>) {
        let bytes = value.len();
        write!(out, "PUB {}{} {}{id}w {bytes}\r\n", self.write, key.as_str(), self.inbox).expect("memory takes all");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }

    fn answer(&mut self, buffer: &mut BytesMut, out: &mut Vec<u8>) -> Result<Option<Answer>, String> {
        loop {
            let Some(end) = super::find(buffer, b"\r\n") else { return Ok(None) };
            let text = std::str::from_utf8(&buffer[..end]).map_err(|_| "bytes that are no text")?;
            let words: Vec<&str> = text.split_ascii_whitespace().collect();
            let header = match (words.first().copied().unwrap_or_default(), words.len()) {
                ("MSG", 4) => 0,
                ("HMSG", 5) => number(words[3])?,
                ("PING", _) => {
                    out.extend_from_slice(b"PONG\r\n");
                    let _ = line(buffer);
                    continue;
                }
                ("INFO" | "PONG" | "+OK", _) => {
                    let _ = line(buffer);
                    continue;
                }
                _ => return Err(text.to_owned()),
            };
            let total = number(words[words.len() - 1])?;
            let asked = words[1].strip_prefix(&*self.inbox).ok_or("a message for somebody else")?;
            let (id, kind) = asked.split_at(asked.len().saturating_sub(1));
            let (id, is_read) = (number(id)? as u64, kind == "r");
            if buffer.len() < end + 2 + total + 2 || header > total {
                return Ok(None);
            }
            buffer.advance(end + 2);
            let header = buffer.split_to(header).freeze();
            let payload = buffer.split_to(total - header.len()).freeze();
            buffer.advance(2);
            let (outcome, value) =
                if is_read { read(&header, payload) } else { (written(&header, &payload), Bytes::new()) };
            return Ok(Some(Answer { id, outcome, value }));
        }
    }
}

fn number(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| format!("{text:?} where a number belongs"))
}

/// The status of a header, such as 404; 200 if it names none.
fn status(header: &[u8]) -> &str {
    let first = header.split(|byte| *byte == b'\r').next().unwrap_or_default();
    std::str::from_utf8(first).ok().and_then(|line| line.split(' ').nth(1)).unwrap_or("200")
}

fn read(header: &[u8], payload: Bytes) -> (Outcome, Bytes) {
    match status(header) {
        "200" => (Outcome::Found(None), payload),
        "404" => (Outcome::NotFound, Bytes::new()),
        code => (Outcome::Refused { code: code.to_owned(), unknown: true }, Bytes::new()),
    }
}

/// The acknowledgement of a write: `{"stream":…,"seq":N}`, or an error.
fn written(header: &[u8], payload: &[u8]) -> Outcome {
    let ack: Option<serde_json::Value> = serde_json::from_slice(payload).ok();
    match ack.as_ref().and_then(|ack| ack["seq"].as_u64()) {
        Some(seq) => Outcome::Written(Some(seq)),
        None => {
            let code = ack.as_ref().and_then(|ack| ack["error"]["code"].as_u64()).map(|code| code.to_string());
            Outcome::Refused { code: code.unwrap_or_else(|| status(header).to_owned()), unknown: true }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledgements_and_values_come_in_any_order() {
        let (mut nats, mut out, mut buffer, mut answers) = (Nats::new("b"), Vec::new(), BytesMut::new(), Vec::new());
        let inbox = nats.inbox.clone();
        let headers = "NATS/1.0\r\nNats-Sequence: 1\r\n\r\n";
        let missing = "NATS/1.0 404 Message Not Found\r\n\r\n";
        let (ack, refusal) = (r#"{"stream":"KV_b","seq":12}"#, r#"{"error":{"code":503}}"#);
        let bytes = [
            format!("INFO {{}}\r\nPING\r\nMSG {inbox}3w 1 {}\r\n{ack}\r\n", ack.len()),
            format!("HMSG {inbox}4r 1 {} {}\r\n{headers}v\r\nw\r\n", headers.len(), headers.len() + 4),
            format!("HMSG {inbox}5r 1 {0} {0}\r\n{missing}\r\n", missing.len()),
            format!("MSG {inbox}6w 1 {}\r\n{refusal}\r\n", refusal.len()),
        ]
        .concat();
        for byte in bytes.as_bytes() {
            buffer.extend_from_slice(&[*byte]);
            while let Some(answer) = nats.answer(&mut buffer, &mut out).expect("an answer") {
                answers.push((answer.id, answer.outcome, answer.value));
            }
        }
        assert_eq!(out, b"PONG\r\n");
        assert_eq!(answers.len(), 4, "{answers:?}");
        assert_eq!(answers[0].1, Outcome::Written(Some(12)));
        assert_eq!(answers[1], (4, Outcome::Found(None), Bytes::from("v\r\nw")));
        assert_eq!(answers[2].1, Outcome::NotFound);
        assert_eq!(answers[3].1, Outcome::Refused { code: "503".to_owned(), unknown: true });
    }

    #[test]
    fn each_connection_has_an_inbox_of_its_own() {
        let (one, mut other) = (Nats::new("b"), Nats::new("b"));
        let mut greeting = Vec::new();
        one.greeting(&mut greeting);
        assert!(greeting.ends_with(format!("SUB {}* 1\r\n", one.inbox).as_bytes()));
        let mut answer = BytesMut::from(&*format!("MSG {}3w 1 0\r\n\r\n", one.inbox));
        assert!(other.answer(&mut answer, &mut Vec::new()).is_err());
    }
}
