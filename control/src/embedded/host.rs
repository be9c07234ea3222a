//! The host: the machine behind a lock, and what wakes those who watch a document.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use star_core::{
    message::{from_postcard, to_postcard},
    time::{Clock, Time},
};
use tokio::sync::{Semaphore, watch};

use super::Call;
use crate::{
    machine::{Answer, Command, Machine},
    plane::{CasOutcome, Revision},
};

/// The longest that one call may wait for a change; a client that waits longer calls again.
const WATCH_WAIT_MAX: Duration = Duration::from_secs(30);

/// The most calls that wait at one time, so that strangers cannot fill the memory with them.
const WATCHES_MAX: usize = 1024;

/// The embedded control plane, in the memory of one server. Clones share it.
#[derive(Clone)]
pub struct Host(Arc<Shared>);

struct Shared {
    clock: Clock,
    /// Never held across an await; a panic inside leaves it whole, because [`Machine::apply`] checks before it changes.
    machine: Mutex<Machine>,
    /// Touched after every change of a document.
    changes: watch::Sender<()>,
    watches: Semaphore,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").finish_non_exhaustive()
    }
}

impl Host {
    /// An empty control plane that gives leases of at most `ttl_max`. It remembers nothing of an earlier host, so for
    /// the first `ttl_max` it lets nobody be taken out of a view.
    pub fn new(ttl_max: Duration) -> Self {
        let clock = Clock;
        Self(Arc::new(Shared {
            clock,
            machine: Mutex::new(Machine::new(clock.now(), ttl_max)),
            changes: watch::Sender::new(()),
            watches: Semaphore::new(WATCHES_MAX),
        }))
    }

    /// Answers one call: the header of a frame of kind `Control` in, the header of a `ControlAnswer` out.
    ///
    /// A call that watches a document may take as long as 30 s, so calls must not wait for one another. Whatever comes
    /// in, there is an answer; dropping the future leaves nothing behind.
    pub async fn handle(&self, call: &[u8]) -> Vec<u8> {
        let answer = match from_postcard(call) {
            Ok(Call::Apply(command)) => self.apply(command),
            Ok(Call::Watch { key, after, wait }) => self.watch(key, after, wait).await,
            Err(why) => Answer::Refused(format!("this is no call to the control plane: {why}")),
        };
        let mut bytes = Vec::new();
        to_postcard(&answer, &mut bytes);
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
        let Ok(_permit) = self.0.watches.try_acquire() else {
            return Answer::Busy;
        };
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use star_core::ids::Incarnation;

    use super::*;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime").block_on(future)
    }

    async fn call(host: &Host, call: &Call) -> Answer {
        let mut bytes = Vec::new();
        to_postcard(call, &mut bytes);
        from_postcard(&host.handle(&bytes).await).expect("an answer")
    }

    #[test]
    fn a_watch_without_news_ends_in_time_with_what_is_there() {
        block_on(async {
            let host = Host::new(Duration::from_secs(1));
            let watch = Call::Watch { key: "k".into(), after: Revision(0), wait: Duration::from_millis(30) };
            let began = Clock.now();
            assert_eq!(call(&host, &watch).await, Answer::Document(None));
            assert!(Clock.now().since(began) >= Duration::from_millis(30));
        });
    }

    #[test]
    fn more_watches_than_allowed_are_sent_away_and_the_rest_goes_on() {
        block_on(async {
            let host = Host::new(Duration::from_secs(1));
            let watch = Call::Watch { key: "k".into(), after: Revision(0), wait: Duration::from_secs(20) };
            let mut waiting = tokio::task::JoinSet::new();
            for _ in 0..WATCHES_MAX {
                let (host, watch) = (host.clone(), watch.clone());
                waiting.spawn(async move { call(&host, &watch).await });
            }
            while host.0.watches.available_permits() > 0 {
                tokio::task::yield_now().await;
            }
            assert_eq!(call(&host, &watch).await, Answer::Busy);
            let lease = Command::Acquire { name: "a".into(), holder: Incarnation(1), ttl: Duration::from_millis(100) };
            assert!(matches!(call(&host, &Call::Apply(lease)).await, Answer::Acquired(_)));
            waiting.shutdown().await;
            let short = Call::Watch { key: "k".into(), after: Revision(0), wait: Duration::ZERO };
            assert_eq!(call(&host, &short).await, Answer::Document(None));
        });
    }

    proptest! {
        #[test]
        fn any_bytes_get_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            // A watch that happens to be in the bytes may wait; the answer to everything else is there at once.
            block_on(async {
                let host = Host::new(Duration::from_secs(1));
                if let Ok(answer) = tokio::time::timeout(Duration::from_millis(1), host.handle(&bytes)).await {
                    prop_assert!(from_postcard::<Answer>(&answer).is_ok());
                }
                Ok(())
            })?;
        }
    }
}
