//! A whole run: break things, heal everything, prove progress, and judge what was seen.

use std::fmt;

use serde::{Deserialize, Serialize};
use star_control::View;
use star_core::ids::{ServerId, StarId};

use super::{
    Server, World,
    client::Client,
    faults::FaultKind,
    settings::{MS, SECOND},
    trace::view_line,
};
use crate::{
    linearizable::{Verdict, versions, wgl},
    random::Random,
    subject::Subject,
};

/// How long everything may take to come to rest once all faults are healed.
const REST_MAX: u64 = 60 * SECOND;

/// Bounds the search for an order of one key's operations; a run has a few hundred of them.
const STATES_MAX: usize = 300_000;

/// What a run without a failure came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// XXH3 of all events.
    pub digest: u64,
    /// Inputs that the protocol took.
    pub steps: u64,
    /// Faults that happened.
    pub faults: u64,
    /// The same by kind, in the order of [`FaultKind::ALL`].
    pub faults_by_kind: [u64; FaultKind::ALL.len()],
    /// Nanoseconds of the world's time.
    pub simulated: u64,
    /// Requests that were answered.
    pub answers: u64,
    /// Requests whose outcome nobody knows.
    pub unknown: u64,
    /// Requests that were refused because the servers had forgotten them or their clients.
    pub forgotten: u64,
    /// Operations in the history.
    pub operations: u64,
    /// Changes of the views.
    pub views: u64,
    /// Stars that were founded again, because all copies of their objects were lost.
    pub founded_again: u64,
    /// Stars that went on with what a store held, after all their holders had ended.
    pub resumed: u64,
    /// Writes that went around slow links, as far as the servers' last lives know.
    #[serde(default)]
    pub went_around: u64,
    /// Messages between servers.
    pub messages: u64,
    /// Messages that were lost.
    pub lost: u64,
    /// Keys whose history was judged.
    pub keys: u64,
    /// Keys whose history the search gave up on, so that the versions alone judged it.
    pub by_versions_alone: u64,
    /// Keys whose history neither could judge.
    pub undecided: u64,
}

/// How the keys of a run were judged.
#[derive(Clone, Copy, Debug, Default)]
struct Judged {
    keys: u64,
    by_versions_alone: u64,
    undecided: u64,
}

/// A run in which something went wrong.
#[derive(Clone, Debug)]
pub struct Failure {
    /// When, in nanoseconds of the world.
    pub at: u64,
    /// After how many inputs.
    pub steps: u64,
    /// What went wrong.
    pub what: String,
}

impl Summary {
    /// Adds the numbers of another run; the digest becomes that of both.
    pub fn add(&mut self, other: &Self) {
        self.digest = self.digest.rotate_left(1) ^ other.digest;
        self.steps += other.steps;
        self.faults += other.faults;
        self.faults_by_kind.iter_mut().zip(other.faults_by_kind).for_each(|(sum, more)| *sum += more);
        self.simulated += other.simulated;
        self.answers += other.answers;
        self.unknown += other.unknown;
        self.forgotten += other.forgotten;
        self.operations += other.operations;
        self.views += other.views;
        self.founded_again += other.founded_again;
        self.resumed += other.resumed;
        self.went_around += other.went_around;
        self.messages += other.messages;
        self.lost += other.lost;
        self.keys += other.keys;
        self.by_versions_alone += other.by_versions_alone;
        self.undecided += other.undecided;
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "after {} steps, at {:.3} ms: {}", self.steps, self.at as f64 / 1e6, self.what)
    }
}

impl<S: Subject> World<S> {
    /// Runs the world to its end.
    pub fn run(&mut self) -> Result<Summary, Failure> {
        let run = self.run_to_the_end();
        run.map_err(|what| {
            self.trace.event(self.now, &[99], &[], || format!("FAILURE {what}"));
            Failure { at: self.now, steps: self.steps, what }
        })
    }

    fn run_to_the_end(&mut self) -> Result<Summary, String> {
        while self.steps < self.settings.steps && self.now < self.settings.time_max && self.next()? {}
        self.trace.event(self.now, &[90], &[], || "EVERYTHING IS HEALED");
        self.heal();
        // A lease that ran out just before the end may still cost a server its place.
        self.come_to_rest(self.settings.lease.ttl.as_nanos() as u64)?;
        if self.settings.restart_all {
            self.restart_all()?;
        }
        self.read_everywhere();
        self.come_to_rest(0)?;
        self.stores_agree()?;
        self.checks.at_end(&self.servers, &self.book, self.now)?;
        let judged = self.judge()?;
        Ok(Summary {
            digest: self.trace.digest(),
            steps: self.steps,
            faults: self.faults.iter().sum(),
            faults_by_kind: self.faults,
            simulated: self.now,
            answers: self.answers,
            unknown: self.unknown,
            forgotten: self.forgotten,
            operations: self.history.operations().len() as u64,
            views: self.views,
            founded_again: self.foundations.again(),
            resumed: self.resumed,
            went_around: self.servers.iter().filter_map(|server| server.node.as_ref()).map(S::went_around).sum(),
            messages: self.network.sent,
            lost: self.network.lost,
            keys: judged.keys,
            by_versions_alone: judged.by_versions_alone,
            undecided: judged.undecided,
        })
    }

    /// Goes on until every request is answered and no server has had anything unfinished for `quiet`.
    pub(super) fn come_to_rest(&mut self, quiet: u64) -> Result<(), String> {
        let end = self.now + REST_MAX;
        let mut quiet_since = None;
        loop {
            let look = self.now + 10 * MS;
            while self.now < look && self.next()? {}
            match self.busy() {
                Some(busy) if self.now > end => {
                    return Err(format!("no progress after everything was healed: {busy}"));
                }
                Some(_) => quiet_since = None,
                None if self.now >= *quiet_since.get_or_insert(self.now) + quiet => return Ok(()),
                None => {}
            }
        }
    }

    /// Every server begins a new life, one after another: in the end all that is stored was carried over from server to
    /// server.
    fn restart_all(&mut self) -> Result<(), String> {
        for id in (0..self.settings.servers).map(ServerId) {
            if !self.is_spare(id) {
                return Err(format!("server {id} holds the only copy of a star after everything was healed"));
            }
            self.trace.event(self.now, &[91, id.0.into()], &[], || format!("server {id} starts anew"));
            self.crash(id, false);
            self.restart(id);
            self.come_to_rest(0)?;
        }
        Ok(())
    }

    /// What is unfinished, if anything.
    fn busy(&self) -> Option<String> {
        if let Some(view) = self.plane.state().stars.iter().find(|view| !self.is_whole(view)) {
            return Some(format!("the view is not whole: {}", view_line(view)));
        }
        if let Some(client) = self.clients.iter().find(|client| client.under_way.is_some()) {
            return Some(format!("client {} waits for an answer", client.number));
        }
        self.checks.at_rest(&self.servers, &self.book, self.now).err()
    }

    /// Whether a star has as many members as it should, all of them serving, and everybody knows it and has a lease.
    fn is_whole(&self, view: &View) -> bool {
        let wanted = self.settings.replicas.unwrap_or(usize::MAX).min(self.servers.len());
        let acts = |server: &Server<S>| {
            server.holds_lease(self.now)
                && server.node.as_ref().is_some_and(|node| node.glance(view.star).epoch == view.epoch)
        };
        let is_full = view.members.len() == wanted && view.is_settled();
        is_full && self.servers.iter().all(acts)
    }

    /// A last read of all keys at every serving server, for the history.
    fn read_everywhere(&mut self) {
        for id in (0..self.settings.servers).map(ServerId) {
            let serves_all = self.servers[usize::from(id.0)]
                .node
                .as_ref()
                .is_some_and(|node| (0..self.settings.stars).all(|star| node.glance(StarId(star)).serving));
            if serves_all {
                let number = self.clients.len() as u32;
                let random = Random::new(u64::from(number));
                let mut client = Client::new(number, random);
                client.bound_to = Some(id);
                self.clients.push(client);
                let (asked, request) = self.workload.get_all();
                self.ask(number, asked, request);
            }
        }
    }

    /// All serving members of a star hold the same objects.
    fn stores_agree(&self) -> Result<(), String> {
        for star in (0..self.settings.stars).map(StarId) {
            let mut first = None;
            for (id, server) in self.servers.iter().enumerate() {
                let Some(node) = server.node.as_ref().filter(|node| node.glance(star).serving) else { continue };
                let mut objects = Vec::new();
                node.objects(&mut |key, version, value| {
                    if key.star(self.settings.stars) == star {
                        objects.push((key.clone(), version, value.to_vec()));
                    }
                });
                match &first {
                    None => first = Some((id, objects)),
                    Some((other, same)) if *same != objects => {
                        return Err(format!("star {star}: servers {other} and {id} hold different objects at the end"));
                    }
                    Some(_) => {}
                }
            }
        }
        let open = self.servers.iter().find_map(|server| server.open.first().filter(|_| server.node.is_some()));
        match open {
            Some(token) => Err(format!("request {token:?} was never answered")),
            None => Ok(()),
        }
    }

    /// Both checkers judge the history, and one another.
    fn judge(&self) -> Result<Judged, String> {
        let mut judged = Judged::default();
        for group in self.history.by_key() {
            judged.keys += 1;
            let by_versions = versions::check_key(&self.history, &group);
            let by_search = wgl::check_key(&self.history, &group, STATES_MAX);
            match (&by_versions, &by_search) {
                (Verdict::Violation(violation), Verdict::Violation(_) | Verdict::Undecided { .. })
                | (Verdict::Undecided { .. }, Verdict::Violation(violation)) => return Err(violation.to_string()),
                (Verdict::Violation(_), Verdict::Linearizable) | (Verdict::Linearizable, Verdict::Violation(_)) => {
                    return Err(format!("the checkers disagree: versions {by_versions:?}, search {by_search:?}"));
                }
                (Verdict::Undecided { .. }, Verdict::Undecided { .. }) => judged.undecided += 1,
                (Verdict::Linearizable, Verdict::Undecided { .. }) => judged.by_versions_alone += 1,
                (_, Verdict::Linearizable) => {}
            }
        }
        Ok(judged)
    }

    /// The digest of all events so far.
    pub fn digest(&self) -> u64 {
        self.trace.digest()
    }
}
