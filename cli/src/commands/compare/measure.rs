//! Runs the loads of a round on one system.

use std::time::Duration;

use indicatif::ProgressBar;
use star_bench::{Options, Report, System, Target};

use super::Row;
use crate::{
    args::{GlobalArgs, TransportArg},
    commands::bench::{SystemArg, targets},
    error::CliError,
    peers::{Group, Wanted},
    processes::{Plan, Processes},
    settings, status,
};

/// Room for the largest load of all rows, with the versions before.
const CAPACITY_BYTES: u64 = 512 << 20;

/// All rows on one system, on servers that are started for them; `measured` takes each report as soon as it is there.
pub(super) async fn one_round(
    global: &GlobalArgs,
    seconds: f64,
    rows: &[Row],
    (system, servers): (SystemArg, u16),
    (bar, mut measured): (&ProgressBar, impl FnMut(&Row, Report)),
) -> Result<(), CliError> {
    let load = Load { servers: usize::from(servers), seconds, rows };
    if let Some(peer) = system.peer() {
        let store_directory = settings::load(global)?.store.directory;
        let group =
            Group::start(peer, &Wanted { servers: load.servers, capacity_bytes: CAPACITY_BYTES, store_directory })
                .await?;
        let (tcp, mapped) = (group.tcp_targets(), group.mapped_targets());
        let leaders = leaders(&group.system, &tcp).await;
        let place = Place { system: group.system.clone(), pids: group.pids(), tcp: &tcp, mapped: &mapped, leaders };
        return all_rows(&load, &place, bar, measured).await;
    }
    let own = [("store.capacity_bytes".to_owned(), CAPACITY_BYTES.to_string())];
    let mut own = Processes::start(Plan::own_cluster(global, "compare", load.servers, &own)?)?;
    let outcome = async {
        let cluster = own.ready(|_| {}).await?;
        let (tcp, mapped) = (targets(TransportArg::Tcp, &cluster)?, targets(TransportArg::Auto, &cluster)?);
        let leaders = cluster.leaders(&tcp);
        let place = Place { system: System::Star, pids: cluster.pids(), tcp: &tcp, mapped: &mapped, leaders };
        all_rows(&load, &place, bar, &mut measured).await
    };
    let outcome = outcome.await;
    own.stop_after(outcome).await
}

/// What is measured, whatever the system.
struct Load<'a> {
    servers: usize,
    /// How long each row is measured.
    seconds: f64,
    rows: &'a [Row],
}

/// Where the loads go.
struct Place<'a> {
    system: System,
    pids: Vec<u32>,
    tcp: &'a [Target],
    /// With mapped stores; empty if the system has none.
    mapped: &'a [Target],
    /// For each star which of the targets without a mapped store leads it; empty where that is no question.
    leaders: Vec<usize>,
}

/// Who leads which chain, of a system that has several and tells.
async fn leaders(system: &System, targets: &[Target]) -> Vec<usize> {
    if *system != System::Craq {
        return Vec::new();
    }
    let known: Vec<_> = targets.iter().map(|target| (target.addr.clone(), target.addr.clone())).collect();
    status::gather(&known, Duration::from_secs(1)).await.leaders(targets)
}

async fn all_rows(
    load: &Load<'_>,
    place: &Place<'_>,
    bar: &ProgressBar,
    mut measured: impl FnMut(&Row, Report),
) -> Result<(), CliError> {
    let mut filled = None;
    for row in load.rows {
        let targets = if row.mapped { place.mapped } else { place.tcp };
        bar.set_message(format!("{}: {}", place.system.name(), row.name));
        // Without any the system has no such row.
        if !targets.is_empty() {
            let mut options = options(load, row, place, targets);
            options.fill = !row.is_filled(filled);
            if options.fill {
                filled = Some(*row);
            }
            measured(row, star_bench::run(options, |_| {}).await?);
        }
        bar.inc(1);
    }
    Ok(())
}

fn options(load: &Load<'_>, row: &Row, place: &Place<'_>, targets: &[Target]) -> Options {
    Options {
        system: place.system.clone(),
        targets: targets.to_vec(),
        leaders: if row.to_leader { place.leaders.clone() } else { Vec::new() },
        servers: load.servers,
        pids: place.pids.clone(),
        clients: row.clients,
        pipeline: row.pipeline,
        seconds: load.seconds,
        warm_up_seconds: (load.seconds / 4.0).min(1.0),
        read_share: row.read_share,
        keys: row.keys,
        distribution: row.distribution,
        value_bytes: row.value_bytes,
        rate: row.rate,
        fill: true,
        record: false,
        seed: 1,
    }
}
