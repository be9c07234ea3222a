//! Answers in JSON.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Serialize;
use serde_json::value::RawValue;

use super::framed;
use crate::{
    error::{ErrorCode, Failure},
    message::{ManyEntry, Notice, Position, ResponseBody},
    store::Encoding,
};

/// Appends an answer to `out`: its length, then its text. `value` is the answer's tail (see
/// [`crate::message::Response`]).
pub fn response(body: &ResponseBody, value: &[u8], out: &mut Vec<u8>) {
    framed(out, |out| write_body(body, value, out));
}

fn write_body(body: &ResponseBody, value: &[u8], out: &mut Vec<u8>) {
    match body {
        ResponseBody::Written { version } => write_text(out, &format!(r#"{{"status":"OK","version":{version}}}"#)),
        ResponseBody::Value { version, encoding } => {
            write_text(out, r#"{"status":"OK","#);
            write_value(*encoding, value, out);
            write_text(out, &format!(r#","version":{version}}}"#));
        }
        ResponseBody::NotFound => write_text(out, r#"{"status":"NOT_FOUND"}"#),
        ResponseBody::Conflict { version } => {
            write_text(out, &format!(r#"{{"status":"CONFLICT","version":{version}}}"#));
        }
        ResponseBody::Keys { keys, more } => {
            write_text(out, r#"{"status":"OK","keys":"#);
            write_json(out, keys);
            write_text(out, &format!(r#","more":{more}}}"#));
        }
        ResponseBody::Many(entries) => write_many(entries, value, out),
        ResponseBody::Status(text) => {
            write_text(out, r#"{"status":"OK","server":"#);
            match serde_json::from_str::<&RawValue>(text) {
                Ok(json) => write_text(out, json.get()),
                Err(_) => write_json(out, text),
            }
            out.push(b'}');
        }
        ResponseBody::Error(failure) => write_failure(failure, out),
        ResponseBody::Done => write_text(out, r#"{"status":"OK"}"#),
        ResponseBody::Room(place) => write_fields(out, place),
        ResponseBody::Capacity(capacity) => write_fields(out, capacity),
        ResponseBody::Notices { notices, missed, next } => write_notices(notices, *missed, *next, out),
    }
}

/// An answer that has the fields of a structure.
fn write_fields(out: &mut Vec<u8>, fields: &impl Serialize) {
    write_text(out, r#"{"status":"OK","#);
    let start = out.len();
    write_json(out, fields);
    // Its own brace: the one in front is there already.
    out.remove(start);
}

fn write_notices(notices: &[Notice], missed: bool, next: Position, out: &mut Vec<u8>) {
    write_text(out, r#"{"status":"OK","notices":["#);
    for (index, Notice { key, version, value_bytes }) in notices.iter().enumerate() {
        write_text(out, if index > 0 { r#",{"key":"# } else { r#"{"key":"# });
        write_json(out, key);
        write_text(out, &format!(r#","version":{version}"#));
        match value_bytes {
            Some(bytes) => write_text(out, &format!(r#","size":{bytes}}}"#)),
            None => write_text(out, r#","deleted":true}"#),
        }
    }
    write_text(out, &format!(r#"],"missed":{missed},"next":"{next}"}}"#));
}

fn write_value(encoding: Encoding, value: &[u8], out: &mut Vec<u8>) {
    match (encoding, std::str::from_utf8(value)) {
        (Encoding::Raw, Ok(text)) => {
            write_text(out, r#""value":"#);
            write_json(out, text);
        }
        // A client of the compact codec can say of any bytes that they are JSON: only what is may go into an answer.
        (Encoding::Json, Ok(text)) if let Ok(json) = serde_json::from_str::<&RawValue>(text) => {
            write_text(out, r#""value":"#);
            write_text(out, json.get());
        }
        _ => {
            write_text(out, r#""value_b64":""#);
            let start = out.len();
            out.resize(start + value.len().div_ceil(3) * 4, 0);
            let written =
                STANDARD.encode_slice(value, &mut out[start..]).expect("room for four characters in three bytes");
            out.truncate(start + written);
            out.push(b'"');
        }
    }
}

fn write_many(entries: &[ManyEntry], value: &[u8], out: &mut Vec<u8>) {
    write_text(out, r#"{"status":"OK","results":["#);
    let mut rest = value;
    for (index, entry) in entries.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        match rest.split_at_checked(entry.value_bytes as usize) {
            Some((own, after)) => {
                write_body(&entry.body, own, out);
                rest = after;
            }
            None => {
                let message = "the server lost the value of this part; please report it";
                write_failure(&Failure::new(ErrorCode::Internal, message), out);
            }
        }
    }
    write_text(out, "]}");
}

fn write_failure(failure: &Failure, out: &mut Vec<u8>) {
    write_text(out, &format!(r#"{{"status":"ERROR","code":"{}","message":"#, failure.code));
    write_json(out, &failure.message);
    write_text(out, &format!(r#","retry":{}}}"#, failure.code.retry()));
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

fn write_json(out: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    serde_json::to_writer(out, value).expect("strings and numbers can be written to memory");
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::ids::Version;

    fn answer(body: &ResponseBody, value: &[u8]) -> Value {
        let mut out = b"before".to_vec();
        response(body, value, &mut out);
        let framed = &out[6..];
        assert_eq!(framed[..8], (framed.len() as u64 - 8).to_be_bytes());
        serde_json::from_slice(&framed[8..]).unwrap()
    }

    fn value(encoding: Encoding) -> ResponseBody {
        ResponseBody::Value { version: Version(7), encoding }
    }

    #[test]
    fn answers_have_the_documented_forms() {
        use ResponseBody::{Conflict, Keys, NotFound, Status, Written};
        let version = Version(3);
        for (body, bytes, expected) in [
            (Written { version }, &b""[..], json!({"status": "OK", "version": 3})),
            (NotFound, b"", json!({"status": "NOT_FOUND"})),
            (Conflict { version }, b"", json!({"status": "CONFLICT", "version": 3})),
            (value(Encoding::Raw), b"a \"b\"\n", json!({"status": "OK", "value": "a \"b\"\n", "version": 7})),
            (value(Encoding::Raw), b"\xff\x00", json!({"status": "OK", "value_b64": "/wA=", "version": 7})),
            (value(Encoding::Json), b"{\"a\": [1]}", json!({"status": "OK", "value": {"a": [1]}, "version": 7})),
            (
                Keys { keys: vec!["a\"".into(), "b".into()], more: true },
                b"",
                json!({"status": "OK", "keys": ["a\"", "b"], "more": true}),
            ),
            (Status(r#"{"name":"a"}"#.to_owned()), b"", json!({"status": "OK", "server": {"name": "a"}})),
            (
                ResponseBody::error(ErrorCode::NoLease, "ask \"b\""),
                b"",
                json!({"status": "ERROR", "code": "NO_LEASE", "message": "ask \"b\"", "retry": true}),
            ),
        ] {
            assert_eq!(answer(&body, bytes), expected);
        }
    }

    #[test]
    fn answers_about_a_store_have_the_documented_forms() {
        use crate::message::{Capacity, RoomPlace};
        let room = RoomPlace { room: 3, value_at: 8256, pages_at: 8192, pages_bytes: 69_632 };
        let notice = |key: &str, value_bytes| Notice { key: key.into(), version: Version(2), value_bytes };
        let notices = ResponseBody::Notices {
            notices: vec![notice("a\"", Some(5)), notice("b", None)],
            missed: true,
            next: Position { life: 17, number: 4 },
        };
        for (body, expected) in [
            (ResponseBody::Done, json!({"status": "OK"})),
            (
                ResponseBody::Room(room),
                json!({"status": "OK", "room": 3, "value_at": 8256, "pages_at": 8192, "pages_bytes": 69_632}),
            ),
            (
                ResponseBody::Capacity(Capacity { objects: 1, used_bytes: 2, ..Capacity::default() }),
                json!({"status": "OK", "objects": 1, "used_bytes": 2, "capacity_bytes": 0, "largest_free_bytes": 0,
                       "room_bytes": 0, "pinned_bytes": 0}),
            ),
            (
                notices,
                json!({"status": "OK", "missed": true, "next": "17-4", "notices": [
                    {"key": "a\"", "version": 2, "size": 5}, {"key": "b", "version": 2, "deleted": true}]}),
            ),
        ] {
            assert_eq!(answer(&body, b""), expected);
        }
    }

    #[test]
    fn bytes_that_only_claim_to_be_json_cannot_break_an_answer() {
        let forged = br#"1,"version":99,"x":"#;
        assert_eq!(answer(&value(Encoding::Json), forged)["version"], 7);
        assert!(answer(&value(Encoding::Json), forged)["value_b64"].is_string());
        assert!(answer(&value(Encoding::Json), b"")["value_b64"].is_string());
        assert!(answer(&value(Encoding::Json), b"\"\xff\"")["value_b64"].is_string());
    }

    #[test]
    fn many_answers_share_one_tail() {
        let part = |body, value_bytes| ManyEntry { body, value_bytes };
        let parts = vec![
            part(value(Encoding::Raw), 2),
            part(ResponseBody::NotFound, 0),
            part(value(Encoding::Json), 4),
            part(value(Encoding::Raw), 1),
        ];
        let answer = answer(&ResponseBody::Many(parts), b"abnull");
        assert_eq!(answer["results"][0]["value"], "ab");
        assert_eq!(answer["results"][1], json!({"status": "NOT_FOUND"}));
        assert_eq!(answer["results"][2], json!({"status": "OK", "value": null, "version": 7}));
        assert_eq!(answer["results"][3]["code"], "INTERNAL", "the tail has ended before");
    }
}
