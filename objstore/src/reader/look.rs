//! One look at a key: the steps of a read, in the order that makes its answer linearizable. See "Why a read is linearizable"
//! in `DESIGN/objstore.md`.
//!
//! There are two of the same steps: a glance, for what nearly every read finds, and the look for all else.

use std::hint;

use star_core::{KeyRef, Time};

use super::{Candidate, Reader, Reason};
use crate::{
    block::Block,
    header::{Header, Refusal},
    index::Table,
    lease_clock::LeaseClock,
    memory::Memory,
};

/// How often a reader looks again at what changes under it before it asks the server instead. A change takes the
/// writer some 20 ns, unless it loses its processor in the middle.
const LOOKS_MAX: usize = 64;

/// The longest value that is taken before it is known that the block is one. A longer one waits for that.
const UNCHECKED_BYTES_MAX: usize = 4096;

/// The steps of a read, at which a test can let other things happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The lease was read; nothing of the key was.
    Permitted,
    /// The bucket that the key should be in is known; nothing of it was read.
    Aimed,
    /// The key's block was found; its value was not read.
    Found,
    /// The value was copied or pinned, but the key's bucket was not looked at again.
    Taken,
    /// All that was read is known to be of one state; the clock was not read.
    Checked,
}

/// What surrounds a read: the clock, and in tests whatever happens between its steps.
pub(crate) trait Surroundings {
    fn at(&mut self, step: Step);
    fn in_time(&mut self, until: Time) -> bool;
    /// Whether the first look may be a glance. A test of what comes after it says no.
    fn hurries(&self) -> bool {
        true
    }
}

pub(super) struct Live<'a>(pub(super) &'a LeaseClock);

impl Surroundings for Live<'_> {
    #[inline]
    fn at(&mut self, _: Step) {}

    #[inline]
    fn in_time(&mut self, until: Time) -> bool {
        self.0.is_before(until)
    }
}

impl Reader {
    /// The first look, which is for what is found at once: in the first slot that may be the key's, of its bucket itself, and
    /// clean. Of whatever else there is it says nothing, and [`Self::look`] is for that. `Err` with what was taken, if anything was
    /// that does not count.
    ///
    /// All of it becomes one function, as short as can be: while a processor waits for memory it looks some 450 instructions
    /// ahead, and if the next read is not further away than that, it begins to wait for that one as well.
    #[inline(always)]
    pub(super) fn glance<S: Surroundings, T, const ASKED: usize>(
        &self,
        key: KeyRef<'_>,
        surroundings: &mut S,
        take: impl FnOnce(Candidate<'_>) -> Option<T>,
    ) -> Result<T, Option<T>> {
        let mut taken = None;
        let in_time = self.memory.with_alias(
            #[inline(always)]
            |memory| self.glance_in::<_, T, ASKED>(memory, key, surroundings, take, &mut taken),
        );
        match (in_time, taken) {
            (Some(()), Some(taken)) => Ok(taken),
            (_, taken) => Err(taken),
        }
    }

    #[inline(always)]
    fn glance_in<S: Surroundings, T, const ASKED: usize>(
        &self,
        memory: &Memory,
        key: KeyRef<'_>,
        surroundings: &mut S,
        take: impl FnOnce(Candidate<'_>) -> Option<T>,
        taken: &mut Option<T>,
    ) -> Option<()> {
        if !surroundings.hurries() {
            return None;
        }
        let header = Header(memory);
        let permit = header.permit(key.star(self.geometry.stars)).ok()?;
        surroundings.at(Step::Permitted);

        let home = self.table.aim(memory, key.hash()).home;
        surroundings.at(Step::Aimed);
        let ticket = Table::begin(memory, home)?;
        let slot = Table::first(memory, home, key.hash())?;
        memory.prefetch(slot.block_at(), ASKED);
        let block = Block::read(memory, &self.geometry, slot.block_at())?;
        if slot.is_dirty() || !block.has_key(memory, key.as_str()) {
            return None;
        }
        surroundings.at(Step::Found);
        // Lengths that belong to no object must not make us copy gigabytes.
        if block.shape.value_bytes() > UNCHECKED_BYTES_MAX && !Table::unchanged(memory, ticket) {
            return None;
        }
        *taken = Some(take(Candidate { memory, block })?);
        surroundings.at(Step::Taken);
        if !Table::unchanged(memory, ticket) {
            return None;
        }
        surroundings.at(Step::Checked);
        header.confirm(permit, |until| surroundings.in_time(until)).ok()
    }

    /// One look; None if something changed meanwhile. The order of its steps is what makes the answer linearizable:
    /// see "Why a read is linearizable" in `DESIGN/objstore.md`.
    ///
    /// `Ok(true)` if the key has an object; then `take` was called with it. `take` returns None for what no whole
    /// block can hold. What it came to counts only if the look does.
    pub(super) fn look<S: Surroundings>(
        &self,
        key: KeyRef<'_>,
        surroundings: &mut S,
        take: impl FnOnce(Candidate<'_>) -> Option<Result<(), Reason>>,
    ) -> Option<Result<bool, Reason>> {
        let memory = &self.memory;
        let header = Header(memory);
        let permit = match header.permit(key.star(self.geometry.stars)) {
            Ok(permit) => permit,
            Err(reason) => return Some(Err(reason)),
        };
        surroundings.at(Step::Permitted);

        let aim = self.table.aim(memory, key.hash());
        surroundings.at(Step::Aimed);
        let ticket = Table::begin(memory, aim.home)?;
        let mut found = None;
        let slot = self.table.find_in(memory, aim.home, key.hash(), |slot| {
            found = Block::read(memory, &self.geometry, slot.block_at())
                .filter(|block| block.has_key(memory, key.as_str()));
            found.is_some()
        });
        surroundings.at(Step::Found);
        let taken = match (slot, found) {
            (Some((_, slot)), _) if slot.is_dirty() => {
                return Table::unchanged(memory, ticket).then_some(Err(Reason::Dirty));
            }
            (Some(_), Some(block)) => {
                // As above.
                if block.shape.value_bytes() > UNCHECKED_BYTES_MAX && !Table::unchanged(memory, ticket) {
                    return None;
                }
                if let Err(reason) = take(Candidate { memory, block })? {
                    return Some(Err(reason));
                }
                true
            }
            _ if !Table::is_home(memory, aim) => return None,
            _ => false,
        };
        surroundings.at(Step::Taken);
        if !Table::unchanged(memory, ticket) {
            return None;
        }
        surroundings.at(Step::Checked);

        match header.confirm(permit, |until| surroundings.in_time(until)) {
            Ok(()) => Some(Ok(taken)),
            Err(Refusal::Changed) => None,
            Err(Refusal::Lapsed) => Some(Err(Reason::NoLease)),
        }
    }
}

/// Looks again at what changed during the first look.
pub(super) fn again<R>(mut look: impl FnMut() -> Option<R>) -> Option<R> {
    (0..LOOKS_MAX).find_map(|_| {
        hint::spin_loop();
        look()
    })
}
