//! The faults, one after another: each breaks something for a while, heals it, and waits until the cluster is whole.

use std::{rc::Rc, time::Duration};

use clap::ValueEnum;
use rustix::process::Signal;
use star_core::message::Fault;
use star_sim::random::Random;
use tokio::task::{spawn_blocking, spawn_local};

use super::{
    busy::{Changes, Saturation},
    clients::{FIRST_WAITING_READER, any_hot_key},
    cluster::Cluster,
    gaps::Phase,
    shared::Shared,
};
use crate::{error::CliError, faults};

/// Reads that are sent to a server that stands still, to see what it answers when it goes on.
const WAITING_READS: usize = 32;
/// Between two looks at who is in which view.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long a server may take to answer a fault.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// How long a whole cluster may take until every star takes writes and every server answers reads.
const PROGRESS_WITHIN: Duration = Duration::from_secs(20);

/// What is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    /// kill -9 of one server, or now and then of two, and their start
    Kill,
    /// SIGSTOP of a server beyond its lease, then SIGCONT
    Stop,
    /// The link between two servers cut, at one side or both, and mended
    Link,
    /// Every server stopped by SIGTERM and started again, one after another
    Rolling,
    /// The control plane away for a while: Redis killed and started again; of the embedded one the server that leads it,
    /// by kill -9 or SIGSTOP
    Control,
    /// A server saturated for --busy-seconds: by requests without end, and by a thread that spins on every core. Only
    /// when asked for; nobody should be taken out of a view
    Busy,
}

/// Has faults.
pub(super) struct Chaos<'a> {
    pub(super) cluster: &'a mut Cluster,
    pub(super) shared: &'a Rc<Shared>,
    pub(super) random: Random,
    pub(super) busy_for: Duration,
}

impl Chaos<'_> {
    /// Has one fault from its beginning until the cluster is whole again.
    pub(super) async fn have(&mut self, kind: Kind) -> Result<(), CliError> {
        self.shared.record.borrow_mut().gaps.begin(self.shared.now());
        match kind {
            Kind::Kill => self.kill().await,
            Kind::Stop => self.stop().await,
            Kind::Link => self.link().await,
            Kind::Rolling => self.rolling().await,
            Kind::Control => self.control().await,
            Kind::Busy => self.busy().await,
        }
    }

    /// Lets some time pass in which nothing is broken.
    pub(super) async fn rest(&mut self) {
        self.shared.record.borrow_mut().gaps.begin(self.shared.now());
        self.pause(500, 1500).await;
        self.end(Phase::Quiet, &[]);
    }

    async fn kill(&mut self) -> Result<(), CliError> {
        let mut victims = vec![self.any_victim().await];
        if self.cluster.may_lose_two() && self.random.below(4) == 0 {
            let others: Vec<usize> = self.servers().filter(|one| !victims.contains(one)).collect();
            victims.push(*self.random.pick(&others));
        }
        let phase = if victims.len() > 1 { Phase::KilledTwo } else { Phase::Killed };
        self.kill_these(phase, &victims).await
    }

    async fn kill_these(&mut self, phase: Phase, victims: &[usize]) -> Result<(), CliError> {
        for victim in victims {
            self.cluster.processes.kill(*victim);
        }
        self.pause(1200, 2200).await;
        self.end(phase, victims);
        for victim in victims {
            self.cluster.processes.start_again(*victim)?;
        }
        self.wait_until_whole(Phase::Returning, victims).await
    }

    async fn stop(&mut self) -> Result<(), CliError> {
        let victim = self.any_victim().await;
        let lease = self.cluster.lease;
        self.cluster.processes.signal(victim, Signal::STOP);
        tokio::time::sleep(lease.mul_f64(1.8) + self.up_to(lease)).await;
        // These wait in its sockets: whatever it answers to them must be of now, not of when it was stopped.
        for number in 0..WAITING_READS {
            let (shared, key) = (Rc::clone(self.shared), any_hot_key(self.shared));
            let client = FIRST_WAITING_READER + number as u32;
            spawn_local(async move { shared.read(client, victim, &key).await });
        }
        tokio::time::sleep(self.up_to(lease)).await;
        self.end(Phase::Stopped, &[victim]);
        self.cluster.processes.signal(victim, Signal::CONT);
        self.wait_until_whole(Phase::Resumed, &[victim]).await
    }

    async fn link(&mut self) -> Result<(), CliError> {
        let servers = self.cluster.servers.len();
        let one = self.random.below(servers as u64) as usize;
        let other = (one + self.random.between(1, servers as u64 - 1) as usize) % servers;
        let both_sides = self.random.below(2) == 0;
        self.set_link(one, other, true).await?;
        if both_sides {
            self.set_link(other, one, true).await?;
        }
        self.pause(300, 2500).await;
        self.end(if both_sides { Phase::LinkCutBothSides } else { Phase::LinkCutOneSide }, &[]);
        self.set_link(one, other, false).await?;
        if both_sides {
            self.set_link(other, one, false).await?;
        }
        self.wait_until_whole(Phase::LinkMended, &[]).await
    }

    async fn rolling(&mut self) -> Result<(), CliError> {
        for victim in self.servers() {
            if let Err(error) = self.cluster.processes.stop_one(victim).await {
                self.shared.surprise(format!("SIGTERM: {}", error.message()));
            }
            self.cluster.processes.start_again(victim)?;
            self.wait_until_whole(Phase::Rolling, &[victim]).await?;
            self.shared.record.borrow_mut().gaps.begin(self.shared.now());
        }
        Ok(())
    }

    async fn control(&mut self) -> Result<(), CliError> {
        let leader = self.cluster.plane_leader().await;
        if let Some(leader) = leader.filter(|_| self.random.below(3) > 0) {
            return self.kill_these(Phase::KilledPlane, &[leader]).await;
        }
        // Shorter than a lease, so that nobody should notice, or much longer.
        let away = if self.random.below(2) == 0 { self.cluster.lease / 4 } else { self.cluster.lease * 2 };
        match leader {
            Some(leader) => self.cluster.processes.signal(leader, Signal::STOP),
            None => self.cluster.kill_redis().await,
        }
        tokio::time::sleep(away).await;
        let victims: Vec<usize> = leader.into_iter().collect();
        self.end(Phase::ControlAway, &victims);
        match leader {
            Some(leader) => self.cluster.processes.signal(leader, Signal::CONT),
            None => self.cluster.start_redis().await?,
        }
        self.wait_until_whole(Phase::ControlBack, &victims).await
    }

    async fn busy(&mut self) -> Result<(), CliError> {
        let victim = self.any_victim().await;
        let mut changes = Changes::since(&self.cluster.processes.status().await);
        let saturation = Saturation::begin(&self.cluster.servers[victim].addr, self.busy_for)?;
        let ends = self.shared.now() + self.busy_for;
        while self.shared.now() < ends {
            tokio::time::sleep(LOOK_EVERY).await;
            changes.look(&self.cluster.processes.status().await);
        }
        // The clients go on while its threads end.
        let requests = spawn_blocking(|| saturation.end()).await?;
        changes.look(&self.cluster.processes.status().await);
        self.shared.record.borrow_mut().busy.add(requests, &changes);
        self.wait_until_whole(Phase::Busy, &[]).await
    }

    async fn set_link(&self, at: usize, to: usize, is_cut: bool) -> Result<(), CliError> {
        let server = self.cluster.servers[to].name.as_str().into();
        let fault = if is_cut { Fault::FailLink { server } } else { Fault::FixLink { server } };
        faults::ask(&self.cluster.servers[at].addr, &fault, ANSWER_WITHIN).await.map(drop)
    }

    fn servers(&self) -> std::ops::Range<usize> {
        0..self.cluster.servers.len()
    }

    /// Any server; half of the time one that leads more stars than the others.
    async fn any_victim(&mut self) -> usize {
        let victims: Vec<usize> = self.servers().collect();
        if self.random.below(2) == 0 {
            let stars = self.cluster.processes.status().await.stars;
            let led = |server: &usize| {
                let name = Some(self.cluster.servers[*server].name.as_str());
                stars.iter().filter(|star| star.leader.as_deref() == name).count()
            };
            if let Some(most) = victims.iter().max_by_key(|server| led(server)) {
                return *most;
            }
        }
        *self.random.pick(&victims)
    }

    async fn wait_until_whole(&mut self, phase: Phase, away: &[usize]) -> Result<(), CliError> {
        let begin = self.shared.now();
        self.cluster.whole().await?;
        let whole = self.shared.now();
        self.shared.record.borrow_mut().gaps.whole(phase, whole.since(begin));
        // The record must not be held while the clients go on.
        let silent = || self.shared.record.borrow().gaps.silent(begin);
        while let Some(what) = silent() {
            if self.shared.now().since(whole) > PROGRESS_WITHIN {
                let seconds = PROGRESS_WITHIN.as_secs();
                return Err(CliError::new(format!("{what} was answered for {seconds} s in a whole cluster")));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.end(phase, away);
        Ok(())
    }

    fn end(&self, phase: Phase, away: &[usize]) {
        self.shared.record.borrow_mut().gaps.end(phase, away, self.shared.now());
    }

    fn up_to(&mut self, span: Duration) -> Duration {
        span.mul_f64(self.random.below(1000) as f64 / 1000.0)
    }

    async fn pause(&mut self, low_ms: u64, high_ms: u64) {
        tokio::time::sleep(Duration::from_millis(self.random.between(low_ms, high_ms))).await;
    }
}
