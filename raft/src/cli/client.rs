//! `raft client`: an interactive shell.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::Args;

use super::ServersArgs;
use crate::kv::{KvClient, literal};

const HELP: &str = "\
put KEY VALUE          make VALUE the key's value; prints its version
get KEY                print the key's value
status                 what the servers say of themselves
quit
KEY and VALUE are any JSON, such as 1, \"text\", [1, 2] or {\"key\": \"value\"}; a word that is no JSON stands for a string";

/// What the client is started with.
#[derive(Debug, Args)]
pub struct ClientArgs {
    /// The number of this client, 1 to 999; each has its own
    #[arg(value_parser = clap::value_parser!(u32).range(1..=999))]
    number: u32,
    #[command(flatten)]
    servers: ServersArgs,
    /// How many seconds each command is tried
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    timeout: u64,
}

pub(super) fn run(args: &ClientArgs) -> anyhow::Result<()> {
    let runtime = super::runtime()?;
    let mut client = KvClient::new(&args.servers.servers, args.number, Duration::from_secs(args.timeout));
    super::read_lines("raft", |line| {
        (!matches!(line, "quit" | "exit")).then(|| runtime.block_on(perform(&mut client, line)))
    })
}

async fn perform(client: &mut KvClient, line: &str) -> anyhow::Result<String> {
    let (verb, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    Ok(match verb {
        "" => String::new(),
        "put" => {
            let (key, rest) = read(rest)?;
            let (value, rest) = read(rest)?;
            ensure!(rest.trim().is_empty(), "usage: put KEY VALUE; {rest:?} is too much");
            format!("version {}", client.put(&key, &value).await?)
        }
        "get" => {
            let (key, rest) = read(rest)?;
            ensure!(rest.trim().is_empty(), "usage: get KEY; {rest:?} is too much");
            client.get(&key).await?.map_or_else(|| "no such key".to_owned(), |(value, _)| value)
        }
        "status" => {
            let said = client.status().await;
            said.iter().map(|(addr, status)| format!("{addr} {status}")).collect::<Vec<_>>().join("\n")
        }
        "help" => HELP.to_owned(),
        _ => bail!("{line:?} is nothing that can be done; `help` says what can"),
    })
}

fn read(text: &str) -> anyhow::Result<(serde_json::Value, &str)> {
    literal(text).map_err(anyhow::Error::msg).context("`help` says how it is written")
}
