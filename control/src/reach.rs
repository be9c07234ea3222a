//! Of which servers this one says that it cannot reach them. Pure: time is an argument.
//!
//! A server that is dead loses its lease and needs no such word. So it is said only of servers that hold theirs, and only
//! after longer than a lease. It is taken back when a server was reachable for a while, which doubles each time that this
//! turns out to have been too early: a link that comes and goes does not take a server out of its views and back in at
//! the same pace. What is said changes at most once in a lease.

use std::collections::{BTreeMap, BTreeSet};

use star_core::{ids::ServerId, time::Time};

use crate::lease::LeaseConfig;

/// How often the time until a word is taken back doubles at the most.
const DOUBLINGS_MAX: u32 = 4;

/// How many times that time a server must have been reachable until what was before is forgotten.
const FORGOTTEN_AFTER: u32 = 8;

/// Decides what one server says about the others.
#[derive(Clone, Debug)]
pub struct ReachKeeper {
    config: LeaseConfig,
    said: BTreeSet<ServerId>,
    changed_at: Option<Time>,
    /// Those of whom it was ever said, until that is forgotten.
    peers: BTreeMap<ServerId, Peer>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Peer {
    /// How often it was said.
    times: u32,
    /// Since when it is reachable again.
    good_since: Option<Time>,
}

impl ReachKeeper {
    /// A keeper that has said nothing.
    pub fn new(config: LeaseConfig) -> Self {
        Self { config, said: BTreeSet::new(), changed_at: None, peers: BTreeMap::new() }
    }

    /// What to say at `now`. `cut`: the servers that cannot be reached, and since when; `alive`: those that hold their
    /// leases.
    pub fn say(
        &mut self,
        now: Time,
        cut: &BTreeMap<ServerId, Time>,
        alive: &BTreeSet<ServerId>,
    ) -> &BTreeSet<ServerId> {
        self.note_good(now, cut);
        if self.changed_at.is_some_and(|at| now.since(at) < self.config.ttl) {
            return &self.said;
        }
        let known: BTreeSet<ServerId> = cut.keys().chain(self.peers.keys()).copied().collect();
        let next: BTreeSet<ServerId> =
            known.into_iter().filter(|id| alive.contains(id) && self.cannot_be_reached(*id, now, cut)).collect();
        for id in next.difference(&self.said) {
            self.peers.entry(*id).or_default().times += 1;
        }
        if next != self.said {
            self.said = next;
            self.changed_at = Some(now);
        }
        &self.said
    }

    /// Whether it has nothing to say and nothing to take back.
    pub fn is_calm(&self) -> bool {
        self.said.is_empty()
    }

    fn note_good(&mut self, now: Time, cut: &BTreeMap<ServerId, Time>) {
        for (id, peer) in &mut self.peers {
            peer.good_since = (!cut.contains_key(id)).then(|| peer.good_since.unwrap_or(now));
        }
        let (config, said) = (self.config, &self.said);
        self.peers.retain(|id, peer| {
            let long = config.ttl * hold_factor(peer.times) * FORGOTTEN_AFTER;
            said.contains(id) || peer.good_since.is_none_or(|since| now.since(since) < long)
        });
    }

    fn cannot_be_reached(&self, id: ServerId, now: Time, cut: &BTreeMap<ServerId, Time>) -> bool {
        // Longer than the lease of a server that died with its link, so that its lease is over first.
        let patience = self.config.ttl + self.config.look_every() * 2;
        let peer = self.peers.get(&id).copied().unwrap_or_default();
        if cut.get(&id).is_some_and(|since| now.since(*since) >= patience) {
            return true;
        }
        let hold = self.config.ttl * hold_factor(peer.times);
        self.said.contains(&id) && peer.good_since.is_none_or(|since| now.since(since) < hold)
    }
}

fn hold_factor(times: u32) -> u32 {
    2_u32.pow(times.min(DOUBLINGS_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const B: ServerId = ServerId(1);

    fn at(ms: u64) -> Time {
        Time(ms * 1_000_000)
    }

    fn keeper() -> ReachKeeper {
        ReachKeeper::new(LeaseConfig::default())
    }

    fn cut(since: u64) -> BTreeMap<ServerId, Time> {
        BTreeMap::from([(B, at(since))])
    }

    fn alive() -> BTreeSet<ServerId> {
        BTreeSet::from([ServerId(0), B])
    }

    fn says(keeper: &mut ReachKeeper, now: u64, cut: &BTreeMap<ServerId, Time>) -> bool {
        keeper.say(at(now), cut, &alive()).contains(&B)
    }

    #[test]
    fn it_is_said_after_longer_than_a_lease_and_only_of_the_living() {
        let mut keeper = keeper();
        assert!(!says(&mut keeper, 10_000, &cut(10_000)));
        assert!(!says(&mut keeper, 10_799, &cut(10_000)), "a dead one's lease must be over first");
        assert!(keeper.say(at(10_800), &cut(10_000), &BTreeSet::new()).is_empty(), "the dead need no such word");
        assert!(says(&mut keeper, 10_800, &cut(10_000)));
    }

    #[test]
    fn it_is_taken_back_after_a_while_which_doubles_with_each_relapse() {
        let (mut keeper, mut now) = (keeper(), 10_000);
        for wanted in [1_200, 2_400, 4_800, 9_600, 9_600] {
            let since = now;
            while !says(&mut keeper, now, &cut(since)) {
                now += 10;
            }
            let healed = now + 10;
            now = healed;
            while says(&mut keeper, now, &BTreeMap::new()) {
                now += 10;
            }
            assert_eq!(now - healed, wanted);
        }
        // A long time of peace makes up for it.
        assert!(!says(&mut keeper, now + 100_000, &BTreeMap::new()));
        let again = now + 100_000;
        assert!(says(&mut keeper, again + 800, &cut(again)));
        assert!(
            !says(&mut keeper, again + 900, &BTreeMap::new()) || says(&mut keeper, again + 2_000, &BTreeMap::new())
        );
        assert!(!says(&mut keeper, again + 2_100, &BTreeMap::new()));
    }

    #[test]
    fn a_link_that_flaps_stays_reported() {
        let mut keeper = keeper();
        assert!(says(&mut keeper, 1_000, &cut(0)));
        for round in 0..50 {
            let now = 1_000 + round * 1_100;
            assert!(says(&mut keeper, now + 1_000, &BTreeMap::new()), "round {round}");
            assert!(says(&mut keeper, now + 1_099, &cut(now + 1_050)), "round {round}");
        }
    }

    #[test]
    fn what_is_said_changes_at_most_once_in_a_lease() {
        let mut keeper = keeper();
        let (mut changes, mut said) = (Vec::new(), BTreeSet::new());
        for now in (10_000..70_000).step_by(7) {
            // Servers that come and go in quick turns.
            let cut: BTreeMap<_, _> =
                (1..9).filter(|id| now / 900 % id != 0).map(|id| (ServerId(id as u16), at(now - 5_000))).collect();
            let alive = (1..9).filter(|id| now / 130 % id != 0).map(|id| ServerId(id as u16)).collect();
            let next = keeper.say(at(now), &cut, &alive).clone();
            if next != said {
                changes.push(now);
                said = next;
            }
        }
        assert!(changes.len() > 10, "{changes:?}");
        assert!(changes.windows(2).all(|pair| pair[1] - pair[0] >= 600), "{changes:?}");
    }
}
