//! `craq coordinator`.

use std::path::PathBuf;

use crate::{Coordinator, CoordinatorOptions};
use clap::Args;
use star_control::LeaseConfig;
use star_core::server::{Limits, bind};

/// What the coordinator is started with.
#[derive(Debug, Args)]
pub struct CoordinatorArgs {
    /// Port to run the coordinator on; 0 for any that is free
    #[arg(long, default_value_t = 5200)]
    pub(crate) port: u16,
    /// Where it keeps what it knows; one for each port
    #[arg(long, value_name = "DIRECTORY", default_value = "/dev/shm/craq")]
    directory: PathBuf,
}

pub(crate) fn run(args: &CoordinatorArgs) -> anyhow::Result<()> {
    super::log("coordinator")?;
    let runtime = super::runtime()?;
    let listener = bind(&format!("127.0.0.1:{}", args.port))?;
    let options = CoordinatorOptions {
        limits: Limits::default(),
        lease_ttl: LeaseConfig::default().ttl,
        cluster: super::CLUSTER.to_owned(),
        directory: args.directory.join(format!("coordinator-{}", listener.local_addr()?.port())),
    };
    let coordinator = Coordinator::start_on(listener, &options)?;
    println!("coordinator listens on {}", coordinator.addr());
    Ok(runtime.block_on(super::stop_signal())?)
}
