//! Members in processes of their own, killed without warning, and a client over TCP.

mod support;

use std::{
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use bytes::Bytes;
use star_control::{
    Acquired, CasOutcome, ControlPlane, EmbeddedClient, Renewed, Revision,
    embedded::{Call, ClusterTimes, Envelope, Reply},
    machine,
};
use star_core::{
    Clock, Incarnation,
    message::{frame::FrameKind, from_postcard, to_postcard},
    network::{ClientOptions, TcpClient},
};
use star_raft::{Member, RaftHost, RaftOptions, remote_client};
use support::{LATE, TTL_MAX, TcpMember, answered, free_port, revision, set_for_sure};
use tempfile::TempDir;

/// What a process that is a member gets to know: its index, all addresses, its directory.
const TASK: &str = "STAR_RAFT_TEST_MEMBER";

fn members(addrs: &str) -> Vec<Member> {
    addrs.split(',').enumerate().map(|(index, addr)| Member::new(format!("m{index}"), addr)).collect()
}

/// Not a test by itself: what the other test starts, in processes of its own.
#[test]
fn a_member_process() {
    let Ok(task) = std::env::var(TASK) else { return };
    let mut words = task.splitn(3, ' ');
    let mut word = || words.next().expect("index, addresses, directory");
    let (index, members, directory) = (word().parse::<usize>().expect("an index"), members(word()), word());
    // Whoever started this process holds the other end of its input; when that one is gone there is nobody to serve.
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(0);
    });
    let me = members[index].clone();
    let host = RaftHost::start(RaftOptions::new("test", me.name, members, directory, TTL_MAX)).expect("a member");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let _server = TcpMember::start(host, &me.addr).await;
        std::future::pending::<()>().await;
    });
}

struct Processes {
    addrs: String,
    directory: TempDir,
    running: Vec<Option<Child>>,
}

impl Processes {
    fn start(count: usize) -> Self {
        let addrs: Vec<_> = (0..count).map(|_| format!("127.0.0.1:{}", free_port())).collect();
        let directory = tempfile::tempdir().expect("a directory");
        let mut processes = Self { addrs: addrs.join(","), directory, running: (0..count).map(|_| None).collect() };
        (0..count).for_each(|index| processes.restart(index));
        processes
    }

    fn restart(&mut self, index: usize) {
        let own: &Path = self.directory.path();
        let task = format!("{index} {} {}", self.addrs, own.join(index.to_string()).display());
        let child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "a_member_process", "--nocapture"])
            .env(TASK, task)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("a process");
        self.running[index] = Some(child);
    }

    /// As `kill -9` does.
    fn kill(&mut self, index: usize) {
        if let Some(mut child) = self.running[index].take() {
            child.kill().expect("killed");
            child.wait().expect("gone");
        }
    }

    fn client(&self) -> EmbeddedClient {
        let times = ClusterTimes { answer: Duration::from_secs(5), ..ClusterTimes::default() };
        remote_client(&members(&self.addrs), times)
    }

    /// The index of the one that answers for itself.
    async fn leader(&self) -> usize {
        let mut call = Vec::new();
        to_postcard(&Envelope::Client(Call::Apply(machine::Command::Leases)), &mut call);
        let began = Clock.now();
        loop {
            for (index, member) in members(&self.addrs).into_iter().enumerate() {
                let client = TcpClient::new(member.addr, ClientOptions::default());
                let answer = client.exchange(FrameKind::Control, &call, Bytes::new()).await;
                if answer.is_ok_and(|(_, reply, _)| matches!(from_postcard(&reply), Ok(Reply::Answer(_)))) {
                    return index;
                }
            }
            assert!(Clock.now().since(began) < LATE, "nobody leads");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        (0..self.running.len()).for_each(|index| self.kill(index));
    }
}

/// One write more, whose outcome is known.
async fn count_up(plane: &EmbeddedClient, expected: u64) {
    let outcome = set_for_sure(plane, "k", expected, &Bytes::from(vec![b'v'; 1000])).await;
    assert_eq!(outcome, CasOutcome::Done(Revision(expected + 1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_members_forget_nothing_and_a_lease_is_kept_through_the_death_of_a_leader() {
    let mut processes = Processes::start(3);
    assert!(members(&processes.addrs).iter().all(|member| member.addr.parse::<SocketAddr>().is_ok()));
    let plane = processes.client();
    assert_eq!(revision(&plane, "k").await, 0);
    let (mut written, mut gaps) = (0, Vec::new());
    for round in 0..4 {
        for _ in 0..20 {
            count_up(&plane, written).await;
            written += 1;
        }
        let leader = processes.leader().await;
        let (name, holder) = (format!("s{round}"), Incarnation(round));
        let sent = Clock.now();
        assert_eq!(answered(|| plane.acquire(&name, holder, TTL_MAX)).await, Acquired::Held);
        processes.kill(leader);
        let killed = Clock.now();
        let renewed = plane.renew(&name, holder, TTL_MAX).await;
        let renewed_at = Clock.now();
        gaps.push(renewed_at.since(killed));
        if renewed_at.since(sent) < TTL_MAX {
            assert_ne!(renewed, Ok(Renewed::Lost));
        }
        assert_eq!(revision(&plane, "k").await, written);
        processes.restart(leader);
    }
    println!("the plane answered again after {gaps:?}");
    // All at once.
    (0..3).for_each(|index| processes.kill(index));
    (0..3).for_each(|index| processes.restart(index));
    assert_eq!(revision(&plane, "k").await, written);
    count_up(&plane, written).await;
}
