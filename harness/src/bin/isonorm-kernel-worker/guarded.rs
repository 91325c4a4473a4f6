//! Memory for tensors between pages that cannot be accessed.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::BorrowedFd;

use nix::sys::mman::{MapFlags, ProtFlags, mmap, mmap_anonymous};

use crate::memory::GUARD;

/// Maps part of a file between inaccessible pages, for as long as the process lives. Returns the first byte.
pub(crate) fn map(file: BorrowedFd<'_>, offset: usize, length: usize, writable: bool) -> io::Result<*mut u8> {
    let size = NonZeroUsize::new(length).ok_or(io::ErrorKind::InvalidInput)?;
    let access = if writable { ProtFlags::PROT_READ | ProtFlags::PROT_WRITE } else { ProtFlags::PROT_READ };
    let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
    // SAFETY: a new mapping at an address of the system's choice touches nothing that exists.
    let reserved = unsafe { mmap_anonymous(None, size.saturating_add(2 * GUARD), ProtFlags::PROT_NONE, flags)? };
    let start = NonZeroUsize::new(reserved.addr().get() + GUARD);
    let flags = MapFlags::MAP_SHARED | MapFlags::MAP_FIXED;
    // SAFETY: replaces only pages inside of what was reserved for it a moment ago.
    let start = unsafe { mmap(start, size, access, flags, file, offset as i64)? };
    Ok(start.as_ptr().cast())
}
