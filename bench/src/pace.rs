//! The open loop: operations are due at times of their own, whether earlier ones were answered or not.
//!
//! In a closed loop a client that waits for a stalled server asks for nothing meanwhile, so that one slow operation stands
//! for all that would have been slow: what Gil Tene called *coordinated omission*. Here each operation's latency counts from
//! when it was due.

use std::{io, time::Duration};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use star_core::Time;
use tokio::net::unix::pipe::Receiver;

/// When a client's operations are due.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    begin: Time,
    /// Nanoseconds between two operations of this client.
    every_ns: f64,
    /// Where this client's first one lies between those of the others: a share of `every_ns`.
    phase: f64,
    /// Operations that were taken.
    taken: u64,
}

impl Pace {
    /// The share of client `number` of `clients` in `rate` operations a second.
    pub(crate) fn new(rate: f64, number: usize, clients: usize, begin: Time) -> Self {
        let clients = clients as f64;
        Self { begin, every_ns: clients * 1e9 / rate, phase: number as f64 / clients, taken: 0 }
    }

    /// When the next operation is due.
    pub(crate) fn due(&self) -> Time {
        self.due_of(self.taken)
    }

    /// Takes the next operation.
    pub(crate) fn take(&mut self) {
        self.taken += 1;
    }

    /// Takes all operations that are due before `time`.
    pub(crate) fn skip_to(&mut self, time: Time) {
        self.taken = self.taken.max(self.due_before(time));
    }

    /// How many operations, taken or not, are due from `from` until just before `to`.
    pub(crate) fn due_between(&self, from: Time, to: Time) -> u64 {
        self.due_before(to) - self.due_before(from)
    }

    fn due_of(&self, number: u64) -> Time {
        // From the beginning each time, so that rounding does not add up.
        self.begin + Duration::from_nanos(((number as f64 + self.phase) * self.every_ns) as u64)
    }

    fn due_before(&self, time: Time) -> u64 {
        let about = time.since(self.begin).as_nanos() as f64 / self.every_ns - self.phase;
        // Rounding may be off by one, and the count must agree with the times.
        let mut number = (about as u64).saturating_sub(1);
        while self.due_of(number) < time {
            number += 1;
        }
        number
    }
}

/// Wakes a client when an operation is due. The runtime's own timers are for whole milliseconds, more than most operations take.
///
/// The system's timer is read like a pipe: the runtime's one way to wait for a file of another kind without unsafe code.
#[derive(Debug)]
pub(crate) struct Alarm {
    timer: Receiver,
    /// What the timer is set to, so that it is not set again at each answer.
    set: Option<Time>,
}

impl Alarm {
    pub(crate) fn new() -> io::Result<Self> {
        // The clock that `star_core::Clock` reads, so that times can be given as they are.
        let timer = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        Ok(Self { timer: Receiver::from_owned_fd_unchecked(timer)?, set: None })
    }

    /// Waits for this time. May be given up and called again, for the same time or another.
    pub(crate) async fn wait_until(&mut self, time: Time) -> io::Result<()> {
        if self.set != Some(time) {
            let it_value = Timespec { tv_sec: (time.0 / 1_000_000_000) as i64, tv_nsec: (time.0 % 1_000_000_000) as _ };
            let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value };
            timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &once)?;
            self.set = Some(time);
        }
        loop {
            self.timer.readable().await?;
            match self.timer.try_read(&mut [0; size_of::<u64>()]) {
                // What was ready was the time before this one.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => {
                    self.set = None;
                    return read.map(|_| ());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use star_core::Clock;

    use super::*;

    #[test]
    fn clients_take_turns_and_keep_the_rate() {
        let mut paces: Vec<Pace> = (0..4).map(|number| Pace::new(1000.0, number, 4, Time(500))).collect();
        let mut due = Vec::new();
        for _ in 0..250 {
            for pace in &mut paces {
                due.push(pace.due().0);
                pace.take();
            }
        }
        let wanted: Vec<u64> = (0..1000).map(|number| 500 + number * 1_000_000).collect();
        assert_eq!(due, wanted);
    }

    #[test]
    fn rounding_does_not_add_up() {
        let mut pace = Pace::new(3.0, 0, 1, Time(0));
        (0..3_000_000).for_each(|_| pace.take());
        assert_eq!(pace.due(), Time(1_000_000 * 1_000_000_000));
    }

    #[test]
    fn as_many_are_counted_as_fall_due() {
        for rate in [0.7, 3.0, 999.9, 1e4 / 3.0, 123_456.7] {
            for (number, clients) in [(0, 1), (0, 7), (6, 7)] {
                let begin = Time(1_234_567_890_123);
                let from = begin + Duration::from_millis(300);
                let to = from + Duration::from_millis(1500);
                let mut pace = Pace::new(rate, number, clients, begin);
                let counted = pace.due_between(from, to);
                let mut fell_due = 0;
                while pace.due() < to {
                    fell_due += u64::from(pace.due() >= from);
                    pace.take();
                }
                assert_eq!(counted, fell_due, "client {number} of {clients} at {rate}");
                let (mut skipping, end) = (Pace::new(rate, number, clients, begin), pace.due());
                skipping.skip_to(to);
                assert_eq!(skipping.due(), end, "client {number} of {clients} at {rate}");
                skipping.skip_to(from);
                assert_eq!(skipping.due(), end, "what was taken stays so");
            }
        }
    }

    #[test]
    fn all_clients_together_have_what_was_asked_for() {
        let (from, to) = (Time(5_000_000_000), Time(7_000_000_000));
        let all: u64 = (0..7).map(|number| Pace::new(1000.0, number, 7, Time(0)).due_between(from, to)).sum();
        assert_eq!(all, 2000);
    }

    #[tokio::test]
    async fn an_alarm_comes_no_sooner_than_its_time() {
        let mut alarm = Alarm::new().expect("a timer");
        for span in [0, 1, 300_000, 3_000_000].map(Duration::from_nanos) {
            let time = Clock.now() + span;
            alarm.wait_until(time).await.expect("an alarm");
            assert!(Clock.now() >= time);
        }
    }

    #[tokio::test]
    async fn an_alarm_that_was_given_up_does_not_come_for_the_next() {
        let mut alarm = Alarm::new().expect("a timer");
        let soon = Clock.now() + Duration::from_millis(1);
        let given_up = tokio::time::timeout(Duration::ZERO, alarm.wait_until(soon)).await;
        assert!(given_up.is_err() || Clock.now() >= soon);
        tokio::time::sleep(Duration::from_millis(5)).await;
        let later = Clock.now() + Duration::from_millis(20);
        alarm.wait_until(later).await.expect("an alarm");
        assert!(Clock.now() >= later);
    }
}
