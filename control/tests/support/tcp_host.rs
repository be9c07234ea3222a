//! A small server that carries control frames to a [`Host`].

use bytes::{Bytes, BytesMut};
use star_core::message::frame::{Decoder, Frame, FrameKind, encode_with};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::{JoinHandle, JoinSet},
};

use super::Host;

pub(crate) struct TcpHost {
    addr: String,
    accepting: JoinHandle<()>,
}

impl TcpHost {
    pub(crate) async fn start(host: Host, addr: &str) -> Self {
        let listener = TcpListener::bind(addr).await.expect("a free port");
        let addr = listener.local_addr().expect("an address").to_string();
        let accepting = tokio::spawn(async move {
            // Dropped with this task, and all connections with it.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(host.clone(), stream));
            }
        });
        Self { addr, accepting }
    }

    pub(crate) fn addr(&self) -> &str {
        &self.addr
    }

    pub(crate) async fn stop(mut self) {
        self.accepting.abort();
        let _ = (&mut self.accepting).await;
    }
}

impl Drop for TcpHost {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(host: Host, stream: TcpStream) {
    let (mut input, mut output) = stream.into_split();
    let (answers, mut outbox) = mpsc::unbounded_channel::<Vec<u8>>();
    let mut calls = JoinSet::new();
    calls.spawn(async move {
        while let Some(bytes) = outbox.recv().await {
            if output.write_all(&bytes).await.is_err() {
                return;
            }
        }
    });
    let (mut decoder, mut buffer) = (Decoder::new(4 << 20), BytesMut::new());
    while input.read_buf(&mut buffer).await.is_ok_and(|bytes| bytes > 0) {
        while let Ok(Some(Frame::Compact { kind: FrameKind::Control, id, header, .. })) = decoder.decode(&mut buffer) {
            let (host, answers) = (host.clone(), answers.clone());
            calls.spawn(async move {
                let answer = host.handle(&header).await;
                let _ = answers.send(framed(id, &answer));
            });
        }
    }
}

fn framed(id: u64, answer: &[u8]) -> Vec<u8> {
    let (mut out, tail) = (Vec::new(), Bytes::new());
    encode_with(FrameKind::ControlAnswer, id, tail.len(), &mut out, |out| out.extend_from_slice(answer));
    out
}
