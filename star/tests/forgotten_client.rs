//! What a client does when the servers have forgotten it: a made-up server answers.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use star::{ClientError, Options, StarClient};
use star_core::{
    ClientId, ErrorCode, RequestId, Version,
    message::{
        ManyEntry, Request, RequestBody, Response, ResponseBody, Wire,
        frame::{self, Decoder, Frame, FrameKind},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// What the server was asked to write, and as which request.
type Asked = Arc<Mutex<Vec<(RequestId, usize)>>>;

/// Answers one write; the second number counts the writes before it.
type Answers = fn(&RequestId, usize, usize) -> ResponseBody;

async fn serve(mut stream: TcpStream, answers: Answers, asked: Asked) {
    let (mut decoder, mut buffer) = (Decoder::new(1 << 20), BytesMut::new());
    loop {
        while let Some(frame) = decoder.decode(&mut buffer).expect("frames of ours") {
            let Frame::Compact { kind: FrameKind::Request, id, header, tail } = frame else { panic!("{frame:?}") };
            let body = match Request::decode(&header, tail).expect("a request").body {
                RequestBody::Set { request_id, .. } => {
                    let mut asked = asked.lock().unwrap();
                    asked.push((request_id.clone(), 1));
                    answers(&request_id, 0, asked.len() - 1)
                }
                RequestBody::SetMany { entries, request_id } => {
                    let mut asked = asked.lock().unwrap();
                    asked.push((request_id.clone(), entries.len()));
                    let answer = |part| answers(&request_id.part(part as u64), part, asked.len() - 1);
                    let parts = (0..entries.len()).map(|part| ManyEntry { body: answer(part), value_bytes: 0 });
                    ResponseBody::Many(parts.collect())
                }
                _ => ResponseBody::Status("{}".to_owned()),
            };
            let mut out = Vec::new();
            frame::encode(FrameKind::Response, id, &Response { body, value: Bytes::new() }, &[], &mut out);
            stream.write_all(&out).await.expect("the client reads");
        }
        if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
            return;
        }
    }
}

/// A client of a server that gives these answers, and what it asked.
async fn client(answers: Answers) -> (StarClient, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let asked = Asked::default();
    let shared = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, answers, Arc::clone(&shared)));
        }
    });
    let options = Options { give_up_after: Duration::from_secs(120), ..Options::one_server() };
    (StarClient::connect(&[addr], options).await.expect("the server answers"), asked)
}

fn forgotten() -> ResponseBody {
    ResponseBody::error(ErrorCode::Forgotten, "as told")
}

fn clients(asked: &Asked) -> Vec<ClientId> {
    let ids = asked.lock().unwrap().clone();
    let client = |id: &RequestId| match id {
        RequestId::Counted { client, .. } => *client,
        other => panic!("{other:?}"),
    };
    ids.iter().map(|(id, _)| client(id)).collect()
}

#[tokio::test]
async fn a_write_that_was_sent_once_is_done_as_another_client() {
    let (client, asked) = client(|_, _, before| match before {
        0..3 => forgotten(),
        _ => ResponseBody::Written { version: Version(7) },
    })
    .await;
    assert_eq!(client.set("k", "v").await, Ok(Version(7)));
    let ids = clients(&asked);
    assert!(ids.is_sorted() && ids[0] < ids[1] && ids[1] < ids[2] && ids[2] < ids[3], "{ids:?}");
    client.set("k", "v").await.expect("a write");
    assert_eq!(clients(&asked)[4], ids[3], "it stays who it is once it is known");
}

#[tokio::test]
async fn a_write_that_may_have_been_done_is_not_sent_as_another() {
    let (client, asked) = client(|_, _, before| match before {
        0 => ResponseBody::error(ErrorCode::Unfinished, "as told"),
        _ => forgotten(),
    })
    .await;
    let refused = client.set("k", "v").await;
    assert!(
        matches!(&refused, Err(ClientError::Refused(failure)) if failure.code == ErrorCode::Forgotten),
        "{refused:?}"
    );
    let ids = clients(&asked);
    assert!(ids.len() == 2 && ids[0] == ids[1], "{ids:?}");
}

#[tokio::test]
async fn only_the_parts_that_were_refused_are_done_again() {
    let (client, asked) = client(|_, part, before| match before {
        0 if part % 2 == 1 => forgotten(),
        _ => ResponseBody::Written { version: Version((10 * before + part) as u64) },
    })
    .await;
    let objects: Vec<(&str, Bytes)> = ["a", "b", "c", "d", "e"].map(|key| (key, Bytes::from("value"))).to_vec();
    let versions = client.set_many(&objects).await.expect("the writes");
    assert_eq!(versions, [0, 10, 2, 11, 4].map(Version));
    assert_eq!(asked.lock().unwrap().iter().map(|(_, parts)| *parts).collect::<Vec<_>>(), vec![5, 2]);
}

#[tokio::test]
async fn requests_say_which_of_them_may_come_again() {
    let (client, asked) = client(|_, _, _| ResponseBody::Written { version: Version(1) }).await;
    for _ in 0..3 {
        client.set("k", "v").await.expect("a write");
    }
    let ids = asked.lock().unwrap().clone();
    let numbers: Vec<(u64, u64)> = ids
        .iter()
        .map(|(id, _)| match id {
            RequestId::Counted { number, behind, .. } => (*number, *behind),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(numbers, vec![(0, 0), (1, 0), (2, 0)], "what was answered does not come again");
}
