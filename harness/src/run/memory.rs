//! Memory that this process shares with a kernel's process.

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// Bytes that mappings are made of. A multiple of the page size of every machine we know of but the few Linux
/// systems with pages of 64 KiB, where mapping fails with an error.
pub(super) const PAGE: usize = 4096;

/// Inaccessible bytes before and after a guarded mapping: more than one page, to stop strides too.
pub(super) const GUARD: usize = 16 * PAGE;

/// A file in memory, without a name.
pub(super) fn file(name: &str) -> io::Result<File> {
    let file = File::from(memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?);
    // Whoever shrank it would make the other side crash.
    fcntl(&file, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK))?;
    Ok(file)
}

/// A part of a file in memory, mapped and shared.
pub(super) struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the memory belongs to the mapping alone as far as this process goes, and all access copies bytes.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps part of a file for reading and writing.
    pub(super) fn new(file: BorrowedFd<'_>, offset: usize, length: usize) -> io::Result<Self> {
        let size = NonZeroUsize::new(length).ok_or(io::ErrorKind::InvalidInput)?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the system's choice touches nothing that exists.
        let start = unsafe { mmap(None, size, access, MapFlags::MAP_SHARED, file, offset as i64)? };
        Ok(Mapping { start: start.cast(), length })
    }

    /// Copies bytes into it.
    pub(super) fn write(&self, bytes: &[u8]) {
        assert!(bytes.len() <= self.length);
        // SAFETY: both ranges are valid for this length, and a fresh slice does not overlap the mapping.
        unsafe { self.start.as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }

    /// Copies bytes out of it.
    pub(super) fn read(&self, bytes: &mut [u8]) {
        assert!(bytes.len() <= self.length);
        // SAFETY: both ranges are valid for this length, and a fresh slice does not overlap the mapping.
        unsafe { self.start.as_ptr().copy_to_nonoverlapping(bytes.as_mut_ptr(), bytes.len()) };
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is this one's own and nothing refers to it any more. A failure would leave it mapped.
        let _ = unsafe { munmap(self.start.cast(), self.length) };
    }
}

/// What a kernel's process tells about itself while it cannot send messages, at the start of the shared file.
#[repr(C)]
pub(super) struct Board {
    /// Calls of kernels begun.
    pub(super) calls: AtomicU64,
    /// The signal that a memory access raised, or 0.
    pub(super) signal: AtomicU64,
    /// Its code, as `si_code` has it.
    pub(super) code: AtomicU64,
    /// The address it was about.
    pub(super) address: AtomicU64,
    /// The stack pointer then.
    pub(super) stack: AtomicU64,
    /// 1: a read, 2: a write, 0: not known.
    pub(super) access: AtomicU64,
    /// Where each region is mapped there.
    pub(super) regions: [AtomicU64; REGIONS],
}

/// How many regions can be shared.
pub(super) const REGIONS: usize = 1000;

/// Bytes of the board.
pub(super) const BOARD: usize = size_of::<Board>().next_multiple_of(PAGE);

/// A board, mapped. It stays where it is until dropped.
pub(super) struct BoardMapping(Mapping);

impl BoardMapping {
    pub(super) fn new(file: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(BoardMapping(Mapping::new(file, 0, BOARD)?))
    }
}

impl std::ops::Deref for BoardMapping {
    type Target = Board;

    fn deref(&self) -> &Board {
        // SAFETY: the mapping is page-aligned and at least as long as a board, which is made of atomic integers:
        // every bit pattern is valid and the other process may change them at any time.
        unsafe { self.0.start.cast::<Board>().as_ref() }
    }
}

/// A second handle on a file.
pub(super) fn duplicate(file: &impl AsFd) -> io::Result<OwnedFd> {
    file.as_fd().try_clone_to_owned()
}
