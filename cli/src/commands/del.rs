//! `star del`: removes an object.

use clap::Args;
use serde_json::json;
use star::CasOutcome;
use star_core::{Version, message::Condition};

use super::{get, set};
use crate::{
    args::{ConnectArgs, GlobalArgs},
    connection,
    error::{CliResult, Exit},
    output,
};

#[derive(Debug, Args)]
#[command(after_help = "Exit code 3: there is no such object. 4: it has another version.")]
pub(crate) struct DelArgs {
    /// The key
    key: String,
    /// Only if the key's object has this version
    #[arg(long, value_name = "VERSION")]
    if_version: Option<u64>,
    #[command(flatten)]
    connect: ConnectArgs,
}

pub(crate) fn run(global: &GlobalArgs, args: &DelArgs) -> CliResult {
    let condition = args.if_version.map_or(Condition::Always, |version| Condition::IfVersion(Version(version)));
    connection::runtime()?.block_on(async {
        let client = connection::client(global, &args.connect).await?;
        match client.delete(&args.key, condition).await? {
            None => get::missing(global, &args.key),
            Some(CasOutcome::Written(version)) if global.json => {
                output::json_line(&json!({"status": "OK", "key": args.key, "version": version}))?;
                Ok(Exit::Done)
            }
            Some(CasOutcome::Written(_)) => {
                output::line("deleted")?;
                Ok(Exit::Done)
            }
            Some(conflict) => set::report(global, &args.key, conflict),
        }
    })
}
