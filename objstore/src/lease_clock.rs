//! Whether a lease still runs, asked once per read: by the processor's own counter where that is sound, which costs a
//! third of the system's clock and lets the processor begin the next read meanwhile.
//!
//! A [`LeaseClock`] holds one fact at a time: "while the counter is below this number, the clock is before that lease's
//! end". It takes the fact from the system's clock anew every [`WINDOW`], and for each new lease. Why that is as good as
//! the clock stands in `DESIGN/objstore.md`.

use std::{
    fs,
    sync::atomic::{
        AtomicBool, AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
    time::Duration,
};

use star_core::{Clock, Time};

use crate::words::Words;

/// How long the counter alone is believed.
const WINDOW: Duration = Duration::from_millis(10);
/// How long before a lease's end only the clock is believed. A processor may read its counter before the loads that
/// stand in front of it are done, though by no more than it keeps instructions under way: some microseconds.
const GUARD: Duration = Duration::from_millis(1);
/// The counter's rate is known only after this time, and believed while it changes by less than a part in [`STEADY`].
const BASELINE: Duration = Duration::from_millis(10);
const STEADY: u128 = 100;
/// A fact is believed for at most so many ticks, 13 ms of a counter at 5 GHz. A counter that is further away from the limit began
/// anew.
const WINDOW_TICKS: u64 = 1 << 26;
/// A reading in which the clock and the counter are further apart than this part of the baseline says nothing of the rate.
const SHARP: u64 = 1000;

/// The clock, and a counter that runs at some steady rate.
pub(crate) trait Clocks {
    /// The counter, or None where it must not stand in for the clock.
    fn ticks(&self) -> Option<u64>;
    /// The counter, where [`Self::ticks`] has given it before.
    fn ticks_again(&self) -> u64;
    fn now(&self) -> Time;
}

/// The clocks of this machine.
#[derive(Debug)]
pub(crate) struct Machine {
    counts: bool,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        // The system itself derives its clock from the counter: then both stand still or run together. But for a
        // machine that sleeps, where the clock goes on and the counter may begin anew; so none that could.
        let source = read("/sys/devices/system/clocksource/clocksource0/current_clocksource");
        Self { counts: source.trim() == "tsc" && read("/sys/power/state").trim().is_empty() }
    }
}

impl Clocks for Machine {
    #[inline]
    fn ticks(&self) -> Option<u64> {
        (cfg!(target_arch = "x86_64") && self.counts).then(|| self.ticks_again())
    }

    #[inline]
    #[allow(unsafe_code, reason = "an instruction without a safe name")]
    fn ticks_again(&self) -> u64 {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: reads the processor's counter; every processor that a system calls "tsc" on has it.
        return unsafe { std::arch::x86_64::_rdtsc() };
        #[cfg(not(target_arch = "x86_64"))]
        unreachable!("no counter was given");
    }

    #[inline]
    fn now(&self) -> Time {
        Clock.now()
    }
}

/// One reading of both: the clock was read when the counter was between `ticks` and `ticks + spread`.
#[derive(Clone, Copy, Debug)]
struct Reading {
    ticks: u64,
    spread: u64,
    time: Time,
}

/// Words of a fact: while the counter is at most [`WINDOW_TICKS`] below the limit, the clock is before the time. The sequence is
/// odd while they change.
const SEQUENCE: usize = 0;
const LIMIT: usize = 1;
const UNTIL: usize = 2;

/// The limit for this lease, if the fact is about it.
#[inline]
pub(crate) fn limit_of(fact: &(impl Words + ?Sized), until: Time) -> Option<u64> {
    let sequence = fact.load(SEQUENCE, Acquire);
    // Acquire: they are loaded before the sequence is again.
    let (known, limit) = (fact.load(UNTIL, Acquire), fact.load(LIMIT, Acquire));
    (sequence.is_multiple_of(2) && known == until.0 && fact.load(SEQUENCE, Relaxed) == sequence).then_some(limit)
}

/// Puts another fact in its place. One thread at a time may do so.
pub(crate) fn replace(fact: &(impl Words + ?Sized), until: Time, limit: u64) {
    let sequence = fact.load(SEQUENCE, Relaxed);
    fact.store(SEQUENCE, sequence + 1, Relaxed);
    // Who sees a word of the new fact sees the odd sequence, or a later one.
    fact.fence(Release);
    fact.store(UNTIL, until.0, Relaxed);
    fact.store(LIMIT, limit, Relaxed);
    fact.store(SEQUENCE, sequence + 2, Release);
}

/// Says whether the clock is before the end of a lease. Any number of threads may share one.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct LeaseClock<C = Machine> {
    fact: [AtomicU64; 3],
    /// Whether a thread is changing the fact.
    learning: AtomicBool,
    /// False for good once the counter did not run as evenly as the clock.
    steady: AtomicBool,
    /// Ticks in [`BASELINE`], as measured first; 0 before.
    rate: AtomicU64,
    origin: Option<Reading>,
    clocks: C,
}

impl<C: Clocks> LeaseClock<C> {
    pub(crate) fn new(clocks: C) -> Self {
        let (learning, steady) = (AtomicBool::new(false), AtomicBool::new(true));
        let origin = read(&clocks);
        Self { fact: Default::default(), learning, steady, rate: AtomicU64::new(0), origin, clocks }
    }

    /// Whether the clock reads less than `until`, at some moment after all loads before this call.
    #[inline]
    pub(crate) fn is_before(&self, until: Time) -> bool {
        if let Some(limit) = limit_of(self.fact.as_slice(), until) {
            let left = limit.wrapping_sub(self.clocks.ticks_again());
            if (1..=WINDOW_TICKS).contains(&left) {
                return true;
            }
        }
        self.ask(until)
    }

    #[cold]
    #[inline(never)]
    fn ask(&self, until: Time) -> bool {
        let Some(reading) = read(&self.clocks) else { return self.clocks.now() < until };
        if self.steady.load(Relaxed)
            && let Some(ticks) = self.ticks_in_baseline(reading)
        {
            let left = until.since(reading.time).saturating_sub(GUARD).min(WINDOW);
            // A hundredth less, for what the rate may be off by.
            let window = u128::from(ticks) * left.as_nanos() / BASELINE.as_nanos() / STEADY * (STEADY - 1);
            let window = u64::try_from(window).unwrap_or(u64::MAX).min(WINDOW_TICKS);
            self.learn(until, if window > 0 { reading.ticks.wrapping_add(window) } else { 0 });
        }
        reading.time < until
    }

    /// Ticks in [`BASELINE`], once that is known well enough.
    fn ticks_in_baseline(&self, reading: Reading) -> Option<u64> {
        let origin = self.origin?;
        let (ticks, span) = (reading.ticks.wrapping_sub(origin.ticks), reading.time.since(origin.time));
        let sharp = (origin.spread.saturating_add(reading.spread)).saturating_mul(SHARP) <= ticks;
        if span < BASELINE || !sharp {
            return None;
        }
        let rate = (u128::from(ticks) * BASELINE.as_nanos() / span.as_nanos()) as u64;
        let first = match self.rate.compare_exchange(0, rate, Relaxed, Relaxed) {
            Ok(_) => rate,
            Err(first) => first,
        };
        if u128::from(rate.abs_diff(first)) * STEADY > u128::from(first) {
            self.steady.store(false, Relaxed);
            self.learn(Time::ZERO, 0);
            return None;
        }
        Some(rate)
    }

    /// Makes this the fact, unless another thread is about to.
    fn learn(&self, until: Time, limit: u64) {
        if !self.learning.swap(true, Acquire) {
            replace(self.fact.as_slice(), until, limit);
            self.learning.store(false, Release);
        }
    }
}

fn read(clocks: &impl Clocks) -> Option<Reading> {
    let ticks = clocks.ticks()?;
    let time = clocks.now();
    Some(Reading { ticks, spread: clocks.ticks()?.wrapping_sub(ticks), time })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// A machine whose counter makes 3 ticks per nanosecond, until a test has it otherwise.
    #[derive(Default)]
    struct Fake {
        ticks: Cell<u64>,
        now: Cell<u64>,
        asked: Cell<u64>,
    }

    impl Fake {
        fn pass(&self, nanoseconds: u64) {
            self.ticks.set(self.ticks.get().wrapping_add(nanoseconds * 3));
            self.now.set(self.now.get() + nanoseconds);
        }
    }

    impl Clocks for &Fake {
        fn ticks(&self) -> Option<u64> {
            Some(self.ticks_again())
        }

        fn ticks_again(&self) -> u64 {
            self.ticks.get()
        }

        fn now(&self) -> Time {
            self.asked.set(self.asked.get() + 1);
            Time(self.now.get())
        }
    }

    const MS: u64 = 1_000_000;

    fn learned(fake: &Fake, until: Time) -> LeaseClock<&Fake> {
        let clock = LeaseClock::new(fake);
        fake.pass(20 * MS);
        assert!(clock.is_before(until));
        clock
    }

    fn asks(fake: &Fake, what: impl FnOnce()) -> u64 {
        let before = fake.asked.get();
        what();
        fake.asked.get() - before
    }

    #[test]
    fn the_clock_is_asked_once_per_window() {
        let fake = Fake::default();
        let until = Time(1000 * MS);
        let clock = learned(&fake, until);
        let asked = asks(&fake, || {
            (0..900).for_each(|_| {
                fake.pass(MS / 10);
                assert!(clock.is_before(until));
            });
        });
        assert!((8..=12).contains(&asked), "{asked}");
    }

    /// Whatever the counter says, no answer is given for a moment after the lease.
    #[test]
    fn a_lease_ends_when_the_clock_says_so() {
        for left in [0, 1, 999, MS - 1, MS, MS + 1, 5 * MS, 11 * MS, 12 * MS, 50 * MS] {
            let fake = Fake::default();
            let until = Time(20 * MS + 1 + left);
            let clock = learned(&fake, until);
            while fake.now.get() + 100_000 < until.0 {
                fake.pass(100_000);
                assert!(clock.is_before(until));
            }
            fake.pass(until.0 - fake.now.get() - 1);
            assert!(clock.is_before(until));
            fake.pass(1);
            assert!(!clock.is_before(until), "{left}");
        }
    }

    #[test]
    fn a_fact_about_one_lease_says_nothing_of_another() {
        let fake = Fake::default();
        let clock = learned(&fake, Time(1000 * MS));
        assert!(!clock.is_before(Time(20 * MS)));
        assert_eq!(asks(&fake, || assert!(clock.is_before(Time(2000 * MS)))), 1);
    }

    #[test]
    fn a_counter_that_stands_somewhere_else_is_not_believed() {
        for jump in [u64::MAX - 100 * MS + 1, 100 * MS, u64::MAX / 2] {
            let fake = Fake::default();
            let until = Time(1000 * MS);
            let clock = learned(&fake, until);
            // The machine was asleep for longer than the lease.
            fake.ticks.set(fake.ticks.get().wrapping_add(jump));
            fake.now.set(until.0);
            assert!(!clock.is_before(until), "{jump}");
        }
    }

    #[test]
    fn a_counter_that_does_not_run_evenly_is_given_up() {
        let fake = Fake::default();
        let until = Time(u64::MAX);
        let clock = learned(&fake, until);
        // Stopped while the clock went on.
        fake.now.set(fake.now.get() + 10 * MS);
        fake.pass(20 * MS);
        assert!(clock.is_before(until));
        let asked = asks(&fake, || (0..10).for_each(|_| assert!(clock.is_before(until))));
        assert!(asked >= 10, "{asked}");
    }

    #[test]
    fn the_real_clock_agrees() {
        let clock = LeaseClock::new(Machine::new());
        assert!(!clock.is_before(Time(1)));
        let until = Clock.now() + Duration::from_millis(100);
        let mut last = true;
        loop {
            let before = Clock.now();
            let said = clock.is_before(until);
            assert!(!said || before < until, "it said so after the end");
            assert!(said || Clock.now() >= until, "it said no before the end");
            assert!(last || !said, "a lease that ended begins again");
            last = said;
            if !said {
                break;
            }
        }
    }
}
