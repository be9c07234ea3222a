//! What a run says at its end.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde::Serialize;
use serde_json::Value;

use super::{
    ChaosArgs, ControlArg,
    busy::Busy,
    gaps::{self, Measured, Phase},
    record::{Counts, Record},
    verdict::{Faults, Verdict},
};
use crate::output::{self, BAD, GOOD, STRONG};

/// The JSON of `star chaos --json`.
#[derive(Debug, Serialize)]
pub(super) struct ChaosReport {
    passed: bool,
    servers: u16,
    control: ControlArg,
    seed: u64,
    seconds: u64,
    #[serde(flatten)]
    counts: Counts,
    #[serde(flatten)]
    faults: Faults,
    /// How often each fault was had.
    had: BTreeMap<&'static str, usize>,
    phases: BTreeMap<&'static str, PhaseReport>,
    /// What came of saturating servers.
    busy: Busy,
    history: Value,
    surprises: Vec<String>,
    history_file: Option<PathBuf>,
    logs: Option<PathBuf>,
    #[serde(skip)]
    measured: BTreeMap<Phase, Measured>,
    #[serde(skip)]
    verdict: Verdict,
}

/// The gaps of one kind of phase, in milliseconds.
#[derive(Debug, Serialize)]
struct PhaseReport {
    times: usize,
    write_gap_ms: Option<Spans>,
    read_gap_ms: Option<Spans>,
    whole_after_ms: Option<Spans>,
}

#[derive(Debug, Serialize)]
struct Spans {
    median: f64,
    longest: f64,
}

impl Spans {
    fn of(spans: &[Duration]) -> Option<Self> {
        let millis = |span: Duration| (span.as_secs_f64() * 1e6).round() / 1e3;
        gaps::summary(spans).map(|(median, longest)| Self { median: millis(median), longest: millis(longest) })
    }
}

impl ChaosReport {
    pub(super) fn new(
        args: &ChaosArgs,
        seed: u64,
        record: &Record,
        verdict: Verdict,
        history_file: Option<PathBuf>,
        logs: Option<PathBuf>,
    ) -> Self {
        let measured = record.gaps.measured().clone();
        let name = |phase: &Phase| phase.name().trim_start();
        let phase = |one: &Measured| PhaseReport {
            times: one.write_gaps.len(),
            write_gap_ms: Spans::of(&one.write_gaps),
            read_gap_ms: Spans::of(&one.read_gaps),
            whole_after_ms: Spans::of(&one.whole_after),
        };
        Self {
            passed: verdict.is_clean() && record.surprises.is_empty(),
            servers: args.servers,
            control: args.control,
            seed,
            seconds: args.seconds,
            counts: record.counts,
            faults: verdict.faults,
            had: measured
                .iter()
                .filter(|(phase, _)| phase.is_fault())
                .map(|(phase, one)| (name(phase), one.write_gaps.len()))
                .collect(),
            phases: measured.iter().map(|(kind, one)| (name(kind), phase(one))).collect(),
            busy: record.busy,
            history: verdict.judgement.json(),
            surprises: record.surprises.clone(),
            history_file,
            logs,
            measured,
            verdict,
        }
    }

    /// Whether all holds that must.
    pub(super) fn passed(&self) -> bool {
        self.passed
    }

    pub(super) fn print(&self, json: bool) -> std::io::Result<()> {
        if json {
            return output::json_line(self);
        }
        output::line(self.gap_table().to_string())?;
        output::line(
            "Gaps: the longest time in which no write to some star, and no read of an unchanged object at some",
        )?;
        output::line("server that was not the victim, was answered. Reads may wait when all leases end.")?;
        let Counts { acknowledged, unknown, reads, mapped_reads, compared } = self.counts;
        let [acknowledged, unknown, reads, mapped, compared] =
            [acknowledged, unknown, reads, mapped_reads, compared].map(output::count);
        output::line(format!(
            "\n{STRONG}{acknowledged}{STRONG:#} writes acknowledged, {unknown} of unknown outcome, {reads} reads, {mapped} \
             mapped reads, {compared} reads compared (seed {})",
            self.seed
        ))?;
        let Busy { times, requests, taken_out, epochs } = self.busy;
        if times > 0 {
            output::line(format!(
                "{times} times a server was saturated with {} requests: {taken_out} members taken out of views, {epochs} \
                 changes of views",
                output::count(requests)
            ))?;
        }
        let Faults { lost_writes, stale_reads, duplicated_effects } = self.faults;
        must_be_none("acknowledged writes lost", lost_writes)?;
        must_be_none("stale reads", stale_reads)?;
        must_be_none("effects duplicated", duplicated_effects)?;
        self.verdict.judgement.print()?;
        for surprise in &self.surprises {
            output::line(format!("{BAD}✗{BAD:#} {surprise}"))?;
        }
        for (what, path) in [("history", &self.history_file), ("logs", &self.logs)] {
            if let Some(path) = path {
                output::line(format!("{what}: {}", path.display()))?;
            }
        }
        Ok(())
    }

    fn gap_table(&self) -> comfy_table::Table {
        let header = ["fault", "times", "write gap", "longest", "read gap", "longest", "whole after", "longest"];
        let mut table = output::table(&header, &[1, 2, 3, 4, 5, 6, 7]);
        for (phase, measured) in &self.measured {
            let mut row = vec![phase.name().to_owned(), measured.write_gaps.len().to_string()];
            for spans in [&measured.write_gaps, &measured.read_gaps, &measured.whole_after] {
                let text = |span: Duration| output::micros(span.as_secs_f64() * 1e6);
                match gaps::summary(spans) {
                    Some((median, longest)) => row.extend([text(median), text(longest)]),
                    None => row.extend(["-".to_owned(), "-".to_owned()]),
                }
            }
            table.add_row(row);
        }
        table
    }
}

fn must_be_none(what: &str, count: u64) -> std::io::Result<()> {
    let mark = if count == 0 { format!("{GOOD}✓{GOOD:#}") } else { format!("{BAD}✗{BAD:#}") };
    output::line(format!("{mark} {count} {what}"))
}
