//! The comparison as tables: a row a load, a column a system.

use std::fmt::Write as _;

use comfy_table::Table;

use super::{
    Row,
    cells::{Cell, Cells},
};
use crate::{commands::bench::SystemArg, output};

/// What a table shows of a cell.
pub(super) type Figure = fn(&Cell) -> String;

/// What was not measured.
const NONE: &str = "-";

/// For a terminal.
pub(super) fn text(servers: u16, rows: &[Row], systems: &[SystemArg], cells: &Cells, figure: Figure) -> Table {
    let mut header = vec![""];
    header.extend(systems.iter().map(|system| system.name()));
    let numbers: Vec<usize> = (1..header.len()).collect();
    let mut table = output::table(&header, &numbers);
    for row in rows {
        table.add_row(line(servers, row, systems, cells, figure));
    }
    table
}

/// For a document.
pub(super) fn markdown(servers: u16, rows: &[Row], systems: &[SystemArg], cells: &Cells, figure: Figure) -> String {
    let names: Vec<&str> = systems.iter().map(|system| system.name()).collect();
    let mut text = format!("| | {} |\n|---|{}\n", names.join(" | "), "---:|".repeat(names.len()));
    for row in rows {
        let _ = writeln!(text, "| {} |", line(servers, row, systems, cells, figure).join(" | "));
    }
    text
}

fn line(servers: u16, row: &Row, systems: &[SystemArg], cells: &Cells, figure: Figure) -> Vec<String> {
    let cell = |system: &SystemArg| cells.find(servers, row, *system).map(figure);
    let figures = systems.iter().map(|system| cell(system).unwrap_or_else(|| NONE.to_owned()));
    std::iter::once(row.name.to_owned()).chain(figures).collect()
}

/// Operations per second and their median latency; where so many a second were due, how late they were.
pub(super) fn speed(cell: &Cell) -> String {
    let rate = output::count(cell.per_second().round() as u64);
    let [p50, p99, p999] = [
        cell.latency_us(|part| part.p50_us),
        cell.latency_us(|part| part.p99_us),
        cell.latency_us(|part| part.p999_us),
    ]
    .map(output::micros);
    let mut text = match cell.kept_up() {
        None => format!("{rate}/s, {p50}"),
        Some(true) => format!("{p50}, {p99}, {p999}"),
        Some(false) => format!("only {rate}/s"),
    };
    if cell.errors() > 0 {
        let _ = write!(text, ", {} errors", output::count(cell.errors()));
    }
    text
}

/// What an operation takes other than time: processor time of the servers, messages, bytes.
pub(super) fn cost(cell: &Cell) -> String {
    let cpu = cell.median_of_counted(|report| report.cpu_us_per_op).map(output::micros);
    let messages = cell.median_of_counted(|report| report.messages_per_op).map(|count| format!("{count:.2} messages"));
    let bytes = cell.median_of_counted(|report| report.bytes_per_op).map(|count| format!("{count:.0} B"));
    let all: Vec<String> = [cpu, messages, bytes].into_iter().flatten().collect();
    if all.is_empty() { NONE.to_owned() } else { all.join(", ") }
}

#[cfg(test)]
mod tests {
    use star_bench::{Part, Report};

    use super::*;
    use crate::commands::compare::rows::ROWS;

    fn report(ops_per_s: f64) -> Report {
        let write = Part { ops: 10, ops_per_s, p50_us: 12.0, ..Part::default() };
        Report { write, cpu_us_per_op: Some(7.0), messages_per_op: Some(ops_per_s / 1000.0), ..Report::default() }
    }

    #[test]
    fn cells_hold_medians_and_what_was_not_measured_a_dash() {
        let mut cells = Cells::default();
        for ops_per_s in [9000.0, 1000.0, 2000.4] {
            cells.add(3, &ROWS[0], SystemArg::Star, report(ops_per_s));
        }
        let last = |servers, figure| {
            let text = markdown(servers, &ROWS[..1], &[SystemArg::Star, SystemArg::Redis], &cells, figure);
            text.lines().last().map(str::to_owned)
        };
        assert_eq!(last(3, speed).as_deref(), Some("| SET, 1 client | 2,000/s, 12 µs | - |"));
        assert_eq!(last(3, cost).as_deref(), Some("| SET, 1 client | 7.0 µs, 2.00 messages | - |"));
        assert_eq!(last(5, speed).as_deref(), Some("| SET, 1 client | - | - |"));
    }
}
