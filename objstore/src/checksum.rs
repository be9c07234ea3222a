//! Hashes of values. Large ones are hashed while they arrive, so that publishing them does not read them again.

use star_core::collections::Map;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// The hash of a whole value.
pub(crate) fn of_value(value: &[u8]) -> u64 {
    xxh3_64(value)
}

/// The large values that are being filled.
#[derive(Default)]
pub(crate) struct Arriving {
    places: Map<u64, Progress>,
    /// Used before, kept so that a large write does not allocate.
    spare: Vec<Xxh3>,
}

struct Progress {
    hasher: Xxh3,
    /// Bytes hashed, which are the first ones of the value.
    hashed_bytes: usize,
    /// False once bytes came out of order: then the value is hashed at the end.
    in_order: bool,
}

const SPARE_MAX: usize = 16;

impl Arriving {
    pub(crate) fn start(&mut self, place: u64) {
        let mut hasher = self.spare.pop().unwrap_or_default();
        hasher.reset();
        self.places.insert(place, Progress { hasher, hashed_bytes: 0, in_order: true });
    }

    pub(crate) fn fill(&mut self, place: u64, offset: usize, bytes: &[u8]) {
        let Some(progress) = self.places.get_mut(&place) else { return };
        if offset == progress.hashed_bytes {
            progress.hasher.update(bytes);
            progress.hashed_bytes += bytes.len();
        } else {
            progress.in_order = false;
        }
    }

    /// The hash of the value if all of its bytes came in order.
    pub(crate) fn finish(&mut self, place: u64, value_bytes: usize) -> Option<u64> {
        let progress = self.places.remove(&place)?;
        let hash = (progress.in_order && progress.hashed_bytes == value_bytes).then(|| progress.hasher.digest());
        if self.spare.len() < SPARE_MAX {
            self.spare.push(progress.hasher);
        }
        hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_in_order_give_the_hash_of_the_whole() {
        let value: Vec<u8> = (0..10_000u32).map(|i| i as u8).collect();
        let mut arriving = Arriving::default();
        for piece in [1, 100, 4096, 10_000] {
            arriving.start(1);
            for (i, bytes) in value.chunks(piece).enumerate() {
                arriving.fill(1, i * piece, bytes);
            }
            assert_eq!(arriving.finish(1, value.len()), Some(of_value(&value)));
        }
    }

    #[test]
    fn gaps_repeats_and_missing_ends_are_not_vouched_for() {
        let mut arriving = Arriving::default();
        for fills in [&[(1, 9)][..], &[(0, 5), (0, 5), (5, 5)], &[(0, 9)], &[(0, 5), (6, 4)]] {
            arriving.start(1);
            for (offset, len) in fills {
                arriving.fill(1, *offset, &vec![7; *len]);
            }
            assert_eq!(arriving.finish(1, 10), None, "{fills:?}");
        }
    }
}
