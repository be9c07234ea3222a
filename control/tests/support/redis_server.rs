//! A `redis-server` of its own for each test, on a free port of the loopback interface, in a directory that goes away.

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

pub(crate) struct RedisServer {
    process: Child,
    pub(crate) port: u16,
    _dir: TempDir,
}

impl RedisServer {
    /// Starts an empty one on this port, or on a free one, and waits until it answers.
    pub(crate) async fn start(port: Option<u16>) -> Self {
        Self::start_with(port, &[], "").await
    }

    /// Starts one that follows another.
    pub(crate) async fn replica_of(primary: &Self) -> Self {
        Self::start_with(None, &[], &format!("replicaof 127.0.0.1 {}", primary.port)).await
    }

    /// Starts a sentinel that, alone, decides about a primary called `main`.
    pub(crate) async fn sentinel_of(primary: &Self) -> Self {
        let watch = format!("sentinel monitor main 127.0.0.1 {} 1", primary.port);
        Self::start_with(None, &["--sentinel"], &format!("{watch}\nsentinel down-after-milliseconds main 1000")).await
    }

    async fn start_with(port: Option<u16>, args: &[&str], settings: &str) -> Self {
        for _ in 0..10 {
            if let Some(server) = Self::try_start(port.unwrap_or_else(free_port), args, settings).await {
                return server;
            }
        }
        panic!("redis-server does not come up");
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    async fn try_start(port: u16, args: &[&str], settings: &str) -> Option<Self> {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("redis.conf");
        let data = if args.is_empty() { "save \"\"\nappendonly no\nrepl-diskless-sync-delay 0\n" } else { "" };
        let at = dir.path().display();
        let text = format!("port {port}\nbind 127.0.0.1\ndir {at}\n{data}{settings}\n");
        std::fs::write(&path, text).expect("a file");
        let process = Command::new("redis-server")
            .arg(path)
            .args(args)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server can be started: install the package redis-server");
        let mut server = Self { process, port, _dir: dir };
        for _ in 0..500 {
            if server.answers().await {
                return Some(server);
            }
            if server.process.try_wait().expect("a state").is_some() {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        None
    }

    async fn answers(&self) -> bool {
        let ping = async {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
            stream.write_all(b"PING\r\n").await?;
            let mut answer = [0; 5];
            stream.read_exact(&mut answer).await?;
            Ok::<_, std::io::Error>(answer == *b"+PONG")
        };
        ping.await.unwrap_or(false)
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}
