//! Notices of what changes in the store of one server.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use compact_str::CompactString;
use star_core::{
    Clock, Time,
    message::{Local, Notice, Position, ResponseBody},
};

use super::{ClientError, PAUSE_MAX, PAUSE_MIN, StarClient, directory::Server};

/// How long a server keeps a question without an answer.
const WAIT: Duration = Duration::from_secs(2);
/// Beside that, how long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// Notices that are fetched at once.
const NOTICES: u32 = 1000;

/// What a [`Subscription`] says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A key has another object, or none any more.
    Changed(Notice),
    /// There were changes that the server does not remember any more, or another server is asked now: look at the keys
    /// themselves. What comes next is known again.
    Missed,
}

/// Notices of the keys with a prefix whose object changes in the store of one server: one of this machine if there is
/// one, and another when that ends.
///
/// It is that store's view: each change once and in the order of its key's versions, after it was committed; at the other
/// members it was or will be the same. A key that was written several times is told each time. Whoever reads slowly
/// misses some, is told so, and never holds up the server.
#[derive(Debug)]
pub struct Subscription {
    client: StarClient,
    prefix: CompactString,
    server: Arc<Server>,
    position: Option<Position>,
    events: VecDeque<Event>,
}

impl StarClient {
    /// Notices of all changes of keys with this prefix from now on; an empty one for all keys.
    pub async fn subscribe(&self, prefix: &str) -> Result<Subscription, ClientError> {
        let server = self.inner.servers.nearest();
        let (client, prefix) = (self.clone(), prefix.into());
        let mut subscription = Subscription { client, prefix, server, position: None, events: VecDeque::new() };
        subscription.fetch(Duration::ZERO).await?;
        Ok(subscription)
    }
}

impl Subscription {
    /// The next event; waits for it as long as it takes. An error only if no server has answered for as long as the client
    /// tries an operation; then it may be called again. Nothing is lost if it is dropped while it waits.
    pub async fn next(&mut self) -> Result<Event, ClientError> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            self.fetch(WAIT).await?;
        }
    }

    /// Asks once, as long as it takes to find a server that answers.
    async fn fetch(&mut self, wait: Duration) -> Result<(), ClientError> {
        let mut deadline: Option<Time> = None;
        let mut pause = PAUSE_MIN;
        loop {
            let (error, now) = match self.try_fetch(wait).await {
                Ok(()) => return Ok(()),
                Err(error) => (error, Clock.now()),
            };
            let until = *deadline.get_or_insert(now + self.client.inner.options.give_up_after);
            if !error.retry() || now + pause >= until {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
            let servers = &self.client.inner.servers;
            self.server = servers.any_but(&self.server);
        }
    }

    async fn try_fetch(&mut self, wait: Duration) -> Result<(), ClientError> {
        let question = Local::Watch {
            prefix: self.prefix.clone(),
            after: self.position,
            limit: NOTICES,
            wait_ms: wait.as_millis() as u32,
        };
        let servers = &self.client.inner.servers;
        match servers.ask_local_within(&self.server, &question, wait + ANSWER_WITHIN).await? {
            ResponseBody::Notices { notices, missed, next } => {
                self.position = Some(next);
                self.events.extend(missed.then_some(Event::Missed));
                self.events.extend(notices.into_iter().map(Event::Changed));
                Ok(())
            }
            ResponseBody::Error(failure) => Err(ClientError::Refused(failure)),
            other => Err(ClientError::unexpected(other)),
        }
    }
}
