//! The open loop: operations are due at times of their own, whether earlier ones were answered or not.
//!
//! In a closed loop a client that waits for a stalled server asks for nothing meanwhile, so that one slow operation stands for
//! all that would have been slow: what Gil Tene called *coordinated omission*. Here each operation's latency counts from when
//! it was due.

use std::{future::pending, io, time::Duration};

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
        // From the beginning each time, so that rounding does not add up.
        self.begin + Duration::from_nanos(((self.taken as f64 + self.phase) * self.every_ns) as u64)
    }

    /// Takes the next operation.
    pub(crate) fn take(&mut self) {
        self.taken += 1;
    }
}

/// Wakes a client when an operation is due, to some 50 us: the runtime's own timers are for whole milliseconds.
///
/// The system's timer is read like a pipe, which is the runtime's one safe way to wait for a file of another kind.
#[derive(Debug)]
pub(crate) struct Alarm(Receiver);

impl Alarm {
    pub(crate) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        Ok(Self(Receiver::from_owned_fd_unchecked(timerfd_create(TimerfdClockId::Monotonic, flags)?)?))
    }

    /// Waits for so long. An alarm that was set before, and not waited for to its end, is none any more.
    pub(crate) async fn wait(&self, span: Duration) -> io::Result<()> {
        // Of nothing the system would make no alarm at all.
        let span = span.max(Duration::from_nanos(1));
        let it_value = Timespec { tv_sec: span.as_secs() as i64, tv_nsec: span.subsec_nanos().into() };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value };
        timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &once)?;
        loop {
            self.0.readable().await?;
            match self.0.try_read(&mut [0; size_of::<u64>()]) {
                Ok(_) => return Ok(()),
                // What was ready was the alarm before.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Waits for the alarm after so long, or for ever where there is none.
pub(crate) async fn wait(alarm: Option<(&Alarm, Duration)>) -> io::Result<()> {
    match alarm {
        Some((alarm, span)) => alarm.wait(span).await,
        None => pending().await,
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

    #[tokio::test]
    async fn an_alarm_comes_after_its_time_once() {
        let alarm = Alarm::new().expect("a timer");
        for span in [Duration::ZERO, Duration::from_micros(300), Duration::from_millis(3)] {
            let begin = Clock.now();
            alarm.wait(span).await.expect("an alarm");
            assert!(Clock.now().since(begin) >= span);
        }
    }
}
