//! One server's process.

use std::{
    fs::{self, File},
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{ExitStatus, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use star_core::{Clock, Time, cluster::ServerInfo};
use tokio::process::{ChildStdin, Command};

use super::{Plan, ProcessState};
use crate::error::CliError;

/// How many lines of a log are shown when something went wrong.
const TAIL_LINES: usize = 12;

#[derive(Debug)]
pub(super) struct Child {
    info: ServerInfo,
    process: tokio::process::Child,
    pid: u32,
    started: Time,
    log: PathBuf,
    ended: Option<ExitStatus>,
    /// The server stops when this is closed: so it does not outlive this program, however that ends.
    _life: Option<ChildStdin>,
}

impl Child {
    pub(super) fn start(plan: &Plan, info: &ServerInfo) -> Result<Self, CliError> {
        let failed =
            |error: std::io::Error| CliError::from(error).context(format!("cannot start server {}", info.name));
        let log = plan.log_directory.join(format!("{}.log", info.name));
        // A server that starts again goes on in the log of its earlier life.
        let log_file = File::options().create(true).append(true).open(&log).map_err(failed)?;
        let program = std::env::current_exe().map_err(failed)?;
        let mut command = Command::new(program);
        command.args(["serve", "--name", &info.name, "--until-stdin-closes"]);
        if let Some(config) = &plan.config {
            command.arg("--config").arg(config);
        }
        for (key, value) in &plan.overrides {
            command.arg("--set").arg(format!("{key}={value}"));
        }
        command
            .stdin(Stdio::piped())
            .stdout(log_file.try_clone().map_err(failed)?)
            .stderr(log_file)
            // Ctrl-C at the terminal is for this program, which stops its servers in good order.
            .process_group(0)
            .kill_on_drop(true);
        let mut process = command.spawn().map_err(failed)?;
        let pid = process.id().unwrap_or_default();
        let life = process.stdin.take();
        Ok(Self { info: info.clone(), process, pid, started: Clock.now(), log, ended: None, _life: life })
    }

    pub(super) fn name(&self) -> &str {
        &self.info.name
    }

    /// How the process ended, if it did.
    pub(super) fn ended(&mut self) -> Option<String> {
        if self.ended.is_none() {
            self.ended = self.process.try_wait().ok().flatten();
        }
        self.ended.map(|status| status.to_string())
    }

    pub(super) fn state(&mut self) -> ProcessState {
        ProcessState { ended: self.ended(), info: self.info.clone(), pid: self.pid, started: self.started }
    }

    /// Why the server cannot be used: its process ended.
    pub(super) fn failure(&self, how: &str) -> CliError {
        CliError::new(format!("server {} ended ({how}); the end of its log:\n{}", self.info.name, self.log_tail()))
    }

    /// The last lines of the log, indented.
    pub(super) fn log_tail(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(TAIL_LINES)..];
        last.iter().flat_map(|line| ["  ", line, "\n"]).collect()
    }

    /// Asks the process to stop.
    pub(super) fn terminate(&mut self) {
        self.signal(Signal::TERM);
    }

    /// Sends a signal, if the process has not ended.
    pub(super) fn signal(&mut self, signal: Signal) {
        if self.ended().is_none()
            && let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw)
        {
            // It was not waited for, so the number is still this process's; it may have ended, which the next look shows.
            let _ = kill_process(pid, signal);
        }
    }

    /// Whether it was a signal that ended the process, so that it could not clean up after itself.
    pub(super) fn was_killed(&self) -> bool {
        self.ended.is_some_and(|status| status.signal().is_some())
    }

    /// Ends the process at once, and waits until it is gone.
    pub(super) fn kill(&mut self) {
        // Killing fails only for a process that has ended.
        let _ = self.process.start_kill();
        while matches!(self.process.try_wait(), Ok(None)) {
            std::thread::yield_now();
        }
        self.ended();
    }

    /// Waits until the process has ended, and kills it at the deadline. Returns what was wrong with its end.
    pub(super) async fn finish(&mut self, deadline: Time) -> Option<String> {
        let wait = deadline.since(Clock.now());
        let name = &self.info.name;
        match tokio::time::timeout(wait, self.process.wait()).await {
            Ok(Ok(status)) => {
                self.ended = Some(status);
                (!status.success()).then(|| format!("server {name} ended with {status}"))
            }
            Ok(Err(error)) => Some(format!("cannot wait for server {name}: {error}")),
            Err(_) => {
                // Killing fails only for a process that has ended.
                let _ = self.process.kill().await;
                self.ended = self.process.try_wait().ok().flatten();
                Some(format!("server {name} did not stop in time and was killed"))
            }
        }
    }
}
