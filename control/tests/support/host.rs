//! A control plane of one member in memory, for tests that take it away, bring it back or replace it at will: the machine
//! behind a lock, and what wakes those who watch a document.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use star_control::{
    CasOutcome, Machine, Revision,
    embedded::{Call, Carried, Carrier, Envelope, Reply},
    machine::{Answer, Command},
};
use star_core::{
    message::{from_postcard, to_postcard},
    time::{Clock, Time},
};
use tokio::sync::watch;

/// The longest that one call may wait for a change; a client that waits longer calls again.
const WATCH_WAIT_MAX: Duration = Duration::from_secs(30);

/// Clones share it.
#[derive(Clone)]
pub(crate) struct Host(Arc<Shared>);

struct Shared {
    clock: Clock,
    /// Never held across an await; a panic inside leaves it whole, because [`Machine::apply`] checks before it changes.
    machine: Mutex<Machine>,
    /// Touched after every change of a document.
    changes: watch::Sender<()>,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").finish_non_exhaustive()
    }
}

impl Host {
    /// An empty control plane that gives leases of at most `ttl_max`. It remembers nothing of an earlier host, so for
    /// the first `ttl_max` it lets nobody be taken out of a view.
    pub(crate) fn new(ttl_max: Duration) -> Self {
        let clock = Clock;
        Self(Arc::new(Shared {
            clock,
            machine: Mutex::new(Machine::new(clock.now(), ttl_max)),
            changes: watch::Sender::new(()),
        }))
    }

    /// Answers one call: the header of a frame of kind `Control` in, the header of a `ControlAnswer` out. Whatever comes
    /// in, there is an answer; dropping the future leaves nothing behind.
    pub(crate) async fn handle(&self, call: &[u8]) -> Vec<u8> {
        let answer = match from_postcard(call) {
            Ok(Envelope::Client(Call::Apply(command))) => self.apply(command),
            Ok(Envelope::Client(Call::Watch { key, after, wait })) => self.watch(key, after, wait).await,
            Ok(Envelope::Member(_)) => Answer::Refused("there is one member".into()),
            Err(why) => Answer::Refused(format!("this is no call to the control plane: {why}")),
        };
        let mut bytes = Vec::new();
        to_postcard(&Reply::Answer(answer), &mut bytes);
        bytes
    }

    fn apply(&self, command: Command) -> Answer {
        let answer = {
            let mut machine = self.machine();
            // Read under the lock, so that the machine sees times in the order of the commands.
            let now: Time = self.0.clock.now();
            machine.apply(now, command)
        };
        if matches!(answer, Answer::Set(CasOutcome::Done(_))) {
            self.0.changes.send_replace(());
        }
        answer
    }

    async fn watch(&self, key: String, after: Revision, wait: Duration) -> Answer {
        // Listening before looking: a change between the two is heard.
        let mut changes = self.0.changes.subscribe();
        let wait_for_change = async {
            loop {
                let answer = self.apply(Command::Get { key: key.clone() });
                if revision(&answer) != after || changes.changed().await.is_err() {
                    return answer;
                }
            }
        };
        match tokio::time::timeout(wait.min(WATCH_WAIT_MAX), wait_for_change).await {
            Ok(answer) => answer,
            Err(_) => self.apply(Command::Get { key: key.clone() }),
        }
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        self.0.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn revision(answer: &Answer) -> Revision {
    match answer {
        Answer::Document(Some(document)) => document.revision,
        _ => Revision::ABSENT,
    }
}

/// Calls in the same process.
impl Carrier for Host {
    fn exchange<'a>(&'a self, _addr: &'a str, call: Bytes, _limit: Duration) -> Carried<'a> {
        Box::pin(async move { Ok(self.handle(&call).await.into()) })
    }
}
