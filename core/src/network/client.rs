//! A pool of connections to one address.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{net::TcpStream, time::timeout};

use super::{
    NetworkError,
    connection::{Answer, Connection},
};
use crate::{
    message::{Request, Response, Wire, frame::FrameKind},
    time::{Clock, Time},
};

/// How a [`TcpClient`] behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientOptions {
    /// Connections to the address; at least one is made, and each only when it is first used.
    pub pool_size: usize,
    /// How long making a connection may take.
    pub connect_timeout: Duration,
    /// How long a request may take, from the call to the answer, unless the call says otherwise. A connection on which
    /// nothing at all was heard for so long while calls timed out is given up.
    pub request_timeout: Duration,
    /// The most bytes that header and tail of a frame may have, in both directions.
    pub frame_bytes_max: u64,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            pool_size: 2,
            connect_timeout: Duration::from_secs(1),
            request_timeout: Duration::from_secs(5),
            // As much as a server takes by default: room for the greatest object, also as JSON.
            frame_bytes_max: 96 << 20,
        }
    }
}

/// Sends requests to one address, many at a time, and connects when it needs to.
///
/// Cheap to clone; clones share the pool. Works on every tokio runtime; a connection lives on the runtime of the call
/// that made it. After a failed attempt to connect, further ones are made after 10 ms, then 20 ms, and so on up to 1 s;
/// calls in between fail at once, so that their callers can go to another server.
#[derive(Clone, Debug)]
pub struct TcpClient {
    pool: Arc<Pool>,
}

#[derive(Debug)]
struct Pool {
    addr: String,
    options: ClientOptions,
    slots: Box<[Slot]>,
    /// Counts calls, to spread them over the slots.
    turn: AtomicUsize,
    backoff: Mutex<Backoff>,
}

#[derive(Debug, Default)]
struct Slot {
    connection: Mutex<Option<Arc<Connection>>>,
    /// Held by the call that dials for everyone who waits for this slot.
    dialling: tokio::sync::Mutex<()>,
}

impl TcpClient {
    /// A client of the server at `addr` (`host:port`). Connects when first used, or in [`TcpClient::connect`].
    pub fn new(addr: String, options: ClientOptions) -> Self {
        let slots = (0..options.pool_size.max(1)).map(|_| Slot::default()).collect();
        let pool = Pool { addr, options, slots, turn: AtomicUsize::new(0), backoff: Mutex::default() };
        Self { pool: Arc::new(pool) }
    }

    /// The address this client talks to.
    pub fn addr(&self) -> &str {
        &self.pool.addr
    }

    /// Makes all connections of the pool now.
    pub async fn connect(&self) -> Result<(), NetworkError> {
        for slot in &self.pool.slots {
            self.pool.connected(slot).await?;
        }
        Ok(())
    }

    /// Ends all connections; requests under way fail with `error`. The next call connects again.
    pub fn disconnect(&self, error: &NetworkError) {
        for slot in &self.pool.slots {
            if let Some(connection) = slot.connection.lock().take() {
                connection.break_with(error);
            }
        }
        *self.pool.backoff.lock() = Backoff::default();
    }

    /// Sends a request and waits for its answer. A refusal by the server is an answer like others.
    pub async fn call(&self, request: &Request) -> Result<Response, NetworkError> {
        let write = |out: &mut Vec<u8>| request.encode_header(out);
        let (kind, header, tail) =
            self.send(FrameKind::Request, request.tail(), write, self.pool.options.request_timeout).await?;
        if kind != FrameKind::Response {
            return Err(self.unexpected(format!("a frame of kind {kind:?} answers a request")));
        }
        Response::decode(&header, tail).map_err(|reason| self.unexpected(reason))
    }

    /// Sends a frame of any kind and waits for the frame that answers it: its kind, header and tail.
    pub async fn exchange(&self, kind: FrameKind, header: &[u8], tail: Bytes) -> Result<Answer, NetworkError> {
        self.exchange_within(kind, header, tail, self.pool.options.request_timeout).await
    }

    /// Like [`TcpClient::exchange`], with a time limit of its own: for questions that are answered late on purpose.
    pub async fn exchange_within(
        &self,
        kind: FrameKind,
        header: &[u8],
        tail: Bytes,
        limit: Duration,
    ) -> Result<Answer, NetworkError> {
        self.send(kind, &tail, |out| out.extend_from_slice(header), limit).await
    }

    async fn send(
        &self,
        kind: FrameKind,
        tail: &Bytes,
        write: impl Fn(&mut Vec<u8>),
        limit: Duration,
    ) -> Result<Answer, NetworkError> {
        let began = Clock.now();
        // Kept outside the timed part: what is known of the connection when the time is over.
        let mut used = None;
        let exchange = async {
            let connection = used.insert(self.pool.connection().await?);
            connection.exchange(kind, tail, write).await
        };
        if let Ok(answer) = timeout(limit, exchange).await {
            return answer;
        }
        let now = Clock.now();
        if let Some(connection) = used {
            connection.note_timeout(began, now, self.pool.options.request_timeout);
        }
        Err(NetworkError::TimedOut { addr: self.pool.addr.clone(), waited_ms: now.since(began).as_millis() as u64 })
    }

    fn unexpected(&self, reason: String) -> NetworkError {
        NetworkError::Unexpected { addr: self.pool.addr.clone(), reason }
    }
}

impl Pool {
    async fn connection(&self) -> Result<Arc<Connection>, NetworkError> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        self.connected(&self.slots[turn % self.slots.len()]).await
    }

    async fn connected(&self, slot: &Slot) -> Result<Arc<Connection>, NetworkError> {
        if let Some(connection) = slot.live() {
            return Ok(connection);
        }
        let _dialling = slot.dialling.lock().await;
        if let Some(connection) = slot.live() {
            return Ok(connection);
        }
        self.may_dial()?;
        match timeout(self.options.connect_timeout, self.dial()).await {
            Ok(Ok(connection)) => {
                *self.backoff.lock() = Backoff::default();
                let connection = Arc::new(connection);
                *slot.connection.lock() = Some(Arc::clone(&connection));
                Ok(connection)
            }
            Ok(Err(error)) => Err(self.dial_failed(error.to_string())),
            Err(_) => {
                Err(self.dial_failed(format!("no connection within {} ms", self.options.connect_timeout.as_millis())))
            }
        }
    }

    async fn dial(&self) -> std::io::Result<Connection> {
        let stream = TcpStream::connect(&self.addr).await?;
        stream.set_nodelay(true)?;
        Ok(Connection::start(&self.addr, self.options.frame_bytes_max, stream))
    }

    fn may_dial(&self) -> Result<(), NetworkError> {
        let backoff = self.backoff.lock();
        let wait = backoff.next_attempt.since(Clock.now());
        if wait.is_zero() { Ok(()) } else { Err(self.unreachable(backoff.reason.clone(), wait)) }
    }

    fn dial_failed(&self, reason: String) -> NetworkError {
        let wait = self.backoff.lock().failed(Clock.now(), reason.clone());
        self.unreachable(reason, wait)
    }

    fn unreachable(&self, reason: String, wait: Duration) -> NetworkError {
        NetworkError::Unreachable { addr: self.addr.clone(), reason, retry_in_ms: wait.as_millis() as u64 }
    }
}

impl Slot {
    fn live(&self) -> Option<Arc<Connection>> {
        self.connection.lock().as_ref().filter(|connection| !connection.is_broken()).cloned()
    }
}

/// When to dial again an address that could not be reached.
#[derive(Debug, Default)]
struct Backoff {
    next_attempt: Time,
    wait: Duration,
    reason: String,
}

impl Backoff {
    const WAIT_MIN: Duration = Duration::from_millis(10);
    const WAIT_MAX: Duration = Duration::from_secs(1);

    /// Takes notice of a failed attempt, and returns how long to wait for the next. Attempts that fail together, one
    /// for each slot of the pool, count as one.
    fn failed(&mut self, now: Time, reason: String) -> Duration {
        if now >= self.next_attempt {
            self.wait = (self.wait * 2).clamp(Self::WAIT_MIN, Self::WAIT_MAX);
            self.next_attempt = now + self.wait;
            self.reason = reason;
        }
        self.next_attempt.since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_from_10_ms_to_1_s() {
        let mut backoff = Backoff::default();
        let mut now = Time(1);
        let mut waits_ms = Vec::new();
        for _ in 0..9 {
            let wait = backoff.failed(now, "refused".to_owned());
            assert_eq!(
                backoff.failed(now, "refused".to_owned()),
                wait,
                "the attempt of another slot counts as the same"
            );
            waits_ms.push(wait.as_millis());
            now = now + wait;
        }
        assert_eq!(waits_ms, [10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
    }

    #[test]
    fn clients_can_be_shared_between_threads() {
        fn shared<T: Clone + Send + Sync + 'static>(_: &T) {}
        fn sent<T: Send>(_: T) {}
        let client = TcpClient::new("127.0.0.1:1".to_owned(), ClientOptions::default());
        shared(&client);
        sent(client.exchange(FrameKind::Control, &[], Bytes::new()));
    }
}
