//! The examples of `DESIGN/wire.md`, run.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::Command,
};

use bytes::{Bytes, BytesMut};
use star_core::{
    Key, RequestId, Version,
    message::{
        Asked, Condition, Request, RequestBody, Response, ResponseBody, Wire,
        frame::{self, Decoder, Frame, FrameKind},
        json,
    },
    store::Encoding,
};

const PAGE: &str = include_str!("../../DESIGN/wire.md");

fn hex(kind: FrameKind, id: u64, message: &impl Wire) -> String {
    let mut bytes = Vec::new();
    frame::encode(kind, id, message, message.tail(), &mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_frames_on_the_page_are_what_is_sent() {
    let value = Bytes::from_static(b"v");
    let get = Request::from(RequestBody::Get { key: Key::new("k") });
    let set = Request {
        body: RequestBody::Set {
            key: Key::new("k"),
            encoding: Encoding::Raw,
            condition: Condition::Always,
            request_id: RequestId::Text("r".into()),
        },
        value: value.clone(),
    };
    let got = Response { body: ResponseBody::Value { version: Version(1), encoding: Encoding::Raw }, value };
    let written = Response::from(ResponseBody::Written { version: Version(1) });
    for sent in [
        hex(FrameKind::Request, 1, &get),
        hex(FrameKind::Response, 1, &got),
        hex(FrameKind::Request, 2, &set),
        hex(FrameKind::Response, 2, &written),
    ] {
        assert!(PAGE.lines().any(|line| line == sent), "the page does not show {sent}");
    }
}

#[test]
fn the_requests_on_the_page_are_understood() {
    let rows = PAGE.lines().filter(|line| line.starts_with("| `{\"type\""));
    let requests: Vec<_> = rows.map(|row| row.split('`').nth(1).unwrap()).collect();
    assert_eq!(requests.len(), 18);
    for text in requests {
        json::asked(text.as_bytes()).expect(text);
    }
}

/// Keeps objects in a map and answers SET and GET on one connection.
fn serve(mut stream: TcpStream) {
    let mut objects = BTreeMap::new();
    let mut decoder = Decoder::new(1 << 20);
    let mut buffer = BytesMut::new();
    let mut chunk = [0; 4096];
    loop {
        while let Some(Frame::Json(text)) = decoder.decode(&mut buffer).unwrap() {
            let asked = json::asked(&text).unwrap();
            let Asked::Request(request) = asked else { panic!("{asked:?}") };
            let (body, value) = match request.body {
                RequestBody::Set { key, .. } => {
                    objects.insert(key, request.value);
                    (ResponseBody::Written { version: Version(1) }, Bytes::new())
                }
                RequestBody::Get { key } => {
                    (ResponseBody::Value { version: Version(1), encoding: Encoding::Raw }, objects[&key].clone())
                }
                other => panic!("{other:?}"),
            };
            let mut answer = Vec::new();
            json::response(&body, &value, &mut answer);
            stream.write_all(&answer).unwrap();
        }
        match stream.read(&mut chunk).unwrap() {
            0 => return,
            count => buffer.extend_from_slice(&chunk[..count]),
        }
    }
}

#[test]
fn the_python_client_on_the_page_works() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || serve(listener.accept().unwrap().0));
    let program = PAGE.split("```python\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let program = program.replace("7000", &port.to_string());
    let output = Command::new("python3").args(["-c", &program]).output().expect("this test needs python3");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let expected = "{'status': 'OK', 'version': 1}\n{'status': 'OK', 'value': 'hello', 'version': 1}\n";
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    server.join().unwrap();
}
