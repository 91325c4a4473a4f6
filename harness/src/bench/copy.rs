//! A copy as a contender: what moving as many bytes costs at least.

use std::time::Instant;

use isonorm_kernels::bandwidth::{self, Stores};

use super::Timed;
use super::kernel::no_room;
use super::memory::Memory;

/// Copies from one array to another, so that as many bytes are read plus written as a kernel must move at least.
pub struct Copy {
    from: Memory,
    to: Memory,
    stores: Stores,
    threads: usize,
}

impl Copy {
    /// A copy that moves `bytes`, half of them in and half of them out, with the kind of stores that is fastest here.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn new(bytes: u64, threads: usize) -> Result<Copy, String> {
        let half = (bytes as usize / 2).next_multiple_of(size_of::<f32>());
        let (Some(from), Some(to)) = (Memory::tiled(half, &[1]), Memory::tiled(half, &[])) else {
            return Err(no_room());
        };
        let mut copy = Copy { from, to, stores: Stores::Library, threads };
        let repetitions = (1 << 18) / half.max(1) + 1;
        // Alternating, and the best of each: what disturbs a copy only makes it slower.
        let mut best = Stores::ALL.map(|stores| (f64::INFINITY, stores));
        for _ in 0..5 {
            for (seconds, stores) in &mut best {
                copy.stores = *stores;
                copy.once();
                let started = Instant::now();
                (0..repetitions).for_each(|_| copy.once());
                *seconds = seconds.min(started.elapsed().as_secs_f64());
            }
        }
        let fastest = best.into_iter().min_by(|one, other| one.0.total_cmp(&other.0));
        copy.stores = fastest.map_or(Stores::Library, |(_, stores)| stores);
        Ok(copy)
    }

    fn once(&mut self) {
        // SAFETY: both were tiled.
        let (from, to) = unsafe { (self.from.floats(), self.to.floats_mut()) };
        bandwidth::copy(from, to, self.threads, 1, self.stores);
    }
}

impl Timed for Copy {
    fn call(&mut self) -> Result<(), String> {
        self.once();
        Ok(())
    }
}
