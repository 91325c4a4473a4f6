//! What the memory system reaches at most: bytes per second by working set, kind of access and number of threads.

use std::time::{Duration, Instant};

use isonorm_kernels::bandwidth::{self, Stores};
use isonorm_reports::record::{Access, Ceiling};

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
    let mut memory = Memory::tiled(SETS[1] as usize, &[1]).ok_or_else(no_room)?;
    // SAFETY: it was tiled.
    let memory = unsafe { memory.floats_mut() };
    for &threads in threads {
        for working_set in working_sets() {
            let floats = &mut memory[..working_set as usize / size_of::<f32>()];
            for access in [Access::Read, Access::Write, Access::Copy] {
                let kinds = if access == Access::Read { &Stores::ALL[..1] } else { &Stores::ALL };
                let speeds = kinds.iter().map(|&stores| (stores, samples(access, floats, stores, threads)));
                let fastest = speeds.max_by(|(_, one), (_, other)| quantile(one, 0.5).total_cmp(&quantile(other, 0.5)));
                let Some((stores, speeds)) = fastest else { continue };
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
fn samples(access: Access, memory: &mut [f32], stores: Stores, threads: usize) -> Vec<f64> {
    let bytes = size_of_val(memory);
    let mut timed = |repetitions: usize| {
        let started = Instant::now();
        match access {
            Access::Read => {
                std::hint::black_box(bandwidth::read(memory, threads, repetitions));
            }
            Access::Write => bandwidth::write(memory, 1.0, threads, repetitions, stores),
            Access::Copy => {
                let (from, to) = memory.split_at_mut(memory.len() / 2);
                bandwidth::copy(from, to, threads, repetitions, stores);
            }
        }
        started.elapsed()
    };
    timed(1);
    let mut repetitions = 1;
    while timed(repetitions) < SAMPLE {
        repetitions *= 2;
    }
    (0..SAMPLES).map(|_| (bytes * repetitions) as f64 / timed(repetitions).as_secs_f64()).collect()
}
