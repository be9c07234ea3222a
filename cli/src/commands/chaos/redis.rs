//! A Redis server of the run's own, for the control plane: it can be killed, and comes back with what it confirmed.

use std::{net::TcpListener, path::PathBuf, process::Stdio, time::Duration};

use star_core::Clock;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::{Child, Command},
};

use crate::error::CliError;

const PROGRAM: &str = "redis-server";
/// How long it may take until it answers.
const READY_WITHIN: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The server; dropping it kills it and removes its files.
#[derive(Debug)]
pub(super) struct Redis {
    port: u16,
    directory: PathBuf,
    process: Option<Child>,
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
        if let Some(mut process) = self.process.take() {
            // Killing fails only for a process that has ended.
            let _ = process.kill().await;
        }
    }

    /// Starts it on the files of its earlier life, and waits until it answers.
    pub(super) async fn start_again(&mut self) -> Result<(), CliError> {
        let port = self.port.to_string();
        let process = Command::new(PROGRAM)
            .args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"])
            .args(["--appendfsync", "always", "--dir"])
            .arg(&self.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C at the terminal is for this program.
            .process_group(0)
            .kill_on_drop(true)
            .spawn();
        let process = process.map_err(|error| {
            CliError::from(error)
                .context(format!("cannot start {PROGRAM}"))
                .hint("install the package redis-server, or take --control embedded")
        })?;
        let process = self.process.insert(process);
        let deadline = Clock.now() + READY_WITHIN;
        while !answers(self.port).await {
            if let Ok(Some(status)) = process.try_wait() {
                return Err(CliError::new(format!("{PROGRAM} on port {} ended with {status}", self.port)));
            }
            if Clock.now() > deadline {
                return Err(CliError::new(format!("{PROGRAM} on port {} does not answer", self.port)));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            // Killing fails only for a process that has ended.
            let _ = process.start_kill();
            while matches!(process.try_wait(), Ok(None)) {
                std::thread::yield_now();
            }
        }
        if let Err(error) = std::fs::remove_dir_all(&self.directory) {
            crate::output::note(format!("{} was not removed: {error}", self.directory.display()));
        }
    }
}

/// Whether it answers, and has read its files.
async fn answers(port: u16) -> bool {
    let ping = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(b"PING\r\n").await?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).await?;
        Ok::<_, std::io::Error>(answer == *b"+PONG")
    };
    matches!(tokio::time::timeout(Duration::from_secs(1), ping).await, Ok(Ok(true)))
}
