use serde_json::json;

use super::*;

fn parse(text: &str) -> Result<Request, Failure> {
    match asked(text.as_bytes())? {
        Asked::Request(request) => Ok(request),
        other => panic!("{text} is a request, and not {other:?}"),
    }
}

fn refusal(text: &str) -> (ErrorCode, String) {
    let failure = parse(text).expect_err(text);
    (failure.code, failure.message)
}

fn text_id(text: &str) -> RequestId {
    RequestId::Text(text.into())
}

#[test]
fn every_form_of_a_request_is_understood() {
    let fallback = RequestId::Unnamed;
    let set =
        |condition, request_id| RequestBody::Set { key: "k".into(), encoding: Encoding::Raw, condition, request_id };
    for (text, body, value) in [
        (r#"{"type":"SET","key":"k","value":"v","request_id":"r"}"#, set(Condition::Always, text_id("r")), &b"v"[..]),
        (r#"{"type":"SET","key":"k","value":"v"}"#, set(Condition::Always, fallback.clone()), b"v"),
        (r#" {"value_b64":"/wA=","key":"\u006b","type":"SET"} "#, set(Condition::Always, fallback.clone()), b"\xff\0"),
        (r#"{"type":"SET","key":"k","value_b64":"/wA"}"#, set(Condition::Always, fallback.clone()), b"\xff\0"),
        (r#"{"type":"CAS","key":"k","value":"v","if_absent":true}"#, set(Condition::IfAbsent, fallback.clone()), b"v"),
        (
            r#"{"type":"CAS","key":"k","value":"v","if_version":7,"if_absent":false}"#,
            set(Condition::IfVersion(Version(7)), fallback.clone()),
            b"v",
        ),
        (r#"{"type":"GET","key":"k","unknown":[{}]}"#, RequestBody::Get { key: "k".into() }, b""),
        (r#"{"type":"GET","keys":["a","b"]}"#, RequestBody::GetMany { keys: vec!["a".into(), "b".into()] }, b""),
        (r#"{"type":"GET","keys":[]}"#, RequestBody::GetMany { keys: vec![] }, b""),
        (
            r#"{"type":"DELETE","key":"k","if_version":18446744073709551615,"request_id":"r"}"#,
            RequestBody::Delete {
                key: "k".into(),
                condition: Condition::IfVersion(Version(u64::MAX)),
                request_id: text_id("r"),
            },
            b"",
        ),
        (
            r#"{"type":"LIST","prefix":"a/","after":"a/b","limit":9999999999}"#,
            RequestBody::List { prefix: "a/".into(), after: Some("a/b".into()), limit: u32::MAX, stars: vec![] },
            b"",
        ),
        (
            r#"{"type":"LIST","stars":[3,0]}"#,
            RequestBody::List {
                prefix: "".into(),
                after: None,
                limit: LIST_LIMIT_DEFAULT,
                stars: vec![StarId(3), StarId(0)],
            },
            b"",
        ),
        (
            r#"{"type":"LIST","prefix":null}"#,
            RequestBody::List { prefix: "".into(), after: None, limit: LIST_LIMIT_DEFAULT, stars: vec![] },
            b"",
        ),
        (r#"{"type":"STATUS"}"#, RequestBody::Status, b""),
    ] {
        let request = parse(text).unwrap_or_else(|failure| panic!("{text}: {failure}"));
        assert_eq!((request.body, &request.value[..]), (body, value), "{text}");
    }
}

#[test]
fn many_sets_share_one_tail() {
    let text = r#"{"type":"SET","request_id":"r","entries":[
        {"key":"a","value":"xyz"},{"key":"b","value":null},{"key":"c","value_b64":""}]}"#;
    let request = parse(text).unwrap();
    let entry = |key: &str, encoding, value_bytes| SetEntry { key: key.into(), encoding, value_bytes };
    let entries = vec![entry("a", Encoding::Raw, 3), entry("b", Encoding::Json, 4), entry("c", Encoding::Raw, 0)];
    assert_eq!(request.body, RequestBody::SetMany { entries, request_id: text_id("r") });
    assert_eq!(&request.value[..], b"xyznull");
}

#[test]
fn json_values_are_kept_as_they_were_written() {
    for written in
        ["null", "1e400", "123456789012345678901234567890", "1.0", "[ 1, {\"b\":2,\"a\" : 1} ]", r#""\ud800""#]
    {
        let request = parse(&format!(r#"{{"type":"SET","key":"k","value": {written} }}"#)).unwrap();
        assert_eq!(&request.value[..], written.as_bytes());
        assert!(matches!(request.body, RequestBody::Set { encoding: Encoding::Json, .. }), "{written}");
    }
}

#[test]
fn refusals_name_what_is_wrong() {
    use ErrorCode::{BadRequest, TooLarge, UnknownType};
    let long = json!({"type": "SET", "key": "k", "value": 1, "request_id": "r".repeat(129)}).to_string();
    for (text, code, part) in [
        ("", BadRequest, "JSON object"),
        ("[1]", BadRequest, "JSON object"),
        (r#"{"type":"GET","key":"k"} x"#, BadRequest, "trailing"),
        (r#"{"key":"k"}"#, BadRequest, r#"field "type" is missing"#),
        (r#"{"type":3}"#, BadRequest, r#"field "type" must be a string"#),
        (r#"{"type":"GET","type":"SET"}"#, BadRequest, "duplicate field `type`"),
        (r#"{"type":"FETCHALL"}"#, UnknownType, "SET, GET, DELETE, CAS, LIST, STATUS"),
        (r#"{"type":"ACK"}"#, UnknownType, "between servers only, in compact frames"),
        (r#"{"type":"GET"}"#, BadRequest, r#"field "key" is missing"#),
        (r#"{"type":"GET","key":["k"]}"#, BadRequest, r#"field "key" must be a string of Unicode text, and is ["k"]"#),
        (r#"{"type":"GET","key":"\ud800"}"#, BadRequest, "Unicode"),
        (r#"{"type":"GET","key":""}"#, BadRequest, "must not be empty"),
        (r#"{"type":"GET","key":"k","keys":[]}"#, BadRequest, "not both"),
        (r#"{"type":"GET","keys":"k"}"#, BadRequest, r#"field "keys" must be a list"#),
        (r#"{"type":"GET","keys":[1]}"#, BadRequest, r#"field "keys" must be a string"#),
        (r#"{"type":"SET","key":"k"}"#, BadRequest, r#"field "value" is missing"#),
        (r#"{"type":"SET","key":"k","value":1,"value_b64":""}"#, BadRequest, "not both"),
        (r#"{"type":"SET","key":"k","value_b64":"*"}"#, BadRequest, r#"field "value_b64""#),
        (r#"{"type":"SET","key":"k","value":1,"request_id":7}"#, BadRequest, r#"field "request_id""#),
        (r#"{"type":"SET","key":"k","value":1,"request_id":""}"#, BadRequest, "must not be empty"),
        (&long, TooLarge, "at most 128"),
        (r#"{"type":"SET","entries":{}}"#, BadRequest, r#"field "entries" must be a list"#),
        (r#"{"type":"SET","entries":[{"key":"a","value":1},{"key":"b"}]}"#, BadRequest, r#"entry 1: field "value""#),
        (r#"{"type":"SET","entries":[3]}"#, BadRequest, r#"field "entries""#),
        (r#"{"type":"SET","entries":[],"if_absent":true}"#, BadRequest, "no condition"),
        (r#"{"type":"CAS","key":"k","value":1}"#, BadRequest, "if_version"),
        (r#"{"type":"CAS","key":"k","value":1,"if_version":1,"if_absent":true}"#, BadRequest, "not both"),
        (r#"{"type":"CAS","key":"k","value":1,"if_version":-1}"#, BadRequest, "whole number"),
        (r#"{"type":"CAS","key":"k","value":1,"if_absent":"yes"}"#, BadRequest, "true or false"),
        (r#"{"type":"DELETE","key":"k","if_absent":true}"#, BadRequest, "nothing to delete"),
        (r#"{"type":"LIST","limit":0}"#, BadRequest, "1 or more"),
        (r#"{"type":"LIST","limit":"x"}"#, BadRequest, r#"field "limit""#),
        (r#"{"type":"LIST","stars":[]}"#, BadRequest, r#"field "stars""#),
        (r#"{"type":"LIST","stars":3}"#, BadRequest, "one or more numbers"),
    ] {
        let (got, message) = refusal(text);
        assert_eq!(got, code, "{text}: {message}");
        assert!(message.contains(part), "{text}: {message:?} does not say {part:?}");
    }
}

#[test]
fn a_refusal_quotes_only_a_little_of_a_large_field() {
    let (_, message) = refusal(&json!({"type": "ä".repeat(100_000)}).to_string());
    assert!(message.len() < 300, "{} bytes", message.len());
}

#[test]
fn faults_are_told_from_requests() {
    let fault = |text: &str| asked(text.as_bytes());
    let server = "b".into();
    assert_eq!(fault(r#"{"type":"FAIL_LINK","server":"b"}"#), Ok(Asked::Fault(Fault::FailLink { server })));
    let server = "b".into();
    assert_eq!(fault(r#"{"server":"b","type":"FIX_LINK"}"#), Ok(Asked::Fault(Fault::FixLink { server })));
    assert_eq!(fault(r#"{"type":"FAIL_PROCESS"}"#), Ok(Asked::Fault(Fault::FailProcess)));
    let missing = fault(r#"{"type":"FAIL_LINK"}"#).expect_err("which link?");
    assert!(missing.code == ErrorCode::BadRequest && missing.message.contains("server"), "{missing}");
}

#[test]
fn questions_about_a_store_are_understood() {
    let watch = |after: Option<&str>, limit, wait_ms| Local::Watch {
        prefix: "a/".into(),
        after: after.map(|text| text.parse().unwrap()),
        limit,
        wait_ms,
    };
    for (text, wanted) in [
        (
            r#"{"type":"CREATE","key":"k","size":16777216,"lock":7}"#,
            Local::Create { key: "k".into(), encoding: Encoding::Raw, value_bytes: 1 << 24, lock: 7 },
        ),
        (
            r#"{"type":"SEAL","room":9,"request_id":"r","if_absent":true}"#,
            Local::Seal { room: 9, condition: Condition::IfAbsent, request_id: text_id("r") },
        ),
        (r#"{"type":"ABORT","room":9}"#, Local::Abort { room: 9 }),
        (r#"{"type":"CAPACITY"}"#, Local::Capacity),
        (r#"{"type":"WATCH","prefix":"a/"}"#, watch(None, LIST_LIMIT_DEFAULT, WAIT_MS_DEFAULT)),
        (r#"{"type":"WATCH","prefix":"a/","after":"17-4","limit":2,"wait_ms":0}"#, watch(Some("17-4"), 2, 0)),
    ] {
        assert_eq!(asked(text.as_bytes()), Ok(Asked::Local(wanted)), "{text}");
    }
    for (text, field) in [
        (r#"{"type":"CREATE","key":"k","lock":7}"#, "size"),
        (r#"{"type":"CREATE","key":"k","size":-1,"lock":7}"#, "size"),
        (r#"{"type":"CREATE","key":"k","size":1}"#, "lock"),
        (r#"{"type":"CREATE","size":1,"lock":7}"#, "key"),
        (r#"{"type":"SEAL"}"#, "room"),
        (r#"{"type":"ABORT","room":"9"}"#, "room"),
        (r#"{"type":"WATCH","after":"17"}"#, "after"),
        (r#"{"type":"WATCH","limit":0}"#, "limit"),
        (r#"{"type":"WATCH","wait_ms":1.5}"#, "wait_ms"),
    ] {
        let failure = asked(text.as_bytes()).expect_err(text);
        assert!(failure.code == ErrorCode::BadRequest && failure.message.contains(field), "{text}: {failure}");
    }
}
