//! Writes every key once before a load, with many writes under way.

use std::{collections::BTreeSet, time::Duration};

use star_core::{ClientId, Clock, Key, RequestId, Time, session::Numbers};

use crate::{
    BenchError,
    connection::Connection,
    dialect::{Answer, Outcome},
    workload::{Options, Target, key_text},
};

/// For so long a server that was just started may break connections, or refuse, without anything getting done.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);

/// A connection to a server that may have been started just now: tried again for a while.
pub(crate) async fn dial(options: &Options, target: &Target) -> Result<Connection, BenchError> {
    let ends = Clock.now() + PATIENCE;
    loop {
        match Connection::dial(&options.system, target).await {
            Err(BenchError::Connection { .. }) if Clock.now() < ends => tokio::time::sleep(PAUSE).await,
            outcome => return outcome,
        }
    }
}

/// Writes every key once. What a connection took with it when it broke is written again, under the same request ids.
pub(crate) async fn fill(options: &Options) -> Result<(), BenchError> {
    let mut filling = Filling {
        value: vec![b'.'; options.value_bytes],
        client: ClientId::draw(),
        numbers: Numbers::default(),
        next: 0,
        under_way: BTreeSet::new(),
        moved: Clock.now(),
    };
    let mut connection = dial(options, &options.targets[0]).await?;
    loop {
        match filling.go_on(options, &mut connection).await {
            Err(BenchError::Connection { .. }) if Clock.now().since(filling.moved) < PATIENCE => {
                tokio::time::sleep(PAUSE).await;
                connection = dial(options, &options.targets[0]).await?;
                filling.queue_again(&mut connection, filling.under_way.iter().copied().collect());
            }
            outcome => return outcome,
        }
    }
}

struct Filling {
    value: Vec<u8>,
    client: ClientId,
    numbers: Numbers,
    /// The first key that was not sent yet.
    next: u64,
    /// Keys that were sent and are not known to be written.
    under_way: BTreeSet<u64>,
    /// When a key was written last.
    moved: Time,
}

impl Filling {
    async fn go_on(&mut self, options: &Options, connection: &mut Connection) -> Result<(), BenchError> {
        let window = (1024 * 1024 / options.value_bytes.max(1)).clamp(1, 256);
        loop {
            while self.next < options.keys && self.under_way.len() < window {
                let Some((number, behind)) = self.numbers.take(1) else { break };
                self.under_way.insert(number);
                self.next += 1;
                self.queue(connection, number, behind);
            }
            if self.under_way.is_empty() {
                return Ok(());
            }
            connection.flush().await?;
            let (mut again, mut refusal) = (Vec::new(), None);
            let take = |Answer { id, outcome, .. }| match outcome {
                Outcome::Written(_) if self.under_way.remove(&id) => {
                    self.numbers.finish(id, 1);
                    self.moved = Clock.now();
                }
                // A key that was written in an earlier answer.
                Outcome::Written(_) => {}
                other => {
                    again.push(id);
                    refusal = Some(other);
                }
            };
            connection.receive(take).await?;
            if let Some(refusal) = refusal {
                if Clock.now().since(self.moved) >= PATIENCE {
                    let why = format!("the keys cannot be written before the load: {refusal:?}");
                    return Err(BenchError::Options(why));
                }
                tokio::time::sleep(PAUSE).await;
                self.queue_again(connection, again);
            }
        }
    }

    fn queue_again(&self, connection: &mut Connection, keys: Vec<u64>) {
        for key in keys {
            self.queue(connection, key, self.numbers.behind(key));
        }
    }

    fn queue(&self, connection: &mut Connection, number: u64, behind: u64) {
        let request_id = RequestId::Counted { client: self.client, number, behind };
        connection.queue_set(number, &Key::new(key_text(number)), &self.value, request_id);
    }
}
