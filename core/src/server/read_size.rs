//! How much is read from a connection at once.

/// Enough for a batch, little enough that others get their turn.
const MAX: usize = 64 << 10;

/// For a connection that never says more: there may be thousands.
const MIN: usize = 4 << 10;

/// How much is read at once, in bytes: as much as comes. What is read together is answered together.
#[derive(Debug)]
pub(super) struct ReadSize(usize);

impl ReadSize {
    pub(super) fn new() -> Self {
        Self(MIN)
    }

    /// Room for the next read, where `wanted_bytes` are known to come.
    pub(super) fn room(&self, wanted_bytes: usize) -> usize {
        wanted_bytes.max(self.0).min(MAX)
    }

    /// `read_bytes` were read into room for `room_bytes`; returns whether there may be more to read.
    pub(super) fn note(&mut self, read_bytes: usize, room_bytes: usize) -> bool {
        let is_full = read_bytes == room_bytes;
        if is_full {
            self.0 = (self.0 * 4).min(MAX);
        } else if read_bytes < self.0 / 8 {
            self.0 = (self.0 / 2).max(MIN);
        }
        is_full
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_grows_with_what_comes_and_shrinks_again() {
        let mut size = ReadSize::new();
        assert_eq!((size.room(0), size.room(10_000), size.room(1 << 30)), (MIN, 10_000, MAX));
        for _ in 0..4 {
            assert!(size.note(size.room(0), size.room(0)), "full: there may be more");
        }
        assert_eq!(size.room(0), MAX);
        assert!(!size.note(MAX / 4, MAX), "all was read");
        assert_eq!(size.room(0), MAX, "about as much as it has room for");
        for _ in 0..8 {
            size.note(100, size.room(0));
        }
        assert_eq!(size.room(0), MIN);
    }
}
