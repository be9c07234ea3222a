//! What the commands of the shell do.

use std::time::Duration;

use serde_json::json;
use star::{CasOutcome, Options, Page, StarClient, Transport};
use star_core::{
    Clock, Version,
    config::Config,
    message::{Condition, Fault},
};

use super::words;
use crate::{
    args::{ConnectArgs, GlobalArgs},
    commands::{fault, get, set, status as status_command},
    connection,
    error::{CliError, CliResult, Exit},
    output, settings,
    status::{self, ClusterStatus},
    value::{self, JsonObject},
};

/// Name, arguments, and what it does.
pub(super) const COMMANDS: &[(&str, &str, &str)] = &[
    ("get", "KEY", "print an object"),
    ("set", "KEY VALUE", "store an object (put is the same); VALUE may be @FILE"),
    ("put", "KEY VALUE", "the same as set"),
    ("cas", "KEY VERSION VALUE", "store it only if the key has this version; 0: no object"),
    ("del", "KEY", "remove an object"),
    ("ls", "[PREFIX]", "list keys, at most 1000"),
    ("status", "", "servers and stars"),
    ("servers", "", "servers alone"),
    ("use", "[NAME]", "send everything to one server; without a name to any again"),
    ("failLink", "[AT] SERVER", "server AT, or the one in use, cuts its link to SERVER (needs [faults] allow = true)"),
    ("fixLink", "[AT] SERVER", "it uses that link again"),
    ("failProcess", "[AT]", "server AT, or the one in use, ends as in a crash"),
    ("time", "on|off", "say how long each command took"),
    ("help", "", "this list"),
    ("quit", "", "end (exit and Ctrl-D do the same)"),
];

/// The most keys of `ls`.
const LIST_KEYS: u32 = 1000;
/// How long a server may take to answer for its status.
const STATUS_WITHIN: Duration = Duration::from_secs(2);

/// What comes after a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The next one; this one ended so.
    Next(Exit),
    /// Nothing.
    Quit,
}

/// A shell's connection and settings.
#[derive(Debug)]
pub(super) struct Session {
    global: GlobalArgs,
    connect: ConnectArgs,
    servers: Vec<(String, String)>,
    value_bytes_max: u64,
    any: StarClient,
    /// One server alone, with its name.
    used: Option<(String, StarClient)>,
    shows_time: bool,
}

/// Whether the first argument of a command is a key.
pub(super) fn takes_key(command: &str) -> bool {
    COMMANDS.iter().any(|(name, arguments, _)| {
        *name == command && (arguments.starts_with("KEY") || arguments.starts_with("[PREFIX]"))
    })
}

impl Session {
    pub(super) fn new(global: GlobalArgs, connect: ConnectArgs, config: &Config, any: StarClient) -> Self {
        let servers = connection::servers(&connect.connect, config);
        let value_bytes_max = config.limits.value_bytes_max;
        Self { global, connect, servers, value_bytes_max, any, used: None, shows_time: false }
    }

    pub(super) fn client(&self) -> &StarClient {
        self.used.as_ref().map_or(&self.any, |(_, client)| client)
    }

    pub(super) fn json(&self) -> bool {
        self.global.json
    }

    pub(super) fn prompt(&self) -> String {
        self.used.as_ref().map_or_else(|| "star> ".to_owned(), |(name, _)| format!("star@{name}> "))
    }

    pub(super) fn server_names(&self) -> Vec<String> {
        self.servers.iter().map(|(name, _)| name.clone()).collect()
    }

    /// Does what a line says.
    pub(super) async fn run(&mut self, line: &str) -> Result<Step, CliError> {
        let words = words::split(line).map_err(CliError::usage)?;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        if matches!(words.as_slice(), ["quit" | "exit"]) {
            return Ok(Step::Quit);
        }
        let begin = Clock.now();
        let outcome = self.command(&words).await;
        if self.shows_time && !words.is_empty() {
            output::note(output::micros(Clock.now().since(begin).as_secs_f64() * 1e6));
        }
        outcome.map(Step::Next)
    }

    async fn command(&mut self, words: &[&str]) -> CliResult {
        match words {
            [] => Ok(Exit::Done),
            ["get", key] => match self.client().get(key).await? {
                Some(object) if self.json() => {
                    Ok(output::json_line(&JsonObject::new(key, &object)).map(|()| Exit::Done)?)
                }
                Some(object) => {
                    output::line(String::from_utf8_lossy(&object.value))?;
                    Ok(Exit::Done)
                }
                None => get::missing(&self.global, key),
            },
            ["set" | "put", key, value] => self.set(key, value, Condition::Always).await,
            ["cas", key, version, value] => {
                let version = version.parse().map_err(|_| {
                    CliError::usage(format!("{version:?} is no version")).hint("cas KEY VERSION VALUE; 0 for no object")
                })?;
                self.set(key, value, Condition::IfVersion(Version(version))).await
            }
            ["del", key] => self.delete(key).await,
            ["ls"] => self.list("").await,
            ["ls", prefix] => self.list(prefix).await,
            ["status"] => self.status(true).await,
            ["servers"] => self.status(false).await,
            ["use"] => {
                self.used = None;
                Ok(Exit::Done)
            }
            ["use", name] => self.use_server(name).await,
            ["failLink", at @ .., server] if at.len() < 2 => {
                self.fault(at.first(), Fault::FailLink { server: (*server).into() }).await
            }
            ["fixLink", at @ .., server] if at.len() < 2 => {
                self.fault(at.first(), Fault::FixLink { server: (*server).into() }).await
            }
            ["failProcess", at @ ..] if at.len() < 2 => self.fault(at.first(), Fault::FailProcess).await,
            ["time", switch @ ("on" | "off")] => {
                self.shows_time = *switch == "on";
                Ok(Exit::Done)
            }
            ["help"] => {
                help()?;
                Ok(Exit::Done)
            }
            [command, ..] => Err(usage_of(command)),
        }
    }

    async fn set(&self, key: &str, word: &str, condition: Condition) -> CliResult {
        if word == "-" {
            return Err(CliError::usage("stdin is where the commands come from").hint("a file is @FILE"));
        }
        let outcome = match value::large_file(Some(word), self.value_bytes_max)? {
            Some(file) => set::store_file(self.client(), key, file, condition).await?,
            None => {
                let bytes = value::read(Some(word), self.value_bytes_max)?;
                self.client().compare_and_set(key, condition, bytes).await?
            }
        };
        set::report(&self.global, key, outcome)
    }

    async fn delete(&self, key: &str) -> CliResult {
        match self.client().delete(key, Condition::Always).await? {
            None => get::missing(&self.global, key),
            Some(CasOutcome::Written(_)) if !self.json() => {
                output::line("deleted")?;
                Ok(Exit::Done)
            }
            Some(outcome) => set::report(&self.global, key, outcome),
        }
    }

    async fn list(&self, prefix: &str) -> CliResult {
        let Page { keys, more } = self.client().list(prefix, None, LIST_KEYS).await?;
        if self.json() {
            output::json_line(&json!({"keys": keys, "more": more}))?;
            return Ok(Exit::Done);
        }
        if !keys.is_empty() {
            output::line(keys.join("\n"))?;
        }
        if more {
            output::note(format!("there are more than {LIST_KEYS}: ask for a longer prefix, or use `star ls --all`"));
        }
        Ok(Exit::Done)
    }

    async fn gather(&mut self) -> ClusterStatus {
        let cluster = status::gather(&self.servers, STATUS_WITHIN).await;
        // Names and servers that were not known before.
        self.servers = cluster.servers.iter().map(|server| (server.name.clone(), server.addr.clone())).collect();
        cluster
    }

    async fn status(&mut self, with_stars: bool) -> CliResult {
        let cluster = self.gather().await;
        match (self.json(), with_stars) {
            (true, true) => output::json_line(&cluster)?,
            (true, false) => output::json_line(&cluster.servers)?,
            (false, true) => status_command::print(&cluster)?,
            (false, false) => output::line(status_command::server_table(&cluster).to_string())?,
        }
        Ok(Exit::Done)
    }

    /// Has a fault at a server, or at the one in use.
    async fn fault(&self, at: Option<&&str>, fault: Fault) -> CliResult {
        let used = self.used.as_ref().map(|(name, _)| name.as_str());
        let Some(name) = at.copied().or(used) else {
            return Err(
                CliError::usage("which server is to have the fault?").hint("failLink AT SERVER, or first: use AT")
            );
        };
        let addr = fault::addr_of(&self.servers, name, STATUS_WITHIN).await?;
        fault::have(&self.global, name, &addr, &fault, STATUS_WITHIN).await
    }

    async fn use_server(&mut self, name: &str) -> CliResult {
        let cluster = self.gather().await;
        let Some(server) = cluster.servers.iter().find(|server| server.name == name) else {
            let names = self.server_names().join(", ");
            return Err(
                CliError::usage(format!("there is no server {name:?}")).hint(format!("the servers are {names}"))
            );
        };
        let timeout = self.connect.timeout;
        // Not its mapped store either: who names a server wants to hear that server.
        let options = connection::options(&settings::load(&self.global)?, timeout, Transport::Tcp);
        let client =
            StarClient::connect(std::slice::from_ref(&server.addr), Options { only_given: true, ..options }).await?;
        self.used = Some((name.to_owned(), client));
        Ok(Exit::Done)
    }
}

fn help() -> std::io::Result<()> {
    let lines: Vec<String> = COMMANDS
        .iter()
        .map(|(name, arguments, text)| format!("  {:26} {text}", format!("{name} {arguments}")))
        .collect();
    output::line(lines.join("\n"))?;
    output::line("Quotes keep words together: set greeting \"good morning\". # begins a comment.")
}

fn usage_of(command: &str) -> CliError {
    match COMMANDS.iter().find(|(name, ..)| *name == command) {
        Some((name, arguments, _)) => CliError::usage(format!("wrong arguments: it is {name} {arguments}").trim_end()),
        None => CliError::usage(format!("there is no command {command:?}")).hint("help shows the commands"),
    }
}
