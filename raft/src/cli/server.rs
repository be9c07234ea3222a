//! `raft server`: one server, with a shell on its stdin to look at it and to break it.

use std::path::PathBuf;

use anyhow::{Context as _, anyhow, bail, ensure};
use clap::Args;
use star_core::config::LogConfig;
use tokio::signal::unix::{SignalKind, signal};

use super::ServersArgs;
use crate::kv::{KvOptions, KvServer};

const HELP: &str = "\
print log              the entries that are not in the snapshot
print kvstore          the objects that this server has applied
failProcess            end at once, as a crash would (with --faults)
failLink SERVER        break the link to the server of this number or port (with --faults)
fixLink SERVER         mend it
quit";

/// What the server is started with.
#[derive(Debug, Args)]
pub struct ServerArgs {
    /// The number of this server, from 1
    #[arg(value_parser = clap::value_parser!(u16).range(1..=crate::kv::SERVERS_MAX as i64))]
    number: u16,
    #[command(flatten)]
    pub(super) servers: ServersArgs,
    /// Where it keeps its log; each server has a directory of its own there, by its port
    #[arg(long, value_name = "DIRECTORY", default_value = "raft-data")]
    directory: PathBuf,
    /// The most bytes of keys and values; the same at all servers
    #[arg(long, value_name = "BYTES", default_value_t = 256 << 20)]
    capacity: u64,
    /// Allow failProcess, failLink and fixLink
    #[arg(long)]
    pub(super) faults: bool,
}

pub(super) fn run(args: &ServerArgs) -> anyhow::Result<()> {
    let place = usize::from(args.number - 1);
    let addr = args.servers.servers.get(place);
    let addr = addr.with_context(|| format!("there are {} servers", args.servers.servers.len()))?;
    star_core::logger::init(&LogConfig::default(), &format!("raft-{}", args.number))
        .context("the log cannot be set up")?;
    let port = addr.rsplit(':').next().unwrap_or_default();
    let directory = args.directory.join(format!("server-{port}"));
    let options =
        KvOptions { capacity_bytes: args.capacity, ..KvOptions::new(args.servers.servers.clone(), place, directory) };
    let server = std::sync::Arc::new(KvServer::start(options)?);
    println!("server {} listens on {}", args.number, server.addr());
    // Whoever stops it by a command ends the process; without a terminal the shell ends at once, and the server goes on.
    let shell =
        Shell { server: std::sync::Arc::clone(&server), servers: args.servers.servers.clone(), faults: args.faults };
    let (quit, quits) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("shell".to_owned()).spawn(move || shell.run(quit))?;
    super::runtime()?.block_on(stop_signal(quits))?;
    drop(server);
    Ok(())
}

struct Shell {
    server: std::sync::Arc<KvServer>,
    servers: Vec<String>,
    faults: bool,
}

impl Shell {
    fn run(self, quit: tokio::sync::oneshot::Sender<()>) {
        let mut has_quit = false;
        let outcome = super::read_lines("server", |line| {
            has_quit = matches!(line, "quit" | "exit");
            (!has_quit).then(|| self.perform(line))
        });
        drop(self);
        if has_quit || outcome.is_err() {
            // It ends anyway if nobody waits for this any more.
            let _ = quit.send(());
        } else {
            // The input has ended; the server has not.
            std::mem::forget(quit);
        }
    }

    fn perform(&self, line: &str) -> anyhow::Result<String> {
        let (verb, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        Ok(match (verb, rest.trim()) {
            ("", _) => String::new(),
            ("print", "log") => shown(&self.server.log_lines()),
            ("print", "kvstore") => shown(&self.server.object_lines()),
            ("failProcess", "") => {
                self.allow()?;
                std::process::exit(1)
            }
            ("failLink", to) => {
                self.allow()?;
                self.server.fail_link(self.place(to)?);
                format!("the link to {to} is broken")
            }
            ("fixLink", to) => {
                self.allow()?;
                self.server.fix_link(self.place(to)?);
                format!("the link to {to} is mended")
            }
            ("help", _) => HELP.to_owned(),
            _ => bail!("{line:?} is nothing that can be done; `help` says what can"),
        })
    }

    fn allow(&self) -> anyhow::Result<()> {
        ensure!(self.faults, "faults are switched off: start the server with --faults");
        Ok(())
    }

    /// The server of this number, or of this port.
    fn place(&self, text: &str) -> anyhow::Result<usize> {
        let by_port = self.servers.iter().position(|addr| addr.rsplit(':').next() == Some(text));
        let by_number = text.parse::<usize>().ok().and_then(|number| number.checked_sub(1));
        let place = by_port.or(by_number.filter(|place| *place < self.servers.len()));
        place.ok_or_else(|| anyhow!("{text:?} is neither the number nor the port of a server"))
    }
}

fn shown(lines: &[String]) -> String {
    if lines.is_empty() { "(nothing)".to_owned() } else { lines.join("\n") }
}

/// Waits for Ctrl-C, SIGTERM, the end of the terminal, or `quit`.
async fn stop_signal(quits: tokio::sync::oneshot::Receiver<()>) -> std::io::Result<()> {
    let (mut interrupt, mut terminate, mut hangup) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
        _ = quits => {}
    }
    Ok(())
}
