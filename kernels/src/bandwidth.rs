//! What the memory system gives: the loops that kernels are measured against, made of the same stages and run on the
//! same threads.

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

/// Reads all elements on up to `threads` threads; answers their sum, so that they must be read.
pub fn read(from: &[f32], threads: usize) -> f64 {
    let shares = shares(from.len(), threads);
    let mut sums = vec![0.0; shares.len()];
    let parts = shares.into_iter().zip(&mut sums).map(|(share, sum)| Access::Read(&from[share], sum));
    run(parts.collect());
    sums.iter().sum()
}

/// Writes `value` to all elements on up to `threads` threads.
pub fn write(mut to: &mut [f32], value: f32, threads: usize, stores: Stores) {
    let parts = shares(to.len(), threads).into_iter().filter_map(|share| {
        let to = to.split_off_mut(..share.len())?;
        Some(Access::Write { value, to, stores })
    });
    run(parts.collect());
}

/// Copies all elements on up to `threads` threads.
///
/// # Panics
/// If the slices differ in length.
pub fn copy(from: &[f32], mut to: &mut [f32], threads: usize, stores: Stores) {
    assert_eq!(from.len(), to.len(), "slices of different lengths");
    let parts = shares(to.len(), threads).into_iter().filter_map(|share| {
        let to = to.split_off_mut(..share.len())?;
        Some(Access::Copy { from: &from[share], to, stores })
    });
    run(parts.collect());
}

/// What each thread does.
enum Access<'a> {
    Read(&'a [f32], &'a mut f64),
    Write { value: f32, to: &'a mut [f32], stores: Stores },
    Copy { from: &'a [f32], to: &'a mut [f32], stores: Stores },
}

fn shares(len: usize, threads: usize) -> Parts<Range<usize>> {
    let lines = parallel::divide(threads, len.div_ceil(LINE), LINE);
    lines.into_iter().map(|share| share.start * LINE..len.min(share.end * LINE)).collect()
}

fn run(parts: Parts<Access<'_>>) {
    let set = InstructionSet::current();
    parallel::each(parts, |part| simd::run(set, part));
}

impl Task for Access<'_> {
    #[inline(always)]
    fn run<S: Isa>(self, simd: S) {
        match self {
            Access::Read(from, total) => [*total] = simd::sum(simd, Source::from(from), |x, [sum]| [sum + x]),
            Access::Write { value, to, stores: Stores::Library } => to.fill(value),
            Access::Copy { from, to, stores: Stores::Library } => to.copy_from_slice(from),
            Access::Write { value, to, stores } => {
                simd::map(simd, Splat(value), Sink::from(to).streaming(stores == Stores::Streaming), |x| x);
            }
            Access::Copy { from, to, stores } => {
                simd::map(simd, Source::from(from), Sink::from(to).streaming(stores == Stores::Streaming), |x| x);
            }
        }
        fence();
    }
}
