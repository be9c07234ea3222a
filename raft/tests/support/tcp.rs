//! A small server that hands its connections to a member.

use star_raft::RaftHost;
use tokio::{net::TcpListener, task::JoinHandle};

pub(crate) struct TcpMember {
    accepting: JoinHandle<()>,
}

impl TcpMember {
    pub(crate) async fn start(host: RaftHost, addr: &str) -> Self {
        let listener = TcpListener::bind(addr).await.expect("a free port");
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                host.take(stream.into_std().expect("a stream"));
            }
        });
        Self { accepting }
    }
}

impl Drop for TcpMember {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
