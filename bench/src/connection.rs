//! One connection of the load: a window of requests under way, written and read in batches.

use std::{
    fmt,
    future::poll_fn,
    task::{Context, Poll},
};

use bytes::BytesMut;
use star_core::{Key, RequestId};
use tokio::{io::AsyncReadExt, net::TcpStream};

use crate::{
    BenchError,
    dialect::{Answer, Dialect, System},
    fill,
    workload::{Options, Target},
};

/// A raw connection to a server of the system that is measured.
pub(crate) struct Connection {
    addr: String,
    stream: TcpStream,
    dialect: Box<dyn Dialect>,
    out: Vec<u8>,
    buffer: BytesMut,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("addr", &self.addr).finish_non_exhaustive()
    }
}

impl Connection {
    pub(crate) async fn dial(system: &System, target: &Target) -> Result<Self, BenchError> {
        let addr = &target.addr;
        let failed = |source| BenchError::Connection { addr: addr.clone(), source };
        let stream = TcpStream::connect(addr).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let (dialect, mut out) = (system.dialect(), Vec::new());
        dialect.greeting(&mut out);
        Ok(Self { addr: addr.clone(), stream, dialect, out, buffer: BytesMut::with_capacity(64 << 10) })
    }

    pub(crate) fn queue_get(&mut self, id: u64, key: &Key) {
        self.dialect.get(id, key, &mut self.out);
    }

    pub(crate) fn queue_set(&mut self, id: u64, key: &Key, value: &[u8], request_id: RequestId) {
        self.dialect.set(id, key, value, request_id, &mut self.out);
    }

    /// Writes what is queued, and says whether that had to wait until the system took more. If it is given up, the
    /// connection is of no use any more.
    pub(crate) async fn flush(&mut self) -> Result<bool, BenchError> {
        let (mut written, mut has_waited) = (0, false);
        while written < self.out.len() {
            match self.stream.try_write(&self.out[written..]) {
                Ok(count) => written += count,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    has_waited = true;
                    self.stream.writable().await.map_err(|source| self.failed(source))?;
                }
                Err(source) => return Err(self.failed(source)),
            }
        }
        self.out.clear();
        Ok(has_waited)
    }

    /// Waits for bytes and hands each whole answer to `take`.
    pub(crate) async fn receive(&mut self, mut take: impl FnMut(Answer)) -> Result<(), BenchError> {
        self.buffer.reserve(64 << 10);
        let read = self.stream.read_buf(&mut self.buffer).await.map_err(|source| self.failed(source))?;
        if read == 0 {
            return Err(self.failed(std::io::ErrorKind::UnexpectedEof.into()));
        }
        loop {
            match self.dialect.answer(&mut self.buffer, &mut self.out) {
                Ok(Some(answer)) => take(answer),
                Ok(None) => return Ok(()),
                Err(why) => return Err(BenchError::Answer { addr: self.addr.clone(), why }),
            }
        }
    }

    fn poll_answer(&self, cx: &mut Context<'_>) -> Poll<()> {
        // An error shows when it is read.
        self.stream.poll_read_ready(cx).map(|_| ())
    }

    fn failed(&self, source: std::io::Error) -> BenchError {
        BenchError::Connection { addr: self.addr.clone(), source }
    }
}

/// The connections of one client: one, or one to each server, where writes go to whoever leads their key.
#[derive(Debug)]
pub(crate) struct Connections {
    all: Vec<Connection>,
    /// What a request without a server of its own takes.
    usual: usize,
}

impl Connections {
    /// Client `number`'s connections: to its own server alone, or to all.
    pub(crate) async fn dial(options: &Options, number: usize, all: bool) -> Result<Self, BenchError> {
        let targets = &options.targets;
        let own = number % targets.len();
        let (targets, usual) = if all { (&targets[..], own) } else { (&targets[own..=own], 0) };
        let mut connections = Vec::new();
        for target in targets {
            connections.push(fill::dial(options, target).await?);
        }
        Ok(Self { all: connections, usual })
    }

    /// The connection to this server, or to the client's own.
    pub(crate) fn to(&mut self, target: Option<usize>) -> &mut Connection {
        &mut self.all[target.unwrap_or(self.usual)]
    }

    /// Writes what is queued, as [`Connection::flush`] does.
    pub(crate) async fn flush(&mut self) -> Result<bool, BenchError> {
        let mut has_waited = false;
        for connection in self.all.iter_mut().filter(|connection| !connection.out.is_empty()) {
            has_waited |= connection.flush().await?;
        }
        Ok(has_waited)
    }

    /// Waits for bytes on any of them and hands each whole answer to `take`.
    pub(crate) async fn receive(&mut self, take: impl FnMut(Answer)) -> Result<(), BenchError> {
        let first = match self.all.len() {
            1 => 0,
            _ => poll_fn(|cx| self.poll_first(cx)).await,
        };
        self.all[first].receive(take).await
    }

    fn poll_first(&self, cx: &mut Context<'_>) -> Poll<usize> {
        match self.all.iter().position(|connection| connection.poll_answer(cx).is_ready()) {
            Some(first) => Poll::Ready(first),
            None => Poll::Pending,
        }
    }
}
