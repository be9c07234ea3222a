//! A server program that runs for as long as this program needs it: somebody else's, or another system's of this
//! repository.

use std::{fs::File, path::Path, process::Stdio, time::Duration};

use star_core::Clock;
use tokio::process::{Child, Command};

use crate::error::CliError;

/// How long it may take until it answers.
const READY_WITHIN: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How many bytes at the end of its log are shown when it ended.
const TAIL_BYTES: usize = 1000;

/// A running program. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Daemon {
    program: &'static str,
    process: Child,
    log: std::path::PathBuf,
}

impl Daemon {
    /// Starts a program of a Debian package; what it prints goes to a file of that name in
    /// the directory, `number` behind it.
    pub(crate) fn start(
        program: &'static str,
        args: &[String],
        directory: &Path,
        number: usize,
    ) -> Result<Self, CliError> {
        Self::spawn(program, Command::new(program), args, directory, number).map_err(|error| {
            error
                .context(format!("cannot start {program}"))
                .hint(format!("install the package {}, or leave it out", package(program)))
        })
    }

    /// Starts a system that is part of this program, as a process of its own: `system` is the first argument.
    pub(crate) fn start_own(
        system: &'static str,
        args: &[String],
        directory: &Path,
        number: usize,
    ) -> Result<Self, CliError> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(system);
        Self::spawn(system, command, args, directory, number)
    }

    fn spawn(
        program: &'static str,
        mut command: Command,
        args: &[String],
        directory: &Path,
        number: usize,
    ) -> Result<Self, CliError> {
        let log = directory.join(format!("{program}-{number}.log"));
        let file = File::create(&log)?;
        let process = command
            .args(args)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            // Ctrl-C at the terminal is for this program.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        Ok(Self { program, process, log })
    }

    /// Waits until `answers` says so.
    pub(crate) async fn ready(&mut self, answers: impl AsyncFn() -> bool) -> Result<(), CliError> {
        let deadline = Clock.now() + READY_WITHIN;
        while !answers().await {
            if let Ok(Some(status)) = self.process.try_wait() {
                return Err(CliError::new(format!("{} ended with {status}: {}", self.program, self.log_tail())));
            }
            if Clock.now() > deadline {
                return Err(CliError::new(format!("{} does not answer: {}", self.program, self.log_tail())));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Its process; `None` once it has ended.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.process.id()
    }

    /// Ends it as a crash would.
    pub(crate) async fn kill(mut self) {
        // Killing fails only for a process that has ended.
        let _ = self.process.kill().await;
    }

    fn log_tail(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&text[text.len().saturating_sub(TAIL_BYTES)..]).trim().to_owned()
    }
}

/// The Debian package of a program.
fn package(program: &str) -> &str {
    match program {
        "etcd" => "etcd-server",
        same => same,
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Killing fails only for a process that has ended.
        let _ = self.process.start_kill();
        while matches!(self.process.try_wait(), Ok(None)) {
            std::thread::yield_now();
        }
    }
}
