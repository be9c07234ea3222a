//! How a client names its writes, so that one that is sent again takes effect once.

use std::{sync::Arc, time::Duration};

use parking_lot::{Mutex, RwLock};
use star_core::{
    ClientId, Clock, ErrorCode, Failure, RequestId, Time,
    message::{RequestBody, ResponseBody},
    session::Numbers,
};
use tokio::sync::Notify;

use super::ClientError;

/// How far into the future an id is dated at first, when the servers find that its date is too old.
const LEAP: Duration = Duration::from_secs(1);

/// The id under which this client writes. The servers may forget it; then it takes another.
#[derive(Debug)]
pub(super) struct Names {
    session: RwLock<Arc<Session>>,
}

#[derive(Debug)]
struct Session {
    client: ClientId,
    /// How many ids this client had before.
    renewed: u32,
    numbers: Mutex<Numbers>,
    /// The lowest number that may be sent again has moved.
    moved: Notify,
}

/// The numbers of one request. Once it is dropped the request is not sent again.
#[derive(Debug)]
pub(super) struct Ticket {
    session: Arc<Session>,
    first: u64,
    behind: u64,
    count: u64,
}

impl Names {
    pub(super) fn new() -> Self {
        Self { session: RwLock::new(Arc::new(Session::new(ClientId::draw(), 0))) }
    }

    /// Numbers for a request with `count` writes; waits while too many older ones are unfinished.
    pub(super) async fn take(&self, count: u64, deadline: Time) -> Result<Ticket, ClientError> {
        if count > RequestId::WINDOW {
            let text = format!("the request has {count} writes, and at most {} are sent at once", RequestId::WINDOW);
            return Err(ClientError::Refused(Failure::new(ErrorCode::TooLarge, text)));
        }
        let session = Arc::clone(&self.session.read());
        loop {
            let mut moved = std::pin::pin!(session.moved.notified());
            moved.as_mut().enable();
            if let Some((first, behind)) = session.numbers.lock().take(count) {
                return Ok(Ticket { session: Arc::clone(&session), first, behind, count });
            }
            if tokio::time::timeout(deadline.since(Clock.now()), moved).await.is_err() {
                let text = "this client has as many unfinished writes as it may; wait for some of them";
                return Err(ClientError::Refused(Failure::new(ErrorCode::Overloaded, text)));
            }
        }
    }

    /// The servers do not know this id, and cannot know that it is new: takes another, younger one.
    pub(super) fn renew(&self, ticket: &Ticket) {
        let mut session = self.session.write();
        if Arc::ptr_eq(&session, &ticket.session) {
            let renewed = session.renewed + 1;
            let leap = (LEAP * 2_u32.saturating_pow(renewed - 1)).as_micros() as u64;
            let drawn = ClientId::draw();
            // A clock that is behind those of others is helped up, farther each time.
            let born = drawn.born.max(session.client.born.saturating_add(leap)).min(ClientId::BORN_MAX);
            *session = Arc::new(Session::new(ClientId { born, ..drawn }, renewed));
        }
    }
}

impl Session {
    fn new(client: ClientId, renewed: u32) -> Self {
        Self { client, renewed, numbers: Mutex::default(), moved: Notify::new() }
    }
}

impl Ticket {
    /// The id of the request.
    pub(super) fn request_id(&self) -> RequestId {
        RequestId::Counted { client: self.session.client, number: self.first, behind: self.behind }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.session.numbers.lock().finish(self.first, self.count) {
            self.session.moved.notify_waiters();
        }
    }
}

/// The request id of a write, and how many writes it is; `None` for everything else.
pub(super) fn request_id(body: &mut RequestBody) -> Option<(&mut RequestId, u64)> {
    match body {
        RequestBody::Set { request_id, .. } | RequestBody::Delete { request_id, .. } => Some((request_id, 1)),
        RequestBody::SetMany { entries, request_id } => Some((request_id, entries.len() as u64)),
        _ => None,
    }
}

/// Whether the servers have refused the request, or a part of it, because they do not know its client.
pub(super) fn is_forgotten(body: &ResponseBody) -> bool {
    matches!(body, ResponseBody::Error(failure) if failure.code == ErrorCode::Forgotten)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(ticket: &Ticket) -> (u64, u64) {
        (ticket.first, ticket.behind)
    }

    #[tokio::test]
    async fn numbers_come_back_when_their_requests_end() {
        let names = Names::new();
        let far = Clock.now() + Duration::from_secs(3600);
        let first = names.take(1, far).await.unwrap();
        let second = names.take(RequestId::WINDOW - 1, far).await.unwrap();
        assert_eq!((number(&first), number(&second)), ((0, 0), (1, 1)));
        let refused = names.take(1, Clock.now()).await.unwrap_err();
        assert!(matches!(refused, ClientError::Refused(failure) if failure.code == ErrorCode::Overloaded));
        let (third, ()) = tokio::join!(names.take(1, far), async { drop(first) });
        assert_eq!(number(&third.unwrap()), (RequestId::WINDOW, RequestId::WINDOW - 1), "it waited for the first");
        let refused = names.take(RequestId::WINDOW + 1, far).await.unwrap_err();
        assert!(matches!(refused, ClientError::Refused(failure) if failure.code == ErrorCode::TooLarge));
    }

    #[tokio::test]
    async fn a_forgotten_client_comes_back_younger() {
        let names = Names::new();
        let far = Clock.now() + Duration::from_secs(3600);
        let old = names.take(1, far).await.unwrap();
        names.renew(&old);
        let young = names.take(1, far).await.unwrap();
        assert!(young.session.client.born > old.session.client.born && number(&young) == (0, 0));
        names.renew(&old);
        let same = names.take(1, far).await.unwrap();
        assert_eq!(same.session.client, young.session.client, "another request has renewed it before");
        for _ in 0..80 {
            let ticket = names.take(1, far).await.unwrap();
            names.renew(&ticket);
        }
        assert!(names.session.read().client.born <= ClientId::BORN_MAX);
    }
}
