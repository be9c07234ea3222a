//! One connection of the load: a window of requests under way, written and read in batches.

use std::fmt;

use bytes::BytesMut;
use star_core::{Key, RequestId};
use tokio::{io::AsyncReadExt, net::TcpStream};

use crate::{
    BenchError,
    dialect::{Answer, Dialect, System},
    workload::Target,
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

    /// Writes what is queued.
    pub(crate) async fn flush(&mut self) -> Result<(), BenchError> {
        let mut written = 0;
        while written < self.out.len() {
            match self.stream.try_write(&self.out[written..]) {
                Ok(count) => written += count,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    self.stream.writable().await.map_err(|source| self.failed(source))?;
                }
                Err(source) => return Err(self.failed(source)),
            }
        }
        self.out.clear();
        Ok(())
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

    fn failed(&self, source: std::io::Error) -> BenchError {
        BenchError::Connection { addr: self.addr.clone(), source }
    }
}
