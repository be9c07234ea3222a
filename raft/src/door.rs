//! Connections to this member, served on its own thread: a server that is busy with objects does not hold them up.

use std::{net, sync::Arc};

use bytes::{Bytes, BytesMut};
use star_core::message::frame::{Decoder, Frame, FrameKind, HEADER_BYTES_MAX, encode_with};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Semaphore, mpsc},
    task::JoinSet,
};
use tracing::debug;

/// The most connections at one time; more are closed at once.
const CONNECTIONS_MAX: usize = 1024;
/// The most calls of one connection that are not answered; it is not read from while it has that many.
const CALLS_MAX: usize = 256;

/// What stands behind the door.
pub(crate) trait Answers: Send + Sync + 'static {
    /// Answers one call, an encoded [`star_control::embedded::Envelope`]. Whatever comes in, there is an answer.
    fn handle(&self, call: &[u8]) -> impl Future<Output = Vec<u8>> + Send;
}

/// Lets connections in.
pub(crate) struct Door<S> {
    service: Arc<S>,
    room: Arc<Semaphore>,
}

impl<S> Clone for Door<S> {
    fn clone(&self) -> Self {
        Self { service: Arc::clone(&self.service), room: Arc::clone(&self.room) }
    }
}

impl<S: Answers> Door<S> {
    pub(crate) fn new(service: Arc<S>) -> Self {
        Self { service, room: Arc::new(Semaphore::new(CONNECTIONS_MAX)) }
    }

    /// Serves a connection until it ends.
    pub(crate) async fn serve(self, stream: net::TcpStream) {
        let Ok(_permit) = self.room.try_acquire() else {
            return debug!("refusing a connection to the control plane: {CONNECTIONS_MAX} are open");
        };
        // An answer must not wait until the one before it was acknowledged.
        let stream = TcpStream::from_std(stream).and_then(|stream| stream.set_nodelay(true).map(|()| stream));
        match stream {
            Ok(stream) => {
                let (input, output) = stream.into_split();
                let (answers, outbox) = mpsc::channel(CALLS_MAX);
                tokio::select! {
                    () = write(output, outbox) => {}
                    () = read(&self.service, input, answers) => {}
                }
            }
            Err(error) => debug!(%error, "a connection to the control plane cannot be used"),
        }
    }
}

async fn write(mut output: OwnedWriteHalf, mut outbox: mpsc::Receiver<Vec<u8>>) {
    let mut batch = Vec::new();
    while let Some(answer) = outbox.recv().await {
        batch.extend_from_slice(&answer);
        while let Ok(answer) = outbox.try_recv() {
            batch.extend_from_slice(&answer);
        }
        if output.write_all(&batch).await.is_err() {
            return;
        }
        batch.clear();
    }
}

/// Reads calls; each is answered when it is done, whichever came first. Ends with the stream, or when it makes no sense.
async fn read<S: Answers>(service: &Arc<S>, mut input: OwnedReadHalf, answers: mpsc::Sender<Vec<u8>>) {
    let mut calls = JoinSet::new();
    let (mut decoder, mut buffer) = (Decoder::new(HEADER_BYTES_MAX as u64), BytesMut::new());
    loop {
        match decoder.decode(&mut buffer) {
            Ok(Some(Frame::Compact { kind: FrameKind::Control, id, header, .. })) => {
                let (service, answers) = (Arc::clone(service), answers.clone());
                calls.spawn(async move {
                    let answer = service.handle(&header).await;
                    // Nobody waits for it if the connection has ended.
                    let _ = answers.send(framed(id, &answer)).await;
                });
            }
            Ok(Some(_)) => return debug!("closing a connection to the control plane on which something else came"),
            Ok(None) => match input.read_buf(&mut buffer).await {
                Ok(bytes) if bytes > 0 => {}
                _ => return,
            },
            Err(error) => return debug!(%error, "closing a connection to the control plane"),
        }
        while calls.try_join_next().is_some() {}
        if calls.len() >= CALLS_MAX {
            calls.join_next().await;
        }
    }
}

fn framed(id: u64, answer: &[u8]) -> Vec<u8> {
    let (mut out, tail) = (Vec::new(), Bytes::new());
    encode_with(FrameKind::ControlAnswer, id, tail.len(), &mut out, |out| out.extend_from_slice(answer));
    out
}
