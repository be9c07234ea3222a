//! Why a store file cannot be made or opened, and what to do about it.

use std::{io, path::PathBuf};

/// A store file was refused. Nothing was changed in it.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The options are not possible.
    #[error("the object store cannot be made as asked: {0}")]
    Options(String),
    /// The operating system said no.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is something else; it is never replaced.
    #[error("{} is not an object store file; give another path, or remove it if it is not needed", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The file ends too early.
    #[error(
        "{} is cut short: {found_bytes} bytes of {wanted_bytes}; make a new store, the other members fill it",
        path.display()
    )]
    Truncated {
        /// The file.
        path: PathBuf,
        /// How long it should be.
        wanted_bytes: u64,
        /// How long it is.
        found_bytes: u64,
    },
    /// The file was written by a newer program.
    #[error(
        "{} has format {found}, this program knows {known}; use the newer program or make a new store",
        path.display()
    )]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// The file's format.
        found: u32,
        /// The newest format that is known here.
        known: u32,
    },
    /// The header contradicts itself.
    #[error("the header of {} is damaged ({what}); make a new store, the other members fill it", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// The file is sound but was made with other options.
    #[error(
        "{} was made with {what} = {found}, the options say {wanted}; restore the option or make a new store",
        path.display()
    )]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// The option.
        what: &'static str,
        /// Its value in the options.
        wanted: String,
        /// Its value in the file.
        found: String,
    },
    /// Another process writes the file.
    #[error("{} is in use by the server with pid {pid}; stop it first, or give another path", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
        /// The process that says it is the writer; 0 if it did not say.
        pid: u64,
    },
    /// The file was last written before the machine started, so its lease means nothing (readers only).
    #[error("{} was last served before this machine started; start its server, then open it again", path.display())]
    OldBoot {
        /// The file.
        path: PathBuf,
    },
}
