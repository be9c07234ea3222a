//! Which servers to start, with which configuration, and which files go away with them.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use star_core::{cluster::ServerInfo, config::Config};

use crate::{args::GlobalArgs, error::CliError, names, settings};

/// What a set of servers is started with.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(super) servers: Vec<ServerInfo>,
    /// The configuration file that each server reads.
    pub(super) config: Option<PathBuf>,
    /// Keys that are set over it.
    pub(super) overrides: Vec<(String, String)>,
    pub(super) log_directory: PathBuf,
    /// Where the servers keep their stores, a file each.
    store_directory: PathBuf,
    /// Directories of this plan alone, with all that is in them.
    own_directories: Vec<PathBuf>,
    /// Directories that others may use too, and that did not exist before.
    new_directories: Vec<PathBuf>,
}

impl Plan {
    /// The cluster of the configuration; with `servers`, these instead of the configuration's own.
    pub(crate) fn of_config(args: &GlobalArgs, servers: Option<&[ServerInfo]>) -> Result<Self, CliError> {
        let mut overrides = args.overrides.clone();
        overrides.extend(servers.map(servers_override));
        let base = settings::load_with(args, &overrides)?;
        let log_directory = base.service.directory.join(format!("up-{}", std::process::id()));
        // The objects go away with the servers, and so does what the control plane knows of them.
        overrides.extend([control_override(&log_directory), store_override()]);
        let config = settings::load_with(args, &overrides)?;
        let own_directories = vec![log_directory.clone()];
        Ok(Self::new(args, config, overrides, log_directory, own_directories))
    }

    /// A cluster that nobody else knows of: `count` servers on free ports, with the embedded control plane, all files
    /// in places of its own. `what` names it; `own` sets further keys.
    pub(crate) fn own_cluster(
        args: &GlobalArgs,
        what: &str,
        count: usize,
        own: &[(String, String)],
    ) -> Result<Self, CliError> {
        let base = settings::load(args)?;
        let name = format!("{what}-{}", std::process::id());
        let log_directory = std::env::temp_dir().join(format!("star-{name}"));
        let set = |key: &str, value: String| (key.to_owned(), value);
        let mut overrides = args.overrides.clone();
        overrides.extend([
            set("cluster.name", quoted(&name)),
            servers_override(&names::on_free_ports(count)?),
            set("cluster.replicas", "0".to_owned()),
            set("control.backend", quoted("embedded")),
            set("service.directory", quoted(&log_directory.to_string_lossy())),
            control_override(&log_directory),
            store_override(),
        ]);
        overrides.extend(own.iter().cloned());
        let config = settings::load_with(args, &overrides)?;
        let own_directories = vec![log_directory.clone(), base.store.directory.join(&name)];
        Ok(Self::new(args, config, overrides, log_directory, own_directories))
    }

    fn new(
        args: &GlobalArgs,
        config: Config,
        overrides: Vec<(String, String)>,
        log_directory: PathBuf,
        own_directories: Vec<PathBuf>,
    ) -> Self {
        let shared = [&config.store.directory, &config.service.directory];
        Self {
            store_directory: config.store.directory.join(&config.cluster.name),
            new_directories: shared.into_iter().filter(|directory| !directory.exists()).cloned().collect(),
            servers: config.cluster.servers,
            config: settings::file(args),
            overrides,
            log_directory,
            own_directories,
        }
    }

    /// The configuration that the servers run with.
    pub(crate) fn config(&self, args: &GlobalArgs) -> Result<Config, CliError> {
        Ok(settings::load_with(args, &self.overrides)?)
    }

    pub(super) fn make_directories(&self) -> Result<(), CliError> {
        fs::create_dir_all(&self.log_directory).map_err(|error| {
            CliError::from(error).context(format!("cannot make the directory {}", self.log_directory.display()))
        })
    }

    /// Has the logs stay when all else goes.
    pub(super) fn keep_logs(&mut self) {
        self.own_directories.retain(|directory| *directory != self.log_directory);
        self.own_directories.push(control_directory(&self.log_directory));
    }

    /// Removes the stores of servers that were killed (others remove theirs themselves), the logs, and directories that
    /// are empty then.
    pub(super) fn clean_up<'a>(&self, killed: impl IntoIterator<Item = &'a str>) {
        for server in killed {
            remove(&self.store_directory.join(server), remove_store);
        }
        for directory in &self.own_directories {
            remove(directory, |path| fs::remove_dir_all(path));
        }
        for directory in std::iter::once(&self.store_directory).chain(&self.new_directories) {
            // Fails if others have files there, and then it should.
            let _ = fs::remove_dir(directory);
        }
    }
}

/// Removes a store that no server has open. One that was killed may have come too late for a store that is another's.
fn remove_store(path: &Path) -> io::Result<()> {
    let store = File::open(path)?;
    if store.try_lock().is_ok() { fs::remove_file(path) } else { Ok(()) }
}

fn remove(path: &Path, how: impl Fn(&Path) -> io::Result<()>) {
    if let Err(error) = how(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        crate::output::note(format!("{} was not removed: {error}", path.display()));
    }
}

/// Where servers that come and go together keep their parts of the control plane: beside their logs.
fn control_directory(log_directory: &Path) -> PathBuf {
    log_directory.join("control")
}

fn control_override(log_directory: &Path) -> (String, String) {
    ("control.directory".to_owned(), quoted(&control_directory(log_directory).to_string_lossy()))
}

/// Servers that come and go together leave no store behind.
fn store_override() -> (String, String) {
    ("store.keep".to_owned(), "false".to_owned())
}

/// The servers as the value of a key, the way the configuration file has them.
fn servers_override(servers: &[ServerInfo]) -> (String, String) {
    let entry = |server: &ServerInfo| format!("{{name={},addr={}}}", quoted(&server.name), quoted(&server.addr));
    let entries: Vec<String> = servers.iter().map(entry).collect();
    ("cluster.servers".to_owned(), format!("[{}]", entries.join(",")))
}

/// A text in quotes; JSON's are also those of the configuration file.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
