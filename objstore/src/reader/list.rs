//! The keys that a reader finds.

use star_core::{Key, StarId};

use super::{
    Reader, Reason,
    look::{Live, Step, Surroundings},
};
use crate::{
    block::Block,
    header::{Header, Permit, Refusal},
    index::{Extent, Table},
};

/// Buckets that are looked at under one permit: few enough that a lease which is renewed outlasts them.
const BUCKETS_AT_ONCE: u64 = 4096;
/// How often a bucket is looked at again before the server is asked.
const LOOKS_MAX: usize = 1024;

/// The keys of a store; see [`Reader::list`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Keys that have an object, in order.
    pub keys: Vec<Key>,
    /// Keys with a write under way, in order: the server knows whether they have an object.
    pub dirty: Vec<Key>,
}

impl Reader {
    /// The keys that begin with `prefix`, of all stars; or why the server must be asked.
    ///
    /// Each key by itself is as linearizable as [`Self::contains`]: what was there all the time is listed, what was not
    /// there at any time is not, and a write that was answered before this call is seen. All keys together are of no one
    /// moment. Looks at all keys, whatever the prefix: some 10 ns for each.
    pub fn list(&self, prefix: &str) -> Result<Listing, Reason> {
        self.list_among(prefix, &mut Live(&self.clock))
    }

    pub(crate) fn list_among<S: Surroundings>(&self, prefix: &str, around: &mut S) -> Result<Listing, Reason> {
        let mut found = Vec::new();
        let mut first = 0;
        loop {
            // Again each time: a bucket that is split after it was looked at moves keys behind the last one, to where they
            // are met again, and one that was split before has stored so before it closed.
            let end = Extent::load(&self.memory).used().min(self.geometry.buckets);
            let buckets = first..(first + BUCKETS_AT_ONCE).min(end);
            if buckets.is_empty() {
                break;
            }
            self.list_part(buckets.clone(), prefix, &mut found, around)?;
            first = buckets.end;
        }
        // Of a key that was met twice, clean and dirty, the second stays.
        found.sort_unstable_by(|one, other| one.0.cmp(&other.0).then(other.1.cmp(&one.1)));
        found.dedup_by(|one, other| one.0 == other.0);
        let mut listing = Listing::default();
        for (key, dirty) in found {
            if dirty { listing.dirty.push(key) } else { listing.keys.push(key) }
        }
        Ok(listing)
    }

    /// Adds the keys of some buckets, and whether they are dirty.
    fn list_part<S: Surroundings>(
        &self,
        buckets: std::ops::Range<u64>,
        prefix: &str,
        found: &mut Vec<(Key, bool)>,
        around: &mut S,
    ) -> Result<(), Reason> {
        let known = found.len();
        for _ in 0..LOOKS_MAX {
            found.truncate(known);
            let permit = self.permit_all()?;
            around.at(Step::Permitted);
            buckets.clone().try_for_each(|home| self.list_bucket(home, prefix, found, around))?;
            around.at(Step::Checked);
            match Header(&self.memory).confirm(permit, |until| around.in_time(until)) {
                Ok(()) => return Ok(()),
                Err(Refusal::Changed) => {}
                Err(Refusal::Lapsed) => return Err(Reason::NoLease),
            }
        }
        Err(Reason::Contended)
    }

    /// What a read of any star may answer by.
    fn permit_all(&self) -> Result<Permit, Reason> {
        let header = Header(&self.memory);
        let permit = header.permit(StarId(0))?;
        // The same generation means the same stars, and the permit that is confirmed is the first: its lease is the
        // earliest of all.
        (1..self.geometry.stars).try_for_each(|star| header.permit(StarId(star)).map(|_| ()))?;
        Ok(permit)
    }

    fn list_bucket<S: Surroundings>(
        &self,
        home: u64,
        prefix: &str,
        found: &mut Vec<(Key, bool)>,
        around: &mut S,
    ) -> Result<(), Reason> {
        let known = found.len();
        for _ in 0..LOOKS_MAX {
            found.truncate(known);
            if let Some(ticket) = Table::begin(&self.memory, home) {
                let mut name = Vec::new();
                let whole = self.table.each(&self.memory, home, |slot| {
                    around.at(Step::Found);
                    let Some(block) = Block::read(&self.memory, &self.geometry, slot.block_at()) else { return };
                    if block.copy_key(&self.memory, &mut name)
                        && let Ok(text) = std::str::from_utf8(&name)
                        && text.starts_with(prefix)
                    {
                        found.push((Key::new(text), slot.is_dirty()));
                    }
                });
                if whole && Table::unchanged(&self.memory, ticket) {
                    return Ok(());
                }
            }
            std::hint::spin_loop();
        }
        Err(Reason::Contended)
    }
}
