//! The file itself: made whole or not at all, its room reserved, written by one process at a time.

use std::{
    fs::{self, File, OpenOptions, Permissions, TryLockError},
    io::{self, Write},
    ops::Deref,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{FallocateFlags, fallocate};
use star_core::config::GroupAccess;

use crate::{
    error::OpenError,
    header::Header,
    layout::{FORMAT, Geometry, HEADER_BYTES},
    memory::Memory,
};

/// Turns what the system said into an error that names the file.
pub(crate) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    move |source| OpenError::Io { action, path: path.to_path_buf(), source }
}

/// A new file beside its place, until [`Self::install`] puts it there; dropped before, it leaves nothing.
#[derive(Debug)]
pub(crate) struct NewFile {
    temporary: PathBuf,
    pub(crate) file: Option<Locked>,
}

impl NewFile {
    /// Makes the file with all of its room reserved, so that no later store can fail for want of it.
    pub(crate) fn create(path: &Path, bytes: usize, group: GroupAccess) -> Result<Self, OpenError> {
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(format!(".{}.tmp", std::process::id()));
        let temporary = PathBuf::from(temporary);
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            fs::create_dir_all(parent).map_err(failed("make the directory of", path))?;
        }
        // Left by a process that had our number and was killed.
        let _ = fs::remove_file(&temporary);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(failed("create", &temporary))?;
        let mut this = Self { temporary, file: None };
        this.file = Some(Locked::take(file, path).inspect_err(|_| drop(fs::remove_file(&this.temporary)))?);
        let file = this.file.as_ref().expect("just made");
        permit(file, path, group)?;
        reserve(file, bytes).map_err(failed("reserve room for", path))?;
        Ok(this)
    }

    /// Puts the file in its place, over what was there.
    pub(crate) fn install(mut self, path: &Path) -> Result<Locked, OpenError> {
        fs::rename(&self.temporary, path).map_err(failed("put in place", path))?;
        Ok(self.file.take().expect("installed once"))
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if self.file.is_some() {
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Says who may read the file, whatever the process's mask.
pub(crate) fn permit(file: &File, path: &Path, group: GroupAccess) -> Result<(), OpenError> {
    file.set_permissions(Permissions::from_mode(group.mode())).map_err(failed("set the permissions of", path))
}

/// Reserves room: a hole in a full file system would be a SIGBUS at some later store.
fn reserve(file: &File, bytes: usize) -> io::Result<()> {
    match rustix::io::retry_on_intr(|| fallocate(file, FallocateFlags::empty(), 0, bytes as u64)) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
            let zeros = vec![0; 1 << 20];
            let mut rest = bytes;
            while rest > 0 {
                let piece = rest.min(zeros.len());
                (&mut &*file).write_all(&zeros[..piece])?;
                rest -= piece;
            }
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// A file that only this process writes.
///
/// The lock is let go of by name when this is dropped: merely closing the file leaves it locked for as long as a process
/// that was forked meanwhile, and has not become another program yet, has it open too.
#[derive(Debug)]
pub(crate) struct Locked(File);

impl Locked {
    pub(crate) fn take(file: File, path: &Path) -> Result<Self, OpenError> {
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => {
                // A file that is too short for a header cannot be read through a mapping.
                let whole = file.metadata().is_ok_and(|found| found.len() >= HEADER_BYTES as u64);
                let header = whole.then(|| Memory::read_only(&file, HEADER_BYTES)).and_then(Result::ok);
                let pid = header.map_or(0, |memory| Header(&memory).pid());
                Err(OpenError::InUse { path: path.to_path_buf(), pid })
            }
            Err(TryLockError::Error(source)) => Err(failed("lock", path)(source)),
        }
    }
}

impl Deref for Locked {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // It cannot fail for an open file, and closing it is all that could be done then.
        let _ = self.0.unlock();
    }
}

/// Checks that a file is a whole store, and says where everything is in it.
pub(crate) fn inspect(file: &File, path: &Path) -> Result<Geometry, OpenError> {
    let file_bytes = file.metadata().map_err(failed("examine", path))?.len();
    if file_bytes < HEADER_BYTES as u64 {
        return Err(OpenError::Truncated {
            path: path.to_path_buf(),
            wanted_bytes: HEADER_BYTES as u64,
            found_bytes: file_bytes,
        });
    }
    let header = Memory::read_only(file, HEADER_BYTES).map_err(failed("map", path))?;
    Header(&header).geometry(path, file_bytes)
}

/// A store that is about to be replaced; locked, so that no writer starts on it meanwhile.
#[derive(Debug)]
pub(crate) struct OldFile {
    _file: Locked,
    /// Its header, where it has one of this format.
    header: Option<Memory>,
}

impl OldFile {
    /// The store at the path, if there is a file. Anything but a store, and a store that is in use, is refused.
    pub(crate) fn claim(path: &Path) -> Result<Option<Self>, OpenError> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("open", path)(error)),
        };
        let bytes = file.metadata().map_err(failed("examine", path))?.len();
        if bytes < HEADER_BYTES as u64 {
            // Too short to be mapped; an empty file, or a store that was cut, is still ours to replace.
            if !starts_as_store(path)? {
                return Err(OpenError::Foreign { path: path.to_path_buf() });
            }
            return Ok(Some(Self { _file: Locked::take(file, path)?, header: None }));
        }
        let memory = Memory::writable(&file, HEADER_BYTES).map_err(failed("map", path))?;
        if !Header(&memory).is_store() {
            return Err(OpenError::Foreign { path: path.to_path_buf() });
        }
        let file = Locked::take(file, path)?;
        // The words of the permission are where this format has them; a file of another is left to its lease.
        let known = Header(&memory).has_format(FORMAT);
        Ok(Some(Self { _file: file, header: known.then_some(memory) }))
    }

    /// Tells the readers that still map the file.
    pub(crate) fn supersede(&self) {
        if let Some(header) = &self.header {
            Header(header).supersede();
        }
    }
}

fn starts_as_store(path: &Path) -> Result<bool, OpenError> {
    let bytes = fs::read(path).map_err(failed("read", path))?;
    let magic = crate::layout::MAGIC.to_ne_bytes();
    let known = bytes.len().min(magic.len());
    Ok(bytes[..known] == magic[..known])
}

/// What names the machine's present run: the lease in a file is of a clock that begins anew with each.
pub(crate) fn boot_id() -> Result<[u64; 2], OpenError> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    let text = fs::read_to_string(path).map_err(failed("read", path))?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&digits, 16)
        .map(|id| [(id >> 64) as u64, id as u64])
        .map_err(|_| failed("read a number from", path)(io::ErrorKind::InvalidData.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_lock_is_free_though_another_has_the_same_open_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let open = || OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).unwrap();
        let locked = Locked::take(open(), &path).unwrap();
        // What a process has that was forked and has not started its program.
        let inherited = locked.try_clone().unwrap();
        assert!(matches!(Locked::take(open(), &path), Err(OpenError::InUse { pid: 0, .. })));
        drop(locked);
        assert!(Locked::take(open(), &path).is_ok());
        drop(inherited);
    }
}
