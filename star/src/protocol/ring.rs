//! Rings: the orders in which members pass a write on from one to the next.

use std::hash::BuildHasher;

use rustc_hash::FxBuildHasher;
use star_core::ids::ServerId;

/// How many rings a write may choose from, to find one without a slow link.
pub(crate) const RINGS: u8 = 16;

/// The members in the order in which they pass on the write of this number, along one of its rings; the first follows the last.
/// Each write has rings of its own, the same at all members: so all links between them, in both directions, get the same
/// share. Ring 0 is the one that it takes if nothing speaks against it.
pub(crate) fn ring_of(members: &[ServerId], number: u64, ring: u8) -> Vec<ServerId> {
    let mut order = members.to_vec();
    let number = number ^ u64::from(ring) << 48;
    order.sort_unstable_by_key(|member| {
        // The hash by itself is a sum, and what is added to all members turns the ring and leaves it the same.
        let sum = FxBuildHasher.hash_one((number, *member));
        (FxBuildHasher.hash_one(sum ^ sum >> 29), *member)
    });
    order
}

/// The member after `server` on a ring.
pub(crate) fn next_on_ring(ring: &[ServerId], server: ServerId) -> ServerId {
    let place = ring.iter().position(|member| *member == server);
    ring[place.map_or(0, |place| (place + 1) % ring.len())]
}

/// The links that a write of `origin` uses on a ring: all but the one that would lead back to it.
pub(crate) fn links_of(ring: &[ServerId], origin: ServerId) -> impl Iterator<Item = (ServerId, ServerId)> {
    let start = ring.iter().position(|member| *member == origin).unwrap_or(0);
    let at = move |step: usize| ring[(start + step) % ring.len()];
    (1..ring.len()).map(move |step| (at(step - 1), at(step)))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    fn members() -> Vec<ServerId> {
        [4, 0, 7, 2, 5].map(ServerId).to_vec()
    }

    #[test]
    fn a_chain_passes_all_members_and_chains_use_all_links_alike() {
        for number_of_ring in [0, 1, RINGS - 1] {
            let members = members();
            let mut uses = BTreeMap::new();
            for number in 0..2000 {
                let ring = ring_of(&members, number, number_of_ring);
                let mut at = members[number as usize % 5];
                let links: Vec<_> = links_of(&ring, at).collect();
                let mut passed = vec![at];
                while passed.len() < 5 {
                    let next = next_on_ring(&ring, at);
                    assert_eq!(links[passed.len() - 1], (at, next));
                    *uses.entry((at, next)).or_insert(0) += 1;
                    passed.push(next);
                    at = next;
                }
                assert_eq!(links.len(), 4);
                assert_eq!(next_on_ring(&ring, at), passed[0], "the next would be the origin");
                passed.sort_unstable();
                passed.dedup();
                assert_eq!(passed.len(), 5);
            }
            // 2,000 chains of 4 links, over 20.
            assert!(uses.len() == 20 && uses.values().all(|uses| (300..500).contains(uses)), "{uses:?}");
        }
    }

    /// Of three members there are two rings, and a write finds both among its own.
    #[test]
    fn the_rings_of_a_write_differ() {
        for number in 0..1000 {
            let three: BTreeSet<_> =
                (0..RINGS).map(|ring| next_on_ring(&ring_of(&members()[..3], number, ring), ServerId(0))).collect();
            assert_eq!(three.len(), 2, "{number}");
            let five: BTreeSet<Vec<_>> =
                (0..RINGS).map(|ring| links_of(&ring_of(&members(), number, ring), ServerId(0)).collect()).collect();
            assert!(five.len() > 5, "{number}: {five:?}");
        }
    }
}
