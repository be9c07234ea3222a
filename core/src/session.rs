//! What a typed client needs to name its writes: an id of its own, and the numbers that it has not done with.

use std::{
    collections::VecDeque,
    hash::{BuildHasher, Hasher, RandomState},
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{
    ids::{ClientId, RequestId},
    time::Clock,
};

/// A number that no other process is likely to draw: the standard library seeds its hashes from the system.
pub fn random_number() -> u64 {
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u64(Clock.now().0);
    hasher.write_u32(std::process::id());
    hasher.finish()
}

impl ClientId {
    /// A new client, born now.
    #[allow(
        clippy::disallowed_methods,
        reason = "a client's date is the machines' common one; nothing safe rests on it"
    )]
    pub fn draw() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let born = u64::try_from(now.as_micros()).unwrap_or(Self::BORN_MAX).clamp(1, Self::BORN_MAX);
        Self { born, draw: random_number() as u32 }
    }
}

/// Numbers given one after another, and which of them are done with.
#[derive(Clone, Debug, Default)]
pub struct Numbers {
    /// The lowest number that is not done with.
    lowest: u64,
    /// For each number from `lowest` on that was given: whether it is done with. The first never is.
    done: VecDeque<bool>,
}

impl Numbers {
    /// The next `count` numbers, as the first of them and how far it is from the lowest that is not done with; `None` if
    /// that would be more than a [`RequestId::WINDOW`].
    pub fn take(&mut self, count: u64) -> Option<(u64, u64)> {
        let behind = self.done.len() as u64;
        if behind + count > RequestId::WINDOW {
            return None;
        }
        self.done.resize(self.done.len() + count as usize, false);
        Some((self.lowest + behind, behind))
    }

    /// How far a number that is not done with is from the lowest one.
    pub fn behind(&self, number: u64) -> u64 {
        number.saturating_sub(self.lowest)
    }

    /// These numbers will not be sent again; true if the lowest has moved.
    pub fn finish(&mut self, first: u64, count: u64) -> bool {
        for number in first..first + count {
            let place = number.checked_sub(self.lowest).and_then(|place| self.done.get_mut(place as usize));
            if let Some(done) = place {
                *done = true;
            }
        }
        let before = self.lowest;
        while self.done.front() == Some(&true) {
            self.done.pop_front();
            self.lowest += 1;
        }
        self.lowest != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_moves_over_what_is_done_with() {
        let mut numbers = Numbers::default();
        assert_eq!([1, 3, 1].map(|count| numbers.take(count)), [Some((0, 0)), Some((1, 1)), Some((4, 4))]);
        assert!(!numbers.finish(1, 3), "0 may still be sent again");
        assert_eq!([0, 4].map(|number| numbers.behind(number)), [0, 4]);
        assert_eq!(numbers.take(1), Some((5, 5)));
        assert!(numbers.finish(0, 1));
        assert_eq!(numbers.take(1), Some((6, 2)), "4 is the lowest now");
        assert!(!numbers.finish(0, 1), "done with long ago");
        assert!(numbers.finish(4, 3));
        assert_eq!(numbers.take(1), Some((7, 0)));
    }

    #[test]
    fn no_more_than_a_window_is_given() {
        let mut numbers = Numbers::default();
        assert_eq!(numbers.take(RequestId::WINDOW), Some((0, 0)));
        assert_eq!(numbers.take(1), None);
        numbers.finish(0, 1);
        assert_eq!(numbers.take(1), Some((RequestId::WINDOW, RequestId::WINDOW - 1)));
    }

    #[test]
    fn clients_are_born_one_after_another() {
        let (first, second) = (ClientId::draw(), ClientId::draw());
        assert!(first != second && first.born <= second.born + 60_000_000, "{first} {second}");
    }
}
