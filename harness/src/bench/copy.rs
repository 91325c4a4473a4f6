//! A copy as a contender: what moving as many bytes costs at least.

use std::time::Instant;

use super::Timed;
use super::bandwidth::{self, Stores};
use super::kernel::no_room;
use super::memory::Memory;

/// Copies from one array to another, so that as many bytes are read plus written as a kernel must move at least.
pub struct Copy {
    from: Memory,
    to: Memory,
    bytes: usize,
    stores: Stores,
    threads: usize,
}

impl Copy {
    /// A copy that moves `bytes`, half of them in and half of them out, with the kind of stores that is faster here.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn new(bytes: u64, threads: usize) -> Result<Copy, String> {
        let half = (bytes as usize / 2).max(1);
        let (Some(from), Some(to)) = (Memory::tiled(half, &[1]), Memory::tiled(half, &[])) else {
            return Err(no_room());
        };
        let mut copy = Copy { from, to, bytes: half, stores: Stores::Ordinary, threads };
        // Alternating, and the best of each: what disturbs a copy only makes it slower.
        let mut best = [f64::INFINITY; 2];
        for _ in 0..5 {
            for (stores, best) in [Stores::Ordinary, Stores::Streaming].into_iter().zip(&mut best) {
                copy.stores = stores;
                let repetitions = (1 << 18) / half + 1;
                copy.once();
                let started = Instant::now();
                (0..repetitions).for_each(|_| copy.once());
                *best = best.min(started.elapsed().as_secs_f64() / repetitions as f64);
            }
        }
        copy.stores = if best[0] <= best[1] { Stores::Ordinary } else { Stores::Streaming };
        Ok(copy)
    }

    fn once(&mut self) {
        // SAFETY: both have this many initialised bytes and are apart.
        unsafe { bandwidth::copy(self.from.start(), self.to.start(), self.bytes, self.stores, self.threads) };
    }
}

impl Timed for Copy {
    fn call(&mut self) -> Result<(), String> {
        self.once();
        Ok(())
    }
}
