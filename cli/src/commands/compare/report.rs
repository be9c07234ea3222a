//! What a comparison came to, for a terminal and as files.

use std::{fmt::Write as _, path::Path};

use super::{
    cells::Cells,
    plot,
    rows::Row,
    table::{self, Figure},
};
use crate::{commands::bench::SystemArg, error::CliError};

/// What was measured, and the figures.
#[derive(Debug)]
pub(super) struct Comparison {
    pub(super) rows: Vec<Row>,
    pub(super) systems: Vec<SystemArg>,
    /// Numbers of servers, in order.
    pub(super) servers: Vec<u16>,
    pub(super) rounds: u16,
    /// How long each row was measured in each round.
    pub(super) seconds: f64,
    pub(super) cells: Cells,
    /// Whether all rounds were measured to their end.
    pub(super) is_finished: bool,
}

/// What the tables show, and what it says above each.
const TABLES: [(&str, Figure); 2] = [
    ("operations per second and median latency; at a fixed rate p50, p99, p99.9", table::speed),
    ("an operation: processor time of the servers, messages, bytes sent", table::cost),
];

impl Comparison {
    /// All tables, for a terminal.
    pub(super) fn text(&self) -> String {
        self.tables(|title, servers, figure| {
            format!("{title}\n{}", table::text(servers, &self.rows, &self.systems, &self.cells, figure))
        })
    }

    fn tables(&self, show: impl Fn(&str, u16, Figure) -> String) -> String {
        let of_count = |servers: &u16| {
            let servers = *servers;
            TABLES.map(|(title, figure)| show(&format!("{}: {title}", of(servers)), servers, figure))
        };
        self.servers.iter().flat_map(of_count).collect::<Vec<String>>().join("\n\n")
    }

    /// Writes `table.md`, `figures.json`, and a plot of each kind that the figures are enough for.
    pub(super) fn write(&self, directory: &Path) -> Result<(), CliError> {
        let put = |name: &str, text: String| {
            let path = directory.join(name);
            std::fs::write(&path, text)
                .map_err(|error| CliError::from(error).context(format!("cannot write {}", path.display())))
        };
        make(directory)?;
        put("table.md", self.document())?;
        put("figures.json", serde_json::to_string_pretty(&self.cells).map_err(std::io::Error::from)?)?;
        for (name, svg) in plot::all(self) {
            put(&name, svg)?;
        }
        Ok(())
    }

    fn document(&self) -> String {
        let systems: Vec<&str> = self.systems.iter().map(|system| system.name()).collect();
        let servers: Vec<String> = self.servers.iter().map(u16::to_string).collect();
        let mut text = format!(
            "`star compare --systems {} --servers {} --rounds {} --seconds {}` on {}; medians{}.\n\n",
            systems.join(","),
            servers.join(","),
            self.rounds,
            self.seconds,
            machine(),
            if self.is_finished { "" } else { " of what was measured until it was ended" },
        );
        text.push_str(&self.tables(|title, servers, figure| {
            format!(
                "## {title}\n\n{}",
                table::markdown(servers, &self.rows, &self.systems, &self.cells, figure).trim_end()
            )
        }));
        let _ = writeln!(text);
        text
    }
}

/// Makes the directory, or says why that cannot be.
pub(super) fn make(directory: &Path) -> Result<(), CliError> {
    std::fs::create_dir_all(directory)
        .map_err(|error| CliError::from(error).context(format!("cannot make {}", directory.display())))
}

/// So many servers, for people.
pub(super) fn of(servers: u16) -> String {
    format!("{servers} server{}", if servers == 1 { "" } else { "s" })
}

/// The machine in a few words.
fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{cores} cores of {}", model.unwrap_or("an unnamed processor"))
}
