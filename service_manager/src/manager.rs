//! Starting, stopping and watching services: the same steps for all of them.

use std::time::Duration;

use star_core::{Clock, Time};
use tokio::task::JoinSet;

use crate::{
    error::ServiceError,
    launch::{Launch, Started, sweep},
    objstore,
    process::{self, Identity},
    record::{Lock, Process, Record, Service, tail},
    redis,
    report::{Change, Health, Outcome, ProcessStatus, ServiceStatus, State, say},
    settings::{Control, ControlChoice, Settings},
    signals::Signals,
};

/// How long a process may take to say how it is.
const ANSWER: Duration = Duration::from_secs(1);
/// How often it is looked whether a service is ready.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How often it is said what is waited for, if that has not changed.
const SAY_EVERY: Duration = Duration::from_secs(5);

/// Manages the services of this machine.
#[derive(Debug)]
pub(crate) struct Manager {
    pub(crate) settings: Settings,
    pub(crate) control: ControlChoice,
    /// How long a service may take until it is ready.
    pub(crate) timeout: Duration,
    /// How long a process may take to end by itself.
    pub(crate) grace: Duration,
    /// Whether what the servers' stores hold is given up when they are stopped.
    pub(crate) loses_objects: bool,
}

impl Manager {
    /// Starts these services one after another. If one fails, those before it go on.
    pub(crate) async fn start(&self, services: &[Service], done: &mut Vec<Outcome>) -> Result<(), ServiceError> {
        let _lock = self.lock().await?;
        self.start_locked(services, done).await
    }

    /// Stops these services, the last one first.
    pub(crate) async fn stop(&self, services: &[Service], done: &mut Vec<Outcome>) -> Result<(), ServiceError> {
        // Without a directory nothing was ever started; there is no need to make one.
        let _lock = if self.settings.directory.path().exists() { Some(self.lock().await?) } else { None };
        self.stop_locked(services, done).await
    }

    /// Stops these services and starts them again.
    pub(crate) async fn restart(&self, services: &[Service], done: &mut Vec<Outcome>) -> Result<(), ServiceError> {
        let _lock = self.lock().await?;
        self.stop_locked(services, done).await?;
        self.start_locked(services, done).await
    }

    /// How these services are.
    pub(crate) async fn status(&self, services: &[Service]) -> Result<Vec<ServiceStatus>, ServiceError> {
        let mut statuses = Vec::new();
        for service in services {
            statuses.push(self.status_of(*service).await?);
        }
        Ok(statuses)
    }

    async fn lock(&self) -> Result<Lock, ServiceError> {
        let directory = &self.settings.directory;
        directory.create()?;
        // Another manager takes no longer than a start with everything that it must stop again.
        let limit = self.timeout + 2 * self.grace + Duration::from_secs(10);
        let at = directory.path().display();
        directory.lock(limit, || say(format!("another service_manager is at work in {at}: waiting for it"))).await
    }

    async fn start_locked(&self, services: &[Service], done: &mut Vec<Outcome>) -> Result<(), ServiceError> {
        for service in services {
            done.push(self.start_one(*service).await?);
        }
        Ok(())
    }

    async fn stop_locked(&self, services: &[Service], done: &mut Vec<Outcome>) -> Result<(), ServiceError> {
        for service in services.iter().rev() {
            done.push(self.stop_one(*service).await?);
        }
        Ok(())
    }

    async fn start_one(&self, service: Service) -> Result<Outcome, ServiceError> {
        let began = Clock.now();
        let mut signals = Signals::new().map_err(ServiceError::io("listen for", "signals"))?;
        let mut record = self.settings.directory.load(service)?;
        let launches = self.launches(&mut record).await?;
        let mut started = Vec::new();
        let work = async {
            loop {
                self.forget_dead(&mut record)?;
                self.spawn(missing(&launches, &record), &launches, &mut record, &mut started)?;
                if self.wait_until_ready(&record, &mut started, began).await? {
                    return Ok(());
                }
            }
        };
        let ready = tokio::select! {
            ready = work => ready,
            () = signals.next() => Err(ServiceError::Interrupted),
        };
        if let Err(error) = ready {
            self.take_back(&mut record, &started).await;
            return Err(error);
        }
        let result = if started.is_empty() { Change::AlreadyRunning } else { Change::Started };
        Ok(outcome(&record, result, began))
    }

    /// How to start everything of a service; what it is to be decided for that is put in the record.
    async fn launches(&self, record: &mut Record) -> Result<Vec<Launch>, ServiceError> {
        match record.service {
            Service::Redis => Ok(vec![redis::launch(&self.settings)?]),
            Service::Objstore => {
                let control = self.choose_control(record).await?;
                record.control = Some(control);
                objstore::launches(&self.settings, control)
            }
        }
    }

    /// Servers that are started beside others get what those have; others what was asked for.
    async fn choose_control(&self, record: &Record) -> Result<Control, ServiceError> {
        let redis = self.settings.directory.load(Service::Redis)?;
        let wanted = self.settings.control(self.control, redis.any_alive());
        let control = match record.control.filter(|_| record.any_alive()) {
            Some(running) if running != wanted && self.control != ControlChoice::Auto => {
                return Err(ServiceError::OtherControl { running: running.to_string(), asked: wanted.to_string() });
            }
            Some(running) => running,
            None => wanted,
        };
        if control == Control::Redis
            && let Err(reason) = redis_health(&self.settings).await
        {
            return Err(ServiceError::NoRedis { at: redis::place(&self.settings), reason });
        }
        Ok(control)
    }

    /// Takes processes that have ended out of the record, with what they left behind.
    fn forget_dead(&self, record: &mut Record) -> Result<(), ServiceError> {
        let (alive, dead): (Vec<_>, Vec<_>) =
            record.processes.iter().cloned().partition(|process| record.is_alive(process));
        for process in &dead {
            say(format!("{}: {} is dead (was pid {})", record.service, process.name, process.identity.pid));
            self.sweep(record.service, process)?;
        }
        record.processes = alive;
        if dead.is_empty() { Ok(()) } else { self.settings.directory.save(record) }
    }

    /// Starts processes; each is in the record, on disk, before the next one is started. The record keeps the order of `all`,
    /// the one of the configuration, in whatever order its processes were started.
    fn spawn(
        &self,
        launches: Vec<Launch>,
        all: &[Launch],
        record: &mut Record,
        started: &mut Vec<Started>,
    ) -> Result<(), ServiceError> {
        let service = record.service;
        launches.iter().try_for_each(Launch::check_port)?;
        match (record.control, launches.len()) {
            (_, 0) => {}
            (Some(control), 1) => say(format!("{service}: starting 1 server, {control} control plane")),
            (Some(control), count) => say(format!("{service}: starting {count} servers, {control} control plane")),
            (None, _) => say(format!("{service}: starting at {}", launches[0].addr)),
        }
        for launch in launches {
            let one = launch.spawn(&self.settings.directory)?;
            record.processes.push(one.process.clone());
            record.processes.sort_by_key(|process| all.iter().position(|launch| launch.name == process.name));
            started.push(one);
            self.settings.directory.save(record)?;
        }
        Ok(())
    }

    /// Waits until every process of the record is healthy, at most the timeout from `began` on. One that this call started
    /// and that ends meanwhile is an error at once. Another one that ends meanwhile is missing from then on: false. It may
    /// have been killed before, for a process is there until the last of its threads has ended.
    async fn wait_until_ready(
        &self,
        record: &Record,
        started: &mut [Started],
        began: Time,
    ) -> Result<bool, ServiceError> {
        let mut last_said = Clock.now();
        let mut ready_before = 0;
        loop {
            let healths = self.healths(record).await;
            // Only now: what answered may have been another process, at a port that ours did not get.
            check_alive(started)?;
            if record.processes.iter().any(|process| !record.is_alive(process) && !is_one_of(started, process)) {
                return Ok(false);
            }
            let waiting: Vec<String> = record
                .processes
                .iter()
                .zip(&healths)
                .filter_map(|(process, health)| Some(format!("{}: {}", process.name, health.as_ref().err()?)))
                .collect();
            if waiting.is_empty() {
                return Ok(true);
            }
            let (ready, all) = (healths.len() - waiting.len(), healths.len());
            if ready != ready_before || Clock.now().since(last_said) >= SAY_EVERY {
                say(format!("{}: {ready} of {all} ready; {}", record.service, waiting.join("; ")));
                (ready_before, last_said) = (ready, Clock.now());
            }
            let waited = Clock.now().since(began);
            if waited >= self.timeout {
                let not_ready = record.processes.iter().zip(&healths).filter(|(_, health)| health.is_err());
                let tails_of = not_ready.map(|(process, _)| tail(&process.log)).collect();
                return Err(ServiceError::NotReady { service: record.service, waited, waiting, tails_of });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Ends what a failed start has started. What fails here is said; the error of the start is what counts.
    async fn take_back(&self, record: &mut Record, started: &[Started]) {
        let ours: Vec<_> = started.iter().map(|one| one.process.clone()).collect();
        let (service, count) = (record.service, ours.len());
        if count == 0 {
            return;
        }
        say(format!("{service}: stopping what was started again"));
        let ended = self.end(service, &ours).await;
        record.processes.retain(|process| !ours.iter().any(|ended| ended.identity == process.identity));
        if let Err(error) = ended.and_then(|()| self.settings.directory.save(record)) {
            say(format!("{service}: {error}"));
        }
    }

    async fn stop_one(&self, service: Service) -> Result<Outcome, ServiceError> {
        let began = Clock.now();
        let mut record = self.settings.directory.load(service)?;
        let result = if record.any_alive() { Change::Stopped } else { Change::NotRunning };
        let (alive, dead): (Vec<_>, Vec<_>) =
            record.processes.iter().cloned().partition(|process| record.is_alive(process));
        for process in &dead {
            say(format!("{service}: {} was dead already (was pid {})", process.name, process.identity.pid));
        }
        self.end(service, &alive).await?;
        self.clear_up(service, &record.processes)?;
        record.processes = alive;
        let outcome = outcome(&record, result, began);
        record.processes.clear();
        self.settings.directory.save(&record)?;
        Ok(outcome)
    }

    /// Ends processes and removes what they leave behind.
    async fn end(&self, service: Service, processes: &[Process]) -> Result<(), ServiceError> {
        let identities: Vec<Identity> = processes.iter().map(|process| process.identity).collect();
        let killed = process::end(&identities, self.grace)
            .await
            .map_err(|source| ServiceError::NotStopped { service, source })?;
        for process in processes {
            if killed.contains(&process.identity) {
                say(format!("{service}: {} did not end by itself and was killed", process.name));
            }
            self.sweep(service, process)?;
        }
        Ok(())
    }

    /// Removes what a process that has ended left behind, but for a store that a start is to go on with; true if there is one.
    fn sweep(&self, service: Service, process: &Process) -> Result<bool, ServiceError> {
        sweep(process, service == Service::Objstore && !self.loses_objects)
    }

    /// All processes of a service have ended: says what stays, or removes also what stayed of earlier ones.
    fn clear_up(&self, service: Service, processes: &[Process]) -> Result<(), ServiceError> {
        let mut kept = Vec::new();
        for process in processes {
            if self.sweep(service, process)? {
                kept.push(process.name.as_str());
            }
        }
        if !kept.is_empty() {
            say(format!(
                "{service}: kept: the stores of {}; the next start goes on with what they hold (stop --lose-objects removes \
                 them)",
                kept.join(", ")
            ));
        }
        if service == Service::Objstore && self.loses_objects {
            objstore::remove_stores(&self.settings)?;
        }
        Ok(())
    }

    async fn status_of(&self, service: Service) -> Result<ServiceStatus, ServiceError> {
        let record = self.settings.directory.load(service)?;
        let healths = self.healths(&record).await;
        let processes: Vec<_> = record
            .processes
            .iter()
            .zip(healths)
            .map(|(process, health)| status_line(&record, process, health))
            .collect();
        let state = match processes.iter().all(|process| process.health == Health::Healthy) {
            _ if processes.is_empty() => State::Stopped,
            true => State::Running,
            false => State::Degraded,
        };
        Ok(ServiceStatus { service, state, control: record.control, processes })
    }

    /// Asks all processes of a record at once how they are; the answers come in the order of the record.
    async fn healths(&self, record: &Record) -> Vec<Result<String, String>> {
        if record.service == Service::Redis {
            let mut healths = Vec::new();
            for process in &record.processes {
                let dead = Err("has ended".to_owned());
                healths.push(if record.is_alive(process) { redis_health(&self.settings).await } else { dead });
            }
            return healths;
        }
        let mut asked = JoinSet::new();
        for (place, process) in record.processes.iter().enumerate() {
            let (name, addr, alive) = (process.name.clone(), process.addr.clone(), record.is_alive(process));
            asked.spawn(async move {
                let dead = Err("has ended".to_owned());
                (place, if alive { objstore::health(&name, &addr, ANSWER).await } else { dead })
            });
        }
        let mut answers = asked.join_all().await;
        answers.sort_by_key(|(place, _)| *place);
        answers.into_iter().map(|(_, health)| health).collect()
    }
}

async fn redis_health(settings: &Settings) -> Result<String, String> {
    let limit = tokio::time::timeout(ANSWER, redis::health(settings)).await;
    limit.unwrap_or_else(|_| Err(format!("no answer to PING within {} ms", ANSWER.as_millis())))
}

/// What is to be started and does not run.
fn missing(launches: &[Launch], record: &Record) -> Vec<Launch> {
    let runs = |launch: &&Launch| record.processes.iter().any(|process| process.name == launch.name);
    launches.iter().filter(|launch| !runs(launch)).cloned().collect()
}

/// Whether this call started the process.
fn is_one_of(started: &[Started], process: &Process) -> bool {
    started.iter().any(|one| one.process.identity == process.identity)
}

/// Fails if one of these processes has ended.
fn check_alive(started: &mut [Started]) -> Result<(), ServiceError> {
    for Started { process, child } in started {
        let how = match child.try_wait() {
            Ok(None) => continue,
            Ok(Some(status)) => status.to_string(),
            Err(error) => error.to_string(),
        };
        return Err(ServiceError::Died { name: process.name.clone(), how, tail: tail(&process.log) });
    }
    Ok(())
}

fn outcome(record: &Record, result: Change, began: Time) -> Outcome {
    Outcome {
        service: record.service,
        result,
        control: record.control,
        processes: record.processes.iter().map(Into::into).collect(),
        took_s: Clock.now().since(began).as_secs_f64(),
    }
}

fn status_line(record: &Record, process: &Process, health: Result<String, String>) -> ProcessStatus {
    // Asked again: a process that ended while it was asked is dead, not unhealthy.
    let alive = record.is_alive(process);
    let (health, detail) = match health {
        _ if !alive => (Health::Dead, format!("dead (was pid {})", process.identity.pid)),
        Ok(detail) => (Health::Healthy, detail),
        Err(detail) => (Health::Unhealthy, detail),
    };
    ProcessStatus {
        name: process.name.clone(),
        pid: alive.then_some(process.identity.pid),
        port: process.port,
        uptime_s: alive.then(|| process.identity.uptime().as_secs()),
        health,
        detail,
        log: process.log.display().to_string(),
    }
}
