//! How the program ends: its exit code, and what it says when something is wrong.

use std::{io, process::ExitCode};

use clap::builder::styling::{AnsiColor, Style};
use serde_json::json;
use star::{ClientError, StartError};
use star_bench::BenchError;
use star_core::config::ConfigError;

/// The program's exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Done = 0,
    /// It could not be done, or a check failed.
    Error = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// The key has no object.
    NotFound = 3,
    /// The condition did not hold; nothing was changed.
    Conflict = 4,
    /// Ctrl-C or SIGTERM ended the work early.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command could not do its work: for people, with what to do next.
#[derive(Debug)]
pub(crate) struct CliError {
    exit: Exit,
    error: anyhow::Error,
    hint: Option<String>,
}

/// What a command ends with.
pub(crate) type CliResult = Result<Exit, CliError>;

impl CliError {
    /// The work failed.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { exit: Exit::Error, error: anyhow::Error::msg(message.into()), hint: None }
    }

    /// The command line is wrong.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, ..Self::new(message) }
    }

    /// Adds what to do next.
    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// Adds what was being done.
    pub(crate) fn context(self, context: impl Into<String>) -> Self {
        Self { error: self.error.context(context.into()), ..self }
    }

    /// What happened, in words.
    pub(crate) fn message(&self) -> String {
        format!("{:#}", self.error)
    }

    /// Prints the error and returns the exit code.
    pub(crate) fn report(&self, json: bool) -> Exit {
        if self.is_closed_pipe() {
            // Whoever read the output has seen enough.
            return Exit::Done;
        }
        let message = self.message();
        if json {
            let (code, retry) = match self.error.downcast_ref::<ClientError>() {
                Some(ClientError::Refused(failure)) => (failure.code.name(), failure.code.retry()),
                Some(error) => ("UNREACHABLE", error.retry()),
                None if self.exit == Exit::Usage => ("USAGE", false),
                None => ("ERROR", false),
            };
            let line = json!({"status": "ERROR", "code": code, "message": message, "retry": retry});
            // Nothing is left to do if even this cannot be written.
            let _ = crate::output::json_line(&line);
        }
        let red = Style::new().bold().fg_color(Some(AnsiColor::Red.into()));
        let cyan = Style::new().bold().fg_color(Some(AnsiColor::Cyan.into()));
        anstream::eprintln!("{red}error{red:#}: {}", self.error);
        for cause in self.error.chain().skip(1) {
            anstream::eprintln!("  because: {cause}");
        }
        if let Some(hint) = &self.hint {
            anstream::eprintln!("{cyan}hint{cyan:#}: {hint}");
        }
        self.exit
    }

    fn is_closed_pipe(&self) -> bool {
        self.error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for CliError {
    fn from(error: E) -> Self {
        let error = anyhow::Error::new(error);
        let is_usage = error.is::<ConfigError>()
            || matches!(error.downcast_ref(), Some(StartError::UnknownServer { .. }))
            || matches!(error.downcast_ref(), Some(BenchError::Options(_)));
        Self { exit: if is_usage { Exit::Usage } else { Exit::Error }, hint: hint(&error), error }
    }
}

/// What to do next, where the error does not say it itself.
fn hint(error: &anyhow::Error) -> Option<String> {
    if error.is::<ConfigError>() {
        return Some("config.toml at the root of the project names every key with its unit and default".to_owned());
    }
    match error.downcast_ref::<ClientError>()? {
        ClientError::Refused(failure) if failure.code == star_core::ErrorCode::NoSpace => {
            Some("delete something, or start the servers with a larger store (store.capacity_bytes)".to_owned())
        }
        ClientError::Network(error) if error.may_have_been_done() => {
            Some("a write may have been done all the same: `star get` shows what the key holds".to_owned())
        }
        ClientError::Network(_) => Some("`star status` shows which servers answer".to_owned()),
        _ => None,
    }
}
