//! [`Coordinator`]: what the nodes of a cluster announce themselves to, and where a client can begin; in the place of the
//! paper's external membership service (§3.4).
//!
//! It hosts the control plane (membership, the order of the chains, leases), tells clients who the nodes are, and passes
//! requests on to the head of a chain, so that a client that knows nothing but the coordinator can write. It holds no
//! objects, and it is not on the way of a request whose client knows the nodes. While it is away, nodes go on until
//! their leases end; when it is back, with its directory, so are they.

use std::{net::TcpListener, path::PathBuf, sync::Arc, thread::JoinHandle, time::Duration};

use bytes::Bytes;
use star_control::{
    ClusterState, ControlPlane, EmbeddedClient, Revision, document::CLUSTER_KEY, embedded::ClusterTimes,
};
use star_core::{
    ErrorCode, Time,
    collections::Map,
    message::{Request, RequestBody, Response, ResponseBody, Wire, from_postcard},
    network::{ClientOptions, NetworkError, TcpClient},
    protocol::{Effects, Input, Protocol, Token},
    server::{Handle, Limits, Server},
};
use star_host::{ControlOptions, HostError, spawn_server};
use star_raft::{Member, RaftHost, RaftOptions};
use tokio::{
    sync::{mpsc, watch},
    task::spawn_local,
};
use tracing::{error, warn};

use crate::protocol::Chain;

/// How long to wait after the control plane gave no answer, which is only when it is stopping.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// What a coordinator needs to know before it starts.
#[derive(Clone, Debug)]
pub struct CoordinatorOptions {
    /// How much is taken from outside.
    pub limits: Limits,
    /// How long the leases of nodes run at most.
    pub lease_ttl: Duration,
    /// The cluster's name; the same at all nodes.
    pub cluster: String,
    /// Where it keeps what it knows.
    pub directory: PathBuf,
}

/// A running coordinator. Dropping it stops it.
#[derive(Debug)]
pub struct Coordinator {
    addr: String,
    handle: Handle<Desk>,
    thread: Option<JoinHandle<()>>,
}

impl Coordinator {
    /// Its name as the only member of its control plane.
    const NAME: &str = "coordinator";

    /// The control plane that the coordinator at `addr` keeps, as nodes name it.
    pub fn control_of(addr: &str) -> ControlOptions {
        ControlOptions::Embedded { members: vec![Member::new(Self::NAME, addr)], directory: PathBuf::new() }
    }

    /// Starts a coordinator on a socket from [`star_core::server::bind`].
    pub fn start_on(listener: TcpListener, options: &CoordinatorOptions) -> Result<Self, HostError> {
        let addr = listener.local_addr()?.to_string();
        let me = Member::new(Self::NAME, &addr);
        let part = RaftOptions::new(&options.cluster, Self::NAME, vec![me], &options.directory, options.lease_ttl);
        let host = RaftHost::start(part)?;
        let (handle, thread) =
            spawn_server(Self::NAME, listener, options.limits, async move |server| serve(server, host).await)?;
        Ok(Self { addr, handle, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn addr(&self) -> &str {
        &self.addr
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        self.handle.stop();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!("the coordinator's thread panicked");
        }
    }
}

async fn serve(mut server: Server<Desk>, host: RaftHost) {
    let door = host.clone();
    server.hand_control_to(Box::new(move |stream| door.take(stream)));
    let handle = server.handle();
    let (passed_on, requests) = mpsc::unbounded_channel();
    let (tell, cluster) = watch::channel(None);
    let plane = host.client(ClusterTimes::default());
    let follow = spawn_local(follow_cluster(plane, tell, handle.clone()));
    let relay = spawn_local(relay(requests, cluster, handle));
    server.run(Desk { passed_on, cluster: None }).await;
    follow.abort();
    relay.abort();
    host.stop();
}

/// Follows the state of the cluster.
async fn follow_cluster(plane: EmbeddedClient, tell: watch::Sender<Option<Arc<ClusterState>>>, handle: Handle<Desk>) {
    let mut known = Revision::ABSENT;
    loop {
        match plane.changed(CLUSTER_KEY, known).await {
            Ok(document) => {
                known = document.revision;
                match ClusterState::decode(&document.value) {
                    Ok(state) => {
                        let state = Arc::new(state);
                        tell.send_replace(Some(Arc::clone(&state)));
                        handle.input(Input::Control(News::Cluster(state)));
                    }
                    Err(why) => warn!(%why, "the cluster's state cannot be read"),
                }
            }
            Err(error) => {
                warn!(%error, "no news of the cluster");
                tokio::time::sleep(RETRY_AFTER).await;
            }
        }
    }
}

/// Passes requests on to the head of their key's chain, each as a task of its own.
async fn relay(
    mut requests: mpsc::UnboundedReceiver<(Token, Request)>,
    cluster: watch::Receiver<Option<Arc<ClusterState>>>,
    handle: Handle<Desk>,
) {
    let mut clients: Map<String, TcpClient> = Map::default();
    while let Some((token, request)) = requests.recv().await {
        let head = cluster.borrow().as_deref().and_then(|state| head_addr(state, &request.body));
        let handle = handle.clone();
        let Some(addr) = head else {
            let text = "no chain serves yet: start nodes, and try again a little later";
            let refusal = ResponseBody::error(ErrorCode::NotServing, text).into();
            handle.input(Input::Control(News::Done(token, refusal)));
            continue;
        };
        let client =
            clients.entry(addr.clone()).or_insert_with(|| TcpClient::new(addr, ClientOptions::default())).clone();
        spawn_local(async move {
            let response = client.call(&request).await.unwrap_or_else(|error| refusal(&error));
            handle.input(Input::Control(News::Done(token, response)));
        });
    }
}

fn refusal(error: &NetworkError) -> Response {
    let text = format!("the chain's head gave no answer, so the request may or may not be done: {error}; try again");
    ResponseBody::error(ErrorCode::Unfinished, text).into()
}

/// Where the head of a request's chain listens; for a request of many chains, the head of any.
fn head_addr(state: &ClusterState, body: &RequestBody) -> Option<String> {
    let stars = u16::try_from(state.stars.len()).ok().filter(|stars| *stars > 0)?;
    let key = match body {
        RequestBody::Get { key } | RequestBody::Set { key, .. } | RequestBody::Delete { key, .. } => Some(key),
        RequestBody::SetMany { entries, .. } => entries.first().map(|entry| &entry.key),
        RequestBody::GetMany { keys } => keys.first(),
        RequestBody::List { .. } | RequestBody::Status => None,
    };
    let star = key.map_or(0, |key| usize::from(key.star(stars).0));
    let head = Chain::of(&state.stars[star]).head()?;
    state.server(head).map(|server| server.addr.clone())
}

/// The coordinator's answers to clients. Not a replication protocol, and not pure: it hands requests to a task.
#[derive(Debug)]
struct Desk {
    passed_on: mpsc::UnboundedSender<(Token, Request)>,
    cluster: Option<Arc<ClusterState>>,
}

/// What the desk hears.
#[derive(Clone, Debug)]
enum News {
    Cluster(Arc<ClusterState>),
    Done(Token, Response),
}

/// Nodes say nothing to the coordinator but through the control plane.
#[derive(Clone, Debug)]
struct Nothing(Bytes);

impl Wire for Nothing {
    fn encode_header(&self, _out: &mut Vec<u8>) {}

    fn tail(&self) -> &Bytes {
        &self.0
    }

    fn decode(header: &[u8], tail: Bytes) -> Result<Self, String> {
        from_postcard::<()>(header).map(|()| Self(tail))
    }
}

impl Protocol for Desk {
    type Message = Nothing;
    type Control = News;

    fn step<E: Effects<Nothing>>(&mut self, _now: Time, input: Input<Nothing, News>, effects: &mut E) {
        match input {
            Input::Request { token, request } if request.body == RequestBody::Status => {
                let status = serde_json::json!({ "name": "coordinator", "cluster": self.cluster.as_deref() });
                effects.reply(token, &ResponseBody::Status(status.to_string()), &[]);
            }
            Input::Request { token, request } => {
                if self.passed_on.send((token, request)).is_err() {
                    let refusal = ResponseBody::error(ErrorCode::Stopping, "the coordinator is stopping");
                    effects.reply(token, &refusal, &[]);
                }
            }
            Input::Control(News::Cluster(cluster)) => self.cluster = Some(cluster),
            Input::Control(News::Done(token, response)) => effects.reply(token, &response.body, &response.value),
            Input::Message { .. } | Input::LinkUp(_) | Input::LinkDown(_) | Input::Tick => {}
        }
    }

    fn end_turn<E: Effects<Nothing>>(&mut self, _now: Time, _effects: &mut E) {}
}
