//! `star store`: what is in the mapped files of servers, whether these run or were killed. Asks no server, and changes
//! nothing.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use star_core::{Clock, Time};
use star_objstore::{Stat, StoreFile, Verified};

use crate::{
    args::GlobalArgs,
    error::{CliError, CliResult, Exit},
    output, settings,
    value::JsonObject,
};

const EXAMPLES: &str = "\
Examples:
  star store stat                               every store of this machine's cluster
  star store verify /dev/shm/star/star/a        checksums of all objects; exit code 1 if something is damaged
  star store dump /dev/shm/star/star/a --json   every object, as `star get --json` shows it
Works on the file of a server that runs as on one that a server left. What it shows is what this server has: not the
linearizable answer, which `star get` gives.";

/// At most so many damages are named one by one.
const DAMAGES_NAMED: usize = 20;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct StoreArgs {
    #[command(subcommand)]
    command: StoreCommand,
}

#[derive(Debug, Subcommand)]
enum StoreCommand {
    /// How full the stores are, who writes them, and what readers may do with them
    Stat(FilesArgs),
    /// Check every object: its place in the index, its key, its checksum
    Verify(FilesArgs),
    /// Print every object: version, bytes and key; with --json also its value
    Dump(DumpArgs),
}

#[derive(Debug, Args)]
struct FilesArgs {
    /// The stores' files [default: those in the directory of the configuration's cluster]
    files: Vec<PathBuf>,
}

#[derive(Debug, Args)]
struct DumpArgs {
    /// The store's file
    file: PathBuf,
    /// Only keys that begin with this
    #[arg(long, value_name = "TEXT", default_value = "")]
    prefix: String,
}

pub(crate) fn run(global: &GlobalArgs, args: &StoreArgs) -> CliResult {
    match &args.command {
        StoreCommand::Stat(args) => each(global, args, |file| show(global, file)),
        StoreCommand::Verify(args) => each(global, args, |file| verify(global, file)),
        StoreCommand::Dump(args) => dump(global, args),
    }
}

/// Calls `look` for each file. One that is refused does not keep the others from being looked at.
fn each(global: &GlobalArgs, args: &FilesArgs, look: impl Fn(&StoreFile) -> CliResult) -> CliResult {
    let files = if args.files.is_empty() { files_of_cluster(global)? } else { args.files.clone() };
    let (mut exit, mut refused) = (Exit::Done, None);
    for file in files {
        match StoreFile::open(&file).map_err(CliError::from).and_then(|file| look(&file)) {
            Ok(Exit::Done) => {}
            Ok(other) => exit = other,
            Err(error) => {
                if let Some(earlier) = refused.replace(error) {
                    earlier.report(global.json);
                }
            }
        }
    }
    refused.map_or(Ok(exit), Err)
}

fn files_of_cluster(global: &GlobalArgs) -> Result<Vec<PathBuf>, CliError> {
    let config = settings::load(global)?;
    let directory = config.store.directory.join(&config.cluster.name);
    let none = || {
        CliError::new(format!("there is no store in {}", directory.display()))
            .hint("name a file, or the directory and cluster with --set store.directory=… --set cluster.name=…")
    };
    let entries = fs::read_dir(&directory).map_err(|_| none())?;
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    // What is being made is not there yet.
    files.retain(|path| path.is_file() && path.extension().is_none_or(|extension| extension != "tmp"));
    files.sort_unstable();
    if files.is_empty() { Err(none()) } else { Ok(files) }
}

fn show(global: &GlobalArgs, file: &StoreFile) -> CliResult {
    let (stat, now) = (file.stat(), Clock.now());
    if global.json {
        output::json_line(&json_of(file.path(), &stat, now))?;
        return Ok(Exit::Done);
    }
    let share = |part: u64, whole: u64| format!("{:.1} %", part as f64 * 100.0 / whole as f64);
    let (used, capacity) = (output::bytes(stat.used_bytes), output::bytes(stat.capacity_bytes));
    output::line(format!("{}", file.path().display()))?;
    output::line(format!("  format {}, cluster {}, {} stars", stat.format, stat.cluster, stat.stars))?;
    output::line(format!("  written by {}", writer(&stat)))?;
    output::line(format!("  readers {}", permission(&stat, now)))?;
    output::line(format!(
        "  objects {} of {} ({}), {} of values",
        output::count(stat.objects),
        output::count(stat.entries_max),
        share(stat.objects, stat.entries_max),
        output::bytes(stat.value_bytes)
    ))?;
    output::line(format!("  room {used} of {capacity} ({})", share(stat.used_bytes, stat.capacity_bytes)))?;
    output::line(format!(
        "  under way {} dirty keys, {} values placed; {} objects pinned by readers",
        stat.dirty, stat.placed, stat.pinned
    ))?;
    output::line(format!("  at most {} keys in a bucket", stat.bucket_keys_max))?;
    Ok(Exit::Done)
}

fn writer(stat: &Stat) -> String {
    let life = stat.incarnation;
    match (stat.in_use, stat.writer_pid) {
        (true, 0) => format!("a process that is about to stop, incarnation {life}"),
        (true, pid) => format!("process {pid}, which runs, incarnation {life}"),
        (false, 0) => format!("nobody: stopped in good order, incarnation {life}"),
        (false, pid) => format!("nobody: process {pid} ended without closing it, incarnation {life}"),
    }
}

fn permission(stat: &Stat, now: Time) -> String {
    if stat.superseded {
        return "were told that another file took this one's place".to_owned();
    }
    if !stat.this_boot {
        return "may not use it: last served before this machine started".to_owned();
    }
    if now >= stat.lease_until {
        return "must ask the server: it has no lease".to_owned();
    }
    let left = stat.lease_until.since(now);
    format!("may answer for {} of {} stars, for {left:.0?} yet", stat.serving.len(), stat.stars)
}

fn json_of(path: &Path, stat: &Stat, now: Time) -> Value {
    json!({
        "file": path.display().to_string(),
        "format": stat.format,
        "cluster": stat.cluster,
        "stars": stat.stars,
        "serving": stat.serving,
        "incarnation": stat.incarnation.0,
        "writer_pid": stat.writer_pid,
        "in_use": stat.in_use,
        "this_boot": stat.this_boot,
        "superseded": stat.superseded,
        "has_lease": stat.this_boot && !stat.superseded && now < stat.lease_until,
        "file_bytes": stat.file_bytes,
        "capacity_bytes": stat.capacity_bytes,
        "used_bytes": stat.used_bytes,
        "entries_max": stat.entries_max,
        "objects": stat.objects,
        "value_bytes": stat.value_bytes,
        "dirty": stat.dirty,
        "placed": stat.placed,
        "pinned": stat.pinned,
        "bucket_keys_max": stat.bucket_keys_max,
    })
}

fn verify(global: &GlobalArgs, file: &StoreFile) -> CliResult {
    let Verified { objects, unsettled, damage } = file.verify();
    let path = file.path().display();
    if global.json {
        let named: Vec<Value> = damage.iter().map(|one| json!({"bucket": one.bucket, "what": one.what})).collect();
        let line = json!({"file": path.to_string(), "objects": objects, "unsettled": unsettled, "damage": named});
        output::json_line(&line)?;
    } else {
        let count = output::count(objects);
        output::line(format!("{path}: {count} objects whole, {} damaged places", damage.len()))?;
        for one in damage.iter().take(DAMAGES_NAMED) {
            output::line(format!("  bucket {}: {}", one.bucket, one.what))?;
        }
        if damage.len() > DAMAGES_NAMED {
            output::line(format!("  and {} more", damage.len() - DAMAGES_NAMED))?;
        }
        if unsettled > 0 {
            output::line(format!("  {unsettled} buckets kept changing: they were not looked at"))?;
        }
    }
    if damage.is_empty() {
        return Ok(Exit::Done);
    }
    output::note("a server that opens the file drops what is damaged, and has it again from the other members");
    Ok(Exit::Error)
}

fn dump(global: &GlobalArgs, args: &DumpArgs) -> CliResult {
    let file = StoreFile::open(&args.file)?;
    let mut written = Ok(());
    file.dump(|found| {
        if found.key.as_str().starts_with(&args.prefix) {
            let key = found.key.as_str();
            written = if global.json {
                output::json_line(&JsonObject::of_parts(key, &found.value, found.encoding, found.version))
            } else {
                output::line(format!("{}\t{}\t{key}", found.version.0, found.value.len()))
            };
        }
        written.is_ok()
    });
    written?;
    Ok(Exit::Done)
}
