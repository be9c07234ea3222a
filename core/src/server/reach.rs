//! Which of the other servers this one can reach, by what its links show. Pure: time is an argument.
//!
//! A server that is slow is reached: its kernel takes connections and acknowledges bytes while its program has no time.
//! So only two things count. A link is down and an attempt to make it again has failed (a network that swallows
//! everything breaks the link first, by the limit on unacknowledged bytes, see [`super::links`]). Or nothing at all was
//! heard for so long that a program that runs must have said something: servers greet each other all the time.

use std::{collections::BTreeMap, rc::Rc, time::Duration};

use tokio::sync::Notify;

use crate::{ids::ServerId, time::Time};

/// How long nothing must have been heard of a server that takes connections until it counts as hung: far longer than a
/// server without processor time is silent.
const SILENCE_MAX: Duration = Duration::from_mins(2);

/// What the links to all other servers show.
#[derive(Debug, Default)]
pub(super) struct Reach {
    peers: BTreeMap<ServerId, Seen>,
}

#[derive(Debug)]
struct Seen {
    /// When the first attempt began that failed, since the link was last up.
    failing_since: Option<Time>,
    heard_at: Time,
    /// Has the link made at once.
    redial: Rc<Notify>,
}

impl Reach {
    /// Looks at exactly these servers from now on.
    pub(super) fn set(&mut self, peers: impl Iterator<Item = ServerId>, now: Time) {
        let mut before = std::mem::take(&mut self.peers);
        let new = || Seen { failing_since: None, heard_at: now, redial: Rc::default() };
        self.peers = peers.map(|id| (id, before.remove(&id).unwrap_or_else(new))).collect();
    }

    /// The link to a server is made.
    pub(super) fn linked(&mut self, id: ServerId) {
        if let Some(seen) = self.peers.get_mut(&id) {
            seen.failing_since = None;
        }
    }

    /// An attempt to make the link, which began at `began`, has failed.
    pub(super) fn failed(&mut self, id: ServerId, began: Time) {
        if let Some(seen) = self.peers.get_mut(&id) {
            seen.failing_since.get_or_insert(began);
        }
    }

    /// A server has said something.
    pub(super) fn heard(&mut self, id: ServerId, now: Time) {
        if let Some(seen) = self.peers.get_mut(&id) {
            seen.heard_at = now;
        }
    }

    /// A server has connected to this one, so it can be reached: the link to it is worth an attempt at once.
    pub(super) fn greeted(&mut self, id: ServerId, now: Time) {
        self.heard(id, now);
        if let Some(seen) = self.peers.get(&id) {
            seen.redial.notify_one();
        }
    }

    /// What has the link to a server made at once.
    pub(super) fn redial(&self, id: ServerId) -> Rc<Notify> {
        self.peers.get(&id).map(|seen| Rc::clone(&seen.redial)).unwrap_or_default()
    }

    /// The servers that cannot be reached, and since when.
    pub(super) fn cut(&self, now: Time) -> BTreeMap<ServerId, Time> {
        let cut = |(id, seen): (&ServerId, &Seen)| {
            let hung_since = seen.heard_at + SILENCE_MAX;
            let since = seen.failing_since.or_else(|| (now >= hung_since).then_some(hung_since));
            since.map(|since| (*id, since))
        };
        self.peers.iter().filter_map(cut).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ServerId = ServerId(1);
    const B: ServerId = ServerId(2);

    fn at(s: u64) -> Time {
        Time(s * 1_000_000_000)
    }

    fn reach() -> Reach {
        let mut reach = Reach::default();
        reach.set([A, B].into_iter(), at(10));
        reach
    }

    #[test]
    fn only_an_attempt_that_fails_shows_that_a_server_cannot_be_reached() {
        let mut reach = reach();
        assert!(reach.cut(at(50)).is_empty(), "whoever was not tried may be reachable");
        reach.failed(A, at(20));
        reach.failed(A, at(21));
        assert_eq!(reach.cut(at(50)), BTreeMap::from([(A, at(20))]));
        reach.linked(A);
        assert!(reach.cut(at(50)).is_empty());
    }

    #[test]
    fn a_server_that_is_silent_for_a_minute_is_slow_and_one_that_is_for_long_is_hung() {
        let mut reach = reach();
        reach.heard(A, at(100));
        reach.heard(B, at(160));
        assert!(reach.cut(at(219)).is_empty());
        assert_eq!(reach.cut(at(220)), BTreeMap::from([(A, at(220))]));
        reach.heard(A, at(221));
        assert!(reach.cut(at(221)).is_empty());
    }

    #[tokio::test]
    async fn a_server_that_greets_is_dialed_at_once() {
        let mut reach = reach();
        let (redial, other) = (reach.redial(A), reach.redial(B));
        reach.greeted(A, at(20));
        let waited = tokio::time::timeout(Duration::from_mins(1), redial.notified()).await;
        assert!(waited.is_ok(), "the wait for the next attempt is over");
        assert!(tokio::time::timeout(Duration::from_millis(20), other.notified()).await.is_err());
    }

    #[test]
    fn what_is_known_stays_known_when_others_come_and_go() {
        let mut reach = reach();
        reach.failed(A, at(20));
        reach.failed(B, at(20));
        reach.set([A, ServerId(3)].into_iter(), at(30));
        assert_eq!(reach.cut(at(31)), BTreeMap::from([(A, at(20))]));
    }
}
