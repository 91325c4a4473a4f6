//! Memory of tensors that are timed.

use std::alloc::{Layout, alloc, dealloc};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// As libtorch aligns its tensors.
const ALIGNMENT: usize = 64;
/// Over so many bytes the beginnings of tensors are scattered: beyond a page, in which caches look for what is theirs.
const SCATTER: u64 = 1 << 16;

/// From what the next beginning is drawn; 0 if all begin where the allocator says.
static SCATTERED: AtomicU64 = AtomicU64::new(0);

/// From now on tensors begin at places that are drawn anew for each. How fast a kernel is depends on how its tensors lie to each
/// other, by a tenth and more; of one placement that is a bias, of many a spread that can be seen.
pub fn scatter(seed: u64) {
    SCATTERED.store(seed.wrapping_mul(2) | 1, Ordering::Relaxed);
}

/// The next beginning, counted from where the allocator says.
fn beginning() -> usize {
    let state = SCATTERED.load(Ordering::Relaxed);
    if state == 0 {
        return 0;
    }
    let mut random = SmallRng::seed_from_u64(state);
    SCATTERED.store(random.random::<u64>() | 1, Ordering::Relaxed);
    random.random_range(0..SCATTER / ALIGNMENT as u64) as usize * ALIGNMENT
}

/// Bytes from the same allocator that libtorch uses, aligned as libtorch aligns them.
#[derive(Debug)]
pub struct Memory {
    start: NonNull<u8>,
    bytes: usize,
    /// Of the whole allocation, which may begin earlier.
    layout: Layout,
    before: usize,
}

// SAFETY: the memory belongs to this value alone.
unsafe impl Send for Memory {}

impl Memory {
    /// So many bytes whose contents, and even pages, are not there yet. `None` if there is no room.
    pub fn untouched(bytes: usize) -> Option<Memory> {
        let (bytes, before) = (bytes.max(1), beginning());
        let layout = Layout::from_size_align(before.checked_add(bytes)?, ALIGNMENT).ok()?;
        // SAFETY: the size is not 0.
        let whole = NonNull::new(unsafe { alloc(layout) })?;
        // SAFETY: inside of the allocation.
        Some(Memory { start: unsafe { whole.add(before) }, bytes, layout, before })
    }

    /// So many bytes that hold `tile` over and over, up to the end.
    pub fn tiled(bytes: usize, tile: &[u8]) -> Option<Memory> {
        let mut memory = Memory::untouched(bytes)?;
        // SAFETY: these bytes are this memory's; they become initialised here, before any reference to them is made.
        unsafe { memory.start.as_ptr().write_bytes(0, memory.bytes) };
        if !tile.is_empty() {
            memory.bytes_mut().chunks_mut(tile.len()).for_each(|part| part.copy_from_slice(&tile[..part.len()]));
        }
        Some(memory)
    }

    /// Where it begins.
    pub fn start(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// Its bytes.
    ///
    /// # Safety
    /// They are initialised: it was [`Memory::tiled`], or written since.
    pub unsafe fn bytes(&self) -> &[u8] {
        // SAFETY: the allocation has this size, and the caller vouches for its contents.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.bytes) }
    }

    /// Its bytes as whole `f32`, as many as there are.
    ///
    /// # Safety
    /// As for [`Memory::bytes`].
    pub unsafe fn floats(&self) -> &[f32] {
        // SAFETY: aligned for more than an `f32`, and any bits make one; the caller vouches for the contents.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.bytes / size_of::<f32>()) }
    }

    /// The same to be written to.
    ///
    /// # Safety
    /// As for [`Memory::bytes`].
    pub unsafe fn floats_mut(&mut self) -> &mut [f32] {
        // SAFETY: as for `floats`; the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().cast(), self.bytes / size_of::<f32>()) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `bytes`; called where they are initialised.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.bytes) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated by `untouched` with this layout, so many bytes before, and nobody refers to it any more.
        unsafe { dealloc(self.start.as_ptr().sub(self.before), self.layout) };
    }
}

/// Has freed blocks stay with the process, so that an allocation costs no page faults. There is no way back.
pub fn keep_freed_blocks() {
    #[cfg(target_env = "gnu")]
    // SAFETY: `mallopt` takes any numbers, and it is called from the one thread that measures.
    unsafe {
        libc::mallopt(libc::M_MMAP_MAX, 0);
        libc::mallopt(libc::M_TRIM_THRESHOLD, -1);
    }
}

/// Has freed blocks of some size, and all that are free now, go back to the system at once, so that what it counts is what is
/// used.
pub fn return_freed_blocks() {
    #[cfg(target_env = "gnu")]
    // SAFETY: `mallopt` takes any numbers, and it is called while nothing else of this process allocates.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 16);
    }
    trim();
}

/// Has all blocks that are free now go back to the system.
fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it may be called at any time, by any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Whether so many bytes can be had without swapping. If not at once, blocks that were [kept](keep_freed_blocks) go back
/// first.
pub fn has_room_for(bytes: u64) -> bool {
    let has_room = || available().is_none_or(|available| bytes <= available);
    has_room() || {
        trim();
        has_room()
    }
}

/// Has the allocator hold so many free bytes in one piece, with all their pages, for allocations to come. Pieces of just the
/// right size would not do: what is allocated in between cuts them up. Worth something after [`keep_freed_blocks`] only.
///
/// Returns whether there was enough memory.
pub fn reserve(bytes: usize) -> bool {
    // Seen by nobody, the allocation would be optimized away.
    std::hint::black_box(Memory::tiled(bytes, &[])).is_some()
}

/// Bytes of memory that can still be had without swapping; `None` if the system does not say.
fn available() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    use super::*;

    /// Bytes of this process in memory.
    fn resident() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().strip_suffix("kB").unwrap().trim().parse::<u64>().unwrap() << 10
    }

    #[test]
    fn kept_blocks_are_room_for_what_does_not_fit_beside_them() {
        const COUNT: usize = 1 << 12;
        const SIZE: usize = 1 << 16;
        // What lies between them keeps blocks from going back when they are freed.
        let (blocks, between): (Vec<_>, Vec<_>) = (0..COUNT).map(|_| (vec![1_u8; SIZE], Box::new(1_u64))).unzip();
        drop(std::hint::black_box(blocks));
        let kept = (COUNT * SIZE) as u64;
        let before = resident();
        assert!(before > kept);
        assert!(has_room_for(1 << 20));
        // Whatever else goes on in this process is smaller.
        assert!(resident() + kept / 4 > before, "what fits takes nothing away");
        assert!(!has_room_for(u64::MAX));
        assert!(resident() + kept / 2 < before, "{before} bytes before, {} after", resident());
        drop(between);
    }
}
