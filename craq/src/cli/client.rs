//! `craq client`: an interactive shell. Writes go through the coordinator, reads to the chosen node.

use std::io::IsTerminal;

use clap::Args;
use rustyline::{DefaultEditor, error::ReadlineError};
use star::{CasOutcome, Options, StarClient};
use star_core::{Version, message::Condition, network::ClientOptions};

const HELP: &str = "\
write KEY VALUE        make VALUE the key's object; prints its version
cas KEY VERSION VALUE  the same, but only if the key has this version (0: no object)
read KEY               read from the chosen node
delete KEY             remove the key's object
list [PREFIX]          keys at the chosen node
chain                  the nodes as the coordinator knows them
node PORT              read from another node from now on
quit";

/// What the client is started with.
#[derive(Debug, Args)]
pub struct ClientArgs {
    /// The coordinator: a port of this machine, or host:port
    #[arg(long, default_value = ":1234", value_parser = super::address)]
    pub(crate) coordinator: String,
    /// The node to read from: a port of this machine, or host:port
    #[arg(long, default_value = ":1235", value_parser = super::address)]
    pub(crate) read: String,
}

/// Clients of one server each. They connect when they are first used, so that the shell starts in any case.
struct Shell {
    coordinator: String,
    writer: Option<StarClient>,
    read: String,
    reader: Option<StarClient>,
}

pub(crate) fn run(args: &ClientArgs) -> anyhow::Result<()> {
    let runtime = super::runtime()?;
    let mut shell =
        Shell { coordinator: args.coordinator.clone(), writer: None, read: args.read.clone(), reader: None };
    let is_terminal = std::io::stdin().is_terminal();
    if is_terminal {
        println!("writes go to {}, reads to {}; `help` says what can be done", shell.coordinator, shell.read);
    }
    let mut editor = is_terminal.then(DefaultEditor::new).transpose()?;
    loop {
        let line = match &mut editor {
            Some(editor) => match editor.readline("craq> ") {
                Ok(line) => {
                    editor.add_history_entry(&line)?;
                    line
                }
                Err(ReadlineError::Interrupted | ReadlineError::Eof) => return Ok(()),
                Err(error) => return Err(error.into()),
            },
            None => {
                let mut line = String::new();
                if std::io::stdin().read_line(&mut line)? == 0 {
                    return Ok(());
                }
                line
            }
        };
        if matches!(line.trim(), "quit" | "exit") {
            return Ok(());
        }
        match runtime.block_on(shell.perform(line.trim())) {
            Ok(answer) => println!("{answer}"),
            Err(error) => println!("error: {error:#}"),
        }
    }
}

impl Shell {
    async fn perform(&mut self, line: &str) -> anyhow::Result<String> {
        let mut words = line.splitn(2, char::is_whitespace);
        let (verb, rest) = (words.next().unwrap_or_default(), words.next().unwrap_or_default().trim());
        Ok(match (verb, rest) {
            ("", _) => String::new(),
            ("write" | "set", rest) => {
                let (key, value) = two(rest, "write KEY VALUE")?;
                format!("version {}", self.writer().await?.set(key, value.to_owned()).await?)
            }
            ("cas", rest) => {
                let (key, rest) = two(rest, "cas KEY VERSION VALUE")?;
                let (version, value) = two(rest, "cas KEY VERSION VALUE")?;
                let version = Version(version.parse()?);
                let writer = self.writer().await?;
                match writer.compare_and_set(key, Condition::IfVersion(version), value.to_owned()).await? {
                    CasOutcome::Written(version) => format!("version {version}"),
                    CasOutcome::Conflict(version) => format!("not done: the key has version {version}"),
                }
            }
            ("read" | "get", key) if !key.is_empty() => match self.reader().await?.get(key).await? {
                Some(object) => format!("{} (version {})", String::from_utf8_lossy(&object.value), object.version),
                None => "no such object".to_owned(),
            },
            ("delete", key) if !key.is_empty() => match self.writer().await?.delete(key, Condition::Always).await? {
                Some(_) => "deleted".to_owned(),
                None => "no such object".to_owned(),
            },
            ("list", prefix) => {
                let page = self.reader().await?.list(prefix, None, 1000).await?;
                let more = if page.more { "\n…" } else { "" };
                page.keys.join("\n") + more
            }
            ("chain", "") => self.chain().await?,
            ("node", addr) => {
                self.read = super::address(addr).map_err(anyhow::Error::msg)?;
                self.reader = None;
                format!("reads go to {}", self.read)
            }
            ("help", _) => HELP.to_owned(),
            _ => anyhow::bail!("{line:?} is nothing that can be done; `help` says what can"),
        })
    }

    async fn writer(&mut self) -> anyhow::Result<&StarClient> {
        connected(&mut self.writer, &self.coordinator).await
    }

    async fn reader(&mut self) -> anyhow::Result<&StarClient> {
        connected(&mut self.reader, &self.read).await
    }

    /// The nodes from the head to the tail.
    async fn chain(&mut self) -> anyhow::Result<String> {
        let status = self.writer().await?.status().await.into_iter().next();
        let (_, status) = status.ok_or_else(|| anyhow::anyhow!("the coordinator says nothing"))?;
        let status: serde_json::Value = serde_json::from_str(&status?)?;
        let cluster: Option<star_control::ClusterState> = serde_json::from_value(status["cluster"].clone())?;
        let Some(cluster) = cluster else { return Ok("no node has announced itself".to_owned()) };
        let chain = crate::protocol::Chain::of(&cluster.stars[0]);
        let line = |(place, id): (usize, &star_core::ServerId)| {
            let node = cluster.server(*id).map_or("", |server| server.addr.as_str());
            let role = match place {
                0 => " head",
                _ if place + 1 == chain.order().len() => " tail",
                _ => "",
            };
            format!("{node}{role}")
        };
        Ok(chain.order().iter().enumerate().map(line).collect::<Vec<_>>().join("\n"))
    }
}

async fn connected<'a>(client: &'a mut Option<StarClient>, addr: &str) -> anyhow::Result<&'a StarClient> {
    if client.is_none() {
        let network = ClientOptions { pool_size: 1, ..ClientOptions::default() };
        let options = Options { network, ..Options::one_server() };
        *client = Some(StarClient::connect(&[addr.to_owned()], options).await?);
    }
    client.as_ref().ok_or_else(|| anyhow::anyhow!("no connection to {addr}"))
}

fn two<'a>(text: &'a str, usage: &str) -> anyhow::Result<(&'a str, &'a str)> {
    let (first, rest) = text.split_once(char::is_whitespace).ok_or_else(|| anyhow::anyhow!("usage: {usage}"))?;
    Ok((first, rest.trim_start()))
}
