//! How long nothing went through: the longest time without a successful write (by star) and without a successful read
//! of a clean key (by server), fault by fault.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;
use star_core::Time;

/// What goes on while gaps are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Phase {
    Quiet,
    Killed,
    KilledTwo,
    KilledPlane,
    Returning,
    Stopped,
    Resumed,
    LinkCutOneSide,
    LinkCutBothSides,
    LinkMended,
    Rolling,
    ControlAway,
    ControlBack,
    Busy,
}

impl Phase {
    /// For people.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Quiet => "nothing, to compare",
            Self::Killed => "kill -9: a server away",
            Self::KilledTwo => "kill -9: two servers away",
            Self::KilledPlane => "kill -9: the control plane's leader",
            Self::Returning => "  coming back from kill -9",
            Self::Stopped => "SIGSTOP beyond the lease",
            Self::Resumed => "  after SIGCONT",
            Self::LinkCutOneSide => "link cut at one side",
            Self::LinkCutBothSides => "link cut at both sides",
            Self::LinkMended => "  after mending it",
            Self::Rolling => "rolling restart (SIGTERM)",
            Self::ControlAway => "control plane away",
            Self::ControlBack => "  after it is back",
            Self::Busy => "a server saturated",
        }
    }

    /// Whether it begins with a fault, and is not what follows one.
    pub(super) fn is_fault(self) -> bool {
        !matches!(self, Self::Quiet | Self::Returning | Self::Resumed | Self::LinkMended | Self::ControlBack)
    }
}

/// All gaps of a run.
#[derive(Debug)]
pub(super) struct Gaps {
    writes: Vec<Series>,
    reads: Vec<Series>,
    measured: BTreeMap<Phase, Measured>,
}

/// Successes at one place, one after another.
#[derive(Clone, Copy, Debug, Default)]
struct Series {
    last: Time,
    longest: Duration,
}

/// What was measured in one kind of phase, a number for each time.
#[derive(Clone, Debug, Default)]
pub(super) struct Measured {
    pub(super) write_gaps: Vec<Duration>,
    pub(super) read_gaps: Vec<Duration>,
    /// How long it took until every server served again.
    pub(super) whole_after: Vec<Duration>,
}

impl Gaps {
    pub(super) fn new(stars: usize, servers: usize) -> Self {
        Self {
            writes: vec![Series::default(); stars],
            reads: vec![Series::default(); servers],
            measured: BTreeMap::new(),
        }
    }

    /// A write to this star was answered.
    pub(super) fn wrote(&mut self, star: usize, now: Time) {
        self.writes[star].success(now);
    }

    /// A read of a clean key was answered by this server.
    pub(super) fn read(&mut self, server: usize, now: Time) {
        self.reads[server].success(now);
    }

    /// Forgets what was before: from now on everybody should be served.
    pub(super) fn begin(&mut self, now: Time) {
        for series in self.writes.iter_mut().chain(&mut self.reads) {
            *series = Series { last: now, longest: Duration::ZERO };
        }
    }

    /// A star to which no write was answered since then, or a server that answered no read; in words.
    pub(super) fn silent(&self, since: Time) -> Option<String> {
        let is_silent = |series: &Series| series.last <= since;
        let star = self.writes.iter().position(is_silent).map(|star| format!("no write to star {star}"));
        star.or_else(|| self.reads.iter().position(is_silent).map(|server| format!("no read at server {server}")))
    }

    /// A phase ends. A gap that goes on is counted as far as it came, and goes on in the next phase. Reads count at
    /// servers that are not `away`.
    pub(super) fn end(&mut self, phase: Phase, away: &[usize], now: Time) {
        let longest = |series: &mut Series| {
            let open = now.since(series.last);
            std::mem::take(&mut series.longest).max(open)
        };
        let write = self.writes.iter_mut().map(longest).max().unwrap_or_default();
        let reads = self.reads.iter_mut().map(longest).enumerate().filter(|(server, _)| !away.contains(server));
        let read = reads.map(|(_, gap)| gap).max().unwrap_or_default();
        let measured = self.measured.entry(phase).or_default();
        measured.write_gaps.push(write);
        measured.read_gaps.push(read);
    }

    /// Every server serves again, so long after the fault was over.
    pub(super) fn whole(&mut self, phase: Phase, after: Duration) {
        self.measured.entry(phase).or_default().whole_after.push(after);
    }

    pub(super) fn measured(&self) -> &BTreeMap<Phase, Measured> {
        &self.measured
    }
}

impl Series {
    fn success(&mut self, now: Time) {
        self.longest = self.longest.max(now.since(self.last));
        // Clients end in any order, so an earlier time may come later.
        self.last = self.last.max(now);
    }
}

/// Median and longest of some spans; `None` of none.
pub(super) fn summary(spans: &[Duration]) -> Option<(Duration, Duration)> {
    let mut sorted = spans.to_vec();
    sorted.sort_unstable();
    Some((sorted[sorted.len().checked_sub(1)? / 2], *sorted.last()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time(millis * 1_000_000)
    }

    #[test]
    fn the_worst_star_and_the_worst_surviving_server_count() {
        let mut gaps = Gaps::new(2, 3);
        gaps.begin(at(0));
        for millis in [10, 20, 300, 310] {
            gaps.wrote(0, at(millis));
        }
        gaps.wrote(1, at(310));
        gaps.read(0, at(305));
        gaps.read(1, at(100));
        gaps.read(1, at(250));
        gaps.end(Phase::Killed, &[2], at(310));
        let killed = &gaps.measured()[&Phase::Killed];
        assert_eq!(killed.write_gaps, [Duration::from_millis(310)], "star 1 waited longest");
        assert_eq!(killed.read_gaps, [Duration::from_millis(305)], "server 2 does not count, it is away");

        gaps.wrote(0, at(320));
        gaps.wrote(1, at(330));
        (0..3).for_each(|server| gaps.read(server, at(340)));
        gaps.end(Phase::Returning, &[], at(350));
        let back = &gaps.measured()[&Phase::Returning];
        assert_eq!(back.write_gaps, [Duration::from_millis(30)], "star 0 from 320 on");
        assert_eq!(back.read_gaps, [Duration::from_millis(340)], "server 2 was never heard");
    }

    #[test]
    fn the_median_is_the_lower_middle_one() {
        let millis = |numbers: &[u64]| numbers.iter().map(|number| Duration::from_millis(*number)).collect::<Vec<_>>();
        let [three, nine] = [3, 9].map(Duration::from_millis);
        assert_eq!(summary(&millis(&[])), None);
        assert_eq!(summary(&millis(&[9])), Some((nine, nine)));
        assert_eq!(summary(&millis(&[9, 1, 3, 5])), Some((three, nine)));
    }
}
