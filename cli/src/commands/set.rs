//! `star set`: stores an object.

use bytes::Bytes;
use clap::Args;
use serde_json::json;
use star::{CasOutcome, StarClient};
use star_core::{Version, message::Condition, store::Encoding};

use crate::{
    args::{ConnectArgs, GlobalArgs},
    connection,
    error::{CliError, CliResult, Exit},
    output, settings,
    value::{self, LargeFile},
};

const EXAMPLES: &str = "\
Examples:
  star set greeting 'good morning'
  star set photos/cat @cat.jpg           the value is the file
  tar c . | star set backup -            the value is what comes in on stdin
  star set lock me --if-absent           only if there is no such object: exit code 4 if there is
  star set config '{\"a\": 1}' --json-value
A file of 64 KiB or more is read into the store of a server of this machine, if there is one, and not copied again.
A value that begins with @ is written with two of them: @@home.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct SetArgs {
    /// The key
    key: String,
    /// The value: a word, @FILE, or - for stdin (as without any value)
    value: Option<String>,
    /// Only if the key's object has this version; 0 stands for no object
    #[arg(long, value_name = "VERSION", conflicts_with = "if_absent")]
    if_version: Option<u64>,
    /// Only if the key has no object
    #[arg(long)]
    if_absent: bool,
    /// The value is JSON: JSON clients get it back as the same value, not as a string
    #[arg(long)]
    json_value: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

pub(crate) fn run(global: &GlobalArgs, args: &SetArgs) -> CliResult {
    let config = settings::load(global)?;
    let condition = match args.if_version {
        Some(version) => Condition::IfVersion(Version(version)),
        None if args.if_absent => Condition::IfAbsent,
        None => Condition::Always,
    };
    if !args.json_value
        && let Some(file) = value::large_file(args.value.as_deref(), config.limits.value_bytes_max)?
    {
        return connection::runtime()?.block_on(async {
            let client = connection::client(global, &args.connect).await?;
            report(global, &args.key, store_file(&client, &args.key, file, condition).await?)
        });
    }
    let bytes = value::read(args.value.as_deref(), config.limits.value_bytes_max)?;
    let (bytes, encoding) = if args.json_value { value::from_json(&bytes)? } else { (bytes, Encoding::Raw) };
    connection::runtime()?.block_on(store(global, args, bytes, encoding, condition))
}

/// Reads a file into room for it, in the store of a server of this machine if there is one, and stores what is there.
pub(super) async fn store_file(
    client: &StarClient,
    key: &str,
    file: LargeFile,
    condition: Condition,
) -> Result<CasOutcome, CliError> {
    let length = file.length();
    let mut room = client.create(key, length).await?;
    file.read_into(&mut room)?;
    let waiting = value::waiting(format!("storing {}", output::bytes(length as u64)), Some(length as u64));
    let outcome = room.seal_if(condition).await;
    waiting.finish_and_clear();
    Ok(outcome?)
}

async fn store(
    global: &GlobalArgs,
    args: &SetArgs,
    bytes: Bytes,
    encoding: Encoding,
    condition: Condition,
) -> CliResult {
    let client = connection::client(global, &args.connect).await?;
    let length = bytes.len() as u64;
    let waiting = value::waiting(format!("storing {}", output::bytes(length)), Some(length));
    let outcome = client.write(&args.key, bytes, encoding, condition).await;
    waiting.finish_and_clear();
    let outcome = outcome?;
    report(global, &args.key, outcome)
}

/// Says what came of a write with a condition.
pub(super) fn report(global: &GlobalArgs, key: &str, outcome: CasOutcome) -> CliResult {
    let (status, version, exit) = match outcome {
        CasOutcome::Written(version) => ("OK", version, Exit::Done),
        CasOutcome::Conflict(version) => ("CONFLICT", version, Exit::Conflict),
    };
    if global.json {
        output::json_line(&json!({"status": status, "key": key, "version": version}))?;
    } else if exit == Exit::Done {
        output::line(format!("version {version}"))?;
    } else {
        output::note(conflict(key, version));
    }
    Ok(exit)
}

/// Why a condition did not hold.
pub(super) fn conflict(key: &str, version: Version) -> String {
    if version == Version(0) {
        format!("not done: {key:?} has no object")
    } else {
        format!("not done: {key:?} has version {version}")
    }
}
