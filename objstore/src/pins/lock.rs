//! Who a record belongs to: whoever holds the lock on its first byte. The system lets go of it when the process ends, in
//! whatever way, after it has let go of the process's memory; so a record whose lock is free pins nothing.
#![allow(unsafe_code, reason = "the locks of open files have no safe name")]

use std::{fs::File, io, os::fd::AsRawFd};

/// Locks a byte of the file for this open file alone; false if another has it.
pub(super) fn try_lock(file: &File, at: usize) -> io::Result<bool> {
    match set(file, at, libc::F_WRLCK) {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Lets go of a byte.
pub(super) fn unlock(file: &File, at: usize) -> io::Result<()> {
    set(file, at, libc::F_UNLCK)
}

/// Whether another open file has a lock on this byte. Takes none itself, so it is in nobody's way.
pub(super) fn is_locked(file: &File, at: usize) -> io::Result<bool> {
    let mut lock = one_byte(at, libc::F_WRLCK);
    // SAFETY: the descriptor is open as long as `file` lives, and the system changes nothing but the structure.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(libc::c_int::from(lock.l_type) != libc::F_UNLCK)
}

fn one_byte(at: usize, kind: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: at as libc::off_t,
        l_len: 1,
        // Must be 0 for a lock that belongs to the open file.
        l_pid: 0,
    }
}

fn set(file: &File, at: usize, kind: libc::c_int) -> io::Result<()> {
    let lock = one_byte(at, kind);
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
