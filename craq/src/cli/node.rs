//! `craq node`.

use std::path::PathBuf;

use crate::{
    Coordinator, CraqOptions, CraqServer,
    protocol::{Acks, NodeConfig, Reads},
};
use clap::{Args, ValueEnum};
use star_control::{LeaseConfig, PlanConfig};
use star_core::{
    Incarnation, ServerId,
    server::{Limits, bind},
};

/// What the node is started with.
#[derive(Debug, Args)]
pub struct NodeArgs {
    /// Port to run the node on; 0 for any that is free
    #[arg(long, default_value_t = 5201)]
    pub(crate) port: u16,
    /// The coordinator: a port of this machine, or host:port
    #[arg(long, default_value = ":1235", value_parser = super::address)]
    pub(crate) coordinator: String,
    /// How many chains the keys are spread over, each with a head and a tail of its own; the same at all nodes
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    chains: u16,
    /// How many nodes have to be there before the chains begin; later ones join at the tail
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    begin_with: u16,
    /// How reads are answered
    #[arg(long, default_value = "apportioned")]
    reads: ReadsArg,
    /// The most bytes of objects
    #[arg(long, value_name = "BYTES", default_value_t = 256 << 20)]
    capacity: u64,
    /// Where the mapped store of objects is kept
    #[arg(long, value_name = "DIRECTORY", default_value = "/dev/shm/craq")]
    directory: PathBuf,
    /// Let clients break this node's links, for tests
    #[arg(long)]
    faults: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ReadsArg {
    /// Any node; for a key with a write under way it asks the tail
    Apportioned,
    /// The tail alone: chain replication without apportioned queries
    Tail,
    /// Any node at once, with what it knows to be committed; may be old
    Eventual,
}

impl From<ReadsArg> for Reads {
    fn from(reads: ReadsArg) -> Self {
        match reads {
            ReadsArg::Apportioned => Self::Apportioned,
            ReadsArg::Tail => Self::Tail,
            ReadsArg::Eventual => Self::Eventual,
        }
    }
}

pub(crate) fn run(args: &NodeArgs) -> anyhow::Result<()> {
    let listener = bind(&format!("127.0.0.1:{}", args.port))?;
    let port = listener.local_addr()?.port();
    let name = format!("node-{port}");
    super::log(&name)?;
    let runtime = super::runtime()?;
    let options = CraqOptions {
        node: NodeConfig {
            reads: args.reads.into(),
            acks: Acks::Chain,
            ..NodeConfig::new(ServerId::default(), &name, Incarnation::default(), args.chains)
        },
        cluster: super::CLUSTER.to_owned(),
        limits: Limits::default(),
        // Ports of one machine are different, so no two nodes of it share a file.
        store_path: args.directory.join(&name),
        store_capacity_bytes: args.capacity,
        control: Coordinator::control_of(&args.coordinator),
        plan: PlanConfig {
            stars: args.chains,
            initial_servers: usize::from(args.begin_with),
            replicas: None,
            follow_alive: true,
        },
        lease: LeaseConfig::default(),
        allows_faults: args.faults,
    };
    let node = CraqServer::start_on(listener, options)?;
    println!("{name} listens on {}", node.addr());
    let mut failure = node.failure();
    let outcome = runtime.block_on(async {
        tokio::select! {
            stopped = super::stop_signal() => stopped.map_err(anyhow::Error::from),
            failed = failure.wait_for(Option::is_some) => {
                let why = failed.ok().and_then(|why| why.clone()).unwrap_or_else(|| "its thread ended".to_owned());
                Err(anyhow::anyhow!("the node had to stop: {why}"))
            }
        }
    });
    node.stop();
    outcome
}
