//! Keeping a lease by several requests at a time, so that a plane that answers late does not end it. Pure, like the keeper.
//!
//! An answer may come as late as the lease is long and still be of use, for it counts from the sending of its own request.
//! So none is given up for a later one; and while the plane is slow, requests go out more often than it answers, or each
//! lease would have run out when the next one is granted. Why that is as safe as one at a time:
//!
//! * An older answer never shortens the lease ([`LeaseKeeper::renewed`]), and none revives one that has lapsed.
//! * A second acquisition that is granted while the first one's lease runs here was granted while that ran at the plane, which
//!   counts longer; so it is a renewal. Whichever of the two came to the plane first, it held the lease all along from that
//!   moment on, and the views are read by a read that began after an answer to one of them.
//! * What was asked under a lease that has lapsed or was lost is forgotten, but for acquisitions.

use std::collections::BTreeMap;

use star_core::time::Time;

use super::{LeaseConfig, LeaseKeeper, LeaseState};

/// The most requests that are under way at one time.
const UNDER_WAY_MAX: usize = 8;

/// What the plane is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseRequest {
    /// For the lease.
    Acquire,
    /// To lengthen it.
    Renew,
    /// For the views.
    ReadViews,
}

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseReply {
    /// The plane did it; the views were read and taken in.
    Done,
    /// It says that somebody else has the lease, or that this server has not.
    Refused,
    /// No answer, or none of use.
    Failed,
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseDue {
    /// Ask the plane this: see [`LeaseRequests::sent`].
    Ask(LeaseRequest),
    /// Nothing before this time, unless an answer comes.
    Wait(Time),
}

/// Keeps one server's lease, by requests of which several may be under way.
#[derive(Clone, Debug)]
pub struct LeaseRequests {
    config: LeaseConfig,
    keeper: LeaseKeeper,
    /// By their numbers: what was asked, and when.
    under_way: BTreeMap<u64, (LeaseRequest, Time)>,
    last_number: u64,
    /// The lease is not asked for, and the views are not read, before.
    ask_at: Time,
    read_at: Time,
}

impl LeaseRequests {
    /// Of a server that holds nothing.
    pub fn new(config: LeaseConfig) -> Self {
        let keeper = LeaseKeeper::new(config);
        Self { config, keeper, under_way: BTreeMap::new(), last_number: 0, ask_at: Time::ZERO, read_at: Time::ZERO }
    }

    /// What the server may count on at `now`.
    pub fn state(&self, now: Time) -> LeaseState {
        self.keeper.state(now)
    }

    /// Whether an answer about the lease is waited for.
    pub fn is_waiting(&self) -> bool {
        self.under_way.values().any(|(what, _)| *what != LeaseRequest::ReadViews)
    }

    /// What to do at `now`.
    pub fn due(&mut self, now: Time) -> LeaseDue {
        let is_reading = self.under_way.values().any(|(what, _)| *what == LeaseRequest::ReadViews);
        let (what, until, at) = match self.keeper.held() {
            Some((sent, until)) if now < until => {
                let needs_views = self.keeper.state(now) == LeaseState::NeedViews && !is_reading;
                if needs_views && now >= self.read_at {
                    return LeaseDue::Ask(LeaseRequest::ReadViews);
                }
                let until = if needs_views { until.min(self.read_at) } else { until };
                (LeaseRequest::Renew, until, self.ask_at.max(sent + self.config.renew_every()))
            }
            _ => {
                self.forget_but_acquisitions();
                (LeaseRequest::Acquire, Time(u64::MAX), self.ask_at)
            }
        };
        let has_room = self.under_way.len() < UNDER_WAY_MAX;
        if now >= at && has_room {
            return LeaseDue::Ask(what);
        }
        // Each of those that take up the room ends by itself.
        let at = if has_room { at } else { now + self.config.look_every() };
        LeaseDue::Wait(at.min(until))
    }

    /// A request goes out at `now`; its answer is told under this number.
    pub fn sent(&mut self, what: LeaseRequest, now: Time) -> u64 {
        self.last_number += 1;
        self.under_way.insert(self.last_number, (what, now));
        if what != LeaseRequest::ReadViews {
            self.ask_at = now + self.config.look_every();
        }
        self.last_number
    }

    /// What came of a request.
    pub fn answered(&mut self, number: u64, reply: LeaseReply, now: Time) {
        let Some((what, sent)) = self.under_way.remove(&number) else { return };
        let again = now + self.config.ttl / 10;
        match (what, reply) {
            (LeaseRequest::Acquire, LeaseReply::Done) if self.keeper.state(now) == LeaseState::Lost => {
                self.forget_but_acquisitions();
                self.keeper.acquired(sent, now);
                self.read_at = now;
            }
            (LeaseRequest::Acquire | LeaseRequest::Renew, LeaseReply::Done) => self.keeper.renewed(sent, now),
            (LeaseRequest::Renew, LeaseReply::Refused) => {
                self.forget_but_acquisitions();
                self.keeper.lost(now);
                self.ask_at = now;
            }
            (LeaseRequest::ReadViews, LeaseReply::Done) => self.keeper.views_read(sent),
            (LeaseRequest::ReadViews, _) => self.read_at = again,
            (LeaseRequest::Acquire | LeaseRequest::Renew, _) => self.ask_at = self.ask_at.max(again),
        }
    }

    /// Whatever is answered from now on does not count.
    pub fn forget(&mut self) {
        self.under_way.clear();
    }

    fn forget_but_acquisitions(&mut self) {
        self.under_way.retain(|_, (what, _)| *what == LeaseRequest::Acquire);
    }
}

#[cfg(test)]
mod tests;
