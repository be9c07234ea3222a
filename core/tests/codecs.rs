//! Both codecs against what clients, networks and strangers can do to them.

use bytes::{Bytes, BytesMut};
use proptest::{collection::vec, prelude::*};
use serde_json::Value;
use star_core::{
    ClientId, ErrorCode, Key, RequestId, StarId, Version,
    message::{
        Asked, Condition, Fault, ManyEntry, Request, RequestBody, Response, ResponseBody, SetEntry, Wire,
        frame::{self, Decoder, Frame, FrameError, FrameKind},
        from_postcard, json, to_postcard,
    },
    store::Encoding,
};

const FRAME_BYTES_MAX: u64 = 4096;

fn request(text: &[u8]) -> Request {
    match json::asked(text).unwrap() {
        Asked::Request(request) => request,
        other => panic!("{other:?}"),
    }
}

fn any_fault() -> impl Strategy<Value = Fault> {
    let name = any::<String>();
    prop_oneof![
        name.prop_map(|server| Fault::FailLink { server: server.into() }),
        name.prop_map(|server| Fault::FixLink { server: server.into() }),
        Just(Fault::FailProcess),
    ]
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_filter("JSON has finite numbers", |number| number.is_finite()).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::from),
            vec((any::<String>(), inner), 0..6).prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn any_id() -> impl Strategy<Value = RequestId> {
    prop_oneof![
        (any::<u64>(), any::<u32>(), any::<u64>(), any::<u64>()).prop_map(|(born, draw, number, behind)| {
            RequestId::Counted { client: ClientId { born, draw }, number, behind }
        }),
        Just(RequestId::Unnamed),
        any::<String>().prop_map(|text| RequestId::Text(text.into())),
    ]
}

fn any_key() -> impl Strategy<Value = Key> {
    any::<String>().prop_map(Key::new)
}

fn any_condition() -> impl Strategy<Value = Condition> {
    prop_oneof![
        Just(Condition::Always),
        Just(Condition::IfAbsent),
        any::<u64>().prop_map(|version| Condition::IfVersion(Version(version))),
    ]
}

fn any_encoding() -> impl Strategy<Value = Encoding> {
    prop_oneof![Just(Encoding::Raw), Just(Encoding::Json)]
}

fn any_request() -> impl Strategy<Value = RequestBody> {
    prop_oneof![
        any_key().prop_map(|key| RequestBody::Get { key }),
        (any_key(), any_encoding(), any_condition(), any_id()).prop_map(|(key, encoding, condition, request_id)| {
            RequestBody::Set { key, encoding, condition, request_id }
        }),
        (any_key(), any_condition(), any_id()).prop_map(|(key, condition, request_id)| RequestBody::Delete {
            key,
            condition,
            request_id
        }),
        (any::<String>(), any::<Option<String>>(), any::<u32>(), vec(any::<u16>(), 0..5)).prop_map(
            |(prefix, after, limit, stars)| RequestBody::List {
                prefix: prefix.into(),
                after: after.map(Into::into),
                limit,
                stars: stars.into_iter().map(StarId).collect(),
            }
        ),
        vec(any_key(), 0..5).prop_map(|keys| RequestBody::GetMany { keys }),
        (vec((any_key(), any_encoding(), any::<u32>()), 0..5), any_id()).prop_map(|(parts, request_id)| {
            let entry = |(key, encoding, value_bytes)| SetEntry { key, encoding, value_bytes };
            RequestBody::SetMany { entries: parts.into_iter().map(entry).collect(), request_id }
        }),
        Just(RequestBody::Status),
    ]
}

fn any_part() -> impl Strategy<Value = ResponseBody> {
    let version = any::<u64>().prop_map(Version);
    prop_oneof![
        version.clone().prop_map(|version| ResponseBody::Written { version }),
        (version.clone(), any_encoding()).prop_map(|(version, encoding)| ResponseBody::Value { version, encoding }),
        Just(ResponseBody::NotFound),
        version.prop_map(|version| ResponseBody::Conflict { version }),
        (vec(any::<String>(), 0..4), any::<bool>())
            .prop_map(|(keys, more)| ResponseBody::Keys { keys: keys.into_iter().map(Into::into).collect(), more }),
        any::<String>().prop_map(ResponseBody::Status),
        any::<String>().prop_map(|message| ResponseBody::error(ErrorCode::Overloaded, message)),
    ]
}

fn any_response() -> impl Strategy<Value = ResponseBody> {
    let many = vec((any_part(), any::<u32>()), 0..5).prop_map(|parts| {
        ResponseBody::Many(parts.into_iter().map(|(body, value_bytes)| ManyEntry { body, value_bytes }).collect())
    });
    prop_oneof![4 => any_part(), 1 => many]
}

/// A few bytes changed, cut off or added.
fn mutated(mut bytes: Vec<u8>, changes: &[(prop::sample::Index, u8)]) -> Vec<u8> {
    for (place, byte) in changes {
        match byte % 3 {
            _ if bytes.is_empty() => bytes.push(*byte),
            0 => bytes.truncate(place.index(bytes.len())),
            1 => bytes.insert(place.index(bytes.len()), *byte),
            _ => {
                let place = place.index(bytes.len());
                bytes[place] ^= byte;
            }
        }
    }
    bytes
}

/// All frames of a stream that arrives in these pieces.
fn frames(pieces: &[&[u8]]) -> Result<Vec<Frame>, FrameError> {
    let mut decoder = Decoder::new(FRAME_BYTES_MAX);
    let mut buffer = BytesMut::new();
    let mut frames = Vec::new();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        while let Some(frame) = decoder.decode(&mut buffer)? {
            frames.push(frame);
        }
        assert!(decoder.wanted_bytes(&buffer) as u64 <= FRAME_BYTES_MAX + frame::FIXED_BYTES as u64);
    }
    Ok(frames)
}

fn answer_of(body: &ResponseBody, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    json::response(body, value, &mut out);
    out.split_off(frame::JSON_LENGTH_BYTES)
}

proptest! {
    #[test]
    fn any_json_value_comes_back_the_same(value in any_json(), key in "[^\0]+", pretty: bool) {
        let mut message = serde_json::json!({"type": "SET", "key": key});
        message["value"] = value.clone();
        let text = if pretty { serde_json::to_vec_pretty(&message) } else { serde_json::to_vec(&message) }.unwrap();
        let request = request(&text);
        let RequestBody::Set { key: stored, encoding, .. } = request.body else { panic!("a SET") };
        prop_assert_eq!(stored.as_str(), key);
        let answer = answer_of(&ResponseBody::Value { version: Version(1), encoding }, &request.value);
        if let Value::String(text) = &value {
            prop_assert_eq!(&request.value[..], text.as_bytes());
        } else {
            let own_text = String::from_utf8(request.value.to_vec()).unwrap();
            prop_assert!(String::from_utf8(answer.clone()).unwrap().contains(&own_text), "as it was written");
        }
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        // Compared as both sides read it: the parser's own rounding of floats is none of the codec's.
        let sent: Value = serde_json::from_slice(&text).unwrap();
        prop_assert_eq!(&answer["value"], &sent["value"]);
    }

    #[test]
    fn any_bytes_come_back_the_same(bytes: Vec<u8>) {
        let text = serde_json::json!({"type": "SET", "key": "k", "value_b64": base64(&bytes)}).to_string();
        let request = request(text.as_bytes());
        prop_assert_eq!(&request.value[..], &bytes[..]);
        let body = ResponseBody::Value { version: Version(1), encoding: Encoding::Raw };
        let answer: Value = serde_json::from_slice(&answer_of(&body, &bytes)).unwrap();
        match std::str::from_utf8(&bytes) {
            Ok(text) => prop_assert_eq!(&answer["value"], text),
            Err(_) => prop_assert_eq!(&answer["value_b64"], &base64(&bytes)),
        }
    }

    #[test]
    fn faults_come_back_the_same(fault in any_fault()) {
        let mut header = Vec::new();
        fault.encode_header(&mut header);
        prop_assert_eq!(Fault::decode(&header, Bytes::new()).unwrap(), fault);
    }

    #[test]
    fn random_text_is_a_request_or_a_refusal(text: Vec<u8>, message in any_json()) {
        let _ = json::asked(&text);
        let _ = json::asked(message.to_string().as_bytes());
    }

    #[test]
    fn fields_of_any_kind_are_a_request_or_a_refusal(
        kind in prop::sample::select(vec!["SET", "GET", "DELETE", "CAS", "LIST", "STATUS", "FAIL_LINK"]),
        fields in prop::collection::btree_map(
            prop::sample::select(vec![
                "key", "keys", "value", "value_b64", "entries", "request_id", "if_version", "if_absent", "prefix",
                "after", "limit", "server",
            ]),
            any_json(),
            0..6,
        ),
    ) {
        let mut message = serde_json::json!({"type": kind});
        for (name, value) in fields {
            message[name] = value;
        }
        let _ = json::asked(message.to_string().as_bytes());
    }

    #[test]
    fn every_answer_is_json(body in any_response(), value in vec(any::<u8>(), 0..64)) {
        let answer: Value = serde_json::from_slice(&answer_of(&body, &value)).unwrap();
        prop_assert!(answer["status"].is_string());
    }

    #[test]
    fn requests_and_responses_survive_the_wire(
        request in any_request(),
        response in any_response(),
        tail in vec(any::<u8>(), 0..64),
        id: u64,
    ) {
        let request = Request { body: request, value: tail.clone().into() };
        let response = Response { body: response, value: tail.clone().into() };
        let mut stream = Vec::new();
        frame::encode(FrameKind::Request, id, &request, request.tail(), &mut stream);
        frame::encode(FrameKind::Response, !id, &response, response.tail(), &mut stream);
        let mut decoder = Decoder::new(1 << 20);
        let mut buffer = BytesMut::from(&stream[..]);
        let Frame::Compact { kind, id: first, header, tail } = decoder.decode(&mut buffer).unwrap().unwrap() else {
            panic!("a compact frame")
        };
        prop_assert_eq!((kind, first), (FrameKind::Request, id));
        prop_assert_eq!(Request::decode(&header, tail).unwrap(), request);
        let Frame::Compact { kind, id: second, header, tail } = decoder.decode(&mut buffer).unwrap().unwrap() else {
            panic!("a compact frame")
        };
        prop_assert_eq!((kind, second), (FrameKind::Response, !id));
        prop_assert_eq!(Response::decode(&header, tail).unwrap(), response);
        prop_assert!(buffer.is_empty());
    }

    #[test]
    fn random_headers_are_a_message_or_an_error(bytes: Vec<u8>) {
        let _ = from_postcard::<RequestBody>(&bytes);
        let _ = from_postcard::<ResponseBody>(&bytes);
    }

    #[test]
    fn damaged_headers_are_a_message_or_an_error(
        request in any_request(),
        response in any_response(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = Vec::new();
        to_postcard(&request, &mut bytes);
        let _ = from_postcard::<RequestBody>(&mutated(bytes, &changes));
        let mut bytes = Vec::new();
        to_postcard(&response, &mut bytes);
        let _ = from_postcard::<ResponseBody>(&mutated(bytes, &changes));
    }

    #[test]
    fn a_random_stream_gives_frames_or_an_error(
        first in prop_oneof![Just(0), Just(frame::MAGIC), any::<u8>()],
        rest: Vec<u8>,
    ) {
        let mut stream = vec![first];
        stream.extend(rest);
        let whole = frames(&[&stream]);
        let single: Vec<&[u8]> = stream.chunks(1).collect();
        prop_assert_eq!(frames(&single), whole);
    }

    #[test]
    fn frames_do_not_depend_on_where_the_stream_is_cut(
        texts in vec(vec(any::<u8>(), 0..40), 1..3),
        too_large_bytes in FRAME_BYTES_MAX + 1..FRAME_BYTES_MAX + 50,
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..2),
    ) {
        let mut stream = Vec::new();
        for (id, text) in texts.iter().enumerate() {
            stream.extend((text.len() as u64).to_be_bytes());
            stream.extend(text);
            frame::encode_with(FrameKind::Peer, id as u64, text.len(), &mut stream, |out| out.extend(text));
            stream.extend(text);
        }
        let sound = stream.clone();
        prop_assert_eq!(frames(&[&sound]).unwrap().len(), 2 * texts.len());
        stream.extend(too_large_bytes.to_be_bytes());
        stream.resize(stream.len() + too_large_bytes as usize, 7);
        stream.extend(&sound);
        // The stream goes on after a frame that is too large.
        prop_assert_eq!(frames(&[&stream]).unwrap().len(), 4 * texts.len() + 1);

        for stream in [&sound, &mutated(sound.clone(), &changes)] {
            let whole = frames(&[stream]);
            for cut in 0..=stream.len() {
                prop_assert_eq!(&frames(&[&stream[..cut], &stream[cut..]]), &whole, "cut at {}", cut);
            }
        }
        prop_assert_eq!(frames(&stream.chunks(1).collect::<Vec<_>>()), frames(&[&stream]));
    }
}

fn base64(bytes: &[u8]) -> String {
    use ::base64::{Engine, engine::general_purpose::STANDARD};
    STANDARD.encode(bytes)
}

#[test]
fn absurd_lengths_end_the_stream() {
    let huge = (1_u64 << 63).to_be_bytes();
    assert!(matches!(frames(&[&huge]), Err(FrameError::Garbage(0x80))), "the first byte of a length is 0");
    let large = (1_u64 << 55).to_be_bytes();
    assert!(matches!(frames(&[&large]), Err(FrameError::Absurd { .. })));
    let mut compact = vec![frame::MAGIC, 1, 0, 0];
    compact.extend([0xFF; 16]);
    assert!(matches!(frames(&[&compact]), Err(FrameError::Absurd { .. })));
}

#[test]
fn answers_within_answers_do_not_nest() {
    // Each level takes two bytes (variant 5, one part), so a header could nest a million deep.
    let nested: Vec<u8> = [5_u8, 1].repeat(1 << 20);
    let error = Response::decode(&nested, Bytes::new()).unwrap_err();
    assert!(error.contains("cannot be read"), "{error}");
    let deep_text = format!(r#"{{"type":"SET","key":"k","value":{}"#, "[".repeat(1 << 20));
    assert_eq!(json::asked(deep_text.as_bytes()).unwrap_err().code, ErrorCode::BadRequest);
}
