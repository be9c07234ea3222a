//! `star watch`: prints what changes.

use clap::Args;
use serde_json::json;
use star::{Event, StarClient};
use star_core::message::Notice;

use crate::{
    args::{ConnectArgs, GlobalArgs},
    connection,
    error::{CliResult, Exit},
    output,
    signals::Signals,
};

const EXAMPLES: &str = "\
Examples:
  star watch                  every change, until Ctrl-C
  star watch photos/ --json   {\"key\":\"photos/cat\",\"version\":3,\"size\":51234}, one on a line
  star watch --count 1        ends after the first change
They are the changes of one server's store, each after it was committed: of a server of this machine, if there is one.
Who reads too slowly is told that some were missed, and goes on.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct WatchArgs {
    /// What the keys begin with
    #[arg(default_value = "")]
    prefix: String,
    /// End after so many changes
    #[arg(long, value_name = "COUNT")]
    count: Option<u64>,
    #[command(flatten)]
    connect: ConnectArgs,
}

pub(crate) fn run(global: &GlobalArgs, args: &WatchArgs) -> CliResult {
    connection::runtime()?.block_on(async {
        let mut signals = Signals::new()?;
        let client = connection::client(global, &args.connect).await?;
        tokio::select! {
            done = watch(global, args, &client) => done,
            () = signals.next() => Ok(Exit::Interrupted),
        }
    })
}

async fn watch(global: &GlobalArgs, args: &WatchArgs, client: &StarClient) -> CliResult {
    let mut subscription = client.subscribe(&args.prefix).await?;
    // Whoever reads this knows from now on that nothing is missed in silence.
    output::note("watching");
    let mut left = args.count.unwrap_or(u64::MAX);
    while left > 0 {
        match subscription.next().await? {
            Event::Changed(notice) => {
                print(global, &notice)?;
                left -= 1;
            }
            Event::Missed if global.json => output::json_line(&json!({"missed": true}))?,
            Event::Missed => output::note("some changes were missed"),
        }
    }
    Ok(Exit::Done)
}

fn print(global: &GlobalArgs, Notice { key, version, value_bytes }: &Notice) -> std::io::Result<()> {
    match value_bytes {
        Some(bytes) if global.json => output::json_line(&json!({"key": key, "version": version, "size": bytes})),
        None if global.json => output::json_line(&json!({"key": key, "version": version, "deleted": true})),
        Some(bytes) => output::line(format!("{key}  version {version}  {}", output::bytes(*bytes))),
        None => output::line(format!("{key}  version {version}  deleted")),
    }
}
