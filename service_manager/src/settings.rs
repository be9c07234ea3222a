//! What the configuration means for the services of this machine.

use std::{
    env, fmt,
    net::{SocketAddr, ToSocketAddrs},
    path::{Path, PathBuf},
};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use star_core::config::{Backend, Config, FILE_NAME};

use crate::{error::ServiceError, ports::is_local, record::Directory};

/// What keeps views and leases of the star servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Control {
    /// The servers themselves.
    Embedded,
    /// The Redis at `control.redis_url`.
    Redis,
}

impl Control {
    /// The name in the configuration.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Redis => "redis",
        }
    }
}

impl fmt::Display for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which control plane the star servers get.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ControlChoice {
    /// Redis if the configuration says so, or if the redis service of this machine runs; else embedded
    Auto,
    /// The servers themselves
    Embedded,
    /// The Redis of the configuration
    Redis,
}

/// The configuration, and where it came from.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) config: Config,
    /// The file, for the servers to read too.
    pub(crate) file: Option<PathBuf>,
    pub(crate) directory: Directory,
}

/// A star server that is to run on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LocalServer {
    pub(crate) name: String,
    pub(crate) addr: SocketAddr,
    /// Its mapped store.
    pub(crate) store: PathBuf,
}

impl Settings {
    /// The configuration of `file` (without one: of `config.toml` in the working directory, if it is there) and of the
    /// environment.
    pub(crate) fn load(file: Option<PathBuf>) -> Result<Self, ServiceError> {
        let file = file.or_else(|| Path::new(FILE_NAME).exists().then(|| PathBuf::from(FILE_NAME)));
        // A variable that is no Unicode cannot be one of ours.
        let env =
            env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        let config = Config::load(file.as_deref(), env, &[])?;
        let directory = Directory::at(&config.service.directory)?;
        Ok(Self { config, file, directory })
    }

    /// The servers whose addresses are of this machine, in the order of the configuration.
    pub(crate) fn local_servers(&self) -> Result<Vec<LocalServer>, ServiceError> {
        let servers = &self.config.cluster.servers;
        let stores = std::path::absolute(&self.config.store.directory)
            .map_err(ServiceError::io("find", &self.config.store.directory))?
            .join(&self.config.cluster.name);
        let mut local = Vec::new();
        for server in servers {
            let addr = resolve(&server.name, &server.addr)?;
            if is_local(addr) {
                local.push(LocalServer { name: server.name.clone(), addr, store: stores.join(&server.name) });
            }
        }
        if local.is_empty() {
            return Err(ServiceError::NothingHere { servers: servers.len() });
        }
        Ok(local)
    }

    /// Which control plane servers that are started now get. `redis_runs`: whether the redis service of this machine does.
    pub(crate) fn control(&self, choice: ControlChoice, redis_runs: bool) -> Control {
        match choice {
            ControlChoice::Redis => Control::Redis,
            ControlChoice::Auto if redis_runs || self.config.control.backend == Backend::Redis => Control::Redis,
            ControlChoice::Auto | ControlChoice::Embedded => Control::Embedded,
        }
    }
}

/// The address behind `host:port`.
fn resolve(name: &str, addr: &str) -> Result<SocketAddr, ServiceError> {
    let unusable = |reason: String| ServiceError::Address { name: name.to_owned(), addr: addr.to_owned(), reason };
    let mut found = addr.to_socket_addrs().map_err(|error| unusable(error.to_string()))?;
    found.next().ok_or_else(|| unusable("the name has no address".to_owned()))
}

#[cfg(test)]
mod tests {
    use star_core::cluster::ServerInfo;

    use super::*;

    fn settings(edit: impl FnOnce(&mut Config)) -> Settings {
        let mut config = Config::default();
        edit(&mut config);
        Settings { config, file: None, directory: Directory::at(Path::new("/tmp")).expect("a path") }
    }

    #[test]
    fn the_control_plane_is_redis_if_configured_or_running() {
        use ControlChoice::{Auto, Embedded, Redis};
        let embedded = settings(|_| {});
        let redis = settings(|config| config.control.backend = Backend::Redis);
        for (settings, choice, redis_runs, chosen) in [
            (&embedded, Auto, false, Control::Embedded),
            (&embedded, Auto, true, Control::Redis),
            (&redis, Auto, false, Control::Redis),
            (&redis, Embedded, true, Control::Embedded),
            (&embedded, Redis, false, Control::Redis),
        ] {
            assert_eq!(settings.control(choice, redis_runs), chosen, "{choice:?} {redis_runs}");
        }
    }

    #[test]
    fn only_servers_of_this_machine_are_managed() {
        let mixed = settings(|config| {
            config.cluster.servers =
                vec![ServerInfo::new("near", "127.0.0.1:7000"), ServerInfo::new("far", "192.0.2.1:7000")];
        });
        let local = mixed.local_servers().expect("one of them");
        assert_eq!(local.len(), 1);
        assert_eq!((local[0].name.as_str(), local[0].store.as_path()), ("near", Path::new("/dev/shm/star/star/near")));
        let far = settings(|config| config.cluster.servers = vec![ServerInfo::new("far", "192.0.2.1:7000")]);
        assert!(matches!(far.local_servers(), Err(ServiceError::NothingHere { servers: 1 })));
    }
}
