//! `star completions`: a script for a shell.

use std::io::{self, Write};

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::{
    args::Cli,
    error::{CliResult, Exit},
};

const EXAMPLES: &str = "\
Examples:
  star completions bash > ~/.local/share/bash-completion/completions/star
  star completions zsh  > ~/.zfunc/_star
  star completions fish > ~/.config/fish/completions/star.fish";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

pub(crate) fn run(args: &CompletionsArgs) -> CliResult {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "star", &mut script);
    io::stdout().write_all(&script)?;
    Ok(Exit::Done)
}
