//! What the memory system gives: the loops that kernels are measured against, made of the same stages and run on the
//! same threads.

use std::hint::black_box;
use std::ops::Range;

use crate::cpu::parallel::{self, Parts};
use crate::simd::{self, InstructionSet, Isa, Sink, Source, Splat, Task, fence};

/// How memory is written. Which is fastest depends on the machine and on how much it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stores {
    /// As the standard library does it.
    Library,
    /// One vector after the other, as kernels do it.
    Vector,
    /// Past the caches.
    Streaming,
}

impl Stores {
    /// All of them.
    pub const ALL: [Stores; 3] = [Stores::Library, Stores::Vector, Stores::Streaming];
}

/// Elements that the threads' shares are multiples of: a cache line.
const LINE: usize = 16;

/// Reads all elements on up to `threads` threads, `passes` times over; answers the sum of one pass, so that they must be
/// read.
pub fn read(from: &[f32], threads: usize, passes: usize) -> f64 {
    let shares = shares(from.len(), threads);
    let mut sums = vec![0.0; shares.len()];
    let parts = shares.into_iter().zip(&mut sums);
    run(parts.map(|(share, sum)| Part { access: Access::Read(&from[share], sum), passes }).collect());
    sums.iter().sum()
}

/// Writes `value` to all elements on up to `threads` threads, `passes` times over.
pub fn write(mut to: &mut [f32], value: f32, threads: usize, passes: usize, stores: Stores) {
    let parts = shares(to.len(), threads).into_iter().filter_map(|share| {
        let to = to.split_off_mut(..share.len())?;
        Some(Part { access: Access::Write { value, to, stores }, passes })
    });
    run(parts.collect());
}

/// Copies all elements on up to `threads` threads, `passes` times over.
///
/// # Panics
/// If the slices differ in length.
pub fn copy(from: &[f32], mut to: &mut [f32], threads: usize, passes: usize, stores: Stores) {
    assert_eq!(from.len(), to.len(), "slices of different lengths");
    let parts = shares(to.len(), threads).into_iter().filter_map(|share| {
        let to = to.split_off_mut(..share.len())?;
        Some(Part { access: Access::Copy { from: &from[share], to, stores }, passes })
    });
    run(parts.collect());
}

/// What each thread does.
struct Part<'a> {
    access: Access<'a>,
    passes: usize,
}

enum Access<'a> {
    Read(&'a [f32], &'a mut f64),
    Write { value: f32, to: &'a mut [f32], stores: Stores },
    Copy { from: &'a [f32], to: &'a mut [f32], stores: Stores },
}

fn shares(len: usize, threads: usize) -> Parts<Range<usize>> {
    let lines = parallel::divide(threads, len.div_ceil(LINE), LINE);
    lines.into_iter().map(|share| share.start * LINE..len.min(share.end * LINE)).collect()
}

fn run(parts: Parts<Part<'_>>) {
    let set = InstructionSet::current();
    parallel::each(parts, |part| simd::run(set, part));
}

impl Task for Part<'_> {
    #[inline(always)]
    fn run<S: Isa>(mut self, simd: S) {
        for _ in 0..self.passes {
            // The compiler must not know that every pass does the same.
            match black_box(&mut self.access) {
                Access::Read(from, total) => [**total] = simd::sum(simd, Source::from(*from), |x, [sum]| [sum + x]),
                Access::Write { value, to, stores: Stores::Library } => to.fill(*value),
                Access::Copy { from, to, stores: Stores::Library } => to.copy_from_slice(from),
                Access::Write { value, to, stores } => {
                    let to = Sink::from(&mut **to).streaming(*stores == Stores::Streaming);
                    simd::map(simd, Splat(*value), to, |x| x);
                }
                Access::Copy { from, to, stores } => {
                    let to = Sink::from(&mut **to).streaming(*stores == Stores::Streaming);
                    simd::map(simd, Source::from(*from), to, |x| x);
                }
            }
        }
        fence();
    }
}
