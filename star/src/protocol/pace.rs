//! How fast a server takes over objects of stars that it comes into: so that its sources and links have time for clients.

use std::time::Duration;

use star_core::time::Time;

/// How far ahead of its rate a copy may be before it waits: longer than a tick, after which it goes on.
const AHEAD_MAX: Duration = Duration::from_millis(40);

/// Paces the copying of one server, all stars together.
#[derive(Debug, Default)]
pub(crate) struct CopyPace {
    /// When all that was copied so far would have come, at the rate.
    due: Time,
}

impl CopyPace {
    /// So many bytes have come. `per_second`: the rate in bytes; 0 for none.
    pub(crate) fn took(&mut self, now: Time, bytes: usize, per_second: u64) {
        let nanoseconds = (bytes as u128 * 1_000_000_000).checked_div(per_second.into()).unwrap_or(0);
        self.due = self.due.max(now) + Duration::from_nanos(nanoseconds as u64);
    }

    /// Whether nothing should be asked for now.
    pub(crate) fn must_wait(&self, now: Time) -> bool {
        self.due > now + AHEAD_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that come in a second: a part as soon as there is one to ask for, and after a wait with the next tick.
    fn copied(part_bytes: usize, per_second: u64) -> usize {
        let (mut pace, mut now, mut copied) = (CopyPace::default(), Time(0), 0);
        while now < Time(1_000_000_000) {
            if pace.must_wait(now) {
                now = Time((now.0 / 20_000_000 + 1) * 20_000_000);
                continue;
            }
            now = now + Duration::from_micros(50);
            pace.took(now, part_bytes, per_second);
            copied += part_bytes;
        }
        copied
    }

    #[test]
    fn a_copy_is_as_fast_as_its_rate_whatever_the_parts() {
        for part_bytes in [100 << 10, 256 << 10, 4 << 20] {
            let copied = copied(part_bytes, 100 << 20);
            assert!(copied > 95 << 20 && copied < 110 << 20, "{part_bytes}: {copied}");
        }
        assert!(copied(256 << 10, 0) > 4 << 30, "without a rate nothing waits");
    }
}
