//! Clients: of a whole cluster, and of one server of it.

use std::time::Duration;

use star::{ClientError, Options, StarClient, Transport};
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
    let options = options(&config, args.timeout, args.transport.into());
    // Each server that hangs takes its time; all of them together must not take more than is allowed.
    match tokio::time::timeout(args.timeout, StarClient::connect(&addrs, options)).await {
        Ok(connected) => Ok(connected?),
        Err(_) => {
            let last = format!("no answer within {}", humantime::format_duration(args.timeout));
            Err(ClientError::NoCluster { tried: addrs.join(", "), last }.into())
        }
    }
}

/// How clients behave if an operation may take this long.
pub(crate) fn options(config: &Config, timeout: Duration, transport: Transport) -> Options {
    let network = config.client_options();
    let network = ClientOptions {
        connect_timeout: network.connect_timeout.min(timeout),
        request_timeout: network.request_timeout.min(timeout),
        ..network
    };
    Options { network, give_up_after: timeout, transport, ..Options::default() }
}
