//! `star shell`: a cluster, one command after another.

mod complete;
mod run;
mod words;

use std::{
    cell::RefCell,
    io::{self, IsTerminal},
    path::PathBuf,
    rc::Rc,
};

use clap::Args;
use complete::Completer;
use run::{Session, Step};
use rustyline::{
    Config, Editor,
    error::ReadlineError,
    history::{FileHistory, History},
};

use crate::{
    args::{ConnectArgs, GlobalArgs},
    connection,
    error::{CliError, CliResult, Exit},
    output, settings,
};

const EXAMPLES: &str = "\
Examples:
  star shell                          then: set greeting hello, get greeting, help, quit
  printf 'set k 1\\nget k\\n' | star shell     a script: a command on each line, # begins a comment
A script goes on after a failure; the exit code is that of the last command that failed, 0 if none did.";

/// Lines kept in the history file.
const HISTORY_LINES: usize = 1000;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ShellArgs {
    #[command(flatten)]
    connect: ConnectArgs,
}

pub(crate) fn run(global: &GlobalArgs, args: &ShellArgs) -> CliResult {
    let runtime = Rc::new(connection::runtime()?);
    let config = settings::load(global)?;
    let client = runtime.block_on(connection::client(global, &args.connect))?;
    let session = Session::new(global.clone(), args.connect.clone(), &config, client);
    if io::stdin().is_terminal() { interactive(&runtime, session) } else { script(&runtime, session) }
}

fn script(runtime: &tokio::runtime::Runtime, mut session: Session) -> CliResult {
    let mut exit = Exit::Done;
    for line in io::stdin().lines() {
        match runtime.block_on(session.run(&line?)) {
            Ok(Step::Next(Exit::Done)) => {}
            Ok(Step::Next(failed)) => exit = failed,
            Ok(Step::Quit) => break,
            Err(error) => exit = error.report(session.json()),
        }
    }
    Ok(exit)
}

fn interactive(runtime: &Rc<tokio::runtime::Runtime>, session: Session) -> CliResult {
    let config =
        Config::builder().max_history_size(HISTORY_LINES).map_err(editor_failed)?.auto_add_history(true).build();
    let session = Rc::new(RefCell::new(session));
    let mut editor: Editor<Completer, FileHistory> = Editor::with_config(config).map_err(editor_failed)?;
    editor.set_helper(Some(Completer::new(Rc::clone(runtime), Rc::clone(&session))));
    let history = history_file();
    if let Some(path) = &history {
        // There is none before the first time.
        let _ = editor.load_history(path);
    }
    output::line("help shows the commands; Tab completes; Ctrl-D ends")?;
    loop {
        let prompt = session.borrow().prompt();
        let line = match editor.readline(&prompt) {
            Ok(line) => line,
            // Ctrl-C gives up the line, as in every shell.
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(editor_failed(error)),
        };
        let mut session = session.borrow_mut();
        let step = runtime.block_on(async {
            tokio::select! {
                step = session.run(&line) => step,
                _ = tokio::signal::ctrl_c() => Err(CliError::new("given up; a write may have been done all the same")),
            }
        });
        match step {
            Ok(Step::Next(_)) => {}
            Ok(Step::Quit) => break,
            Err(error) => drop(error.report(session.json())),
        }
    }
    if let Some(path) = &history
        && !editor.history().is_empty()
        && let Err(error) = editor.save_history(path)
    {
        output::note(format!("the history was not saved to {}: {error}", path.display()));
    }
    Ok(Exit::Done)
}

fn editor_failed(error: ReadlineError) -> CliError {
    CliError::from(error).context("the terminal does not do what line editing needs")
}

/// `$XDG_STATE_HOME/star_history`, else `~/.star_history`.
fn history_file() -> Option<PathBuf> {
    let of = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    match of("XDG_STATE_HOME").filter(|directory| directory.is_dir()) {
        Some(directory) => Some(directory.join("star_history")),
        None => of("HOME").map(|home| home.join(".star_history")),
    }
}
