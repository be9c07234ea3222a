//! One client of a load, with its window of requests under way.

use std::{rc::Rc, time::Duration};

use star_core::{ClientId, ErrorCode, Key, RequestId, Time, session::Numbers};
use star_objstore::Reader;

use crate::{
    BenchError,
    connection::Connections,
    dialect::{Answer, Outcome},
    record::{Operation, Recorded},
    run::Shared,
    workload::Random,
};

/// A client with its window.
pub(crate) struct Client {
    shared: Rc<Shared>,
    number: usize,
    connections: Connections,
    reader: Option<Reader>,
    random: Random,
    window: Vec<Option<UnderWay>>,
    free: Vec<usize>,
    writes: u64,
    numbers: Numbers,
    value: Vec<u8>,
    mapped_value: Vec<u8>,
}

#[derive(Clone, Debug)]
struct UnderWay {
    key: u64,
    /// What was written, if the load is recorded; `None` for a read.
    write: Option<String>,
    is_read: bool,
    /// The write's number in its request id.
    number: Option<u64>,
    call: Time,
}

impl Client {
    pub(crate) fn new(shared: Rc<Shared>, number: usize, connections: Connections) -> Self {
        let options = &shared.options;
        let target = &options.targets[number % options.targets.len()];
        // Without a mapped store every read goes over the connection.
        let reader = target.store.as_ref().and_then(|path| Reader::open(path).ok());
        Self {
            number,
            connections,
            reader,
            random: Random::new(options.seed ^ (number as u64) << 32),
            window: vec![None; options.pipeline],
            free: (0..options.pipeline).collect(),
            writes: 0,
            numbers: Numbers::default(),
            value: vec![b'x'; options.value_bytes],
            mapped_value: Vec::new(),
            shared,
        }
    }

    pub(crate) async fn run(mut self) -> Result<(), BenchError> {
        let end = self.shared.end;
        loop {
            let mut mapped = 0;
            while let Some(slot) = self.free.pop() {
                if self.shared.clock.now() >= end {
                    self.free.push(slot);
                    break;
                }
                // Reads that need no connection must not keep the others from theirs for long.
                if !self.begin(slot) {
                    mapped += 1;
                    if mapped % 1024 == 0 {
                        tokio::task::yield_now().await;
                    }
                }
            }
            if self.free.len() == self.window.len() {
                return Ok(());
            }
            self.connections.flush().await?;
            let mut answers = Vec::new();
            let limit = end + Duration::from_secs(5);
            let wait = limit.since(self.shared.clock.now());
            let received = self.connections.receive(|answer| answers.push(answer));
            match tokio::time::timeout(wait, received).await {
                Ok(received) => received?,
                Err(_) => {
                    self.give_up();
                    return Ok(());
                }
            }
            for answer in answers {
                self.finish(&answer);
            }
        }
    }

    /// Begins an operation; false if it is done already, because the mapped store had the answer.
    fn begin(&mut self, slot: usize) -> bool {
        let options = &self.shared.options;
        let key = self.shared.keys.next(&mut self.random);
        let name = self.shared.name(key);
        let call = self.shared.clock.now();
        if self.random.unit() < options.read_share {
            if self.read_mapped(key, &name, call) {
                self.free.push(slot);
                return false;
            }
            self.connections.to(None).queue_get(slot as u64, &name);
            self.window[slot] = Some(UnderWay { key, write: None, is_read: true, number: None, call });
            return true;
        }
        self.writes += 1;
        let number = self.numbers.take(1);
        // Without one a very slow write keeps the others from theirs. None is sent again anyway.
        let request_id = number.map_or(RequestId::Unnamed, |(number, behind)| {
            let client =
                ClientId { draw: self.shared.client.draw.wrapping_add(self.number as u32), ..self.shared.client };
            RequestId::Counted { client, number, behind }
        });
        let number = number.map(|(number, _)| number);
        let write = options.record.then(|| {
            format!("{:0width$}", u128::from(self.writes) * 100_000 + self.number as u128, width = options.value_bytes)
        });
        let value = write.as_ref().map_or(self.value.as_slice(), |text| text.as_bytes());
        let leaders = &self.shared.options.leaders;
        let leader = (!leaders.is_empty()).then(|| leaders[usize::from(name.star(leaders.len() as u16).0)]);
        self.connections.to(leader).queue_set(slot as u64, &name, value, request_id);
        self.window[slot] = Some(UnderWay { key, write, is_read: false, number, call });
        true
    }

    fn read_mapped(&mut self, key: u64, name: &Key, call: Time) -> bool {
        let Some(reader) = &mut self.reader else { return false };
        let outcome = match reader.get(name, &mut self.mapped_value) {
            star_objstore::Answer::Found { version, .. } => Outcome::Found(Some(version.0)),
            star_objstore::Answer::NotFound => Outcome::NotFound,
            star_objstore::Answer::Ask(_) => return false,
        };
        let value = std::mem::take(&mut self.mapped_value);
        self.count(UnderWay { key, write: None, is_read: true, number: None, call }, &outcome, &value);
        self.mapped_value = value;
        self.shared.tally.borrow_mut().mapped_reads += u64::from(call >= self.shared.count_from);
        true
    }

    fn finish(&mut self, answer: &Answer) {
        let slot = answer.id as usize;
        if let Some(under_way) = self.window.get_mut(slot).and_then(Option::take) {
            self.free.push(slot);
            if let Some(number) = under_way.number {
                self.numbers.finish(number, 1);
            }
            self.count(under_way, &answer.outcome, &answer.value);
        }
    }

    fn count(&self, under_way: UnderWay, outcome: &Outcome, value: &[u8]) {
        let now = self.shared.clock.now();
        let mut tally = self.shared.tally.borrow_mut();
        let (failed, unknown, version) = match outcome {
            Outcome::Refused { code, unknown } => (Some(code), *unknown, None),
            Outcome::Written(version) | Outcome::Found(version) => (None, false, *version),
            Outcome::NotFound => (None, false, None),
        };
        tally.ops += 1;
        if let Some(code) = failed {
            *tally.error_codes.entry(code.clone()).or_default() += 1;
        } else if under_way.call >= self.shared.count_from {
            tally.kind(under_way.is_read).done(now.since(under_way.call).as_nanos() as u64);
        }
        if self.shared.options.record {
            let operation = match under_way.write {
                Some(write) => Operation::Write(write),
                None if matches!(outcome, Outcome::Found(_)) => {
                    Operation::Read(Some(String::from_utf8_lossy(value).into_owned()))
                }
                None => Operation::Read(None),
            };
            tally.history.push(Recorded {
                client: self.number as u32,
                key: under_way.key,
                operation,
                version,
                call_ns: under_way.call.since(self.shared.begin).as_nanos() as u64,
                return_ns: (!unknown).then(|| now.since(self.shared.begin).as_nanos() as u64),
                ok: failed.is_none(),
            });
        }
    }

    /// The load is over, and answers are still missing: their outcome is unknown.
    fn give_up(mut self) {
        for under_way in std::mem::take(&mut self.window).into_iter().flatten() {
            let outcome = Outcome::Refused { code: ErrorCode::Unfinished.name().to_owned(), unknown: true };
            self.count(under_way, &outcome, &[]);
        }
    }
}
