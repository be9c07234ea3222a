//! `star server`: the servers of a running cluster, and what they are to be.

mod remove;

use std::{collections::BTreeSet, time::Duration};

use clap::{Args, Subcommand};
use serde_json::json;
use star::{ServerOptions, StarServer};
use star_control::{
    CasOutcome, ClusterState, ControlPlane, Plane, PlaneError, Revision, Standing,
    document::CLUSTER_KEY,
    plan::{ended_lives, marked},
};
use star_core::{Clock, ServerId, cluster::ServerInfo, config::Config, server::bind};

use super::serve;
use crate::{
    args::GlobalArgs,
    connection,
    error::{CliError, CliResult, Exit},
    output, settings, status,
};

const EXAMPLES: &str = "\
Examples:
  star server list                       who is in the cluster, with what, and who cannot reach whom
  star server add f 127.0.0.1:7005       run one more server here, in the foreground
  star server drain b                    have others take its place, and wait until they have
  star server drain b --undo             take it back
  star server remove b                   forget a server that was drained and stopped
  star server remove b --lose-objects    forget one that has ended for good, with what only it has

All of it goes by the control plane that the configuration names, not by --connect. A server that was added has no part in the
embedded control plane, which stays where it is.";

/// How often the control plane is asked how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often it is said how far copying is.
const SHOW_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ServerArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show the servers and their part in the stars
    List,
    /// Run a server that the configuration does not name, in the foreground, in a cluster that runs
    Add {
        /// Its name, new in the cluster, or that of a server that was removed
        name: String,
        /// Where it is to listen
        #[arg(value_name = "HOST:PORT")]
        addr: String,
    },
    /// Have other servers take a server's place, star by star
    Drain {
        /// The server
        name: String,
        /// Have it come into views again
        #[arg(long)]
        undo: bool,
        /// Do not wait until it is in no view any more
        #[arg(long)]
        no_wait: bool,
        /// How long to wait
        #[arg(long, value_name = "TIME", default_value = "10min", value_parser = humantime::parse_duration)]
        timeout: Duration,
    },
    /// Forget a server that is in no view and does not run
    Remove {
        /// The server
        name: String,
        /// Also if it is in views and has ended for good. Stars that no other server holds begin empty then, unless the stores
        /// that others left certainly hold everything
        #[arg(long)]
        lose_objects: bool,
    },
}

pub(crate) fn run(global: &GlobalArgs, args: &ServerArgs) -> CliResult {
    let config = settings::load(global)?;
    match &args.what {
        What::List => connection::runtime()?.block_on(list(global, &config)),
        What::Add { name, addr } => add(config, name, addr),
        What::Drain { name, undo, no_wait, timeout } => {
            let standing = if *undo { Standing::Active } else { Standing::Draining };
            let wait = (!undo && !no_wait).then_some(*timeout);
            connection::runtime()?.block_on(drain(global, &config, name, standing, wait))
        }
        What::Remove { name, lose_objects } => {
            connection::runtime()?.block_on(remove::run(global, &config, name, *lose_objects))
        }
    }
}

async fn list(global: &GlobalArgs, config: &Config) -> CliResult {
    let plane = star::control_plane(config)?;
    let (_, state) = state(&plane).await?;
    let leases = plane.leases().await?;
    let header = ["server", "address", "standing", "lease", "views", "leads", "on the way", "cannot reach"];
    let mut table = output::table(&header, &[4, 5, 6]);
    let mut servers = Vec::new();
    for server in state.servers.iter().filter(|one| one.standing != Standing::Removed) {
        let holds = leases.iter().any(|lease| lease.name == server.name && lease.holder == server.incarnation);
        let part = Part::of(&state, server.id);
        let unreachable: Vec<&str> =
            server.unreachable.iter().filter_map(|id| state.server(*id)).map(|one| one.name.as_str()).collect();
        let standing = serde_json::to_value(server.standing)?;
        table.add_row([
            server.name.clone(),
            server.addr.clone(),
            standing.as_str().unwrap_or_default().to_owned(),
            (if holds { "held" } else { "none" }).to_owned(),
            part.views.to_string(),
            part.leads.to_string(),
            part.moving.to_string(),
            if unreachable.is_empty() { "-".to_owned() } else { unreachable.join(" ") },
        ]);
        servers.push(json!({
            "name": server.name, "addr": server.addr, "standing": standing, "lease": holds, "views": part.views,
            "leads": part.leads, "moving": part.moving, "unreachable": unreachable,
        }));
    }
    if global.json {
        output::json_line(&json!({ "servers": servers }))?;
    } else {
        output::line(table.to_string())?;
    }
    Ok(Exit::Done)
}

/// What a server has to do with the stars, in numbers of stars.
struct Part {
    views: usize,
    leads: usize,
    /// In which it is on the way in or out.
    moving: usize,
}

impl Part {
    fn of(state: &ClusterState, id: ServerId) -> Self {
        let mut part = Self { views: 0, leads: 0, moving: 0 };
        for view in &state.stars {
            let lists = [&view.joining, &view.leaving, &view.learners];
            part.views += usize::from(view.is_member(id) || view.learners.contains(&id));
            part.leads += usize::from(view.is_member(id) && view.leader == id);
            part.moving += usize::from(lists.iter().any(|list| list.contains(&id)));
        }
        part
    }
}

/// Runs one more server, as `star serve` does one that the configuration names.
fn add(mut config: Config, name: &str, addr: &str) -> CliResult {
    if config.cluster.servers.iter().any(|server| server.name == name) {
        let hint = format!("star serve --name {name} runs it");
        return Err(CliError::usage(format!("the configuration names server {name:?} already")).hint(hint));
    }
    let (_, state) = connection::runtime()?.block_on(async { state(&star::control_plane(&config)?).await })?;
    let is_taken = |one: &&star_control::ServerRecord| one.standing != Standing::Removed && one.addr == addr;
    if let Some(other) = state.servers.iter().find(|one| is_taken(one) && one.name != name) {
        return Err(CliError::usage(format!("server {:?} has the address {addr}: choose another", other.name)));
    }
    // Who keeps the embedded control plane does not change because one more server comes.
    let control = ServerOptions::from_config(&config, &config.cluster.servers[0].name)?.control;
    config.cluster.servers.push(ServerInfo::new(name, addr));
    let options = ServerOptions { control, ..ServerOptions::from_config(&config, name)? };
    let stars = state.stars.len();
    output::note(format!("server {name} joins {} with {stars} stars; `star status` shows how far", state.name()));
    serve::serve(&config, name, false, || StarServer::start_on(bind(addr)?, options))
}

async fn drain(
    global: &GlobalArgs,
    config: &Config,
    name: &str,
    standing: Standing,
    wait: Option<Duration>,
) -> CliResult {
    let plane = star::control_plane(config)?;
    let id = change(&plane, name, |state, id| match state.server(id).map(|server| server.standing) {
        Some(Standing::Removed) => Err(CliError::usage(format!("server {name} was removed from the cluster"))),
        _ => {
            let others = state.servers.iter().filter(|one| one.id != id && one.standing.is_active()).count();
            if standing == Standing::Draining && others == 0 {
                return Err(CliError::usage(format!("no other server could take the place of {name}")));
            }
            Ok(marked(state, id, standing))
        }
    })
    .await?;
    let Some(timeout) = wait else { return done(global, name, standing) };
    let (ends, mut said, mut shown) = (Clock.now() + timeout, BTreeSet::new(), Clock.now());
    loop {
        let (_, state) = state(&plane).await?;
        let left = Part::of(&state, id).views;
        if left == 0 {
            return done(global, name, standing);
        }
        if said.insert(left) && !global.json {
            output::note(format!("server {name} is in {left} of {} stars", state.stars.len()));
        }
        if !global.json && Clock.now().since(shown) >= SHOW_EVERY {
            show_arrivals(&state).await;
            shown = Clock.now();
        }
        if Clock.now() >= ends {
            let why = format!("server {name} is still in {left} stars after {}", humantime::format_duration(timeout));
            return Err(CliError::new(why).hint("it goes on by itself; `star server list` shows who is in the way"));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Says how far those are that take the place of others.
async fn show_arrivals(state: &ClusterState) {
    let there = state.servers.iter().filter(|one| one.standing != Standing::Removed);
    let servers: Vec<_> = there.map(|one| (one.name.clone(), one.addr.clone())).collect();
    let cluster = status::gather(&servers, SHOW_EVERY).await;
    cluster.arriving.iter().for_each(|one| output::note(one.to_string()));
}

/// Changes the cluster's document; tries again where somebody else was faster. Returns the server's number.
async fn change(
    plane: &Plane,
    name: &str,
    mut next: impl FnMut(&ClusterState, ServerId) -> Result<Option<ClusterState>, CliError>,
) -> Result<ServerId, CliError> {
    loop {
        let (revision, before) = state(plane).await?;
        let names: Vec<&str> = before.servers.iter().map(|server| server.name.as_str()).collect();
        let Some(id) = before.server_named(name).map(|server| server.id) else {
            let hint = format!("the servers are {}", names.join(", "));
            return Err(CliError::usage(format!("there is no server {name:?}")).hint(hint));
        };
        let Some(after) = next(&before, id)? else { return Ok(id) };
        let unleased = ended_lives(&before, &after, None);
        match plane.compare_and_set(CLUSTER_KEY, revision, after.encode(), &unleased).await {
            Ok(CasOutcome::Done(_)) => return Ok(id),
            Ok(CasOutcome::Conflict) => {}
            Ok(CasOutcome::Leased(name)) => {
                return Err(CliError::new(format!("server {name} runs, or did a moment ago")).hint("stop it first"));
            }
            // It may have been done: the next look tells.
            Err(PlaneError::Unreachable { .. }) => tokio::time::sleep(LOOK_EVERY).await,
            Err(error) => return Err(error.into()),
        }
    }
}

async fn state(plane: &Plane) -> Result<(Revision, ClusterState), CliError> {
    let found = plane.get(CLUSTER_KEY).await?;
    let found = found.ok_or_else(|| CliError::new("no cluster was made yet").hint("`star up` starts one"))?;
    Ok((found.revision, ClusterState::decode(&found.value).map_err(CliError::new)?))
}

fn done(global: &GlobalArgs, name: &str, standing: Standing) -> CliResult {
    if global.json {
        output::json_line(&json!({ "status": "OK", "server": name, "standing": standing }))?;
    } else {
        output::line(match standing {
            Standing::Active => format!("server {name} comes into views again"),
            Standing::Draining => format!("server {name} is drained, as far as it was waited for"),
            Standing::Stopping | Standing::Removed => format!("server {name} is removed"),
        })?;
    }
    Ok(Exit::Done)
}
