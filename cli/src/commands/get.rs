//! `star get`: prints an object.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use star::Object;

use crate::{
    args::{ConnectArgs, GlobalArgs},
    connection,
    error::{CliResult, Exit},
    output,
    value::{self, JsonObject},
};

const EXAMPLES: &str = "\
Examples:
  star get greeting
  star get photos/cat -o cat.jpg
  star get greeting --version            the version alone, for `star set … --if-version`
  star get config --json                 {\"status\":\"OK\",\"key\":…,\"value\":…,\"version\":…}
Exit code 3: there is no such object.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct GetArgs {
    /// The key
    key: String,
    /// Write the value to this file
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print the version; the value only goes to the file of -o
    #[arg(long)]
    version: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

pub(crate) fn run(global: &GlobalArgs, args: &GetArgs) -> CliResult {
    connection::runtime()?.block_on(async {
        let client = connection::client(global, &args.connect).await?;
        let waiting = value::waiting("reading", None);
        let answer = client.get(&args.key).await;
        waiting.finish_and_clear();
        match answer? {
            Some(object) => print(global, args, &object),
            None => missing(global, &args.key),
        }
    })
}

fn print(global: &GlobalArgs, args: &GetArgs, object: &Object) -> CliResult {
    if let Some(path) = &args.output {
        value::write_file(path, &object.value)?;
    }
    let value_is_wanted = args.output.is_none() && !args.version;
    if global.json && value_is_wanted {
        output::json_line(&JsonObject::new(&args.key, object))?;
    } else if global.json {
        output::json_line(&json!({"status": "OK", "key": args.key, "version": object.version}))?;
    } else if args.version {
        output::line(object.version.to_string())?;
    } else if value_is_wanted {
        value::write_stdout(&object.value)?;
    }
    Ok(Exit::Done)
}

/// Says that there is no such object.
pub(super) fn missing(global: &GlobalArgs, key: &str) -> CliResult {
    if global.json {
        output::json_line(&json!({"status": "NOT_FOUND", "key": key}))?;
    } else {
        output::note(format!("{key:?} has no object"));
    }
    Ok(Exit::NotFound)
}
