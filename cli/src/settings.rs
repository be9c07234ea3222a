//! The configuration, from its file, the environment and the command line.

use std::path::{Path, PathBuf};

use star_core::config::{Config, ConfigError};

use crate::args::GlobalArgs;

/// The file that is taken if none is named.
const FILE_HERE: &str = "config.toml";

/// The file that the configuration comes from, if any.
pub(crate) fn file(args: &GlobalArgs) -> Option<PathBuf> {
    args.config.clone().or_else(|| Path::new(FILE_HERE).exists().then(|| PathBuf::from(FILE_HERE)))
}

/// The configuration: flags over environment over file over defaults.
pub(crate) fn load(args: &GlobalArgs) -> Result<Config, ConfigError> {
    load_with(args, &[])
}

/// The configuration with some keys set by the command itself, over everything else.
pub(crate) fn load_with(args: &GlobalArgs, own: &[(String, String)]) -> Result<Config, ConfigError> {
    let overrides: Vec<_> = args.overrides.iter().chain(own).cloned().collect();
    // What is not UTF-8 is no business of ours, or a wrong value that the check will name.
    let variables = std::env::vars_os();
    let variables = variables.map(|(name, value)| (name.to_string_lossy().into(), value.to_string_lossy().into()));
    Config::load(file(args).as_deref(), variables, &overrides)
}
