//! Clients: of a whole cluster, and of one server of it.

use std::time::Duration;

use star::{ClientError, Options, StarClient};
use star_core::{config::Config, network::ClientOptions};
use tokio::runtime::Runtime;

use crate::{
    args::{ConnectArgs, GlobalArgs},
    error::CliError,
    settings,
};

/// A runtime on this thread.
pub(crate) fn runtime() -> Result<Runtime, CliError> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// The servers to ask, by name and address; a server of `--connect` goes by its address.
pub(crate) fn servers(connect: &[String], config: &Config) -> Vec<(String, String)> {
    if connect.is_empty() {
        return config.cluster.servers.iter().map(|server| (server.name.clone(), server.addr.clone())).collect();
    }
    connect.iter().map(|addr| (addr.clone(), addr.clone())).collect()
}

/// A client of the cluster that the flags or the configuration name.
pub(crate) async fn client(global: &GlobalArgs, args: &ConnectArgs) -> Result<StarClient, CliError> {
    let config = settings::load(global)?;
    let addrs: Vec<String> = servers(&args.connect, &config).into_iter().map(|(_, addr)| addr).collect();
    let options = Options {
        network: network(args.timeout),
        give_up_after: args.timeout,
        transport: args.transport.into(),
    };
    Ok(connect_within(&addrs, options, args.timeout).await?)
}

/// How each server is talked to, if an operation may take this long.
pub(crate) fn network(timeout: Duration) -> ClientOptions {
    let defaults = ClientOptions::default();
    ClientOptions { connect_timeout: timeout.min(defaults.connect_timeout), request_timeout: timeout, ..defaults }
}

/// Servers that are dead but not gone keep a client waiting: the first that answers decides, but all in the time.
async fn connect_within(addrs: &[String], options: Options, limit: Duration) -> Result<StarClient, ClientError> {
    match tokio::time::timeout(limit, StarClient::connect(addrs, options)).await {
        Ok(connected) => connected,
        Err(_) => Err(ClientError::NoCluster {
            tried: addrs.join(", "),
            last: format!("no answer within {}", humantime::format_duration(limit)),
        }),
    }
}
