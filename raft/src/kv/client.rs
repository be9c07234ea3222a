//! [`KvClient`]: puts and gets literals at whichever server leads.

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use star_core::{
    ClientId, Clock, ErrorCode, Key, RequestId, Version,
    message::{Condition, Request, RequestBody, Response, ResponseBody},
    network::{ClientOptions, TcpClient},
    session::Numbers,
    store::Encoding,
};

use super::machine::text;

/// Before the servers are asked again, where none of them answered.
const PAUSE: Duration = Duration::from_millis(50);

/// A client with an id of its own. One request at a time.
#[derive(Debug)]
pub struct KvClient {
    servers: Vec<TcpClient>,
    /// The one that answered last.
    leader: usize,
    id: ClientId,
    numbers: Numbers,
    give_up_after: Duration,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum KvClientError {
    /// No server did it in time.
    #[error("no server answered as a leader within {after:?}; at last, {last}")]
    NoAnswer {
        /// How long it was tried.
        after: Duration,
        /// What was heard last.
        last: String,
    },
    /// It was refused for good.
    #[error("{0}")]
    Refused(String),
}

impl KvClient {
    /// Client number `id` of these servers (`host:port`). A request is tried for so long.
    pub fn new(servers: &[String], id: u32, give_up_after: Duration) -> Self {
        let options = ClientOptions { pool_size: 1, ..ClientOptions::default() };
        let servers = servers.iter().map(|addr| TcpClient::new(addr.clone(), options.clone())).collect();
        // The date tells this life of the client from an earlier one of the same number.
        let id = ClientId { draw: id, ..ClientId::draw() };
        Self { servers, leader: 0, id, numbers: Numbers::default(), give_up_after }
    }

    /// Makes `value` the key's value; its version. Takes effect once, however often it has to be sent.
    pub async fn put(&mut self, key: &Value, value: &Value) -> Result<Version, KvClientError> {
        let (encoding, value) = match value {
            Value::String(text) => (Encoding::Raw, text.clone()),
            other => (Encoding::Json, other.to_string()),
        };
        let (number, behind) = self.numbers.take(1).ok_or_else(|| unexpected("its window is full"))?;
        let request_id = RequestId::Counted { client: self.id, number, behind };
        let body = RequestBody::Set { key: key_of(key), encoding, condition: Condition::Always, request_id };
        let answer = self.call(Request { body, value: Bytes::from(value) }).await;
        self.numbers.finish(number, 1);
        match answer?.body {
            ResponseBody::Written { version } => Ok(version),
            other => Err(unexpected(other)),
        }
    }

    /// The key's value, as the text of its literal, and its version.
    pub async fn get(&mut self, key: &Value) -> Result<Option<(String, Version)>, KvClientError> {
        let answer = self.call(RequestBody::Get { key: key_of(key) }.into()).await?;
        match answer.body {
            ResponseBody::Value { version, encoding } => Ok(Some((text(encoding, &answer.value), version))),
            ResponseBody::NotFound => Ok(None),
            other => Err(unexpected(other)),
        }
    }

    /// What each server says of itself, as JSON, or why it says nothing.
    pub async fn status(&self) -> Vec<(String, String)> {
        let mut said = Vec::new();
        for server in &self.servers {
            let text = match server.call(&RequestBody::Status.into()).await {
                Ok(Response { body: ResponseBody::Status(status), .. }) => status,
                Ok(other) => format!("{:?}", other.body),
                Err(error) => error.to_string(),
            };
            said.push((server.addr().to_owned(), text));
        }
        said
    }

    async fn call(&mut self, request: Request) -> Result<Response, KvClientError> {
        let ends = Clock.now() + self.give_up_after;
        loop {
            let mut last = "no server was asked".to_owned();
            for _ in 0..self.servers.len() {
                match self.servers[self.leader].call(&request).await {
                    Ok(Response { body: ResponseBody::Error(failure), .. }) if failure.code.retry() => {
                        last = format!("{} says: {}", self.servers[self.leader].addr(), failure.message);
                        if failure.code == ErrorCode::NoSpace {
                            return Err(KvClientError::Refused(last));
                        }
                    }
                    Ok(Response { body: ResponseBody::Error(failure), .. }) => {
                        return Err(KvClientError::Refused(failure.message));
                    }
                    Ok(answer) => return Ok(answer),
                    Err(error) => last = error.to_string(),
                }
                self.leader = (self.leader + 1) % self.servers.len();
                if Clock.now() > ends {
                    return Err(KvClientError::NoAnswer { after: self.give_up_after, last });
                }
            }
            tokio::time::sleep(PAUSE).await;
            if Clock.now() > ends {
                return Err(KvClientError::NoAnswer { after: self.give_up_after, last });
            }
        }
    }
}

/// A literal as a key: its JSON text, so that 1 and "1" are two keys.
fn key_of(literal: &Value) -> Key {
    Key::new(literal.to_string())
}

fn unexpected(what: impl std::fmt::Debug) -> KvClientError {
    KvClientError::Refused(format!("an answer that fits nothing that was asked: {what:?}"))
}
