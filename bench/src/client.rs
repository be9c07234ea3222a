//! One client of a load, with its window of requests under way.

use std::{future::pending, io, rc::Rc, time::Duration};

use star_core::{ClientId, ErrorCode, Key, RequestId, Time, session::Numbers};
use star_objstore::Reader;

use crate::{
    BenchError,
    connection::Connections,
    dialect::{Answer, Outcome},
    pace::{Alarm, Pace},
    record::{Operation, Recorded},
    run::Shared,
    workload::Random,
};

/// How long after the load's end its last answers are waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// How late what was due before the load's end may be begun after it: as late as a thread may wake up.
const GRACE: Duration = Duration::from_millis(5);

/// A client with its window.
pub(crate) struct Client {
    shared: Rc<Shared>,
    number: usize,
    connections: Connections,
    reader: Option<Reader>,
    /// In an open loop.
    schedule: Option<Schedule>,
    random: Random,
    window: Vec<Option<UnderWay>>,
    free: Vec<usize>,
    /// Since when more can be begun: until then the window was full, or the connection.
    room_since: Time,
    writes: u64,
    numbers: Numbers,
    value: Vec<u8>,
    mapped_value: Vec<u8>,
}

/// When operations of an open loop are due, and what tells.
#[derive(Debug)]
struct Schedule {
    pace: Pace,
    alarm: Alarm,
}

impl Schedule {
    /// When the next operation is due. What the warm-up had no room for is left behind with it: a system that does not keep
    /// up would else spend the time that counts on what does not.
    fn next_due(&mut self, now: Time, count_from: Time) -> Time {
        if now >= count_from && self.pace.due() < count_from {
            self.pace.skip_to(count_from);
        }
        self.pace.due()
    }
}

#[derive(Clone, Debug)]
struct UnderWay {
    key: u64,
    /// What was written, if the load is recorded; `None` for a read.
    write: Option<String>,
    is_read: bool,
    /// The write's number in its request id.
    number: Option<u64>,
    /// When it was due: its latency counts from then.
    due: Time,
    /// When it was begun: a history counts from then.
    call: Time,
}

impl Client {
    pub(crate) fn new(shared: Rc<Shared>, number: usize, connections: Connections) -> Result<Self, BenchError> {
        let options = &shared.options;
        let target = &options.targets[number % options.targets.len()];
        // Without a mapped store every read goes over the connection.
        let reader = target.store.as_ref().and_then(|path| Reader::open(path).ok());
        let pace = options.rate.map(|rate| Pace::new(rate, number, options.clients, shared.begin));
        if let Some(pace) = &pace {
            // Known from the schedule alone: what is lost on the way shows as not done.
            shared.tally.borrow_mut().wanted += pace.due_between(shared.count_from, shared.end);
        }
        let schedule = pace.map(|pace| Alarm::new().map(|alarm| Schedule { pace, alarm }));
        Ok(Self {
            number,
            connections,
            reader,
            schedule: schedule.transpose().map_err(BenchError::Timer)?,
            random: Random::new(options.seed ^ (number as u64) << 32),
            window: vec![None; options.pipeline],
            free: (0..options.pipeline).collect(),
            room_since: shared.begin,
            writes: 0,
            numbers: Numbers::default(),
            value: vec![b'x'; options.value_bytes],
            mapped_value: Vec::new(),
            shared,
        })
    }

    pub(crate) async fn run(mut self) -> Result<(), BenchError> {
        let mut answers = Vec::new();
        loop {
            let next_due = self.begin_what_is_due().await;
            if self.free.len() == self.window.len() && next_due.is_none() {
                break;
            }
            let patience = (self.shared.end + PATIENCE).since(self.shared.clock.now());
            tokio::select! {
                biased;
                has_waited = self.connections.flush() => if has_waited? {
                    // It was the connection that had no room.
                    self.room_since = self.shared.clock.now();
                    continue;
                },
                () = tokio::time::sleep(patience) => break,
            }
            // With a full window there is nothing to wake up for but answers.
            let next_due = next_due.filter(|_| !self.free.is_empty());
            tokio::select! {
                biased;
                received = self.connections.receive(|answer| answers.push(answer)) => received?,
                rung = ring(&mut self.schedule, next_due) => rung.map_err(BenchError::Timer)?,
                () = tokio::time::sleep(patience) => break,
            }
            for answer in answers.drain(..) {
                self.finish(&answer);
            }
        }
        self.leave();
        Ok(())
    }

    /// Begins what is due and has room, and says when the next operation is due that the load will begin.
    async fn begin_what_is_due(&mut self) -> Option<Time> {
        let mut mapped = 0;
        loop {
            let now = self.shared.clock.now();
            let due = self.schedule.as_mut().map_or(now, |schedule| schedule.next_due(now, self.shared.count_from));
            let had_room = due >= self.room_since;
            // A load that went on until all is done would call a rate kept that was not: what had to wait for room until the
            // end is not begun after it.
            let last = self.shared.end + if had_room { GRACE } else { Duration::ZERO };
            if due >= self.shared.end || now >= last {
                return None;
            }
            if due > now {
                return Some(due);
            }
            let Some(slot) = self.free.pop() else { return Some(due) };
            if let Some(schedule) = &mut self.schedule {
                schedule.pace.take();
                if had_room && due >= self.shared.count_from {
                    self.shared.tally.borrow_mut().late(now.since(due));
                }
            }
            // Reads that need no connection must not keep the others from theirs for long.
            if !self.begin(slot, due, now) {
                mapped += 1;
                if mapped % 1024 == 0 {
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    /// Begins an operation; false if it is done already, because the mapped store had the answer.
    fn begin(&mut self, slot: usize, due: Time, call: Time) -> bool {
        let options = &self.shared.options;
        let key = self.shared.keys.next(&mut self.random);
        let name = self.shared.name(key);
        if self.random.unit() < options.read_share {
            let read = UnderWay { key, write: None, is_read: true, number: None, due, call };
            if self.read_mapped(&read, &name) {
                self.free.push(slot);
                return false;
            }
            self.connections.to(None).queue_get(slot as u64, &name);
            self.window[slot] = Some(read);
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
        self.window[slot] = Some(UnderWay { key, write, is_read: false, number, due, call });
        true
    }

    fn read_mapped(&mut self, read: &UnderWay, name: &Key) -> bool {
        let Some(reader) = &mut self.reader else { return false };
        let outcome = match reader.get(name, &mut self.mapped_value) {
            star_objstore::Answer::Found { version, .. } => Outcome::Found(Some(version.0)),
            star_objstore::Answer::NotFound => Outcome::NotFound,
            star_objstore::Answer::Ask(_) => return false,
        };
        let value = std::mem::take(&mut self.mapped_value);
        self.count(read, &outcome, &value);
        self.mapped_value = value;
        self.shared.tally.borrow_mut().mapped_reads += u64::from(read.due >= self.shared.count_from);
        true
    }

    fn finish(&mut self, answer: &Answer) {
        let slot = answer.id as usize;
        if let Some(under_way) = self.window.get_mut(slot).and_then(Option::take) {
            if self.free.is_empty() {
                self.room_since = self.shared.clock.now();
            }
            self.free.push(slot);
            if let Some(number) = under_way.number {
                self.numbers.finish(number, 1);
            }
            self.count(&under_way, &answer.outcome, &answer.value);
        }
    }

    fn count(&self, under_way: &UnderWay, outcome: &Outcome, value: &[u8]) {
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
        } else if under_way.due >= self.shared.count_from {
            tally.kind(under_way.is_read).done(now.since(under_way.due));
        }
        if self.shared.options.record {
            let operation = match &under_way.write {
                Some(write) => Operation::Write(write.clone()),
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

    /// The load is over. Of what was not answered the outcome is unknown; what was due and not begun is not done.
    fn leave(&mut self) {
        for under_way in std::mem::take(&mut self.window).into_iter().flatten() {
            let outcome = Outcome::Refused { code: ErrorCode::Unfinished.name().to_owned(), unknown: true };
            self.count(&under_way, &outcome, &[]);
            if self.schedule.is_some() && under_way.due >= self.shared.count_from {
                let waited = self.shared.clock.now().since(under_way.due);
                self.shared.tally.borrow_mut().kind(under_way.is_read).waited(waited);
            }
        }
        let Some(Schedule { pace, .. }) = &mut self.schedule else { return };
        let mut tally = self.shared.tally.borrow_mut();
        while pace.due() < self.shared.end {
            if pace.due() >= self.shared.count_from {
                let is_read = self.random.unit() < self.shared.options.read_share;
                tally.kind(is_read).waited(self.shared.end.since(pace.due()));
            }
            pace.take();
        }
    }
}

/// Waits until then; for ever where nothing is due.
async fn ring(schedule: &mut Option<Schedule>, due: Option<Time>) -> io::Result<()> {
    match schedule.as_mut().zip(due) {
        Some((schedule, due)) => schedule.alarm.wait_until(due).await,
        None => pending().await,
    }
}
