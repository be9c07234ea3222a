//! The files of a directory tree, as objects.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use star_core::config::LimitsConfig;

use crate::{error::CliError, output};

/// Directories that are left out: histories and build products, which change while we look.
const LEFT_OUT: [&str; 3] = [".git", "target", ".star"];

/// The files under a directory.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) root: PathBuf,
    pub(super) files: Vec<TreeFile>,
    /// What is not stored, and why.
    pub(super) skipped: Vec<(String, String)>,
    /// Bytes of all files.
    pub(super) bytes: u64,
}

/// One file.
#[derive(Debug)]
pub(super) struct TreeFile {
    /// Its path from the root on.
    pub(super) key: String,
    pub(super) path: PathBuf,
    pub(super) value: Bytes,
}

impl Tree {
    /// Reads all files under `root`, as far as they fit the limits, and no more than `bytes_max` in all.
    pub(super) fn read(root: &Path, limits: &LimitsConfig, bytes_max: u64) -> Result<Self, CliError> {
        let failed =
            |error: io::Error| CliError::from(error).context(format!("cannot read the directory {}", root.display()));
        let root = root.canonicalize().map_err(failed)?;
        let mut tree = Self { root: root.clone(), files: Vec::new(), skipped: Vec::new(), bytes: 0 };
        let mut directories = vec![root];
        while let Some(directory) = directories.pop() {
            let listed = fs::read_dir(&directory).and_then(Iterator::collect::<Result<Vec<_>, _>>);
            let mut entries = match listed {
                Ok(entries) => entries,
                Err(error) if directory == tree.root => return Err(failed(error)),
                Err(error) => {
                    tree.skip(&directory, error.to_string());
                    continue;
                }
            };
            entries.sort_by_key(fs::DirEntry::file_name);
            for entry in entries {
                let path = entry.path();
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => {
                        if !LEFT_OUT.iter().any(|name| entry.file_name() == *name) {
                            directories.push(path);
                        }
                    }
                    Ok(kind) if kind.is_file() => tree.add(&path, limits, bytes_max),
                    Ok(_) => tree.skip(&path, "not a plain file".to_owned()),
                    Err(error) => tree.skip(&path, error.to_string()),
                }
            }
        }
        if tree.files.is_empty() {
            return Err(CliError::new(format!("there is no file to store in {}", tree.root.display()))
                .hint("name another directory: star demo DIR"));
        }
        Ok(tree)
    }

    /// The files that are not on disk any more as they were read: what the servers hold was proved against what was read.
    pub(super) fn changed_on_disk(&self) -> Vec<&str> {
        let changed = |file: &&TreeFile| !fs::read(&file.path).is_ok_and(|now| now == file.value);
        self.files.iter().filter(changed).map(|file| file.key.as_str()).collect()
    }

    fn add(&mut self, path: &Path, limits: &LimitsConfig, bytes_max: u64) {
        match self.load(path, limits, bytes_max) {
            Ok(file) => {
                self.bytes += file.value.len() as u64;
                self.files.push(file);
            }
            Err(why) => self.skip(path, why),
        }
    }

    fn load(&self, path: &Path, limits: &LimitsConfig, bytes_max: u64) -> Result<TreeFile, String> {
        let relative = path.strip_prefix(&self.root).unwrap_or(path);
        let key = relative.to_str().ok_or("its name is not UTF-8, and keys are")?.to_owned();
        if key.len() as u64 > limits.key_bytes_max {
            return Err(format!("its name is longer than a key may be, {} bytes", limits.key_bytes_max));
        }
        let length = fs::metadata(path).map_err(|error| error.to_string())?.len();
        if length > limits.value_bytes_max {
            let limit = output::bytes(limits.value_bytes_max);
            return Err(format!("{} is more than the limit of an object, {limit}", output::bytes(length)));
        }
        if self.bytes + length > bytes_max {
            return Err(format!("it would be more than {} in all; --limit takes more", output::bytes(bytes_max)));
        }
        let value = fs::read(path).map_err(|error| error.to_string())?;
        Ok(TreeFile { key, path: path.to_path_buf(), value: value.into() })
    }

    fn skip(&mut self, path: &Path, why: String) {
        let name = path.strip_prefix(&self.root).unwrap_or(path).display().to_string();
        self.skipped.push((name, why));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_objects_and_what_does_not_fit_is_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path();
        for place in ["a/b", ".git", "target/debug"] {
            fs::create_dir_all(root.join(place)).expect("a directory");
        }
        for (path, bytes) in
            [("one", 3), ("a/two", 5), ("a/b/large", 9), ("z", 8), (".git/x", 1), ("target/debug/y", 1)]
        {
            fs::write(root.join(path), vec![b'x'; bytes]).expect("a file");
        }
        std::os::unix::fs::symlink("one", root.join("link")).expect("a link");
        let limits = LimitsConfig { value_bytes_max: 8, ..LimitsConfig::default() };
        let tree = Tree::read(root, &limits, 12).expect("a tree");
        let keys: Vec<&str> = tree.files.iter().map(|file| file.key.as_str()).collect();
        assert_eq!((keys, tree.bytes), (vec!["one", "z"], 11));
        let skipped: Vec<&str> = tree.skipped.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(skipped, ["link", "a/two", "a/b/large"]);
        assert!(tree.changed_on_disk().is_empty());
        fs::write(root.join("z"), "other").expect("a file");
        assert_eq!(tree.changed_on_disk(), ["z"]);
        assert!(tree.skipped[2].1.contains("limit of an object"), "{:?}", tree.skipped[2]);
        assert!(Tree::read(&root.join("target"), &LimitsConfig { value_bytes_max: 0, ..limits }, 12).is_err());
    }
}
