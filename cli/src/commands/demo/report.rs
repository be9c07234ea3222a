//! What the demonstration says at its end.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::{proof::Check, shared::Shared, tree::Tree};
use crate::{
    output::{self, BAD, GOOD, STRONG},
    status::ClusterStatus,
};

/// Files that are named if they were not stored; the others are counted.
const SKIPPED_NAMED: usize = 5;

/// The JSON of `star demo --json`.
#[derive(Debug, Serialize)]
pub(super) struct DemoReport {
    directory: String,
    servers: usize,
    objects: usize,
    bytes: u64,
    seconds: f64,
    read: Part,
    write: Part,
    reads_by_server: BTreeMap<String, u64>,
    mapped_reads: u64,
    dirty_reads: u64,
    checks: Vec<CheckReport>,
    passed: bool,
    skipped: Vec<Skipped>,
    changed_on_disk: Vec<String>,
    #[serde(skip)]
    by_server: Vec<ServerRow>,
}

/// Reads or writes.
#[derive(Debug, Serialize)]
struct Part {
    ops: u64,
    bytes: u64,
    ops_per_s: f64,
    p50_us: f64,
    p99_us: f64,
}

#[derive(Debug, Serialize)]
struct CheckReport {
    name: &'static str,
    passed: bool,
    compared: u64,
    mapped: u64,
    faults: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Skipped {
    path: String,
    why: String,
}

#[derive(Debug)]
struct ServerRow {
    name: String,
    addr: String,
    tcp: u64,
    mapped: u64,
    dirty: u64,
    ordered: u64,
    objects: u64,
}

impl DemoReport {
    pub(super) fn new(tree: &Tree, shared: &Shared, cluster: &ClusterStatus, checks: &[Check]) -> Self {
        let seconds = std::time::Duration::from_nanos(shared.now().0).as_secs_f64();
        let record = shared.record.borrow();
        let by_server: Vec<ServerRow> = shared
            .servers
            .iter()
            .zip(&record.by_server)
            .map(|(door, reads)| {
                let line = cluster.servers.iter().find(|server| server.name == door.name);
                let own = line.and_then(|line| line.own.as_ref());
                ServerRow {
                    name: door.name.clone(),
                    addr: door.addr.clone(),
                    tcp: reads.tcp,
                    mapped: reads.mapped,
                    dirty: own.map_or(0, |own| own.counters.reads_dirty),
                    ordered: own.map_or(0, |own| own.counters.stamped),
                    objects: own.map_or(0, |own| own.store.objects),
                }
            })
            .collect();
        let passed = checks.iter().all(Check::passed);
        Self {
            directory: tree.root.display().to_string(),
            servers: by_server.len(),
            objects: tree.files.len(),
            bytes: tree.bytes,
            seconds,
            read: Part::new(&record.reads, record.read_bytes, seconds),
            write: Part::new(&record.writes, record.written_bytes, seconds),
            reads_by_server: by_server.iter().map(|row| (row.name.clone(), row.tcp)).collect(),
            mapped_reads: by_server.iter().map(|row| row.mapped).sum(),
            dirty_reads: by_server.iter().map(|row| row.dirty).sum(),
            checks: checks.iter().map(CheckReport::new).collect(),
            passed,
            skipped: tree.skipped.iter().map(|(path, why)| Skipped { path: path.clone(), why: why.clone() }).collect(),
            changed_on_disk: tree.changed_on_disk().into_iter().map(str::to_owned).collect(),
            by_server,
        }
    }

    /// Whether all proofs hold.
    pub(super) fn passed(&self) -> bool {
        self.passed
    }

    pub(super) fn print(&self, json: bool) -> std::io::Result<()> {
        if json {
            return output::json_line(self);
        }
        output::line(format!(
            "\n{STRONG}{}{STRONG:#}: {} objects, {}, {} servers, {:.1} s",
            self.directory,
            output::count(self.objects as u64),
            output::bytes(self.bytes),
            self.servers,
            self.seconds
        ))?;
        for skipped in self.skipped.iter().take(SKIPPED_NAMED) {
            output::line(format!("  left out {}: {}", skipped.path, skipped.why))?;
        }
        if self.skipped.len() > SKIPPED_NAMED {
            output::line(format!("  and {} more", self.skipped.len() - SKIPPED_NAMED))?;
        }
        output::line(self.operations().to_string())?;
        output::line(self.servers().to_string())?;
        output::line(self.proofs().to_string())?;
        if !self.changed_on_disk.is_empty() {
            let (count, first) = (self.changed_on_disk.len(), &self.changed_on_disk[0]);
            output::line(format!(
                "{count} files changed on disk meanwhile ({first} …); proved is what was read of them"
            ))?;
        }
        if self.passed {
            return output::line(format!(
                "{GOOD}all proofs hold{GOOD:#}: every object byte for byte at every server, the history linearizable"
            ));
        }
        for fault in self.checks.iter().flat_map(|check| &check.faults) {
            output::line(format!("  {fault}"))?;
        }
        output::line(format!("{BAD}a proof failed{BAD:#}"))
    }

    fn operations(&self) -> comfy_table::Table {
        let mut table = output::table(&["", "operations", "per second", "bytes", "p50", "p99"], &[1, 2, 3, 4, 5]);
        for (name, part) in [("read", &self.read), ("write", &self.write)] {
            table.add_row([
                name.to_owned(),
                output::count(part.ops),
                output::count(part.ops_per_s as u64),
                output::bytes(part.bytes),
                output::micros(part.p50_us),
                output::micros(part.p99_us),
            ]);
        }
        table
    }

    fn servers(&self) -> comfy_table::Table {
        let header = ["server", "address", "objects", "reads", "mapped reads", "dirty reads", "writes ordered"];
        let mut table = output::table(&header, &[2, 3, 4, 5, 6]);
        for row in &self.by_server {
            table.add_row([
                row.name.clone(),
                row.addr.clone(),
                output::count(row.objects),
                output::count(row.tcp),
                output::count(row.mapped),
                output::count(row.dirty),
                output::count(row.ordered),
            ]);
        }
        table
    }

    fn proofs(&self) -> comfy_table::Table {
        let mut table = output::table(&["proof", "compared", ""], &[1]);
        for check in &self.checks {
            let verdict = if check.passed { "holds" } else { "FAILED" };
            let style = if check.passed { GOOD } else { BAD };
            let verdict =
                if output::stdout_is_terminal() { format!("{style}{verdict}{style:#}") } else { verdict.to_owned() };
            table.add_row([check.name.to_owned(), output::count(check.compared), verdict]);
        }
        table
    }
}

impl Part {
    fn new(latency_ns: &Histogram<u64>, bytes: u64, seconds: f64) -> Self {
        let us = |quantile: f64| latency_ns.value_at_quantile(quantile) as f64 / 1e3;
        let ops = latency_ns.len();
        Self { ops, bytes, ops_per_s: ops as f64 / seconds.max(1e-3), p50_us: us(0.5), p99_us: us(0.99) }
    }
}

impl CheckReport {
    fn new(check: &Check) -> Self {
        Self {
            name: check.name,
            passed: check.passed(),
            compared: check.compared,
            mapped: check.mapped,
            faults: check.fault_lines(),
        }
    }
}
