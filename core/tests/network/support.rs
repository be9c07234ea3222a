//! A small real server that answers compact frames as a test tells it to.

use std::{net::SocketAddr, sync::Arc};

use bytes::{Bytes, BytesMut};
use star_core::{
    Key, RequestId, Version,
    message::{
        Condition, Request, RequestBody, Response, ResponseBody, Wire,
        frame::{self, Decoder, Frame, FrameKind},
    },
    store::Encoding,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// What the server does with the requests that arrived together on one connection.
pub(crate) type Script = Arc<dyn Fn(Vec<(u64, Request)>) -> Reaction + Send + Sync>;

/// See [`Script`].
pub(crate) enum Reaction {
    /// These bytes are sent.
    Send(Vec<u8>),
    /// Nothing yet: the script is asked again when more requests are there.
    Collect(Vec<(u64, Request)>),
    /// The connection is closed.
    Close,
}

/// A server under way; dropping it closes its socket and all connections.
#[derive(Debug)]
pub(crate) struct TestServer {
    pub(crate) addr: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl TestServer {
    /// A server at any free port.
    pub(crate) async fn start(script: Script) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), script).await
    }

    /// A server at this address.
    pub(crate) async fn start_at(addr: SocketAddr, script: Script) -> Self {
        let listener = TcpListener::bind(addr).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(serve(stream, Arc::clone(&script)));
            }
        });
        Self { addr, task }
    }

    /// Closes everything and waits until the port is free.
    pub(crate) async fn stop(self) {
        self.task.abort();
        while !self.task.is_finished() {
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Answers each request with its own value.
pub(crate) fn echo() -> Script {
    Arc::new(|requests| Reaction::Send(requests.iter().flat_map(|(id, request)| answer(*id, request)).collect()))
}

/// A request that sets a key to this value.
pub(crate) fn set(value: impl Into<Bytes>) -> Request {
    let request_id = RequestId::Unnamed;
    let body =
        RequestBody::Set { key: Key::new("k"), encoding: Encoding::Raw, condition: Condition::Always, request_id };
    Request { body, value: value.into() }
}

/// The frame that answers a request with its own value.
pub(crate) fn answer(id: u64, request: &Request) -> Vec<u8> {
    let body = match &request.body {
        RequestBody::Set { .. } => ResponseBody::Value { version: Version(id), encoding: Encoding::Raw },
        _ => ResponseBody::NotFound,
    };
    let response = Response { body, value: request.value.clone() };
    let mut out = Vec::new();
    frame::encode(FrameKind::Response, id, &response, response.tail(), &mut out);
    out
}

/// Serves one connection until it ends.
pub(crate) async fn serve(mut stream: TcpStream, script: Script) {
    let mut decoder = Decoder::new(128 << 20);
    let mut buffer = BytesMut::new();
    let mut waiting = Vec::new();
    loop {
        buffer.reserve(decoder.wanted_bytes(&buffer).max(64 << 10));
        if matches!(stream.read_buf(&mut buffer).await, Ok(0) | Err(_)) {
            return;
        }
        while let Some(frame) = decoder.decode(&mut buffer).unwrap() {
            let Frame::Compact { kind: FrameKind::Request, id, header, tail } = frame else { panic!("{frame:?}") };
            waiting.push((id, Request::decode(&header, tail).unwrap()));
        }
        if waiting.is_empty() {
            continue;
        }
        match script(std::mem::take(&mut waiting)) {
            Reaction::Send(bytes) => {
                if stream.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            Reaction::Collect(requests) => waiting = requests,
            Reaction::Close => return,
        }
    }
}
