//! When a server's lease counts. Pure: time is an argument, and what to do next is an answer.
//!
//! Three rules keep a lease from ever outliving what the plane promised:
//!
//! 1. It is counted from the moment the request was *sent*, less the drift margin; the plane counts from when it
//!    *received* it. So the holder's deadline comes first, as long as the two clocks run alike up to the margin.
//! 2. Once the deadline is over, nothing makes the lease count again but acquiring it anew; an answer to a renewal that
//!    comes after the deadline is worthless. A server that slept may find such answers waiting for it, and somebody may
//!    have changed the views between them.
//! 3. An acquired lease counts only after the views were read by a read that began after the answer. Whatever was
//!    decided while nobody held the lease was decided before that read, so the server knows it.

mod requests;

use std::time::Duration;

use star_core::time::Time;

pub use self::requests::{LeaseDue, LeaseReply, LeaseRequest, LeaseRequests};

/// How long leases run.
///
/// The defaults: 600 ms is short enough that a server that dies right after a renewal holds up its stars for about 0.7 s
/// (lease, planner's next look, takeover), and long enough to be no hair trigger: a renewal goes out every 200 ms, so
/// two can be lost, or the server be stalled for a third of a second, before its lease lapses. A lapse costs refused
/// reads for the time of one round trip; only a server whose lease stays away is taken out of its views. 60 ms of margin
/// is a tenth of the lease: it covers clocks that run apart by 5 % each, which is far more than a healthy one, because
/// Redis counts by a wall clock that a time daemon may be slewing, and in whole milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseConfig {
    /// From the plane's receiving a renewal to its taking the lease for free. The same at all servers.
    pub ttl: Duration,
    /// By how much earlier the holder stops counting on it.
    pub drift_margin: Duration,
}

impl Default for LeaseConfig {
    fn default() -> Self {
        Self { ttl: Duration::from_millis(600), drift_margin: Duration::from_millis(60) }
    }
}

impl LeaseConfig {
    /// Whether leases of this kind can be kept; the error is a sentence for people.
    pub fn check(&self) -> Result<(), String> {
        if self.ttl < Duration::from_millis(50) || self.ttl > Duration::from_mins(10) {
            return Err(format!("a lease of {:?} cannot be kept: take 50ms to 10min (default 600ms)", self.ttl));
        }
        if self.drift_margin < Duration::from_millis(2) || self.drift_margin > self.ttl / 2 {
            return Err(format!(
                "a drift margin of {:?} is not between 2ms and half of the lease ({:?}): take a tenth of the lease",
                self.drift_margin,
                self.ttl / 2
            ));
        }
        Ok(())
    }

    /// How long after its sending the answer to a request may still be of use.
    pub fn useful(&self) -> Duration {
        self.ttl.saturating_sub(self.drift_margin)
    }

    /// Between two renewals; also how long an attempt may take before the next one.
    pub fn renew_every(&self) -> Duration {
        self.ttl / 3
    }

    /// Between two looks at who is alive.
    pub fn look_every(&self) -> Duration {
        self.ttl / 6
    }
}

/// What the server may count on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseState {
    /// Nothing: it must answer no read.
    Lost,
    /// Held at the plane, but the views are not known yet: it must answer no read.
    NeedViews,
    /// It may answer reads before `until`.
    Holding {
        /// On the server's own clock.
        until: Time,
    },
}

/// What to do next about the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseStep {
    /// Ask the plane for the lease.
    Acquire,
    /// Read the views from the plane.
    ReadViews,
    /// Renew it.
    Renew,
    /// Nothing before this time.
    Wait(Time),
}

/// Keeps one server's lease. The driver asks for the next step, does it, and tells what came of it.
#[derive(Clone, Debug)]
pub struct LeaseKeeper {
    config: LeaseConfig,
    held: Option<Held>,
    /// No attempt goes out before.
    attempt_at: Time,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    /// When the request went out that is the reason for `until`.
    sent: Time,
    until: Time,
    /// Only a read of the views that began then or later shows all that was decided without this lease. `None`: done.
    views_from: Option<Time>,
}

impl LeaseKeeper {
    /// A keeper that holds nothing.
    pub fn new(config: LeaseConfig) -> Self {
        Self { config, held: None, attempt_at: Time::ZERO }
    }

    /// What the server may count on at `now`.
    pub fn state(&self, now: Time) -> LeaseState {
        match self.held {
            Some(Held { until, views_from: None, .. }) if now < until => LeaseState::Holding { until },
            Some(Held { until, views_from: Some(_), .. }) if now < until => LeaseState::NeedViews,
            _ => LeaseState::Lost,
        }
    }

    /// What to do at `now`. An attempt that is given is on its way: call [`Self::sent`] right before it goes out.
    pub fn step(&mut self, now: Time) -> LeaseStep {
        self.lapse(now);
        let Some(held) = self.held else {
            return if now >= self.attempt_at { LeaseStep::Acquire } else { LeaseStep::Wait(self.attempt_at) };
        };
        let renew_at = (held.sent + self.config.renew_every()).max(self.attempt_at);
        match held.views_from {
            _ if now >= renew_at => LeaseStep::Renew,
            Some(_) if now >= self.attempt_at => LeaseStep::ReadViews,
            Some(_) => LeaseStep::Wait(self.attempt_at.min(held.until)),
            None => LeaseStep::Wait(renew_at.min(held.until)),
        }
    }

    /// An attempt to acquire or renew goes out at `now`.
    pub fn sent(&mut self, now: Time) {
        self.attempt_at = now + self.config.renew_every();
    }

    /// The plane gave the lease, asked for at `sent`.
    pub fn acquired(&mut self, sent: Time, now: Time) {
        let until = self.deadline(sent);
        // Even where the lease was thought to be held all along: the plane may have thought otherwise for a while.
        self.held = (now < until).then_some(Held { sent, until, views_from: Some(now) });
        self.attempt_at = now;
    }

    /// The plane renewed the lease, asked to at `sent`. Comes too late if the lease lapsed before.
    pub fn renewed(&mut self, sent: Time, now: Time) {
        self.lapse(now);
        let until = self.deadline(sent);
        if let Some(held) = &mut self.held
            && until > held.until
        {
            (held.sent, held.until) = (sent, until);
            // The plane answers: a read of the views that failed before is due again.
            self.attempt_at = now;
        }
    }

    /// The views were read, by a read that began at `began`.
    pub fn views_read(&mut self, began: Time) {
        if let Some(held) = &mut self.held
            && held.views_from.is_some_and(|from| began >= from)
        {
            held.views_from = None;
        }
    }

    /// The plane says that the lease is not held by this server. It is acquired anew at once.
    pub fn lost(&mut self, now: Time) {
        self.held = None;
        self.attempt_at = now;
    }

    /// An attempt failed, or was refused because somebody else holds the lease: try again soon. What is held stays held.
    pub fn failed(&mut self, now: Time) {
        self.attempt_at = now + self.config.ttl / 10;
    }

    /// When the request went out that the lease counts from, and until when it counts; it may have lapsed.
    fn held(&self) -> Option<(Time, Time)> {
        self.held.map(|held| (held.sent, held.until))
    }

    fn deadline(&self, sent: Time) -> Time {
        sent + self.config.useful()
    }

    fn lapse(&mut self, now: Time) {
        if self.held.is_some_and(|held| now >= held.until) {
            self.lost(now);
        }
    }
}

#[cfg(test)]
mod tests;
