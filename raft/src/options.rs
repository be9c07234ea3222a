//! How a member is set up, and why it may not start.

use std::{path::PathBuf, sync::Arc, time::Duration};

use star_control::embedded::{Carrier, TcpCarrier};
use star_core::message::to_postcard;

use crate::store::SlowDisk;

/// The numbers of members that make sense: an even one survives no more than the odd one below it.
const MEMBER_COUNTS: [usize; 3] = [1, 3, 5];

/// A member of the control plane: a server that keeps it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// The server's name.
    pub name: String,
    /// Where it listens: `host:port`.
    pub addr: String,
}

impl Member {
    /// The member of this name at this address.
    pub fn new(name: impl Into<String>, addr: impl Into<String>) -> Self {
        Self { name: name.into(), addr: addr.into() }
    }

    /// Those of a cluster's servers, in the order of the configuration, that keep the control plane: the first 5, 3 or 1.
    pub fn choose(servers: &[Self]) -> &[Self] {
        let count = MEMBER_COUNTS.into_iter().rev().find(|count| *count <= servers.len()).unwrap_or(0);
        &servers[..count]
    }
}

/// When members give each other up.
///
/// The defaults let the members put another leader in the place of a killed one within a renewal of a 600 ms lease. Its
/// holder counts on 540 ms from sending, and sends every 200 ms; so at the worst moment 340 ms are left. A member waits
/// twice its own election time, looks at the clock every one and a half heartbeats, and needs two round trips, the first
/// with a write to disk at both ends: 160 to 280 ms, and a few more. Election times are spread evenly over the members, so that two of
/// them do not ask for votes at once, and get half of them each, again and again.
///
/// Nobody is harmed by an election too many; it costs some milliseconds. Heartbeats do not wait for the disk, but votes do:
/// nobody is elected while most disks take longer than `election_min` for a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RaftTimes {
    /// Between two signs of life of a leader; also how long a member may take to answer one. Default: 25 ms.
    pub heartbeat: Duration,
    /// The election time of the first member. Default: 80 ms; more than `heartbeat`.
    pub election_min: Duration,
    /// No election time is longer. Default: 140 ms; more than `election_min`, and less than twice as much.
    pub election_max: Duration,
    /// How long a client's call may take here until it is said to be unsure. Default: 800 ms.
    pub answer: Duration,
}

impl Default for RaftTimes {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(25),
            election_min: Duration::from_millis(80),
            election_max: Duration::from_millis(140),
            answer: Duration::from_millis(800),
        }
    }
}

impl RaftTimes {
    /// How long a member lets a leader wait for its disk; the rest of the heartbeat is for the way.
    pub(crate) fn patience(&self) -> Duration {
        self.heartbeat * 3 / 5
    }

    /// The shortest and longest election time of member `index` of `count`: a slice of its own.
    pub(crate) fn election_of(&self, index: usize, count: usize) -> (Duration, Duration) {
        let slice = self.election_max.saturating_sub(self.election_min) / count as u32;
        let min = self.election_min + slice * index as u32;
        (min, min + (slice / 8).max(Duration::from_millis(1)))
    }
}

/// Everything that one member needs to know before it starts.
#[derive(Clone, Debug)]
pub struct RaftOptions {
    /// The cluster's name. The same at all members, as are `members` and `ttl_max`.
    pub cluster: String,
    /// The name of this member; one of `members`.
    pub me: String,
    /// All members: 1, 3 or 5. Fixed when the plane is founded.
    pub members: Vec<Member>,
    /// Where log, vote and snapshots are kept; made if need be. Nobody else may use it.
    pub directory: PathBuf,
    /// The longest lease that is given. Fixed when the plane is founded.
    pub ttl_max: Duration,
    /// When members give each other up.
    pub times: RaftTimes,
    /// Brings calls to other members. Used on the member's own thread only.
    pub carrier: Arc<dyn Carrier>,
    /// Makes the disk slower, for tests. Default: not at all.
    pub slow_disk: SlowDisk,
}

impl RaftOptions {
    /// A member that talks to the others over TCP, with the default times.
    pub fn new(
        cluster: impl Into<String>,
        me: impl Into<String>,
        members: Vec<Member>,
        directory: impl Into<PathBuf>,
        ttl_max: Duration,
    ) -> Self {
        let times = RaftTimes::default();
        Self {
            cluster: cluster.into(),
            me: me.into(),
            members,
            directory: directory.into(),
            ttl_max,
            times,
            carrier: Arc::new(TcpCarrier::new(times.election_max * 4)),
            slow_disk: SlowDisk::default(),
        }
    }

    /// The index of this member, if the options make sense.
    pub(crate) fn check(&self) -> Result<usize, StartError> {
        let wrong = |why: String| StartError::Options(why);
        if !MEMBER_COUNTS.contains(&self.members.len()) {
            return Err(wrong(format!("a control plane has 1, 3 or 5 members, not {}", self.members.len())));
        }
        let mut sorted: Vec<_> = self.members.iter().map(|member| &member.name).collect();
        sorted.sort();
        sorted.dedup();
        if sorted.len() < self.members.len() {
            return Err(wrong("two members have the same name".into()));
        }
        let RaftTimes { heartbeat, election_min, election_max, .. } = self.times;
        let is_wide = election_max > election_min && election_max < election_min * 2;
        if heartbeat < Duration::from_millis(1) || heartbeat >= election_min || !is_wide {
            return Err(wrong(format!(
                "heartbeat ({heartbeat:?}) must be less than election_min ({election_min:?}), and election_max \
                 ({election_max:?}) more than that but less than twice as much"
            )));
        }
        let known = || self.members.iter().map(|member| member.name.as_str()).collect::<Vec<_>>().join(", ");
        let mine = self.members.iter().position(|member| member.name == self.me);
        mine.ok_or_else(|| wrong(format!("{:?} is no member; the members are {}", self.me, known())))
    }

    /// What all members must agree on, in one number.
    pub(crate) fn plane(&self) -> u64 {
        let members: Vec<_> = self.members.iter().map(|member| (&member.name, &member.addr)).collect();
        let mut bytes = Vec::new();
        to_postcard(&(&self.cluster, members, self.ttl_max), &mut bytes);
        xxhash_rust::xxh3::xxh3_64(&bytes)
    }
}

/// Why a member cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The options make no sense; the sentence says which.
    #[error("the control plane cannot be set up so: {0}; mend the configuration")]
    Options(String),
    /// The store cannot be opened or read.
    #[error(
        "the control plane's store {path} cannot be used: {why}. If another server uses it, stop that one; if the file \
         is damaged, restore it"
    )]
    Store {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The plane was founded with other options.
    #[error(
        "the control plane in {path} was founded for another cluster name, other members (names and addresses) or \
         another lease time than are configured now: configure those again, or stop all servers, remove that file at \
         every member, and start anew"
    )]
    OtherPlane {
        /// The file.
        path: PathBuf,
    },
    /// The system gives no thread or no runtime, or the library does not start.
    #[error("the control plane's thread cannot be started: {0}")]
    System(String),
}
