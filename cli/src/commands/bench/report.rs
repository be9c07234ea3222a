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
    let rate = report.open_loop.as_ref().map(|open_loop| kept(report, open_loop));
    let cpu =
        report.cpu_us_per_op.map(|us| format!("processor time of the servers: {} an operation", output::micros(us)));
    let sent = report.messages_per_op.zip(report.bytes_per_op).map(|(messages, bytes)| {
        format!("sent on this machine, the load with it: {messages:.2} messages and {bytes:.0} bytes an operation")
    });
    let codes = report.error_codes.iter().map(|(code, count)| format!("  {code}: {}", output::count(*count)));
    std::iter::once(text).chain(rate).chain(cpu).chain(sent).chain(codes).collect::<Vec<_>>().join("\n")
}

/// How an open loop went.
fn kept(report: &Report, open_loop: &OpenLoop) -> String {
    let rate = format!("{} operations a second were due", output::count(open_loop.wanted_per_s.round() as u64));
    let [late_p50, late_p99] = [open_loop.late_p50_us, open_loop.late_p99_us].map(output::micros);
    if !open_loop.kept_up(report.read.ops + report.write.ops) {
        return format!(
            "{rate}, and it did not keep up: {} were not done; latencies grow for as long as this goes on",
            output::count(open_loop.not_done)
        );
    }
    format!("{rate}, {} not done; begun late by {late_p50} (p99 {late_p99})", output::count(open_loop.not_done))
}
