//! A file's place among the addresses of this process.
//!
//! A large file is mapped where an address and the place in the file differ by whole huge pages: the system can then
//! show 2 MiB with one entry of its tables instead of 512, which a reader of many small objects feels in every read.
#![allow(unsafe_code, reason = "only the system knows what an address is")]

use std::{fs, fs::File, io, ptr, ptr::NonNull};

use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

/// Bytes of a huge page. Where a system has others, they are not used.
pub(crate) const HUGE_BYTES: usize = 2 << 20;

/// A part of a file, shared with everyone who maps it, until this is dropped.
#[derive(Debug)]
pub(crate) struct Mapping {
    address: NonNull<u8>,
    bytes: usize,
    /// All that was taken of the address space: the mapping, and before and behind it what aligning it cost.
    taken: (NonNull<u8>, usize),
}

// SAFETY: an address belongs to the whole process, and the mapping stays where it is until it is dropped.
unsafe impl Send for Mapping {}
// SAFETY: as above; what is done with the bytes is `crate::memory`'s to answer for.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `bytes` bytes from `offset` on, a multiple of the system's page.
    pub(crate) fn new(file: &File, offset: usize, bytes: usize, writable: bool) -> io::Result<Self> {
        if bytes == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "nothing to map"));
        }
        let rights = if writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        if bytes < HUGE_BYTES {
            // SAFETY: at an address of the system's choice, where nothing else is.
            let address = unsafe { mmap(ptr::null_mut(), bytes, rights, MapFlags::SHARED, file, offset as u64)? };
            let address = found(address.cast())?;
            return Ok(Self { address, bytes, taken: (address, bytes) });
        }
        let taken_bytes = bytes.checked_add(HUGE_BYTES).ok_or(io::ErrorKind::OutOfMemory)?;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: as above; nothing can be read or written there yet.
        let taken = unsafe { mmap_anonymous(ptr::null_mut(), taken_bytes, ProtFlags::empty(), flags)? };
        let taken = found(taken.cast::<u8>())?;
        let skip = (offset % HUGE_BYTES).wrapping_sub(taken.as_ptr().addr()) % HUGE_BYTES;
        let mut this = Self { address: taken, bytes, taken: (taken, taken_bytes) };
        let target = taken.as_ptr().wrapping_add(skip).cast();
        // SAFETY: over addresses that were just taken for it: `skip` is less than what was taken beside `bytes`.
        let address = unsafe { mmap(target, bytes, rights, MapFlags::SHARED | MapFlags::FIXED, file, offset as u64)? };
        this.address = found(address.cast())?;
        Ok(this)
    }

    /// No part of any file: what is left in the place of a mapping that was moved elsewhere.
    pub(crate) fn none() -> Self {
        Self { address: NonNull::<u64>::dangling().cast(), bytes: 0, taken: (NonNull::dangling(), 0) }
    }

    /// The same mapping, not to be dropped.
    #[inline]
    pub(crate) fn alias(&self) -> Self {
        Self { address: self.address, bytes: self.bytes, taken: (self.address, 0) }
    }

    #[inline]
    pub(crate) fn address(&self) -> *const u8 {
        self.address.as_ptr()
    }

    #[inline]
    pub(crate) fn start(&self) -> NonNull<u8> {
        self.address
    }

    #[inline]
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Asks the system to put what is mapped into huge pages, as far as whole ones fit. Nothing is different after it but
    /// speed, also where it cannot be done; [`Self::huge_bytes`] says what came of it.
    pub(crate) fn make_huge(&self) {
        let whole = self.bytes / HUGE_BYTES * HUGE_BYTES;
        // SAFETY: changes where the bytes lie in the machine, and not what they are, for all who map them.
        unsafe { libc::madvise(self.address.as_ptr().cast(), whole, libc::MADV_COLLAPSE) };
    }

    /// Bytes that this process sees in huge pages; 0 where the system does not say.
    pub(crate) fn huge_bytes(&self) -> u64 {
        let maps = fs::read_to_string("/proc/self/smaps").unwrap_or_default();
        huge_bytes_at(&maps, self.address.as_ptr().addr())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let (address, bytes) = self.taken;
        if bytes == 0 {
            return;
        }
        // SAFETY: all of it was taken by `new`, and what borrows it is gone. It can only fail for what is not mapped.
        let _ = unsafe { munmap(address.as_ptr().cast(), bytes) };
    }
}

fn found(address: *mut u8) -> io::Result<NonNull<u8>> {
    NonNull::new(address).ok_or_else(|| io::Error::other("the system mapped a file at address 0"))
}

/// What the system's list of mappings says of the one that begins at `address`.
fn huge_bytes_at(maps: &str, address: usize) -> u64 {
    let begin = format!("{address:x}-");
    let fields = maps.lines().skip_while(|line| !line.starts_with(&begin)).skip(1);
    fields
        // Names of fields begin with a capital, the next mapping with a digit of its address.
        .take_while(|line| line.starts_with(|first: char| first.is_ascii_uppercase()))
        .filter(|line| line.starts_with("ShmemPmdMapped:") || line.starts_with("FilePmdMapped:"))
        .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
        .map(|kibibytes| kibibytes * 1024)
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(bytes: usize) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(bytes as u64).unwrap();
        file
    }

    #[test]
    fn a_large_file_is_mapped_where_huge_pages_fit() {
        let file = file(8 << 20);
        for offset in [0, 4096, HUGE_BYTES, HUGE_BYTES + 8192] {
            let mapping = Mapping::new(&file, offset, (6 << 20) - 4096, true).unwrap();
            assert_eq!(mapping.address().addr() % HUGE_BYTES, offset % HUGE_BYTES);
        }
    }

    #[test]
    fn asking_for_huge_pages_changes_no_byte() {
        use std::os::unix::fs::FileExt;
        let file = file(5 << 20);
        let bytes: Vec<u8> = (0..5 << 20).map(|i: u32| (i / 7) as u8).collect();
        file.write_all_at(&bytes, 0).unwrap();
        let mapping = Mapping::new(&file, 0, 5 << 20, true).unwrap();
        mapping.make_huge();
        assert!(mapping.huge_bytes() <= 4 << 20, "only whole ones");
        // SAFETY: nobody writes the file any more.
        let seen = unsafe { std::slice::from_raw_parts(mapping.address(), mapping.bytes()) };
        assert!(seen == bytes);
    }

    #[test]
    fn nothing_and_more_than_there_are_addresses_for_are_refused() {
        let file = file(4096);
        assert!(Mapping::new(&file, 0, 0, false).is_err());
        assert!(Mapping::new(&file, 0, usize::MAX - 4096, false).is_err());
        assert!(Mapping::new(&file, 0, 1 << 62, false).is_err());
    }

    #[test]
    fn the_list_of_mappings_is_read_for_the_one_that_was_asked_for() {
        let maps = "7f00000000-7f00400000 r--s 00000000 00:1b 9 /dev/shm/a\nRss: 4096 kB\nShmemPmdMapped:  2048 kB\n\
                    FilePmdMapped: 0 kB\nVmFlags: rd sh\n7f00400000-7f00800000 r--s 0 00:1b 9 /dev/shm/b\n\
                    ShmemPmdMapped: 4096 kB\nFilePmdMapped: 2048 kB\n";
        assert_eq!(huge_bytes_at(maps, 0x007f_0000_0000), 2 << 20);
        assert_eq!(huge_bytes_at(maps, 0x007f_0040_0000), 6 << 20);
        assert_eq!(huge_bytes_at(maps, 0x007f_0080_0000), 0);
        assert_eq!(huge_bytes_at("", 0), 0);
    }
}
