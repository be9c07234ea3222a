//! A benchmark's report for people.

use comfy_table::Table;
use star_bench::{OpenLoop, Part, Report};

use crate::output;

/// Reads and writes, a row each.
pub(super) fn table(report: &Report) -> Table {
    let header = ["", "operations", "per second", "p50", "p99", "p99.9", "mean"];
    let mut table = output::table(&header, &[1, 2, 3, 4, 5, 6]);
    for (name, part) in [("read", &report.read), ("write", &report.write)] {
        table.add_row(row(name, part));
    }
    table
}

fn row(name: &str, part: &Part) -> [String; 7] {
    let latency = |us: f64| if part.ops == 0 { "-".to_owned() } else { output::micros(us) };
    [
        name.to_owned(),
        output::count(part.ops),
        output::count(part.ops_per_s as u64),
        latency(part.p50_us),
        latency(part.p99_us),
        latency(part.p999_us),
        latency(part.mean_ns / 1e3),
    ]
}

/// What the table leaves out.
pub(super) fn summary(report: &Report) -> String {
    let text = format!(
        "{}, {} servers, {} s; {} of the reads from mapped stores; {} errors",
        report.system,
        report.servers,
        report.seconds,
        output::count(report.mapped_reads),
        output::count(report.errors)
    );
    let rate = report.open_loop.as_ref().map(|open_loop| rate(report, open_loop));
    let cpu =
        report.cpu_us_per_op.map(|us| format!("processor time of the servers: {} an operation", output::micros(us)));
    let sent = report.messages_per_op.zip(report.bytes_per_op).map(|(messages, bytes)| {
        format!("sent on this machine, the load with it: {messages:.2} messages and {bytes:.0} bytes an operation")
    });
    let codes = report.error_codes.iter().map(|(code, count)| format!("  {code}: {}", output::count(*count)));
    std::iter::once(text).chain(rate).chain(cpu).chain(sent).chain(codes).collect::<Vec<_>>().join("\n")
}

/// How an open loop went.
fn rate(report: &Report, open_loop: &OpenLoop) -> String {
    let wanted_per_s = match open_loop.wanted_per_s {
        few @ ..100.0 => few.to_string(),
        many => output::count(many.round() as u64),
    };
    let due = format!(
        "{wanted_per_s} operations a second were due, {} in all, and {} of them were not done; latencies count from when \
         each was due",
        output::count(open_loop.wanted),
        output::count(open_loop.not_done)
    );
    // Zero only where nothing found room, and nothing could be late by itself.
    let late = (open_loop.late_p99_us > 0.0).then(|| {
        format!(
            "the load itself began them {} late in the median, 99 % at most {}",
            output::micros(open_loop.late_p50_us),
            output::micros(open_loop.late_p99_us)
        )
    });
    let behind = "it did NOT keep up with the rate: latencies grow for as long as the load lasts, and say little else";
    let behind = (!open_loop.kept_up(report.read.ops + report.write.ops)).then(|| behind.to_owned());
    [Some(due), late, behind].into_iter().flatten().collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_told_when_a_rate_was_not_kept() {
        let summary_of = |not_done: u64| {
            let open_loop = OpenLoop { wanted_per_s: 5000.0, wanted: 15_000, not_done, ..OpenLoop::default() };
            let write = Part { ops: open_loop.wanted - not_done, ..Part::default() };
            summary(&Report { open_loop: Some(open_loop), write, ..Report::default() })
        };
        let kept = summary_of(150);
        assert!(kept.contains("5,000 operations a second were due, 15,000 in all, and 150 of them"), "{kept}");
        assert!(!kept.contains("NOT keep up"), "99 % were done: {kept}");
        assert!(summary_of(151).contains("NOT keep up"));
        assert!(!summary(&Report::default()).contains("were due"), "a closed loop has no rate");
    }
}
