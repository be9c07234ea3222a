//! The control plane as a server has it: a client of it, and its own part if it keeps one.

use std::{path::PathBuf, time::Duration};

use star_control::{Plane, PlaneError, RedisOptions, RedisPlane, embedded::ClusterTimes};
use star_core::cluster::ServerInfo;
use star_raft::{Member, RaftHost, RaftOptions, remote_client};

use super::HostError;

/// Where views and leases are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlOptions {
    /// At these servers together. The one that is set up is a member if it is among them.
    Embedded {
        /// 1, 3 or 5 members, the same at all servers: see [`Member::choose`].
        members: Vec<Member>,
        /// Where a member keeps its part of it: a directory of its own, on a disk.
        directory: PathBuf,
    },
    /// At this Redis: `redis://[[user]:password@]host:port[/database]`.
    Redis(String),
}

impl ControlOptions {
    /// Kept by the first 5, 3 or 1 of these servers. `directory`: of the server that is set up.
    pub fn embedded(servers: &[ServerInfo], directory: PathBuf) -> Self {
        let servers: Vec<_> = servers.iter().map(|server| Member::new(&server.name, &server.addr)).collect();
        Self::Embedded { members: Member::choose(&servers).to_vec(), directory }
    }

    /// A client for programs that are none of the cluster's servers, to be used on one runtime. `ttl_max`: the longest
    /// lease that is asked for.
    pub fn client(&self, cluster: &str, ttl_max: Duration) -> Result<Plane, PlaneError> {
        Ok(match self {
            Self::Embedded { members, .. } => {
                Plane::Embedded(remote_client(members, ClusterTimes::for_leases(ttl_max)))
            }
            Self::Redis(url) => {
                Plane::Redis(RedisPlane::new(RedisOptions { ttl_max, ..RedisOptions::new(url, cluster) })?)
            }
        })
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct ControlPlane {
    /// Asks the control plane.
    pub client: Plane,
    /// The part of the embedded control plane that is kept here.
    pub member: Option<RaftHost>,
}

impl ControlPlane {
    /// What the server `name` needs of the control plane; starts the part that it keeps, if any.
    pub fn start(options: &ControlOptions, cluster: &str, name: &str, ttl_max: Duration) -> Result<Self, HostError> {
        match options {
            ControlOptions::Embedded { members, directory } if members.iter().any(|member| member.name == name) => {
                let part = RaftOptions::new(cluster, name, members.clone(), directory, ttl_max);
                let member = RaftHost::start(part)?;
                Ok(Self {
                    client: Plane::Embedded(member.client(ClusterTimes::for_leases(ttl_max))),
                    member: Some(member),
                })
            }
            _ => Ok(Self { client: options.client(cluster, ttl_max)?, member: None }),
        }
    }

    /// Ends the part that is kept here. Whoever asks the plane through this server must have ended before.
    pub(crate) fn stop(self) {
        if let Some(member) = self.member {
            member.stop();
        }
    }
}
