//! `star ls`: lists keys.

use clap::Args;
use serde_json::json;
use star::{ClientError, StarClient};

use crate::{
    args::{ConnectArgs, GlobalArgs},
    connection,
    error::{CliResult, Exit},
    output,
};

/// The most keys of one page.
const PAGE_KEYS: usize = 1000;

const EXAMPLES: &str = "\
Examples:
  star ls                     the first 1000 keys
  star ls photos/ --all       every key that begins with photos/
  star ls --limit 10 --json   {\"keys\":[…],\"more\":true}
Each page is read at one moment, the whole listing is not.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct LsArgs {
    /// What the keys begin with
    #[arg(default_value = "")]
    prefix: String,
    /// The most keys to print
    #[arg(long, value_name = "COUNT", default_value_t = PAGE_KEYS, conflicts_with = "all")]
    limit: usize,
    /// All keys
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

pub(crate) fn run(global: &GlobalArgs, args: &LsArgs) -> CliResult {
    connection::runtime()?.block_on(async {
        let client = connection::client(global, &args.connect).await?;
        let limit = if args.all { usize::MAX } else { args.limit };
        if global.json {
            let (keys, more) = keys(&client, &args.prefix, limit).await?;
            output::json_line(&json!({"keys": keys, "more": more}))?;
            return Ok(Exit::Done);
        }
        let mut pages = Pages::new(&client, &args.prefix, limit);
        while let Some(keys) = pages.next().await? {
            if !keys.is_empty() {
                output::line(keys.join("\n"))?;
            }
        }
        if pages.more {
            output::note(format!("there are more; --all prints them, or --limit with more than {limit}"));
        }
        Ok(Exit::Done)
    })
}

/// At most `limit` keys in order, and whether there are more.
pub(super) async fn keys(client: &StarClient, prefix: &str, limit: usize) -> Result<(Vec<String>, bool), ClientError> {
    let mut pages = Pages::new(client, prefix, limit);
    let mut keys = Vec::new();
    while let Some(page) = pages.next().await? {
        keys.extend(page);
    }
    Ok((keys, pages.more))
}

/// A listing, page by page.
struct Pages<'a> {
    client: &'a StarClient,
    prefix: &'a str,
    after: Option<String>,
    left: usize,
    more: bool,
}

impl<'a> Pages<'a> {
    fn new(client: &'a StarClient, prefix: &'a str, limit: usize) -> Self {
        Self { client, prefix, after: None, left: limit, more: true }
    }

    async fn next(&mut self) -> Result<Option<Vec<String>>, ClientError> {
        if self.left == 0 || !self.more {
            return Ok(None);
        }
        let limit = self.left.min(PAGE_KEYS) as u32;
        let page = self.client.list(self.prefix, self.after.as_deref(), limit).await?;
        self.left = self.left.saturating_sub(page.keys.len());
        self.more = page.more && !page.keys.is_empty();
        self.after = page.keys.last().cloned();
        Ok(Some(page.keys))
    }
}
