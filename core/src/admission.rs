//! What no protocol takes from a client: keys, values and request ids over their limits, requests of too many parts, and stars that
//! there are not.

use std::collections::BTreeSet;

use crate::{
    error::ErrorCode,
    ids::{ClientId, RequestId, StarId},
    key::Key,
    message::ResponseBody,
};

/// The most keys in one `GetMany` or `SetMany`.
pub const PARTS_MAX: usize = 1024;

/// Refuses a key that is empty or longer than `key_bytes_max` bytes.
pub fn refuse_key(key: &Key, key_bytes_max: usize) -> Option<ResponseBody> {
    if key.is_empty() {
        return Some(ResponseBody::error(ErrorCode::BadRequest, "`key` must not be empty"));
    }
    (key.len() > key_bytes_max).then(|| {
        let text =
            format!("the key has {} bytes, and at most {key_bytes_max} are taken ([limits] key_bytes_max)", key.len());
        ResponseBody::error(ErrorCode::TooLarge, text)
    })
}

/// Refuses a value longer than `value_bytes_max` bytes.
pub fn refuse_value(value_bytes: usize, value_bytes_max: usize) -> Option<ResponseBody> {
    (value_bytes > value_bytes_max).then(|| {
        let text = format!(
            "the value has {value_bytes} bytes, and at most {value_bytes_max} are taken ([limits] value_bytes_max)"
        );
        ResponseBody::error(ErrorCode::TooLarge, text)
    })
}

/// Refuses a request id that is empty, too long, or has a NUL character in it, which the ids of parts use.
pub fn refuse_request_id(request_id: &RequestId) -> Option<ResponseBody> {
    match request_id {
        RequestId::Text(text) if text.is_empty() || text.contains('\0') => {
            let text = "`request_id` must not be empty, nor have a NUL character in it";
            Some(ResponseBody::error(ErrorCode::BadRequest, text))
        }
        RequestId::Text(text) if text.len() > RequestId::TEXT_BYTES_MAX => {
            let text = format!("`request_id` has {} bytes, and at most 128 are taken", text.len());
            Some(ResponseBody::error(ErrorCode::TooLarge, text))
        }
        id => refuse_request_number(id),
    }
}

/// Refuses numbers that a typed client does not give, so that what is remembered of it stays bounded.
pub fn refuse_request_number(request_id: &RequestId) -> Option<ResponseBody> {
    let RequestId::Counted { client, number, behind } = request_id else { return None };
    if *behind >= RequestId::WINDOW {
        let text = format!(
            "the client may still send {behind} earlier writes again, and at most {} are taken; finish some first",
            RequestId::WINDOW - 1
        );
        return Some(ResponseBody::error(ErrorCode::Overloaded, text));
    }
    (!(1..=ClientId::BORN_MAX).contains(&client.born) || behind > number).then(|| {
        let text = "a counted request id whose date or number no client of ours gives";
        ResponseBody::error(ErrorCode::BadRequest, text)
    })
}

/// Refuses a request of no parts, or of more than [`PARTS_MAX`].
pub fn refuse_parts(parts: usize) -> Option<ResponseBody> {
    match parts {
        0 => Some(ResponseBody::error(ErrorCode::BadRequest, "a request with many parts needs at least one")),
        _ if parts > PARTS_MAX => {
            let text = format!("the request has {parts} parts, and at most {PARTS_MAX} are taken");
            Some(ResponseBody::error(ErrorCode::TooLarge, text))
        }
        _ => None,
    }
}

/// Refuses a request whose writes take `wanted_bytes` more, at the server `name` that holds `held_bytes` of unfinished ones and
/// may hold `bytes_max`. One request is always taken, however large: else an object over the limit could never be stored.
pub fn refuse_overload(name: &str, held_bytes: u64, wanted_bytes: u64, bytes_max: u64) -> Option<ResponseBody> {
    (held_bytes > 0 && held_bytes + wanted_bytes > bytes_max).then(|| {
        let text = format!(
            "server {name} holds {held_bytes} bytes of unfinished writes and may hold {bytes_max}; try again a little \
             later, or at another server"
        );
        ResponseBody::error(ErrorCode::Overloaded, text)
    })
}

/// The stars that a list asks for: those that it names, or all `count`. Refuses one that there is not.
pub fn stars_of_list(named: &[StarId], count: u16) -> Result<BTreeSet<StarId>, ResponseBody> {
    if named.is_empty() {
        return Ok((0..count).map(StarId).collect());
    }
    match named.iter().find(|star| star.0 >= count) {
        None => Ok(named.iter().copied().collect()),
        Some(star) => {
            let text = format!("`stars` names star {star}, and there are {count}, counted from 0");
            Err(ResponseBody::error(ErrorCode::BadRequest, text))
        }
    }
}
