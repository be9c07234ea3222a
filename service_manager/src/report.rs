//! What the program prints: a table or a line for people, one JSON object for scripts.

use std::{
    fmt::Write as _,
    io::{self, Write},
    time::Duration,
};

use comfy_table::{Table, presets};
use serde::Serialize;
use serde_json::json;

use crate::{
    error::{ServiceError, seconds},
    record::{Process, Service},
    settings::Control,
};

/// What came of starting or stopping a service.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    pub(crate) service: Service,
    pub(crate) result: Change,
    /// What keeps views and leases, for star servers.
    pub(crate) control: Option<Control>,
    pub(crate) processes: Vec<ProcessLine>,
    /// How long it took, in seconds.
    pub(crate) took_s: f64,
}

/// What was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Change {
    Started,
    AlreadyRunning,
    Stopped,
    NotRunning,
}

/// A process, by what one needs to find it.
#[derive(Debug, Serialize)]
pub(crate) struct ProcessLine {
    name: String,
    pid: u32,
    port: u16,
}

impl From<&Process> for ProcessLine {
    fn from(process: &Process) -> Self {
        Self { name: process.name.clone(), pid: process.identity.pid, port: process.port }
    }
}

/// How a service is.
#[derive(Debug, Serialize)]
pub(crate) struct ServiceStatus {
    pub(crate) service: Service,
    pub(crate) state: State,
    pub(crate) control: Option<Control>,
    pub(crate) processes: Vec<ProcessStatus>,
}

/// How a service is, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// All that was started is healthy.
    Running,
    /// Something that was started is dead or not healthy.
    Degraded,
    /// Nothing was started.
    Stopped,
}

/// How a process is.
#[derive(Debug, Serialize)]
pub(crate) struct ProcessStatus {
    pub(crate) name: String,
    /// `None` if it is dead.
    pub(crate) pid: Option<u32>,
    pub(crate) port: u16,
    /// `None` if it is dead.
    pub(crate) uptime_s: Option<u64>,
    pub(crate) health: Health,
    /// What it says of itself, or what is wrong.
    pub(crate) detail: String,
    pub(crate) log: String,
}

/// How a process is, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Health {
    Healthy,
    Unhealthy,
    Dead,
}

/// Says how the work goes on, beside the output.
pub(crate) fn say(text: impl AsRef<str>) {
    // Nobody may be reading any more; the work goes on.
    let _ = writeln!(io::stderr(), "{}", text.as_ref());
}

/// Prints what came of starting and stopping.
pub(crate) fn outcomes(outcomes: &[Outcome], as_json: bool) -> io::Result<()> {
    if as_json {
        return json_line(&json!({ "services": outcomes }));
    }
    let mut out = io::stdout().lock();
    outcomes.iter().try_for_each(|outcome| writeln!(out, "{}", sentence(outcome)))
}

fn sentence(outcome: &Outcome) -> String {
    let Outcome { service, result, control, processes, took_s } = outcome;
    let took = seconds(Duration::from_secs_f64(*took_s));
    let plane = control.map(|control| format!(" on the {control} control plane")).unwrap_or_default();
    let mut text = match result {
        Change::Started => format!("{service}: ready{plane} after {took}"),
        Change::AlreadyRunning => format!("{service}: already running{plane}"),
        Change::Stopped => format!("{service}: stopped in {took}"),
        Change::NotRunning => return format!("{service}: was not running"),
    };
    for (number, ProcessLine { name, pid, port }) in processes.iter().enumerate() {
        let separator = if number == 0 { ": " } else { ", " };
        let _ = write!(text, "{separator}{name} (pid {pid}, port {port})");
    }
    text
}

/// Prints how services are.
pub(crate) fn statuses(services: &[ServiceStatus], as_json: bool) -> io::Result<()> {
    if as_json {
        return json_line(&json!({ "services": services }));
    }
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(["service", "name", "pid", "port", "uptime", "health"]);
    for status in services {
        let service = match status.control {
            Some(control) => format!("{} ({control})", status.service),
            None => status.service.to_string(),
        };
        if status.processes.is_empty() {
            table.add_row([service.as_str(), "-", "-", "-", "-", "stopped"]);
        }
        for process in &status.processes {
            let pid = process.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
            let uptime = process.uptime_s.map_or_else(|| "-".to_owned(), duration);
            let health = match process.health {
                Health::Healthy => format!("healthy: {}", process.detail),
                Health::Unhealthy => format!("unhealthy: {}", process.detail),
                Health::Dead => process.detail.clone(),
            };
            table.add_row([&service, &process.name, &pid, &process.port.to_string(), &uptime, &health]);
        }
    }
    let mut out = io::stdout().lock();
    writeln!(out, "{table}")?;
    for process in services.iter().flat_map(|status| &status.processes) {
        if process.health != Health::Healthy {
            writeln!(out, "{}: see its log, {}", process.name, process.log)?;
        }
    }
    Ok(())
}

/// Prints why the work was not done.
pub(crate) fn failure(error: &ServiceError, as_json: bool) {
    if as_json {
        // Nothing is left to do if even this cannot be written.
        let _ = json_line(&json!({ "error": { "message": error.to_string(), "hint": error.hint() } }));
    }
    say(format!("error: {error}"));
    if let Some(hint) = error.hint() {
        say(format!("hint: {hint}"));
    }
}

fn json_line(value: &serde_json::Value) -> io::Result<()> {
    writeln!(io::stdout(), "{value}")
}

/// A span in whole seconds: `1h 2m 3s`.
fn duration(span_s: u64) -> String {
    humantime::format_duration(Duration::from_secs(span_s)).to_string()
}
