//! The links to the other servers: one connection to each, for what this server has to say to it.

use std::{collections::BTreeMap, rc::Rc, time::Duration};

use tokio::{
    io::AsyncReadExt,
    net::TcpStream,
    task::{JoinHandle, spawn_local},
};
use tracing::{debug, info};

use super::{Hello, Peer, Shared, log_end};
use crate::{
    ids::ServerId,
    message::{frame::FrameKind, to_postcard},
    protocol::{Input, Protocol},
};

/// The first wait before dialing again.
const BACKOFF_MIN: Duration = Duration::from_millis(10);
/// The longest wait before dialing again: short, because a server that comes back is waited for.
const BACKOFF_MAX: Duration = Duration::from_millis(500);
const DIAL_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a server is greeted on a link: so that one that hears nothing knows that something is wrong.
const GREET_EVERY: Duration = Duration::from_secs(1);
/// How long bytes may stay unacknowledged by the other machine until the link counts as broken. Long, because a program
/// that reads nothing for so long breaks it too; that costs a new connection, and what was under way is said again.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(5);

/// The links of a running server.
#[derive(Default)]
pub(super) struct Links {
    links: BTreeMap<ServerId, (String, JoinHandle<()>)>,
}

impl Links {
    /// Keeps links to exactly these servers.
    pub(super) fn set<P: Protocol + 'static>(&mut self, shared: &Rc<Shared<P>>, peers: Vec<Peer>) {
        let wanted: BTreeMap<ServerId, String> = peers.into_iter().map(|peer| (peer.id, peer.addr)).collect();
        let gone: Vec<ServerId> = self
            .links
            .iter()
            .filter(|(server, (addr, _))| wanted.get(server) != Some(addr))
            .map(|(server, _)| *server)
            .collect();
        for server in gone {
            if let Some((_, task)) = self.links.remove(&server) {
                task.abort();
                shared.with_io(|io| drop_link(io, server));
            }
        }
        for (server, addr) in wanted {
            self.links.entry(server).or_insert_with(|| {
                let task = spawn_local(keep_linked(Rc::clone(shared), server, addr.clone()));
                (addr, task)
            });
        }
    }

    /// Drops all links: nobody waits for connections that only their tasks would have closed.
    pub(super) async fn stop<P: Protocol + 'static>(self, shared: &Rc<Shared<P>>) {
        for (server, (_, task)) in self.links {
            task.abort();
            let _ = task.await;
            shared.with_io(|io| drop_link(io, server));
        }
    }
}

/// Dials a server again and again; tells the protocol when messages get through.
async fn keep_linked<P: Protocol + 'static>(shared: Rc<Shared<P>>, server: ServerId, addr: String) {
    let mut backoff = BACKOFF_MIN;
    let redial = shared.state.borrow().reach.redial(server);
    loop {
        let began = shared.clock.now();
        let dialed = if shared.state.borrow().io.is_failed(server) {
            Err(std::io::Error::other("the link is cut on demand"))
        } else {
            dial(&addr).await
        };
        match dialed {
            Ok(stream) => {
                backoff = BACKOFF_MIN;
                shared.state.borrow_mut().reach.linked(server);
                serve_link(&shared, server, stream).await;
            }
            Err(error) => {
                debug!(%server, addr, %error, "cannot reach a server yet");
                shared.state.borrow_mut().reach.failed(server, began);
            }
        }
        tokio::select! {
            () = tokio::time::sleep(backoff) => backoff = (backoff * 2).min(BACKOFF_MAX),
            () = redial.notified() => backoff = BACKOFF_MIN,
        }
    }
}

async fn dial(addr: &str) -> std::io::Result<TcpStream> {
    let stream = tokio::time::timeout(DIAL_TIMEOUT, TcpStream::connect(addr))
        .await
        .map_err(|_| std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer to the connection request"))??;
    stream.set_nodelay(true)?;
    rustix::net::sockopt::set_tcp_user_timeout(&stream, UNACKNOWLEDGED_MAX.as_millis() as u32)?;
    Ok(stream)
}

/// Uses a link until it breaks.
async fn serve_link<P: Protocol + 'static>(shared: &Rc<Shared<P>>, server: ServerId, stream: TcpStream) {
    let (mut reader, writer) = stream.into_split();
    let mut hello = Vec::new();
    to_postcard(&Hello { to: server, ..shared.joined().await.clone() }, &mut hello);
    let (id, wake) = shared.with_io(|io| {
        let id = io.add(writer);
        io.send_frame(id, FrameKind::Hello, 0, &hello);
        io.set_link(server, Some(id));
        let wake = io.get(id).map(|connection| Rc::clone(&connection.wake_reader));
        (id, wake.expect("added above"))
    });
    info!(%server, "linked");
    shared.step(Input::LinkUp(server));
    let mut sink = [0_u8; 1024];
    let mut greet = tokio::time::interval(GREET_EVERY);
    greet.reset(); // The first greeting is on its way.
    greet.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        // Nothing is said on a link in this direction but its end.
        tokio::select! {
            read = reader.read(&mut sink) => match read {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => {
                    log_end(format_args!("server {server}"), &error);
                    break;
                }
            },
            () = wake.notified() => {}
            _ = greet.tick() => shared.with_io(|io| io.send_frame(id, FrameKind::Hello, 0, &hello)),
        }
        if shared.state.borrow_mut().io.get(id).is_none_or(|connection| connection.is_closing) {
            break;
        }
    }
    info!(%server, "the link is broken");
    shared.with_io(|io| drop_link(io, server));
    shared.step(Input::LinkDown(server));
}

fn drop_link(io: &mut super::Io, server: ServerId) {
    if let Some(id) = io.link(server) {
        io.set_link(server, None);
        io.remove(id);
    }
}
