//! The cluster that is broken: its servers' processes, and its Redis if the control plane is there.

use std::time::Duration;

use star_core::{Clock, cluster::ServerInfo, config::Config};

use super::{ControlArg, redis::Redis};
use crate::{
    args::GlobalArgs,
    error::CliError,
    processes::{Plan, Processes},
    status::{ClusterStatus, UP},
};

/// How long healing may take, on a loaded machine.
const WHOLE_WITHIN: Duration = Duration::from_secs(45);
const LOOK_EVERY: Duration = Duration::from_millis(30);
/// Room for what is written, and no more: every server has its store in memory.
const STORE: [(&str, &str); 2] = [("limits.value_bytes_max", "\"4 MiB\""), ("store.capacity_bytes", "\"96 MiB\"")];

/// See the module.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) processes: Processes,
    pub(super) redis: Option<Redis>,
    pub(super) servers: Vec<ServerInfo>,
    /// How long a server may answer reads after the control plane last heard of it.
    pub(super) lease: Duration,
}

impl Cluster {
    /// Starts all servers, and Redis before them; also gives the configuration that they run with.
    pub(super) async fn start(
        global: &GlobalArgs,
        servers: usize,
        control: ControlArg,
    ) -> Result<(Self, Config), CliError> {
        let redis = match control {
            ControlArg::Embedded => None,
            ControlArg::Redis => Some(Redis::start().await?),
        };
        let mut own = vec![("faults.allow".to_owned(), "true".to_owned())];
        own.extend(STORE.map(|(key, value)| (key.to_owned(), value.to_owned())));
        if let Some(redis) = &redis {
            own.push(("control.backend".to_owned(), "\"redis\"".to_owned()));
            own.push(("control.redis_url".to_owned(), format!("\"{}\"", redis.url())));
        }
        let plan = Plan::own_cluster(global, "chaos", servers, &own)?;
        let config = plan.config(global)?;
        let lease = Duration::from_millis(config.control.lease_ttl_ms);
        let servers = config.cluster.servers.clone();
        Ok((Self { processes: Processes::start(plan)?, redis, servers, lease }, config))
    }

    /// The server that leads the embedded control plane; `None` if that is not embedded, or nobody leads at this moment.
    pub(super) async fn plane_leader(&self) -> Option<usize> {
        let leader = self.processes.status().await.plane?.leader?;
        self.servers.iter().position(|server| server.name == leader)
    }

    /// Whether two servers may be away at once: somebody must be left who has everything, and most of those that keep an
    /// embedded control plane.
    pub(super) fn may_lose_two(&self) -> bool {
        self.servers.len() >= if self.redis.is_some() { 3 } else { 5 }
    }

    pub(super) async fn kill_redis(&mut self) {
        if let Some(redis) = &mut self.redis {
            redis.kill().await;
        }
    }

    pub(super) async fn start_redis(&mut self) -> Result<(), CliError> {
        match &mut self.redis {
            Some(redis) => redis.start_again().await,
            None => Ok(()),
        }
    }

    /// Waits until every server serves every star as a full member. The error says who does not, after a long wait, or
    /// whose process ended although nobody ended it.
    pub(super) async fn whole(&mut self) -> Result<(), CliError> {
        let deadline = Clock.now() + WHOLE_WITHIN;
        loop {
            let cluster = self.processes.status().await;
            if self.is_whole(&cluster) {
                return Ok(());
            }
            if let Some(dead) = self.processes.states().into_iter().find(|state| state.ended.is_some()) {
                let (name, how) = (&dead.info.name, dead.ended.as_deref().unwrap_or_default());
                let tail = self.processes.log_tail(name);
                let text =
                    format!("server {name} ended ({how}) and nobody had asked for it; the end of its log:\n{tail}");
                return Err(CliError::new(text));
            }
            if Clock.now() >= deadline {
                return Err(self.not_whole(&cluster));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn is_whole(&self, cluster: &ClusterStatus) -> bool {
        let count = self.servers.len();
        let serves_all = cluster.servers.iter().all(|server| server.state == UP);
        let has_all = cluster.stars.iter().all(|star| star.members.len() == count && star.on_the_way() == 0);
        serves_all && has_all && cluster.servers.len() == count && !cluster.stars.is_empty()
    }

    fn not_whole(&self, cluster: &ClusterStatus) -> CliError {
        let servers: Vec<String> =
            cluster.servers.iter().map(|server| format!("{} {}", server.name, server.state)).collect();
        let stars: Vec<String> = cluster
            .stars
            .iter()
            .filter(|star| star.members.len() < self.servers.len() || star.on_the_way() > 0)
            .map(|star| {
                let (members, joining, learners) =
                    (star.members.join(""), star.joining.join(""), star.learners.join(""));
                format!("star {}: members {members}, joining {joining:?}, learners {learners:?}", star.id)
            })
            .collect();
        let seconds = WHOLE_WITHIN.as_secs();
        CliError::new(format!(
            "the cluster is not whole {seconds} s after it was healed: {}; {}",
            servers.join(", "),
            stars.join("; ")
        ))
    }
}
