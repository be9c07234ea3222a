//! Which links are slow, as far as this server knows: it finds out about those that lead to it, and is told about the others.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use star_core::{ids::ServerId, time::Time};

use super::config::LinkWatch;

/// How often a server says which links to it are slow.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// How long what it said counts.
const TOLD_FOR: Duration = Duration::from_secs(3);

/// How often the time for which a link is avoided doubles at the most: from half a minute to eight.
const DOUBLINGS_MAX: u32 = 4;

/// The most soundings of one server of which the direct copy is awaited.
const AWAITED_MAX: usize = 64;

/// The most slow links to another server that this one remembers.
const TOLD_MAX: usize = 64;

/// What a server knows of slow links.
#[derive(Debug, Default)]
pub(crate) struct SlowLinks {
    /// The slow links, and until when they count as slow; those to this server too.
    known: Vec<SlowLink>,
    /// The links to this server, by who sends.
    incoming: BTreeMap<ServerId, Incoming>,
    /// When this server last said which links to it are slow.
    told_at: Time,
    /// Whether it must say so at once.
    tell_now: bool,
    /// When it last sounded its links, the number of that sounding, and the star in which it did.
    pub(crate) sounded_at: Time,
    pub(crate) last_sounding: u64,
    pub(crate) sounded_in: usize,
}

#[derive(Clone, Copy, Debug)]
struct SlowLink {
    from: ServerId,
    to: ServerId,
    until: Time,
}

/// A link to this server, as far as soundings show.
#[derive(Debug, Default)]
struct Incoming {
    /// The last sounding that was heard directly, or was too late to be waited for.
    judged: u64,
    /// Later ones that have come over another server, and when.
    awaited: VecDeque<(u64, Time)>,
    /// How many were late, less those that were in time; never below 0, nor above what is enough.
    late: u32,
    /// Until when values went, or go, around it, 0 if they never did, and how often that time had been doubled.
    avoided_until: Time,
    doublings: u32,
}

impl SlowLinks {
    /// Whether any link is known to be slow.
    pub(crate) fn any(&self) -> bool {
        !self.known.is_empty()
    }

    pub(crate) fn is_slow(&self, from: ServerId, to: ServerId) -> bool {
        self.known.iter().any(|link| (link.from, link.to) == (from, to))
    }

    /// From which servers the links to this one are slow.
    pub(crate) fn to(&self, to: ServerId) -> impl Iterator<Item = ServerId> {
        self.known.iter().filter(move |link| link.to == to).map(|link| link.from)
    }

    /// Another server says from whom the links to it are slow.
    pub(crate) fn on_told(&mut self, now: Time, to: ServerId, senders: &[ServerId]) {
        self.known.retain(|link| link.to != to);
        self.known.extend(senders.iter().take(TOLD_MAX).map(|from| SlowLink {
            from: *from,
            to,
            until: now + TOLD_FOR,
        }));
    }

    /// Time has passed. Returns the senders of the links that are slow, if this server should say now which those are.
    pub(crate) fn on_tick(&mut self, now: Time, me: ServerId) -> Option<Vec<ServerId>> {
        if self.known.is_empty() && !self.tell_now {
            return None;
        }
        // Which of its own are over it says once; should that be lost, the others forget them by themselves.
        self.tell_now |= self.known.iter().any(|link| link.to == me && link.until <= now);
        self.known.retain(|link| link.until > now);
        let again = now.since(self.told_at) >= TELL_EVERY && self.to(me).next().is_some();
        if !std::mem::take(&mut self.tell_now) && !again {
            return None;
        }
        self.told_at = now;
        Some(self.to(me).collect())
    }

    /// A copy of a sounding has come over another server. Returns whether the link from its origin must count as slow now.
    pub(crate) fn on_passed_on(&mut self, now: Time, origin: ServerId, number: u64, watch: &LinkWatch) -> bool {
        let link = self.incoming.entry(origin).or_default();
        if number > link.judged && link.awaited.len() < AWAITED_MAX {
            link.awaited.push_back((number, now));
        }
        // The direct copies may come long after, where much waits before them.
        match link.awaited.front().copied() {
            Some((number, at)) if now.since(at) >= watch.late_by => link.judge(number, true, watch),
            _ => false,
        }
    }

    /// A sounding that another server passes on has come from its origin. Returns whether the link must count as slow now.
    pub(crate) fn on_direct(&mut self, now: Time, origin: ServerId, number: u64, watch: &LinkWatch) -> bool {
        let link = self.incoming.entry(origin).or_default();
        if number <= link.judged {
            return false;
        }
        let passed_on = link.awaited.iter().find(|(passed_on, _)| *passed_on == number);
        let is_late = passed_on.is_some_and(|(_, at)| now.since(*at) >= watch.late_by);
        link.judge(number, is_late, watch)
    }

    /// From now on values go around the link from this server.
    pub(crate) fn avoid(&mut self, now: Time, from: ServerId, me: ServerId, watch: &LinkWatch) {
        let link = self.incoming.entry(from).or_default();
        let again = link.avoided_until > Time::ZERO && now.since(link.avoided_until) < watch.avoided_for;
        link.doublings = if again { (link.doublings + 1).min(DOUBLINGS_MAX) } else { 0 };
        link.avoided_until = now + watch.avoided_for * 2_u32.pow(link.doublings);
        link.late = 0;
        link.awaited.clear();
        let until = link.avoided_until;
        self.known.push(SlowLink { from, to: me, until });
        self.tell_now = true;
    }
}

impl Incoming {
    /// Returns whether the link must count as slow now.
    fn judge(&mut self, number: u64, is_late: bool, watch: &LinkWatch) -> bool {
        self.judged = number;
        self.awaited.retain(|(awaited, _)| *awaited > number);
        self.late = if is_late { self.late + 1 } else { self.late.saturating_sub(1) }.min(watch.late_times);
        self.late >= watch.late_times
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: ServerId = ServerId(1);
    const FROM: ServerId = ServerId(0);

    /// Milliseconds of this server's clock.
    fn at(ms: u64) -> Time {
        Time(ms * 1_000_000)
    }

    /// Soundings whose direct copies come so many milliseconds after the others; the number after which the link is slow.
    fn found_after(lates: impl IntoIterator<Item = u64>) -> Option<usize> {
        let (mut slow, watch) = (SlowLinks::default(), LinkWatch::default());
        let found = lates.into_iter().enumerate().find(|(index, late)| {
            let (number, now) = (*index as u64 + 1, *index as u64 * 1000);
            let passed_on = slow.on_passed_on(at(now), FROM, number, &watch);
            passed_on || slow.on_direct(at(now + late), FROM, number, &watch)
        });
        found.map(|(index, _)| index + 1)
    }

    #[test]
    fn a_link_is_slow_that_is_late_more_often_than_not() {
        assert_eq!(found_after([20; 4]), Some(4));
        assert_eq!(found_after([9; 1000]), None);
        assert_eq!(found_after([20, 20, 20, 0, 0, 20, 20, 20]), Some(8));
        assert_eq!(found_after([20, 0].repeat(1000)), None, "a stall now and then");
    }

    /// More waits before the direct copies than can be waited for.
    #[test]
    fn a_link_is_slow_though_nothing_comes_over_it() {
        let (mut slow, watch) = (SlowLinks::default(), LinkWatch::default());
        let found = (1..=9).find(|number| slow.on_passed_on(at(number * 100), FROM, *number, &watch));
        assert_eq!(found, Some(5));
        assert!(!slow.on_direct(at(1000), FROM, 1, &watch), "judged before");
    }

    /// Direct copies that come first are in time, also where the others follow, or do not.
    #[test]
    fn what_is_passed_on_too_late_counts_for_nothing() {
        let (mut slow, watch) = (SlowLinks::default(), LinkWatch::default());
        for number in 1..100 {
            let now = number * 100;
            assert!(!slow.on_direct(at(now), FROM, number, &watch));
            assert!(!slow.on_passed_on(at(now + 50), FROM, number, &watch));
        }
    }

    #[test]
    fn a_link_that_is_slow_still_is_avoided_for_longer() {
        let (mut slow, watch) = (SlowLinks::default(), LinkWatch::default());
        let mut now = 1000;
        let mut avoided = || {
            slow.avoid(at(now), FROM, ME, &watch);
            let began = now;
            assert_eq!(slow.on_tick(at(now), ME), Some(vec![FROM]));
            assert_eq!(slow.on_tick(at(now + 20), ME), None, "said once a second");
            while slow.is_slow(FROM, ME) {
                now += 1000;
                assert!(slow.on_tick(at(now), ME).is_some_and(|senders| senders.is_empty() != slow.is_slow(FROM, ME)));
            }
            assert!(!slow.any());
            now - began
        };
        let times: Vec<u64> = (0..7).map(|_| avoided() / 1000).collect();
        assert_eq!(times, [30, 60, 120, 240, 480, 480, 480]);
        now += 31_000;
        slow.avoid(at(now), FROM, ME, &watch);
        assert_eq!(slow.on_tick(at(now + 29_000), ME), Some(vec![FROM]));
        assert_eq!(slow.on_tick(at(now + 30_000), ME), Some(vec![]), "it was fast for long");
    }

    #[test]
    fn what_another_server_says_counts_until_it_says_something_else_or_nothing() {
        let (mut slow, to) = (SlowLinks::default(), ServerId(2));
        slow.on_told(at(0), to, &[FROM, ME]);
        assert!(slow.is_slow(FROM, to) && slow.is_slow(ME, to) && !slow.is_slow(to, ME));
        slow.on_told(at(10), to, &[ME]);
        assert!(!slow.is_slow(FROM, to) && slow.is_slow(ME, to));
        assert_eq!(slow.on_tick(at(2_000), ME), None);
        assert!(slow.any());
        assert_eq!(slow.on_tick(at(3_020), ME), None);
        assert!(!slow.any());
    }
}
