//! What the memory system reaches at most: bytes per second by working set, kind of access and number of threads.

use std::time::{Duration, Instant};

use isonorm_reports::record::{Access, Ceiling};

use super::bandwidth::{self, Stores};
use super::caches::Caches;
use super::kernel::no_room;
use super::memory::Memory;
use super::statistics::{quantile, quartiles};

/// Working sets: powers of two between these, both included.
const SETS: [u64; 2] = [8 << 10, 256 << 20];
/// A sample is so long at least.
const SAMPLE: Duration = Duration::from_micros(100);
/// Samples of one kind of access.
const SAMPLES: usize = 15;

/// The working sets that are measured, in bytes.
pub fn working_sets() -> Vec<u64> {
    (SETS[0].ilog2()..=SETS[1].ilog2()).map(|power| 1 << power).collect()
}

/// Measures the ceilings of all working sets with these numbers of threads; `each` is told of every one.
///
/// # Errors
/// If there is not enough memory.
pub fn measure(threads: &[usize], mut each: impl FnMut(Ceiling)) -> Result<(), String> {
    let caches = Caches::here();
    let memory = Memory::tiled(SETS[1] as usize, &[1]).ok_or_else(no_room)?;
    for &threads in threads {
        for working_set in working_sets() {
            for access in [Access::Read, Access::Write, Access::Copy] {
                let kinds: &[Stores] = match access {
                    Access::Read => &[Stores::Ordinary],
                    Access::Write | Access::Copy => &[Stores::Ordinary, Stores::Streaming],
                };
                let speeds =
                    kinds.iter().map(|&stores| (stores, samples(access, &memory, working_set, stores, threads)));
                let faster = |a: &(Stores, Vec<f64>), b: &(Stores, Vec<f64>)| {
                    quantile(&a.1, 0.5).total_cmp(&quantile(&b.1, 0.5))
                };
                let Some((stores, speeds)) = speeds.max_by(faster) else { continue };
                each(Ceiling {
                    access,
                    working_set,
                    level: caches.level(working_set, threads as u32),
                    threads: threads as u32,
                    streaming: stores == Stores::Streaming,
                    bytes_per_second: quartiles(&speeds),
                });
            }
        }
    }
    Ok(())
}

/// Bytes per second of some samples.
fn samples(access: Access, memory: &Memory, working_set: u64, stores: Stores, threads: usize) -> Vec<f64> {
    let bytes = working_set as usize;
    let once = || {
        let start = memory.start();
        // SAFETY: the memory has at least `bytes` initialised bytes, and nobody else uses it.
        unsafe {
            match access {
                Access::Read => drop(std::hint::black_box(bandwidth::read(start, bytes, threads))),
                Access::Write => bandwidth::write(start, bytes, stores, threads),
                Access::Copy => bandwidth::copy(start, start.add(bytes / 2), bytes / 2, stores, threads),
            }
        }
    };
    let timed = |repetitions: usize| {
        let started = Instant::now();
        (0..repetitions).for_each(|_| once());
        started.elapsed()
    };
    once();
    let mut repetitions = 1;
    while timed(repetitions) < SAMPLE {
        repetitions *= 2;
    }
    (0..SAMPLES).map(|_| (bytes * repetitions) as f64 / timed(repetitions).as_secs_f64()).collect()
}
