//! etcd through its JSON gateway: HTTP/1.1, a POST for each request, keys and values in base64. Answers come in the order
//! of the requests.

use std::{collections::VecDeque, io::Write};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::{Buf, Bytes, BytesMut};
use serde_json::Value;
use star_core::{Key, RequestId};

use super::{Answer, Dialect, Outcome, find};

#[derive(Debug, Default)]
pub(super) struct Etcd {
    /// What was asked, in order: the id, and whether it was a read.
    asked: VecDeque<(u64, bool)>,
}

impl Etcd {
    fn post(&mut self, id: u64, is_read: bool, path: &str, body: &str, out: &mut Vec<u8>) {
        let length = body.len();
        write!(out, "POST /v3/kv/{path} HTTP/1.1\r\nHost: load\r\nContent-Length: {length}\r\n\r\n{body}")
            .expect("memory takes all");
        self.asked.push_back((id, is_read));
    }
}

impl Dialect for Etcd {
    fn get(&mut self, id: u64, key: &Key, out: &mut Vec<u8>) {
        let body = format!("{{\"key\":\"{}\"}}", BASE64.encode(key.as_str()));
        self.post(id, true, "range", &body, out);
    }

    fn set(&mut self, id: u64, key: &Key, value: &[u8], _: RequestId, out: &mut Vec<u8>) {
        let (key, value) = (BASE64.encode(key.as_str()), BASE64.encode(value));
        self.post(id, false, "put", &format!("{{\"key\":\"{key}\",\"value\":\"{value}\"}}"), out);
    }

    fn answer(&mut self, buffer: &mut BytesMut, _out: &mut Vec<u8>) -> Result<Option<Answer>, String> {
        let Some((status, body)) = http_answer(buffer)? else { return Ok(None) };
        let (id, is_read) = self.asked.pop_front().ok_or("an answer that nothing was asked for")?;
        let (outcome, value) = outcome(status, &body, is_read)?;
        Ok(Some(Answer { id, outcome, value }))
    }
}

fn outcome(status: u16, body: &[u8], is_read: bool) -> Result<(Outcome, Bytes), String> {
    if status != 200 {
        return Ok((Outcome::Refused { code: format!("HTTP_{status}"), unknown: true }, Bytes::new()));
    }
    let body: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let number = |value: &Value| value.as_str().and_then(|text| text.parse().ok());
    if !is_read {
        return Ok((Outcome::Written(number(&body["header"]["revision"])), Bytes::new()));
    }
    Ok(match body["kvs"].get(0) {
        None => (Outcome::NotFound, Bytes::new()),
        // An empty value is left out.
        Some(found) => {
            let value =
                BASE64.decode(found["value"].as_str().unwrap_or_default()).map_err(|error| error.to_string())?;
            (Outcome::Found(number(&found["mod_revision"])), value.into())
        }
    })
}

/// Takes an answer off the front, if it is there as a whole: its status and its body.
fn http_answer(buffer: &mut BytesMut) -> Result<Option<(u16, Vec<u8>)>, String> {
    let Some(end) = find(buffer, b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&buffer[..end]).map_err(|_| "bytes that are no text")?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| format!("{head:?} where an HTTP answer belongs"))?;
    let (mut length, mut is_chunked) = (0, false);
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse::<usize>().map_err(|error| error.to_string())?,
            "transfer-encoding" => is_chunked = value.trim().eq_ignore_ascii_case("chunked"),
            _ => {}
        }
    }
    let rest = &buffer[end + 4..];
    let (body, taken) = if is_chunked {
        match chunks(rest)? {
            Some(whole) => whole,
            None => return Ok(None),
        }
    } else if rest.len() < length {
        return Ok(None);
    } else {
        (rest[..length].to_vec(), length)
    };
    buffer.advance(end + 4 + taken);
    Ok(Some((status, body)))
}

/// A body in chunks, and how many bytes it takes; `None` if it is not there as a whole.
fn chunks(bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, String> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let Some(end) = find(&bytes[at..], b"\r\n") else { return Ok(None) };
        let text = std::str::from_utf8(&bytes[at..at + end]).map_err(|_| "bytes that are no text")?;
        let size = usize::from_str_radix(text, 16).map_err(|_| format!("{text:?} where a chunk's size belongs"))?;
        let begin = at + end + 2;
        at = begin.checked_add(size).and_then(|end| end.checked_add(2)).ok_or("a chunk that is too long")?;
        if bytes.len() < at {
            return Ok(None);
        }
        if size == 0 {
            return Ok(Some((body, at)));
        }
        body.extend_from_slice(&bytes[begin..begin + size]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_in_any_parts_and_with_or_without_a_length() {
        let (mut etcd, mut out, key) = (Etcd::default(), Vec::new(), Key::new("k"));
        etcd.set(1, &key, b"v", RequestId::Unnamed, &mut out);
        (2..5).for_each(|id| etcd.get(id, &key, &mut out));
        let put =
            "POST /v3/kv/put HTTP/1.1\r\nHost: load\r\nContent-Length: 29\r\n\r\n{\"key\":\"aw==\",\"value\":\"dg==\"}";
        assert!(String::from_utf8_lossy(&out).starts_with(put), "{}", String::from_utf8_lossy(&out));
        let with_length =
            |status, body: &str| format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let (begin, end) = (r#"{"kvs":[{"key":"aw==","mod_revi"#, r#"sion":"7","value":"dg=="}]}"#);
        let chunked = format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{begin}\r\n{:X}\r\n{end}\r\n0\r\n\r\n",
            begin.len(),
            end.len()
        );
        let bytes = [
            with_length(200, r#"{"header":{"revision":"7"}}"#),
            chunked,
            with_length(200, r#"{"header":{"revision":"8"}}"#),
            with_length(503, "{}"),
        ];
        let (mut buffer, mut answers) = (BytesMut::new(), Vec::new());
        for byte in bytes.concat().as_bytes() {
            buffer.extend_from_slice(&[*byte]);
            while let Some(answer) = etcd.answer(&mut buffer, &mut Vec::new()).expect("an answer") {
                answers.push((answer.id, answer.outcome, answer.value));
            }
        }
        let refused = Outcome::Refused { code: "HTTP_503".to_owned(), unknown: true };
        let expected = [
            (1, Outcome::Written(Some(7)), Bytes::new()),
            (2, Outcome::Found(Some(7)), Bytes::from("v")),
            (3, Outcome::NotFound, Bytes::new()),
            (4, refused, Bytes::new()),
        ];
        assert_eq!(answers, expected);
        assert!(http_answer(&mut BytesMut::from("nonsense\r\n\r\n")).is_err());
    }
}
