//! `star up`: a whole cluster in the foreground.

use std::{
    io::{self, Write},
    time::Duration,
};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use star_core::{Clock, Time, cluster::ServerInfo, collections::Map};

use super::status as status_command;
use crate::{
    args::GlobalArgs,
    connection,
    error::{CliError, CliResult, Exit},
    names, output,
    processes::{Plan, ProcessState, Processes},
    settings,
    signals::Signals,
    status::{self, ClusterStatus, Counters},
};

const EXAMPLES: &str = "\
Examples:
  star up                               the servers of the configuration, by default a to e on ports 7000 to 7004
  star up --servers 3 --base-port 9000
  star up --json | head -1              one line of JSON as soon as all servers serve
Ctrl-C or SIGTERM stops all servers; objects are kept in memory and go away with them.
Writes count where they were ordered (at the star's leader); reads from mapped stores are not seen by the servers.";

/// How often the table is drawn anew.
const DRAW_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct UpArgs {
    /// How many servers, named a, b, c … [default: the servers of the configuration]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=64))]
    servers: Option<u16>,
    /// The port of the first server on 127.0.0.1; the others take the next ones [default: 7000]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    base_port: Option<u16>,
}

impl UpArgs {
    /// The servers that the flags ask for; `None` for those of the configuration.
    fn servers(&self, global: &GlobalArgs) -> Result<Option<Vec<ServerInfo>>, CliError> {
        if self.servers.is_none() && self.base_port.is_none() {
            return Ok(None);
        }
        let configured = settings::load(global)?.cluster.servers;
        let count = self.servers.map_or(configured.len(), usize::from);
        if self.base_port.is_none() && count <= configured.len() {
            return Ok(Some(configured[..count].to_vec()));
        }
        names::from_base_port(count, self.base_port.unwrap_or(7000)).map(Some)
    }
}

pub(crate) fn run(global: &GlobalArgs, args: &UpArgs) -> CliResult {
    let plan = Plan::of_config(global, args.servers(global)?.as_deref())?;
    connection::runtime()?.block_on(async {
        let mut signals = Signals::new()?;
        let mut processes = Processes::start(plan)?;
        let outcome = tokio::select! {
            // Ctrl-C is how this command ends, so it is no failure.
            () = signals.next() => Ok(Exit::Done),
            failed = run_cluster(global, &mut processes) => failed,
        };
        if output::stderr_is_terminal() {
            output::note("stopping");
        }
        processes.stop_after(outcome).await
    })
}

/// Ends only if something is wrong.
async fn run_cluster(global: &GlobalArgs, processes: &mut Processes) -> CliResult {
    let cluster = ready(processes).await?;
    if global.json {
        output::json_line(&json!({
            "ready": true,
            "servers": cluster.servers,
            "stars": cluster.stars,
            "logs": processes.log_directory(),
        }))?;
    } else if !is_live() {
        let servers = cluster.servers.iter().map(|server| format!("{} {}", server.name, server.addr));
        output::line(format!("{} servers serve: {}", cluster.servers.len(), servers.collect::<Vec<_>>().join(", ")))?;
    }
    let mut screen = Screen::new(!global.json && is_live());
    let mut known_dead = 0;
    loop {
        let cluster = processes.status().await;
        let states = processes.states();
        screen.draw(&cluster, &states)?;
        let dead: Vec<_> = states.iter().filter(|state| state.ended.is_some()).collect();
        if dead.len() > known_dead {
            known_dead = dead.len();
            screen.below(&report_dead(processes, &dead));
        }
        if known_dead == states.len() {
            return Err(CliError::new("all servers have ended"));
        }
        tokio::time::sleep(DRAW_EVERY).await;
    }
}

async fn ready(processes: &mut Processes) -> Result<ClusterStatus, CliError> {
    let count = processes.addrs().len() as u64;
    let bar = if output::stderr_is_terminal() { ProgressBar::new(count) } else { ProgressBar::hidden() };
    bar.set_style(
        ProgressStyle::with_template("starting {bar:20} {pos}/{len} servers serve").expect("a template that is known"),
    );
    let cluster = processes.ready(|serving| bar.set_position(serving as u64)).await;
    bar.finish_and_clear();
    cluster
}

fn report_dead(processes: &Processes, dead: &[&ProcessState]) -> String {
    let report = |state: &&ProcessState| {
        let how = state.ended.as_deref().unwrap_or_default();
        let tail = processes.log_tail(&state.info.name);
        format!("server {} ended ({how}); the end of its log:\n{tail}", state.info.name)
    };
    dead.iter().map(report).collect()
}

/// Whether the table can be drawn over itself.
fn is_live() -> bool {
    output::stdout_is_terminal() && std::env::var("TERM").is_ok_and(|terminal| terminal != "dumb")
}

/// The table on the terminal, drawn over itself.
struct Screen {
    is_live: bool,
    lines: usize,
    /// What the servers counted when the table was drawn last.
    before: Map<String, Counters>,
    drawn: Time,
    notes: String,
}

impl Screen {
    fn new(is_live: bool) -> Self {
        Self { is_live, lines: 0, before: Map::default(), drawn: Clock.now(), notes: String::new() }
    }

    /// Keeps a note under the table; without one it is printed at once.
    fn below(&mut self, note: &str) {
        if self.is_live {
            note.clone_into(&mut self.notes);
        } else {
            output::note(note.trim_end());
        }
    }

    fn draw(&mut self, cluster: &ClusterStatus, states: &[ProcessState]) -> io::Result<()> {
        if !self.is_live {
            return Ok(());
        }
        let now = Clock.now();
        let passed = now.since(self.drawn).as_secs_f64().max(1e-3);
        let mut lines = vec![self.table(cluster, states, now, passed).to_string()];
        lines.extend(cluster.arriving.iter().map(ToString::to_string));
        lines.extend(["Ctrl-C stops the cluster".to_owned(), self.notes.clone()]);
        let text = lines.join("\n");
        if self.lines > 0 {
            // Up to where the last table began, and clear from there on.
            write!(io::stdout(), "\x1b[{}A\x1b[J", self.lines)?;
        }
        self.lines = text.lines().count();
        self.drawn = now;
        output::line(text.trim_end())
    }

    fn table(
        &mut self,
        cluster: &ClusterStatus,
        states: &[ProcessState],
        now: Time,
        passed: f64,
    ) -> comfy_table::Table {
        let header =
            ["server", "address", "pid", "uptime", "state", "leads stars", "objects", "reads/s", "writes/s", "lease"];
        let mut table = output::table(&header, &[2, 6, 7, 8, 9]);
        for state in states {
            let line = cluster.servers.iter().find(|server| server.name == state.info.name);
            let own = line.and_then(|line| line.own.as_ref());
            let (reads, writes) = own.map_or((None, None), |own| {
                let before = self.before.insert(own.name.clone(), own.counters);
                let per_second =
                    |now: u64, before: u64| output::count((now.saturating_sub(before) as f64 / passed) as u64);
                let rate =
                    |what: fn(&Counters) -> u64| before.map(|before| per_second(what(&own.counters), what(&before)));
                (rate(Counters::reads), rate(|counters| counters.stamped))
            });
            let dash = || "-".to_owned();
            let condition = match &state.ended {
                Some(how) => how.clone(),
                None => line.map_or("no answer", |line| line.state).to_owned(),
            };
            table.add_row([
                state.info.name.clone(),
                state.info.addr.clone(),
                if state.ended.is_some() { dash() } else { state.pid.to_string() },
                if state.ended.is_some() { dash() } else { output::uptime(now.since(state.started)) },
                status_command::state(&condition),
                status::led_by(&cluster.stars, &state.info.name),
                own.map_or_else(dash, |own| output::count(own.store.objects)),
                reads.unwrap_or_else(dash),
                writes.unwrap_or_else(dash),
                own.map_or_else(dash, |own| format!("{} ms", own.lease_ms)),
            ]);
        }
        table
    }
}
