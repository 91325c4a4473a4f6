//! Placeholder until the kernels crate has `bandwidth`.

/// How bytes are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stores {
    /// Through the caches.
    Ordinary,
    /// Past the caches.
    Streaming,
}

/// Copies.
///
/// # Safety
/// Valid for `bytes`, apart.
pub unsafe fn copy(from: *const u8, to: *mut u8, bytes: usize, _: Stores, threads: usize) {
    let part = bytes / threads.max(1);
    let (from, to) = (from as usize, to as usize);
    let one = move |start: usize, length: usize| {
        // SAFETY: as the caller says.
        unsafe { std::ptr::copy_nonoverlapping((from + start) as *const u8, (to + start) as *mut u8, length) }
    };
    std::thread::scope(|scope| {
        for thread in 1..threads {
            let end = if thread + 1 == threads { bytes } else { part * (thread + 1) };
            scope.spawn(move || one(part * thread, end - part * thread));
        }
        one(0, if threads == 1 { bytes } else { part });
    });
}

/// Reads.
///
/// # Safety
/// Valid for `bytes`.
pub unsafe fn read(from: *const u8, bytes: usize, _threads: usize) -> u64 {
    // SAFETY: as the caller says.
    let words = unsafe { std::slice::from_raw_parts(from.cast::<u64>(), bytes / 8) };
    words.iter().fold(0, |sum, word| sum ^ word)
}

/// Writes.
///
/// # Safety
/// Valid for `bytes`.
pub unsafe fn write(to: *mut u8, bytes: usize, _: Stores, _threads: usize) {
    // SAFETY: as the caller says.
    unsafe { to.write_bytes(1, bytes) };
}
