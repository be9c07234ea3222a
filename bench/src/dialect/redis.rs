//! RESP, the protocol of Redis. Answers come in the order of the requests.

use std::{collections::VecDeque, io::Write};

use bytes::{Buf, Bytes, BytesMut};
use star_core::{Key, RequestId};

use super::{Answer, Dialect, Outcome, line};

/// How long a write may wait for the replicas, in milliseconds.
const WAIT_MS: u32 = 5000;

#[derive(Debug)]
pub(super) struct Redis {
    replicas: usize,
    /// The command that lets a write wait for the replicas.
    wait: Vec<u8>,
    /// What was asked, in order.
    asked: VecDeque<Asked>,
    /// A refusal of the write whose wait is answered next.
    refused: Option<String>,
}

#[derive(Clone, Copy, Debug)]
enum Asked {
    Get(u64),
    /// A write that is done with its own answer, or has its wait behind it.
    Set(Option<u64>),
    Wait(u64),
}

/// One answer of the server.
enum Reply {
    /// `OK` and the like.
    Fine,
    Number(u64),
    Value(Bytes),
    Nil,
    Error(String),
}

impl Redis {
    pub(super) fn new(replicas: usize) -> Self {
        let mut wait = Vec::new();
        command(&[b"WAIT", replicas.to_string().as_bytes(), WAIT_MS.to_string().as_bytes()], &mut wait);
        Self { replicas, wait, asked: VecDeque::new(), refused: None }
    }
}

impl Dialect for Redis {
    fn get(&mut self, id: u64, key: &Key, out: &mut Vec<u8>) {
        command(&[b"GET", key.as_str().as_bytes()], out);
        self.asked.push_back(Asked::Get(id));
    }

    fn set(&mut self, id: u64, key: &Key, value: &[u8], _: RequestId, out: &mut Vec<u8>) {
        command(&[b"SET", key.as_str().as_bytes(), value], out);
        if self.replicas == 0 {
            return self.asked.push_back(Asked::Set(Some(id)));
        }
        out.extend_from_slice(&self.wait);
        self.asked.extend([Asked::Set(None), Asked::Wait(id)]);
    }

    fn answer(&mut self, buffer: &mut BytesMut, _out: &mut Vec<u8>) -> Result<Option<Answer>, String> {
        while let Some(reply) = reply(buffer)? {
            let asked = self.asked.pop_front().ok_or("an answer that nothing was asked for")?;
            let refused = |code: String| Outcome::Refused { code, unknown: true };
            let mut value = Bytes::new();
            let (id, outcome) = match (asked, reply) {
                (Asked::Set(Some(id)), Reply::Fine) => (id, Outcome::Written(None)),
                (Asked::Set(Some(id)) | Asked::Get(id), Reply::Error(why)) => (id, refused(why)),
                (Asked::Set(None), Reply::Fine) => continue,
                (Asked::Set(None), Reply::Error(why)) => {
                    self.refused = Some(why);
                    continue;
                }
                (Asked::Wait(id), Reply::Number(replicas)) => {
                    let few = (replicas < self.replicas as u64).then(|| "TOO_FEW_REPLICAS".to_owned());
                    (id, self.refused.take().or(few).map_or(Outcome::Written(None), refused))
                }
                (Asked::Wait(id), Reply::Error(why)) => (id, refused(self.refused.take().unwrap_or(why))),
                (Asked::Get(id), Reply::Nil) => (id, Outcome::NotFound),
                (Asked::Get(id), Reply::Value(bytes)) => {
                    value = bytes;
                    (id, Outcome::Found(None))
                }
                _ => return Err(format!("an answer that does not fit {asked:?}")),
            };
            return Ok(Some(Answer { id, outcome, value }));
        }
        Ok(None)
    }
}

fn command(parts: &[&[u8]], out: &mut Vec<u8>) {
    let begin = |out: &mut Vec<u8>, sign: char, count: usize| {
        write!(out, "{sign}{count}\r\n").expect("memory takes all");
    };
    begin(out, '*', parts.len());
    for part in parts {
        begin(out, '$', part.len());
        out.extend_from_slice(part);
        out.extend_from_slice(b"\r\n");
    }
}

/// Takes one answer off the front, if it is there as a whole.
fn reply(buffer: &mut BytesMut) -> Result<Option<Reply>, String> {
    let Some(end) = super::find(buffer, b"\r\n") else { return Ok(None) };
    let text = std::str::from_utf8(&buffer[..end]).map_err(|_| "bytes that are no text")?;
    let number = |text: &str| text.parse::<i64>().map_err(|_| format!("{text:?} where a number belongs"));
    let simple = match text.split_at_checked(1).ok_or("an empty line")? {
        ("+", _) => Reply::Fine,
        ("-", why) => Reply::Error(why.split(' ').next().unwrap_or_default().to_owned()),
        (":", count) => Reply::Number(number(count)?.unsigned_abs()),
        ("$", length) => match usize::try_from(number(length)?) {
            Err(_) => Reply::Nil,
            Ok(length) if buffer.len() < end + 2 + length + 2 => return Ok(None),
            Ok(length) => {
                buffer.advance(end + 2);
                let value = buffer.split_to(length).freeze();
                buffer.advance(2);
                return Ok(Some(Reply::Value(value)));
            }
        },
        _ => return Err(format!("{text:?}")),
    };
    let _ = line(buffer);
    Ok(Some(simple))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(redis: &mut Redis, bytes: &[u8]) -> Vec<(u64, Outcome, Bytes)> {
        let (mut buffer, mut answers) = (BytesMut::new(), Vec::new());
        // Byte by byte: an answer may come in any parts.
        for byte in bytes {
            buffer.extend_from_slice(&[*byte]);
            while let Some(answer) = redis.answer(&mut buffer, &mut Vec::new()).expect("an answer") {
                answers.push((answer.id, answer.outcome, answer.value));
            }
        }
        answers
    }

    #[test]
    fn a_write_is_done_when_its_replicas_have_it() {
        let (mut redis, mut out) = (Redis::new(2), Vec::new());
        let request_id = RequestId::Unnamed;
        redis.set(7, &Key::new("k"), b"v", request_id.clone(), &mut out);
        redis.get(8, &Key::new("k"), &mut out);
        redis.set(9, &Key::new("k"), b"v", request_id, &mut out);
        redis.get(10, &Key::new("x"), &mut out);
        let set = "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n*3\r\n$4\r\nWAIT\r\n$1\r\n2\r\n$4\r\n5000\r\n";
        assert!(String::from_utf8_lossy(&out).starts_with(set), "{out:?}");
        let few = Outcome::Refused { code: "TOO_FEW_REPLICAS".to_owned(), unknown: true };
        assert_eq!(
            answers(&mut redis, b"+OK\r\n:2\r\n$4\r\nv\r\nw\r\n+OK\r\n:1\r\n$-1\r\n"),
            [
                (7, Outcome::Written(None), Bytes::new()),
                (8, Outcome::Found(None), Bytes::from("v\r\nw")),
                (9, few, Bytes::new()),
                (10, Outcome::NotFound, Bytes::new()),
            ]
        );
    }

    #[test]
    fn what_does_not_fit_is_said() {
        assert!(Redis::new(0).answer(&mut BytesMut::from("+OK\r\n"), &mut Vec::new()).is_err());
        let mut redis = Redis::new(0);
        redis.get(1, &Key::new("k"), &mut Vec::new());
        assert!(redis.answer(&mut BytesMut::from(":1\r\n"), &mut Vec::new()).is_err());
    }
}
