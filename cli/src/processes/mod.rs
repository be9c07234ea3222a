//! Servers as processes of their own: started together, watched, and stopped so that nothing is left behind.

mod child;
mod daemon;
mod plan;

use std::{path::PathBuf, time::Duration};

use child::Child;
pub(crate) use daemon::Daemon;
pub(crate) use plan::Plan;
use rustix::process::Signal;
use star_core::{Clock, Time, cluster::ServerInfo};

use crate::{
    error::CliError,
    status::{self, ClusterStatus, UP},
};

/// How long servers may take until they serve.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// How often a starting cluster is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long a server may take to stop before it is killed.
const STOP_WITHIN: Duration = Duration::from_secs(5);
/// How long a server may take to answer for its status.
const STATUS_WITHIN: Duration = Duration::from_secs(1);

/// Servers that this program started. Dropping them kills what still runs; [`Self::stop`] is the good way.
#[derive(Debug)]
pub(crate) struct Processes {
    children: Vec<Child>,
    plan: Plan,
}

/// A server's process as it is now.
#[derive(Clone, Debug)]
pub(crate) struct ProcessState {
    pub(crate) info: ServerInfo,
    pub(crate) pid: u32,
    pub(crate) started: Time,
    /// How it ended, if it did.
    pub(crate) ended: Option<String>,
}

impl Processes {
    /// Starts all servers of a plan; whether they come up is a matter of [`Self::ready`].
    pub(crate) fn start(plan: Plan) -> Result<Self, CliError> {
        plan.make_directories()?;
        let mut processes = Self { children: Vec::new(), plan };
        for server in &processes.plan.servers {
            processes.children.push(Child::start(&processes.plan, server)?);
        }
        Ok(processes)
    }

    /// Waits until every server serves; `watch` is told how many do. If one ends, or the time is up, the error says
    /// why, with the last lines of its log.
    pub(crate) async fn ready(&mut self, mut watch: impl FnMut(usize)) -> Result<ClusterStatus, CliError> {
        let clock = Clock;
        let deadline = clock.now() + READY_WITHIN;
        loop {
            if let Some(dead) = self.children.iter_mut().find_map(|child| child.ended().map(|how| (child, how))) {
                return Err(dead.0.failure(&dead.1));
            }
            let cluster = self.status().await;
            let ready = cluster.servers.iter().filter(|server| server.state == UP).count();
            watch(ready);
            if ready >= self.children.len() {
                return Ok(cluster);
            }
            if clock.now() >= deadline {
                return Err(self.too_late(&cluster));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The cluster as its servers see it.
    pub(crate) async fn status(&self) -> ClusterStatus {
        let known: Vec<_> = self.plan.servers.iter().map(|server| (server.name.clone(), server.addr.clone())).collect();
        status::gather(&known, STATUS_WITHIN).await
    }

    /// Every server's process.
    pub(crate) fn states(&mut self) -> Vec<ProcessState> {
        self.children.iter_mut().map(Child::state).collect()
    }

    /// Sends a signal to a server's process.
    pub(crate) fn signal(&mut self, server: usize, signal: Signal) {
        self.children[server].signal(signal);
    }

    /// Ends a server's process at once, as a crash would, and waits until it is gone.
    pub(crate) fn kill(&mut self, server: usize) {
        self.children[server].kill();
    }

    /// Stops a server in good order; the error says what was wrong with its end.
    pub(crate) async fn stop_one(&mut self, server: usize) -> Result<(), CliError> {
        self.children[server].terminate();
        match self.children[server].finish(Clock.now() + STOP_WITHIN).await {
            None => Ok(()),
            Some(fault) => Err(CliError::new(fault)),
        }
    }

    /// Starts a server that has ended once more.
    pub(crate) fn start_again(&mut self, server: usize) -> Result<(), CliError> {
        self.children[server] = Child::start(&self.plan, &self.plan.servers[server])?;
        Ok(())
    }

    /// Leaves the logs where they are when all servers have stopped.
    pub(crate) fn keep_logs(&mut self) {
        self.plan.keep_logs();
    }

    /// The addresses of all servers.
    pub(crate) fn addrs(&self) -> Vec<String> {
        self.plan.servers.iter().map(|server| server.addr.clone()).collect()
    }

    /// The last lines of a server's log.
    pub(crate) fn log_tail(&self, name: &str) -> String {
        self.children.iter().find(|child| child.name() == name).map(Child::log_tail).unwrap_or_default()
    }

    /// Where the logs are, as long as the servers run.
    pub(crate) fn log_directory(&self) -> &PathBuf {
        &self.plan.log_directory
    }

    /// Stops all servers and removes what they leave behind. A server that does not stop in time is killed; the error
    /// names those, and those that did not end well.
    pub(crate) async fn stop(mut self) -> Result<(), CliError> {
        let mut faults = Vec::new();
        self.children.iter_mut().for_each(Child::terminate);
        let deadline = Clock.now() + STOP_WITHIN;
        for child in &mut self.children {
            faults.extend(child.finish(deadline).await);
        }
        self.clean_up();
        if faults.is_empty() { Ok(()) } else { Err(CliError::new(faults.join("\n"))) }
    }

    /// Stops all servers after a piece of work: the work's own error counts first.
    pub(crate) async fn stop_after<T>(self, outcome: Result<T, CliError>) -> Result<T, CliError> {
        let stopped = self.stop().await;
        let value = outcome?;
        stopped.map(|()| value)
    }

    fn clean_up(&self) {
        self.plan.clean_up(self.children.iter().filter(|child| child.was_killed()).map(Child::name));
    }

    fn too_late(&self, cluster: &ClusterStatus) -> CliError {
        let late = cluster.servers.iter().filter(|server| server.state != UP);
        let states: Vec<String> = late.clone().map(|server| format!("{} ({})", server.name, server.state)).collect();
        let logs: String = late.map(|server| self.log_tail(&server.name)).collect();
        let seconds = READY_WITHIN.as_secs();
        CliError::new(format!("not all servers serve after {seconds} s: {}\n{logs}", states.join(", ")))
            .hint("the end of their logs above says what they wait for")
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        // Nobody stopped them in good order: an error or a panic ended this program's work.
        if self.children.iter_mut().any(|child| child.ended().is_none()) {
            self.children.iter_mut().for_each(Child::kill);
            self.clean_up();
        }
    }
}
