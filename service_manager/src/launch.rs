//! Starting processes that live on when this program has ended, and clearing up after those that were killed.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Write},
    net::SocketAddr,
    os::unix::{fs::OpenOptionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::SystemTime,
};

use crate::{
    error::ServiceError,
    ports::{holder, is_free},
    process::Identity,
    record::{Directory, Process, remove_file},
};

/// How to start a process.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    /// Names the process in output, and its log.
    pub(crate) name: String,
    /// Where it will listen.
    pub(crate) addr: SocketAddr,
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<OsString>,
    /// A file that it reads, and what is to be in it.
    pub(crate) configuration: Option<(PathBuf, String)>,
    /// Files that it leaves when it is killed.
    pub(crate) leaves: Vec<PathBuf>,
}

/// A process that this program started.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) process: Process,
    pub(crate) child: Child,
}

impl Launch {
    /// Fails if the process could not listen.
    pub(crate) fn check_port(&self) -> Result<(), ServiceError> {
        let addr = self.addr.to_string();
        match is_free(self.addr) {
            Ok(true) => Ok(()),
            Ok(false) => {
                let port = self.addr.port();
                Err(ServiceError::BusyPort { name: self.name.clone(), addr, port, holder: holder(port) })
            }
            Err(error) => Err(ServiceError::Address { name: self.name.clone(), addr, reason: error.to_string() }),
        }
    }

    /// Starts the process: in a process group of its own, so that a Ctrl-C meant for this program does not reach it, and
    /// with its output in a fresh log.
    pub(crate) fn spawn(self, directory: &Directory) -> Result<Started, ServiceError> {
        if let Some((path, text)) = &self.configuration {
            write_private(path, text).map_err(ServiceError::io("write", path))?;
        }
        let log = directory.log(&self.name);
        let output = File::create(&log).map_err(ServiceError::io("write", &log))?;
        let errors = output.try_clone().map_err(ServiceError::io("write", &log))?;
        let child = Command::new(&self.program)
            .args(&self.args)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .map_err(|error| {
                if self.configuration.is_some() {
                    remove_leavings(&self.leaves); // What was written just now.
                }
                match error.kind() {
                    ErrorKind::NotFound => ServiceError::NotInstalled { program: self.program.display().to_string() },
                    _ => ServiceError::io("start", &self.program)(error),
                }
            })?;
        // A child stays in /proc until it is waited for, so it is there even if it has ended already.
        let identity = Identity::of(child.id()).unwrap_or(Identity { pid: child.id(), start_ticks: 0 });
        let process = Process {
            name: self.name,
            identity,
            addr: self.addr.to_string(),
            port: self.addr.port(),
            started_at: date(),
            log,
            leaves: self.leaves,
        };
        Ok(Started { process, child })
    }
}

/// Removes what was made for a process that could not be started.
fn remove_leavings(leaves: &[PathBuf]) {
    for path in leaves {
        // The error of the start is what counts; a file that stays is written anew next time.
        let _ = remove_file(path);
        let _ = path.parent().map(fs::remove_dir);
    }
}

/// Removes what a process that was killed left behind, and the directories that are empty then.
///
/// The stores of servers stay where `keeps_stores`: when all servers have ended, nothing else holds the objects. Returns
/// whether one did.
pub(crate) fn sweep(process: &Process, keeps_stores: bool) -> Result<bool, ServiceError> {
    let mut kept = false;
    for path in &process.leaves {
        let mut unfinished = path.clone().into_os_string();
        unfinished.push(format!(".{}.tmp", process.identity.pid));
        for (path, stays) in [(path.as_path(), keeps_stores), (Path::new(&unfinished), false)] {
            kept |= stays && path.is_file();
            if !stays && path.is_file() && !is_in_use(path) {
                remove_file(path).map_err(ServiceError::io("remove", path))?;
            }
        }
    }
    // The mapped stores lie in <directory>/<cluster>/<server>. The system removes only directories that are empty.
    for path in &process.leaves {
        let _ = path.parent().map(fs::remove_dir);
        let _ = path.parent().and_then(Path::parent).map(fs::remove_dir);
    }
    Ok(kept)
}

/// Removes a store that no server has open, and the directories that are empty then.
pub(crate) fn remove_unused(path: &Path) -> Result<(), ServiceError> {
    if path.is_file() && !is_in_use(path) {
        remove_file(path).map_err(ServiceError::io("remove", path))?;
    }
    let _ = path.parent().map(fs::remove_dir);
    let _ = path.parent().and_then(Path::parent).map(fs::remove_dir);
    Ok(())
}

/// Writes a file that may hold a password.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)?;
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

/// Whether another process holds the file: a store is locked by the server that writes it.
fn is_in_use(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| matches!(file.try_lock_shared(), Err(fs::TryLockError::WouldBlock)))
}

#[allow(clippy::disallowed_methods, reason = "the date of a start is for people; nothing is measured with it")]
fn date() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}
