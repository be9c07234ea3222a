//! The configuration: `config.toml`, environment variables over it, command-line flags over both.
//!
//! Every key has a default, so that an empty file is a whole configuration. What each key means, with its unit, is
//! written once, in the fields of the sections; the project's `config.toml` is the sample.

mod check;
mod layers;
mod sections;
mod units;

use std::path::{Path, PathBuf};

use layers::Layers;
pub use sections::{
    Backend, ClientConfig, ClusterConfig, ControlConfig, DirtyReads, FaultsConfig, GroupAccess, LimitsConfig,
    LogConfig, LogFormat, ReplicationConfig, Route, ServiceConfig, StoreConfig,
};
use serde::{Deserialize, Serialize};

/// The name of the configuration's file.
pub const FILE_NAME: &str = "config.toml";

/// How environment variables that set a key begin: `STAR_SECTION__KEY`.
pub const ENV_PREFIX: &str = "STAR_";

/// All that can be configured, section by section.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The cluster and its servers.
    pub cluster: ClusterConfig,
    /// How much a server takes.
    pub limits: LimitsConfig,
    /// How writes reach everybody, and how reads are answered.
    pub replication: ReplicationConfig,
    /// Where objects are kept.
    pub store: StoreConfig,
    /// Where views and leases are kept.
    pub control: ControlConfig,
    /// How clients connect.
    pub client: ClientConfig,
    /// What is logged.
    pub log: LogConfig,
    /// How processes are managed.
    pub service: ServiceConfig,
    /// What may be broken on demand.
    pub faults: FaultsConfig,
}

/// Why a configuration cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The file is no TOML.
    #[error("{}:{line}: {reason}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong there.
        reason: String,
    },
    /// There is no such key, or it cannot have this value.
    #[error("{origin}: {key}: {reason}")]
    Entry {
        /// What said so: file and line, environment variable, or flag.
        origin: String,
        /// The key, as `section.key`.
        key: String,
        /// What is wrong, and what is allowed.
        reason: String,
    },
}

impl Config {
    /// The configuration of a file (`None`: of no file), the environment variables of `env` that begin with
    /// [`ENV_PREFIX`] and have `__` between section and key, and `overrides`: pairs of `section.key` and value, as
    /// flags give them. Later layers win. Values are written as in the file; quotes around strings may be left out.
    pub fn load(
        path: Option<&Path>,
        env: impl Iterator<Item = (String, String)>,
        overrides: &[(String, String)],
    ) -> Result<Self, ConfigError> {
        let mut layers = Layers::default();
        if let Some(path) = path {
            layers.add_file(path)?;
        }
        for (name, value) in env {
            layers.add_variable(&name, &value)?;
        }
        for (key, value) in overrides {
            layers.add_override(key, value)?;
        }
        let config = layers.config()?;
        config.check().map_err(|(key, reason)| layers.error(key, reason))?;
        Ok(config)
    }

    /// Checks what no key can say by itself: that the values are in range and go together.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.check().map_err(|(key, reason)| Layers::default().error(key, reason))
    }
}
