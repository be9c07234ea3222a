//! `star status`: servers and stars.

use std::time::Duration;

use clap::Args;
use clap::builder::styling::Style;

use crate::{
    args::GlobalArgs,
    connection,
    error::{CliResult, Exit},
    output, settings,
    status::{self, ClusterStatus, UP},
};

const EXAMPLES: &str = "\
States of a server: up, starting (no views yet), joining (not serving all of its stars yet),
no lease (answers no reads), no answer (it listens, but says nothing), down.
Where a server copies stars from others it is said how many objects it has, of how many that others have in as many stars.
Exit code 1: no server answers.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct StatusArgs {
    /// Servers of the cluster; one that answers is enough [default: those of the configuration]
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',')]
    connect: Vec<String>,
    /// How long to wait for each answer
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

pub(crate) fn run(global: &GlobalArgs, args: &StatusArgs) -> CliResult {
    let config = settings::load(global)?;
    let known = connection::servers(&args.connect, &config);
    let cluster = connection::runtime()?.block_on(status::gather(&known, args.timeout));
    if global.json {
        output::json_line(&cluster)?;
    } else {
        print(&cluster)?;
    }
    if cluster.servers.iter().any(|server| server.own.is_some()) {
        return Ok(Exit::Done);
    }
    output::note("no server answers: is the cluster running? `star up` starts one");
    Ok(Exit::Error)
}

/// Prints both tables, what there is to know of the control plane, and what is wrong with it.
pub(super) fn print(cluster: &ClusterStatus) -> std::io::Result<()> {
    output::line(server_table(cluster).to_string())?;
    if !cluster.stars.is_empty() {
        output::line(star_table(cluster).to_string())?;
    }
    cluster.arriving.iter().try_for_each(|one| output::line(one.to_string()))?;
    if let Some(plane) = &cluster.plane {
        let led = plane.leader.as_ref().map(|leader| format!(", led by {leader}")).unwrap_or_default();
        output::line(format!("control plane: {}{led}", plane.backend))?;
    }
    for own in cluster.servers.iter().filter_map(|server| server.own.as_ref()) {
        let from = own.cluster.as_ref().map(|known| known.names(own.slow_links_from.iter().copied()));
        if let Some(from) = from.filter(|from| !from.is_empty()) {
            output::line(format!("{}: the link from {from} is slow, so values go around it", own.name))?;
        }
    }
    let noted = cluster.servers.iter().filter_map(|server| Some((&server.name, server.note.as_ref()?)));
    noted.into_iter().try_for_each(|(name, note)| output::line(format!("{name}: {note}")))
}

/// The servers with what they say of themselves.
pub(super) fn server_table(cluster: &ClusterStatus) -> comfy_table::Table {
    let header = ["server", "address", "pid", "state", "leads stars", "objects", "used", "of", "lease"];
    let mut table = output::table(&header, &[2, 5, 6, 7, 8]);
    for server in &cluster.servers {
        let own = server.own.as_ref();
        let of = |show: fn(&status::ServerStatus) -> String| own.map_or_else(|| "-".to_owned(), show);
        table.add_row([
            server.name.clone(),
            server.addr.clone(),
            server.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
            state(server.state),
            status::led_by(&cluster.stars, &server.name),
            of(|own| output::count(own.store.objects)),
            of(|own| output::bytes(own.store.used_bytes)),
            of(|own| output::bytes(own.store.capacity_bytes)),
            of(|own| format!("{} ms", own.lease_ms)),
        ]);
    }
    table
}

/// A state in its colour, if a person sees it.
pub(super) fn state(state: &str) -> String {
    let style: Style = if state == UP { output::GOOD } else { output::BAD };
    if output::stdout_is_terminal() { format!("{style}{state}{style:#}") } else { state.to_owned() }
}

fn star_table(cluster: &ClusterStatus) -> comfy_table::Table {
    let mut table = output::table(&["star", "epoch", "leader", "members", "joining", "leaving", "learners"], &[0, 1]);
    let names = |names: &[String]| if names.is_empty() { "-".to_owned() } else { names.join(" ") };
    for star in &cluster.stars {
        table.add_row([
            star.id.to_string(),
            star.epoch.to_string(),
            star.leader.clone().unwrap_or_else(|| "-".to_owned()),
            names(&star.members),
            names(&star.joining),
            names(&star.leaving),
            names(&star.learners),
        ]);
    }
    table
}
