//! One connection: many callers, one task that writes what they queue and hands the answers out by id.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::{Notify, oneshot},
    task::AbortHandle,
};

use super::{NetworkError, outbox::Outbox};
use crate::{
    collections::Map,
    message::frame::{self, Decoder, Frame, FrameKind, HEADER_BYTES_MAX},
    time::{Clock, Time},
};

/// A frame that came as an answer: kind, header, tail.
pub(super) type Answer = (FrameKind, Bytes, Bytes);

/// Who waits for an answer.
type Caller = oneshot::Sender<Result<Answer, NetworkError>>;

/// Callers wait for room while more bytes than this wait to be written, so that a server that stopped reading does not
/// fill the memory of its clients.
const OUTBOX_BYTES_MAX: usize = 16 << 20;

/// How much is read at once when nothing is known of what comes.
const READ_BYTES: usize = 64 << 10;

/// A connection under way. Dropping it ends the connection.
#[derive(Debug)]
pub(super) struct Connection {
    shared: Arc<Shared>,
    task: AbortHandle,
}

#[derive(Debug)]
struct Shared {
    addr: String,
    frame_bytes_max: u64,
    state: Mutex<State>,
    /// There is something to write.
    filled: Notify,
    /// There is room to queue more.
    drained: Notify,
}

#[derive(Debug, Default)]
struct State {
    outbox: Outbox,
    /// Requests under way by id, each until its answer came or its caller went away.
    under_way: Map<u64, Caller>,
    last_id: u64,
    /// When bytes came in last.
    heard: Time,
    /// When the first of the calls began that timed out since bytes came in last.
    silent_since: Option<Time>,
    /// Why the connection ended; nothing is queued and nothing under way from then on.
    broken: Option<NetworkError>,
}

impl Connection {
    /// Starts the task of a connection that was just made.
    pub(super) fn start(addr: &str, frame_bytes_max: u64, stream: TcpStream) -> Self {
        let shared = Arc::new(Shared {
            addr: addr.to_owned(),
            frame_bytes_max,
            state: Mutex::default(),
            filled: Notify::new(),
            drained: Notify::new(),
        });
        let end = BreakAtEnd(Arc::clone(&shared));
        let task = tokio::spawn(async move { end.0.run(stream).await });
        Self { shared, task: task.abort_handle() }
    }

    pub(super) fn is_broken(&self) -> bool {
        self.shared.state.lock().broken.is_some()
    }

    /// Ends the connection; every request under way fails with `error`.
    pub(super) fn break_with(&self, error: &NetworkError) {
        self.shared.break_with(error);
        self.task.abort();
    }

    /// Sends a frame whose header `write` appends, and waits for the frame with the same id.
    pub(super) async fn exchange(
        &self,
        kind: FrameKind,
        tail: &Bytes,
        write: impl Fn(&mut Vec<u8>),
    ) -> Result<Answer, NetworkError> {
        let call = self.shared.queue(kind, tail, write).await?;
        call.answer().await
    }

    /// Takes notice that a call which began at `began` timed out. A connection on which nothing at all was heard for
    /// `silence_max` since the first call of that kind is broken: the server, or the way to it, is gone without a word.
    pub(super) fn note_timeout(&self, began: Time, now: Time, silence_max: Duration) {
        let silence = {
            let mut state = self.shared.state.lock();
            let heard = state.heard;
            let since = *state.silent_since.get_or_insert(began.max(heard));
            now.since(since)
        };
        if silence >= silence_max {
            let reason = format!("nothing was heard for {} ms", silence.as_millis());
            self.break_with(&NetworkError::Broken { addr: self.shared.addr.clone(), reason });
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Fails what is under way when the task ends, however that comes about: also when its runtime shuts down.
struct BreakAtEnd(Arc<Shared>);

impl Drop for BreakAtEnd {
    fn drop(&mut self) {
        self.0.break_for("the client's runtime shut down".to_owned());
    }
}

/// A request under way; gives its slot back when it is dropped.
struct Call<'a> {
    shared: &'a Shared,
    id: u64,
    answer: Option<oneshot::Receiver<Result<Answer, NetworkError>>>,
}

impl Call<'_> {
    async fn answer(mut self) -> Result<Answer, NetworkError> {
        let answer = self.answer.take().expect("taken once");
        answer.await.unwrap_or_else(|_| Err(self.shared.broken_error()))
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        // Answered calls have left the map already; only those whose caller went away are found here.
        self.shared.state.lock().under_way.remove(&self.id);
    }
}

impl Shared {
    async fn queue(
        &self,
        kind: FrameKind,
        tail: &Bytes,
        write: impl Fn(&mut Vec<u8>),
    ) -> Result<Call<'_>, NetworkError> {
        if tail.len() as u64 > self.frame_bytes_max.min(u64::from(u32::MAX)) {
            return Err(self.too_large(tail.len()));
        }
        loop {
            // Made before the look at the outbox, so that a drain between the look and the wait is not missed.
            let drained = self.drained.notified();
            {
                let mut state = self.state.lock();
                if let Some(error) = &state.broken {
                    return Err(error.clone());
                }
                if state.outbox.bytes() < OUTBOX_BYTES_MAX {
                    return self.push(&mut state, kind, tail, write);
                }
            }
            drained.await;
        }
    }

    fn push(
        &self,
        state: &mut State,
        kind: FrameKind,
        tail: &Bytes,
        write: impl Fn(&mut Vec<u8>),
    ) -> Result<Call<'_>, NetworkError> {
        let was_empty = state.outbox.is_empty();
        let id = state.last_id + 1;
        let joined = state.outbox.joined();
        let start = joined.len();
        frame::encode_with(kind, id, tail.len(), joined, write);
        let header_bytes = joined.len() - start - frame::FIXED_BYTES;
        if header_bytes > HEADER_BYTES_MAX || (header_bytes + tail.len()) as u64 > self.frame_bytes_max {
            joined.truncate(start);
            return Err(self.too_large(header_bytes + tail.len()));
        }
        state.outbox.push_tail(tail);
        state.last_id = id;
        let (sender, answer) = oneshot::channel();
        state.under_way.insert(id, sender);
        if was_empty {
            self.filled.notify_one();
        }
        Ok(Call { shared: self, id, answer: Some(answer) })
    }

    fn too_large(&self, frame_bytes: usize) -> NetworkError {
        NetworkError::RequestTooLarge {
            addr: self.addr.clone(),
            frame_bytes: frame_bytes as u64,
            max_bytes: self.frame_bytes_max,
        }
    }

    async fn run(&self, mut stream: TcpStream) {
        let (reader, writer) = stream.split();
        let reason = tokio::select! {
            reason = self.read(reader) => reason,
            reason = self.write(writer) => reason,
        };
        self.break_for(reason);
    }

    /// Writes what is queued, one batch after another: what comes in during a write leaves with the next one.
    async fn write(&self, mut writer: WriteHalf<'_>) -> String {
        let mut batch = Outbox::default();
        loop {
            std::mem::swap(&mut batch, &mut self.state.lock().outbox);
            if batch.is_empty() {
                self.filled.notified().await;
                continue;
            }
            self.drained.notify_waiters();
            if let Err(error) = batch.write_to(&mut writer).await {
                // Tells the server at once, also where it reads no more than what has been sent.
                let _ = writer.shutdown().await;
                return error.to_string();
            }
        }
    }

    async fn read(&self, mut reader: ReadHalf<'_>) -> String {
        let mut decoder = Decoder::new(self.frame_bytes_max);
        let mut buffer = BytesMut::new();
        let mut answers = Vec::new();
        loop {
            buffer.reserve(decoder.wanted_bytes(&buffer).max(READ_BYTES));
            match reader.read_buf(&mut buffer).await {
                Ok(0) => return "the server closed it".to_owned(),
                Ok(_) => {}
                Err(error) => return error.to_string(),
            }
            let end = self.dispatch(&mut decoder, &mut buffer, &mut answers);
            // Callers are woken outside the lock, which they take next.
            for (caller, answer) in answers.drain(..) {
                let _ = caller.send(answer);
            }
            if let Err(reason) = end {
                return reason;
            }
        }
    }

    /// Takes all whole frames out of `buffer` and pairs them with their callers. Answers nobody waits for any more are
    /// dropped.
    fn dispatch(
        &self,
        decoder: &mut Decoder,
        buffer: &mut BytesMut,
        answers: &mut Vec<(Caller, Result<Answer, NetworkError>)>,
    ) -> Result<(), String> {
        let mut state = self.state.lock();
        state.heard = Clock.now();
        state.silent_since = None;
        loop {
            let (id, answer) = match decoder.decode(buffer).map_err(|error| error.to_string())? {
                None => return Ok(()),
                Some(Frame::Compact { kind, id, header, tail }) => (id, Ok((kind, header, tail))),
                Some(Frame::TooLarge { id: Some(id), frame_bytes }) => {
                    let max_bytes = self.frame_bytes_max;
                    (id, Err(NetworkError::AnswerTooLarge { addr: self.addr.clone(), frame_bytes, max_bytes }))
                }
                Some(Frame::Json(_) | Frame::TooLarge { id: None, .. }) => {
                    return Err("the server answered a compact frame in JSON".to_owned());
                }
            };
            if let Some(caller) = state.under_way.remove(&id) {
                answers.push((caller, answer));
            }
        }
    }

    fn break_for(&self, reason: String) {
        self.break_with(&NetworkError::Broken { addr: self.addr.clone(), reason });
    }

    /// The first reason stays.
    fn break_with(&self, error: &NetworkError) {
        let under_way = {
            let mut state = self.state.lock();
            if state.broken.is_some() {
                return;
            }
            state.broken = Some(error.clone());
            state.outbox = Outbox::default();
            std::mem::take(&mut state.under_way)
        };
        for (_, caller) in under_way {
            let _ = caller.send(Err(error.clone()));
        }
        self.drained.notify_waiters();
    }

    fn broken_error(&self) -> NetworkError {
        let broken = self.state.lock().broken.clone();
        broken.unwrap_or_else(|| NetworkError::Broken { addr: self.addr.clone(), reason: "its task ended".to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that reads and never answers.
    async fn silent() -> (Connection, tokio::task::JoinHandle<u64>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.unwrap_or(0)
        });
        let stream = TcpStream::connect(&addr).await.unwrap();
        (Connection::start(&addr, 1 << 20, stream), server)
    }

    async fn call(connection: &Connection) -> Result<Answer, NetworkError> {
        connection.exchange(FrameKind::Request, &Bytes::new(), |out| out.push(1)).await
    }

    #[tokio::test]
    async fn a_call_that_is_given_up_leaves_nothing_behind() {
        let (connection, _server) = silent().await;
        for _ in 0..100 {
            let given_up = tokio::time::timeout(Duration::from_millis(1), call(&connection)).await;
            assert!(given_up.is_err(), "the server never answers");
        }
        assert_eq!(connection.shared.state.lock().under_way.len(), 0);
        assert!(!connection.is_broken());
    }

    #[tokio::test]
    async fn a_silent_connection_breaks_once_silence_lasted() {
        let (connection, _server) = silent().await;
        let second = Duration::from_secs(1);
        let began = Clock.now() + second;
        connection.note_timeout(began, began + second / 2, second);
        assert!(!connection.is_broken(), "half of the time has passed");
        connection.note_timeout(began + second / 2, began + second, second);
        assert!(connection.is_broken(), "counted from the first call that timed out");
        assert!(
            matches!(call(&connection).await, Err(NetworkError::Broken { reason, .. }) if reason.contains("1000 ms"))
        );
    }

    #[tokio::test]
    async fn dropping_the_connection_closes_the_socket() {
        let (connection, server) = silent().await;
        let _ = tokio::time::timeout(Duration::from_millis(20), call(&connection)).await;
        drop(connection);
        let sent_bytes = tokio::time::timeout(Duration::from_secs(5), server).await.unwrap().unwrap();
        assert_eq!(sent_bytes, frame::FIXED_BYTES as u64 + 1);
    }
}
