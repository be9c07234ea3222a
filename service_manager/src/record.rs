//! What is known of processes that were started: one small JSON file per service, in the service directory.
//!
//! ```text
//! <[service] directory>/
//!   redis.json, objstore.json   what was started; not there when nothing was
//!   logs/<name>.log             output of the latest run of each process; stays when it is stopped
//!   redis/                      the generated configuration while Redis runs; its data, which stays
//! ```
//!
//! The directory itself is what managers lock, so that no lock file is left behind.

use std::{
    fmt,
    fs::{self, File, TryLockError},
    io::{self, ErrorKind, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use star_core::Clock;

use crate::{
    error::{LogTail, ServiceError},
    process::{Identity, boot_id},
    settings::Control,
};

/// How many lines of a log are shown.
const TAIL_LINES: usize = 15;
/// More than so many lines have.
const TAIL_BYTES: u64 = 16 << 10;
/// How often it is tried to take the lock.
const LOCK_EVERY: Duration = Duration::from_millis(50);

/// What is managed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Service {
    /// A Redis server.
    Redis,
    /// The star servers of this machine.
    Objstore,
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Redis => "redis",
            Self::Objstore => "objstore",
        })
    }
}

/// What was started of a service.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) service: Service,
    /// The run of the machine in which it was started: later ones give its numbers to others.
    boot_id: String,
    /// What keeps views and leases, for the star servers.
    pub(crate) control: Option<Control>,
    pub(crate) processes: Vec<Process>,
}

/// One process that was started.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Process {
    pub(crate) name: String,
    #[serde(flatten)]
    pub(crate) identity: Identity,
    pub(crate) addr: String,
    pub(crate) port: u16,
    /// The date, for people.
    pub(crate) started_at: String,
    pub(crate) log: PathBuf,
    /// Files that it removes when it ends, and that are left when it is killed.
    pub(crate) leaves: Vec<PathBuf>,
}

impl Record {
    fn empty(service: Service) -> Self {
        Self { service, boot_id: boot_id(), control: None, processes: Vec::new() }
    }

    /// Whether a process of it still runs.
    pub(crate) fn any_alive(&self) -> bool {
        self.processes.iter().any(|process| self.is_alive(process))
    }

    /// Whether this process of it still runs.
    pub(crate) fn is_alive(&self, process: &Process) -> bool {
        self.boot_id == boot_id() && process.identity.is_alive()
    }
}

/// The service directory.
#[derive(Clone, Debug)]
pub(crate) struct Directory(PathBuf);

impl Directory {
    /// The directory of this path, which need not be there yet.
    pub(crate) fn at(path: &Path) -> Result<Self, ServiceError> {
        std::path::absolute(path).map(Self).map_err(ServiceError::io("find", path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Makes the directory, and those for logs in it.
    pub(crate) fn create(&self) -> Result<(), ServiceError> {
        let logs = self.0.join("logs");
        fs::create_dir_all(&logs).map_err(ServiceError::io("make the directory", logs))
    }

    /// Where the output of a process goes.
    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.0.join("logs").join(format!("{name}.log"))
    }

    /// Where Redis keeps its data.
    pub(crate) fn redis(&self) -> PathBuf {
        self.0.join("redis")
    }

    /// What was started of a service.
    pub(crate) fn load(&self, service: Service) -> Result<Record, ServiceError> {
        let path = self.record(service);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Record::empty(service)),
            Err(error) => return Err(ServiceError::io("read", path)(error)),
        };
        serde_json::from_slice(&text).map_err(|error| ServiceError::BadRecord { path, reason: error.to_string() })
    }

    /// Keeps what was started of a service; the file is replaced as a whole, and removed when nothing is left.
    pub(crate) fn save(&self, record: &Record) -> Result<(), ServiceError> {
        let path = self.record(record.service);
        if record.processes.is_empty() {
            return remove_file(&path).map_err(ServiceError::io("remove", path));
        }
        let record = Record { boot_id: boot_id(), ..record.clone() };
        let text = serde_json::to_vec_pretty(&record).expect("names, numbers and paths have a JSON form");
        let next = path.with_extension("json.new");
        let write = || {
            File::create(&next)?.write_all(&text)?;
            fs::rename(&next, &path)
        };
        write().map_err(ServiceError::io("write", &path))
    }

    /// Waits until no other manager works in this directory, and keeps others out until the lock is dropped.
    pub(crate) async fn lock(&self, limit: Duration, waiting: impl FnOnce()) -> Result<Lock, ServiceError> {
        let began = Clock.now();
        let directory = File::open(&self.0).map_err(ServiceError::io("open", &self.0))?;
        let mut waiting = Some(waiting);
        loop {
            match directory.try_lock() {
                Ok(()) => return Ok(Lock { _directory: directory }),
                Err(TryLockError::Error(error)) => return Err(ServiceError::io("lock", &self.0)(error)),
                Err(TryLockError::WouldBlock) => {}
            }
            let waited = Clock.now().since(began);
            if waited >= limit {
                return Err(ServiceError::Locked { path: self.0.clone(), waited });
            }
            if let Some(waiting) = waiting.take() {
                waiting();
            }
            tokio::time::sleep(LOCK_EVERY).await;
        }
    }

    fn record(&self, service: Service) -> PathBuf {
        self.0.join(format!("{service}.json"))
    }
}

/// Keeps other managers out as long as it lives.
#[derive(Debug)]
pub(crate) struct Lock {
    _directory: File,
}

/// Removes a file; one that is not there is as good as removed.
pub(crate) fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The last lines of a log, as far as it can be read.
pub(crate) fn tail(path: &Path) -> LogTail {
    let read = || {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        io::Result::Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let mut lines: Vec<String> = text.lines().rev().take(TAIL_LINES).map(str::to_owned).collect();
    lines.reverse();
    LogTail { path: path.to_owned(), lines }
}
