//! A Redis server of the run's own, for the control plane: it can be killed, and comes back with what it confirmed.

use std::{net::TcpListener, path::PathBuf};

use crate::{error::CliError, peers, processes::Daemon};

/// The server; dropping it kills it and removes its files.
#[derive(Debug)]
pub(super) struct Redis {
    port: u16,
    directory: PathBuf,
    process: Option<Daemon>,
}

impl Redis {
    /// Starts one on a free port, with an append-only file that is safe on disk before anything is confirmed.
    pub(super) async fn start() -> Result<Self, CliError> {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr())?.port();
        let directory = std::env::temp_dir().join(format!("star-chaos-redis-{}", std::process::id()));
        std::fs::create_dir_all(&directory)?;
        let mut redis = Self { port, directory, process: None };
        redis.start_again().await?;
        Ok(redis)
    }

    pub(super) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// Ends it as a crash would.
    pub(super) async fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill().await;
        }
    }

    /// Starts it on the files of its earlier life, and waits until it answers.
    pub(super) async fn start_again(&mut self) -> Result<(), CliError> {
        let durable = ["--appendonly", "yes", "--appendfsync", "always"].map(str::to_owned);
        let process = peers::redis::start(self.port, &self.directory, 0, &durable)?;
        peers::redis::ready(self.process.insert(process), self.port).await
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.process = None;
        if let Err(error) = std::fs::remove_dir_all(&self.directory) {
            crate::output::note(format!("{} was not removed: {error}", self.directory.display()));
        }
    }
}
