//! Processes: who they are, whether they still run, and how they are ended.

use std::{fs, io, time::Duration};

use rustix::{
    io::Errno,
    param::clock_ticks_per_second,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use serde::{Deserialize, Serialize};
use star_core::{Clock, Time};

/// How often it is looked whether a process has ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How long a process may take to vanish after SIGKILL, which only the kernel can delay.
const KILLED_WITHIN: Duration = Duration::from_secs(5);

/// A process that cannot be mistaken for a later one that was given the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// Its number.
    pub(crate) pid: u32,
    /// When it began, in clock ticks since the machine booted.
    pub(crate) start_ticks: u64,
}

impl Identity {
    /// The process that has this number now, which may have ended without its parent having taken notice.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        stat(pid).map(|stat| Self { pid, start_ticks: stat.start_ticks })
    }

    /// Whether the process still runs. One that has ended and waits for its parent does not.
    pub(crate) fn is_alive(self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.start_ticks == self.start_ticks && !stat.has_ended)
    }

    /// How long the process has run.
    pub(crate) fn uptime(self) -> Duration {
        let began_ns = u128::from(self.start_ticks) * 1_000_000_000 / u128::from(clock_ticks_per_second().max(1));
        Clock.now().since(Time(began_ns as u64))
    }

    /// Sends a signal to this very process; one that has ended is none the wiser.
    pub(crate) fn signal(self, signal: Signal) -> io::Result<()> {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else { return Ok(()) };
        // The descriptor holds on to the process: if it is the right one after opening, the signal reaches no other.
        let sent = pidfd_open(pid, PidfdFlags::empty())
            .and_then(|process| if self.is_alive() { pidfd_send_signal(process, signal) } else { Ok(()) });
        match sent {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Ends processes: SIGTERM to all of them, then, after `grace`, SIGKILL to those that are left. Returns which of them
/// had to be killed; the error says why one could not be.
pub(crate) async fn end(processes: &[Identity], grace: Duration) -> io::Result<Vec<Identity>> {
    for process in processes {
        process.signal(Signal::TERM)?;
    }
    let stubborn = still_alive_after(processes, grace).await;
    for process in &stubborn {
        process.signal(Signal::KILL)?;
    }
    match still_alive_after(&stubborn, KILLED_WITHIN).await.first() {
        None => Ok(stubborn),
        Some(process) => Err(io::Error::other(format!("process {} is still there after SIGKILL", process.pid))),
    }
}

/// Those that still run when all have ended or the time is over.
async fn still_alive_after(processes: &[Identity], limit: Duration) -> Vec<Identity> {
    let until = Clock.now() + limit;
    loop {
        let alive: Vec<_> = processes.iter().copied().filter(|process| process.is_alive()).collect();
        if alive.is_empty() || Clock.now() >= until {
            return alive;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Names this run of the machine: after the next boot, numbers and start times mean other processes.
pub(crate) fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// The name of the program that a process runs.
pub(crate) fn program_of(pid: u32) -> Option<String> {
    fs::read_to_string(format!("/proc/{pid}/comm")).ok().map(|name| name.trim().to_owned())
}

struct Stat {
    has_ended: bool,
    start_ticks: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Reads `/proc/PID/stat`. The second field, the program's name in parentheses, may hold anything, parentheses too.
fn parse_stat(line: &str) -> Option<Stat> {
    let (_, rest) = line.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    // The state is field 3, the number of threads field 20, the start time field 22. As long as other threads are there,
    // the process still holds its files and ports, also when its first thread has ended.
    let first_has_ended = matches!(fields.next()?, "Z" | "X" | "x");
    let threads: u64 = fields.nth(16)?.parse().ok()?;
    let start_ticks = fields.nth(1)?.parse().ok()?;
    Some(Stat { has_ended: first_has_ended && threads <= 1, start_ticks })
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn line(state: &str, threads: &str, start_ticks: &str) -> String {
        format!("7 (a) Z (b) {state} 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 {threads} 21 {start_ticks} 23 24")
    }

    #[test]
    fn a_name_with_parentheses_does_not_confuse() {
        let stat = parse_stat(&line("S", "3", "4242")).expect("a line of the kernel's");
        assert_eq!((stat.has_ended, stat.start_ticks), (false, 4242));
        for broken in ["", "7", "7 (a)", "7 (a) S 4 5 6", &line("S", "x", "1"), &line("S", "1", "x")] {
            assert!(parse_stat(broken).is_none(), "{broken:?}");
        }
    }

    #[test]
    fn a_process_has_ended_when_all_of_its_threads_have() {
        for (state, threads, has_ended) in [("S", "1", false), ("Z", "2", false), ("Z", "1", true), ("X", "0", true)] {
            assert_eq!(
                parse_stat(&line(state, threads, "1")).expect("a line").has_ended,
                has_ended,
                "{state} {threads}"
            );
        }
    }

    #[test]
    fn a_later_process_of_the_same_number_is_another() {
        let me = Identity::of(std::process::id()).expect("this process");
        assert!(me.is_alive());
        assert!(me.uptime() < Duration::from_hours(1), "{:?}", me.uptime());
        let earlier = Identity { start_ticks: me.start_ticks - 1, ..me };
        assert!(!earlier.is_alive());
        // Would end this very test if it reached it.
        earlier.signal(Signal::KILL).expect("nobody to send it to is no error");
    }

    #[test]
    fn ends_politely_then_by_force() {
        let spawn = |script: &str| {
            Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().expect("a shell starts")
        };
        let mut polite = spawn("echo; exec sleep 60");
        let mut deaf = spawn("trap '' TERM; echo; while :; do sleep 0.1; done");
        for child in [&mut polite, &mut deaf] {
            let mut ready = [0];
            io::Read::read_exact(child.stdout.as_mut().expect("a pipe"), &mut ready).expect("the shell says so");
        }
        let [one, two] = [&polite, &deaf].map(|child| Identity::of(child.id()).expect("it runs"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let killed = runtime.block_on(end(&[one, two], Duration::from_millis(300))).expect("both can be ended");
        assert_eq!(killed, [two]);
        assert!(!one.is_alive() && !two.is_alive(), "also before their parent waits for them");
        polite.wait().expect("ended");
        deaf.wait().expect("ended");
    }
}
