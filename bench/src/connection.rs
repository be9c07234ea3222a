//! One connection of the load: a window of requests under way, written and read in batches.

use bytes::{Bytes, BytesMut};
use star_core::{
    Key, RequestId, Version,
    message::{
        Condition, Request, RequestBody, Response, ResponseBody, Wire,
        frame::{self, Decoder, Frame, FrameKind},
    },
    store::Encoding,
};
use tokio::net::TcpStream;

use crate::BenchError;

/// The longest answer that is taken.
const FRAME_BYTES_MAX: u64 = 128 << 20;

/// A raw connection that speaks compact frames.
#[derive(Debug)]
pub(crate) struct Connection {
    addr: String,
    stream: TcpStream,
    out: Vec<u8>,
    buffer: BytesMut,
    decoder: Decoder,
}

impl Connection {
    pub(crate) async fn dial(addr: &str) -> Result<Self, BenchError> {
        let failed = |source| BenchError::Connection { addr: addr.to_owned(), source };
        let stream = TcpStream::connect(addr).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        Ok(Self {
            addr: addr.to_owned(),
            stream,
            out: Vec::new(),
            buffer: BytesMut::with_capacity(64 << 10),
            decoder: Decoder::new(FRAME_BYTES_MAX),
        })
    }

    pub(crate) fn queue_get(&mut self, id: u64, key: Key) {
        let request = Request::from(RequestBody::Get { key });
        frame::encode(FrameKind::Request, id, &request, &[], &mut self.out);
    }

    pub(crate) fn queue_set(&mut self, id: u64, key: Key, value: &[u8], request_id: RequestId) {
        let body = RequestBody::Set { key, encoding: Encoding::Raw, condition: Condition::Always, request_id };
        frame::encode(FrameKind::Request, id, &Request { body, value: Bytes::new() }, value, &mut self.out);
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

    /// Waits for bytes and hands each whole answer to `take`: its id, what came of it, and the value.
    pub(crate) async fn receive(&mut self, mut take: impl FnMut(u64, ResponseBody, Bytes)) -> Result<(), BenchError> {
        use tokio::io::AsyncReadExt;
        self.buffer.reserve(64 << 10);
        let read = self.stream.read_buf(&mut self.buffer).await.map_err(|source| self.failed(source))?;
        if read == 0 {
            return Err(self.failed(std::io::ErrorKind::UnexpectedEof.into()));
        }
        loop {
            match self.decoder.decode(&mut self.buffer) {
                Ok(None) => return Ok(()),
                Ok(Some(Frame::Compact { kind: FrameKind::Response, id, header, tail })) => {
                    let Response { body, value } = Response::decode(&header, tail).map_err(|why| self.nonsense(why))?;
                    take(id, body, value);
                }
                Ok(Some(other)) => return Err(self.nonsense(format!("{other:?}"))),
                Err(error) => return Err(self.nonsense(error.to_string())),
            }
        }
    }

    fn failed(&self, source: std::io::Error) -> BenchError {
        BenchError::Connection { addr: self.addr.clone(), source }
    }

    fn nonsense(&self, why: String) -> BenchError {
        BenchError::Answer { addr: self.addr.clone(), why }
    }
}

/// The version that an answer names.
pub(crate) fn version_of(body: &ResponseBody) -> Option<u64> {
    match body {
        ResponseBody::Written { version: Version(version) } | ResponseBody::Value { version: Version(version), .. } => {
            Some(*version)
        }
        _ => None,
    }
}
