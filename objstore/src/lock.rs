//! Locks on bytes of the file that say who lives: of an open file, so the system lets go of them when nobody has it open
//! or mapped any more, in whatever way that came about. A record of the pin table whose lock is free pins nothing, and
//! into a room whose lock is free nobody can write.
#![allow(unsafe_code, reason = "the locks of open files have no safe name")]

use std::{fs::File, io, ops::Range, os::fd::AsRawFd};

/// Locks a byte of the file for this open file alone; false if another has it.
pub(crate) fn try_lock(file: &File, at: usize) -> io::Result<bool> {
    try_lock_range(file, at..at + 1)
}

/// The same for several bytes, of which there is at least one.
pub(crate) fn try_lock_range(file: &File, range: Range<usize>) -> io::Result<bool> {
    match set(file, range, libc::F_WRLCK) {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Lets go of a byte.
pub(crate) fn unlock(file: &File, at: usize) -> io::Result<()> {
    set(file, at..at + 1, libc::F_UNLCK)
}

/// Whether another open file has a lock on this byte. Takes none itself, so it is in nobody's way.
pub(crate) fn is_locked(file: &File, at: usize) -> io::Result<bool> {
    is_any_locked(file, at..at + 1)
}

/// Whether another open file has a lock on any of these bytes.
pub(crate) fn is_any_locked(file: &File, range: Range<usize>) -> io::Result<bool> {
    Ok(find_locked(file, range)?.is_some())
}

/// The parts of a range that other open files have locked, in order. More than `max` are an error.
pub(crate) fn locked_ranges(file: &File, within: Range<usize>, max: usize) -> io::Result<Vec<Range<usize>>> {
    let (mut found, mut open) = (Vec::new(), vec![within]);
    // The system names any one lock of a range: then what lies before and behind it is looked at.
    while let Some(range) = open.pop() {
        if let Some(locked) = find_locked(file, range.clone())? {
            open.extend([range.start..locked.start, locked.end..range.end].into_iter().filter(|part| !part.is_empty()));
            found.push(locked);
            if found.len() > max {
                return Err(io::Error::other(format!("other processes have locked more than {max} parts of it")));
            }
        }
    }
    found.sort_unstable_by_key(|range| range.start);
    Ok(found)
}

/// Some part of a range, not empty, that another open file has locked.
fn find_locked(file: &File, within: Range<usize>) -> io::Result<Option<Range<usize>>> {
    let mut lock = lock_of(&within, libc::F_WRLCK);
    // SAFETY: the descriptor is open as long as `file` lives, and the system changes nothing but the structure.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if libc::c_int::from(lock.l_type) == libc::F_UNLCK {
        return Ok(None);
    }
    let start = lock.l_start as usize;
    // A length of 0 stands for all that follows.
    let end = if lock.l_len == 0 { usize::MAX } else { start + lock.l_len as usize };
    Ok(Some(start.max(within.start)..end.min(within.end)))
}

fn lock_of(range: &Range<usize>, kind: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: range.start as libc::off_t,
        l_len: range.len() as libc::off_t,
        // Must be 0 for a lock that belongs to the open file.
        l_pid: 0,
    }
}

fn set(file: &File, range: Range<usize>, kind: libc::c_int) -> io::Result<()> {
    let lock = lock_of(&range, kind);
    loop {
        // SAFETY: the descriptor is open as long as `file` lives, and the system only reads the structure.
        if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}
