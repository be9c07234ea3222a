//! Why a service cannot be managed: what happened and why, and what to do next.

use std::{fmt::Write, io, path::PathBuf, time::Duration};

use star_core::config::ConfigError;

use crate::{ports::Holder, record::Service};

/// Why the work was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServiceError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The URL of Redis is none that a Redis of this machine can have.
    #[error("redis cannot be managed here: control.redis_url: {reason}")]
    RedisUrl { reason: String },
    /// An address of the configuration means nothing here.
    #[error("{name}: {addr} is no address that can be used: {reason}")]
    Address { name: String, addr: String, reason: String },
    /// None of the cluster's servers is of this machine.
    #[error("none of the {servers} servers of the cluster listens at an address of this machine")]
    NothingHere { servers: usize },
    /// Something that belongs to the system or the disk failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    /// The file that says what runs cannot be understood.
    #[error("{} does not say what runs: {reason}", path.display())]
    BadRecord { path: PathBuf, reason: String },
    /// A program is not there.
    #[error("{program} is not installed")]
    NotInstalled { program: String },
    /// The program of the servers is not there.
    #[error("there is no program {}", path.display())]
    NoServerProgram { path: PathBuf },
    /// Another process has the port.
    #[error("{name} cannot listen at {addr}: {}", held(*port, holder.as_ref()))]
    BusyPort { name: String, addr: String, port: u16, holder: Option<Holder> },
    /// A process ended while it was waited for.
    #[error("{name} ended at once: {how}{}", tails(std::slice::from_ref(tail)))]
    Died { name: String, how: String, tail: LogTail },
    /// Not everything was ready in time.
    #[error("{service} is not ready after {}: {}{}", seconds(*waited), waiting.join("; "), tails(tails_of))]
    NotReady { service: Service, waited: Duration, waiting: Vec<String>, tails_of: Vec<LogTail> },
    /// Redis was chosen as the control plane, and does not answer.
    #[error("the servers are to use the control plane on Redis at {at}, and it does not answer: {reason}")]
    NoRedis { at: String, reason: String },
    /// The servers run on another control plane than was asked for.
    #[error("objstore runs on the {running} control plane, and {asked} was asked for")]
    OtherControl { running: String, asked: String },
    /// A process could not be ended.
    #[error("{service} could not be stopped: {source}")]
    NotStopped { service: Service, source: io::Error },
    /// Another manager does not come to an end.
    #[error("another service_manager has been at work in {} for {}", path.display(), seconds(*waited))]
    Locked { path: PathBuf, waited: Duration },
    /// Ctrl-C or SIGTERM.
    #[error("interrupted")]
    Interrupted,
}

/// The end of a log.
#[derive(Debug)]
pub(crate) struct LogTail {
    pub(crate) path: PathBuf,
    pub(crate) lines: Vec<String>,
}

impl ServiceError {
    /// Turns what the system said into an error that names the file.
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }

    /// What to do next.
    pub(crate) fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Config(_) => {
                "config.toml at the root of the project names every key with its unit and default".into()
            }
            Self::RedisUrl { .. } => {
                "write redis://127.0.0.1:6379/0; a Redis of another machine is managed there".into()
            }
            Self::Address { .. } => "mend the address in the configuration".into(),
            Self::NothingHere { .. } => "run service_manager on the machines that [cluster] servers names".into(),
            Self::Io { .. } | Self::NotStopped { .. } => return None,
            Self::BadRecord { .. } => "see with `ps` what runs, end it, and remove the file".into(),
            Self::NotInstalled { program } => format!("install it: apt-get install {program}"),
            Self::NoServerProgram { .. } => "build it: cargo build --release, or `make build`".into(),
            Self::BusyPort { holder: Some(holder), .. } => {
                format!("stop process {}, or give another port in the configuration", holder.pid)
            }
            Self::BusyPort { holder: None, .. } => {
                "find it as root with `ss -ltnp`, or give another port in the configuration".into()
            }
            Self::Died { tail, .. } => format!("the whole log is {}", tail.path.display()),
            Self::NotReady { service: Service::Objstore, .. } => {
                "start the servers of other machines too, if there are any; --timeout waits longer; \
                 `service_manager restart objstore` begins anew, without objects"
                    .into()
            }
            Self::NotReady { .. } => "see the log; --timeout waits longer".into(),
            Self::NoRedis { .. } => "start it: service_manager start redis; or take --control embedded".into(),
            Self::OtherControl { asked, .. } => {
                format!("service_manager restart objstore --control {asked} (the servers lose their objects)")
            }
            Self::Locked { .. } => "see with `ps` whether it is stuck, and end it".into(),
            Self::Interrupted => "what had been started by this call was stopped again".into(),
        })
    }

    /// The exit code: 2 for what is wrong with command line or configuration, 130 for an interruption, else 1.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::RedisUrl { .. } | Self::Address { .. } | Self::NothingHere { .. } => 2,
            Self::Interrupted => 130,
            _ => 1,
        }
    }
}

fn held(port: u16, holder: Option<&Holder>) -> String {
    match holder {
        Some(holder) => format!("port {port} is in use by {holder}"),
        None => format!("port {port} is in use by a process that this user may not see"),
    }
}

/// A duration for people: `1.3 s`.
pub(crate) fn seconds(span: Duration) -> String {
    format!("{:.1} s", span.as_secs_f64())
}

fn tails(tails: &[LogTail]) -> String {
    let mut text = String::new();
    for LogTail { path, lines } in tails {
        let _ = write!(text, "\n  {}", path.display());
        match lines.len() {
            0 => text.push_str(" is empty"),
            count => {
                let _ = write!(text, ", its last {count} lines:");
            }
        }
        for line in lines {
            let _ = write!(text, "\n  | {line}");
        }
    }
    text
}
