//! Data whose elements of one channel of one sample are dense: a set is a list of runs.
//!
//! Sets are taken in blocks that stay in a cache, so that memory is read once: sums of all runs of a block, in the order of
//! memory, then what they say of each set, then the map of all its runs.

use std::ops::Range;

use super::gathered::SetKernel;
use super::stages::{Origin, Outcome, SET, Stages, Summed};
use super::{Division, Job, Steps};
use crate::cpu::parallel;
use crate::simd::{self, Element, Isa, Lanes, Real, Source, Task, fence, map, map_short, sum};

/// Bytes of the inputs of a block whose runs follow one another: a part of the first-level cache.
const NEAR_BYTES: usize = 16 << 10;

/// Bytes of the inputs of a block whose runs lie far apart, for which longer runs are worth more: a part of the
/// second-level cache.
const FAR_BYTES: usize = 384 << 10;

/// Bytes of the inputs of a block up to which the next one is asked for as well: half of the second-level cache.
const AHEAD_BYTES: usize = 512 << 10;

/// Up to this many elements of a set, their mean is the origin, else that of a sample: for few, another pass costs less
/// than a sample that is good enough.
const SMALL: usize = 1 << 14;

/// Bytes of a run from which on it is written past the caches: shorter ones have too many parts of lines at their ends.
const STREAMED_RUN: usize = 1024;

/// Bytes of a run up to which it is not taken by lines, which takes longer to begin with.
const SHORT_RUN: usize = 512;

/// Elements that are sampled.
const SAMPLE: usize = 32;

/// Sums that are added up in `f64` one after the other, before those sums are.
const BLOCK: usize = 64;

/// Does all sets.
pub(super) fn run<D, O, const N: usize, const K: usize, const P: usize>(
    job: &Job<'_, D, O, N>,
    from: [Steps; N],
    to: Steps,
    record: &mut [[f64; 2]],
) where
    D: Element,
    O: SetKernel<D, N> + Stages<D::Real, N, K, P>,
{
    let [count, members, size] = job.shape.extents();
    let recorded = if O::RECORDS { members } else { 0 };
    let mut rest = record;
    let mut parts = parallel::Parts::new();
    for sets in parallel::divide(job.shape.threads, count, members * size) {
        let (record, after) = rest.split_at_mut(sets.len() * recorded);
        rest = after;
        parts.push(Part { job, from, to, sets, record });
    }
    parallel::each(parts, |part| simd::run(job.instructions, part));
}

/// The sets of one thread.
struct Part<'a, D: Element, O, const N: usize, const K: usize, const P: usize> {
    job: &'a Job<'a, D, O, N>,
    from: [Steps; N],
    to: Steps,
    sets: Range<usize>,
    record: &'a mut [[f64; 2]],
}

/// One set of a block.
#[derive(Clone, Copy, Default)]
struct Set<R> {
    /// The sample, or the first of all.
    sample: usize,
    /// The first channel.
    channel: usize,
    origin: Origin<R>,
    /// Whether the constants of its map are known.
    ready: bool,
}

/// How sets are made of runs.
#[derive(Clone, Copy)]
struct Extents {
    /// Samples in a set.
    samples: usize,
    /// Channels of a set.
    members: usize,
    /// Elements of a run.
    run: usize,
    /// Elements of a set.
    elements: usize,
}

impl<D, O, const N: usize, const K: usize, const P: usize> Task for Part<'_, D, O, N, K, P>
where
    D: Element,
    O: SetKernel<D, N> + Stages<D::Real, N, K, P>,
{
    #[inline(always)]
    fn run<S: Isa>(self, simd: S) {
        let Part { job, from, to, sets, record } = self;
        let shape = job.shape;
        let (groups, samples) = match shape.division {
            Division::Batch => (shape.channels, shape.batch),
            Division::Groups(groups) => (groups, 1),
        };
        let members = shape.members();
        let extents = Extents { samples, members, run: shape.spatial, elements: samples * members * shape.spatial };
        let is_dense = members == 1 || from.iter().all(|steps| steps.channel == shape.spatial);
        // Sums of parts of a set, each one run.
        let (parts, part) =
            if O::BY_CHANNEL || !is_dense { (members, extents.run) } else { (1, members * extents.run) };
        let streams = job.streams && extents.run * size_of::<D>() >= STREAMED_RUN;
        let share = 1.0 / extents.elements as f64;
        let bytes = extents.elements * N * size_of::<D>();
        let block = if samples > 1 { FAR_BYTES } else { NEAR_BYTES } / bytes;
        let block = block.clamp(1, sets.len());
        let mut room = vec![Set::default(); block];
        // Of the channels of a block, or of all where they are known.
        let known = if O::WAITS { block * members } else { shape.channels };
        let mut constants: [_; P] = std::array::from_fn(|_| vec![D::Real::default(); known]);
        if !O::WAITS {
            job.kernel.constants(&[0.0; SET], 0, &mut constants, 0..known);
        }
        let is_short = !streams && extents.run * size_of::<D>() <= SHORT_RUN;
        let mut sums = vec![[0.0; K]; block * parts];
        let mut done = vec![[0.0; K]; if samples > BLOCK { block * parts } else { 0 }];
        let recorded = if O::RECORDS { members } else { 0 };
        let mut record = record;
        let (mut sample, mut group) =
            if samples > 1 { (0, sets.start) } else { (sets.start / groups, sets.start % groups) };
        let mut first = sets.start;
        while first < sets.end {
            let count = block.min(sets.end - first);
            let block = &mut room[..count];
            for set in block.iter_mut() {
                let channel = group * members;
                let origin = if O::WAITS {
                    origin(simd, job, from[N - 1], (sample, channel), extents, is_dense)
                } else {
                    job.kernel.origin(channel).unwrap_or_default()
                };
                *set = Set { sample, channel, origin, ready: false };
                group += 1;
                if group == groups {
                    (sample, group) = (sample + 1, 0);
                }
            }
            sums.fill([0.0; K]);
            done.fill([0.0; K]);
            for sample in 0..if K > 0 { samples } else { 0 } {
                for (set, sums) in block.iter().zip(sums.chunks_exact_mut(parts)) {
                    let origin = Lanes::splats(simd, [set.origin.shift, set.origin.scale]);
                    for (member, sums) in sums.iter_mut().enumerate() {
                        let sources = inputs(job, from, set.sample + sample, set.channel + member, part);
                        let add: [f64; K] = sum(simd, sources, |x, sums| O::add(x, origin, sums));
                        sums.iter_mut().zip(add).for_each(|(sum, add)| *sum += add);
                    }
                }
                if (sample + 1) % BLOCK == 0 {
                    for (done, sums) in done.iter_mut().zip(&mut sums) {
                        done.iter_mut().zip(sums.iter()).for_each(|(done, sum)| *done += sum);
                        *sums = [0.0; K];
                    }
                }
            }
            for (done, sums) in done.iter().zip(&mut sums) {
                sums.iter_mut().zip(done).for_each(|(sum, done)| *sum += done);
            }
            for (i, set) in block.iter_mut().enumerate() {
                let (recorded, rest) = record.split_at_mut(recorded);
                record = rest;
                let channels = set.channel..set.channel + members;
                let parts = &sums[i * parts..][..parts];
                let summed = Summed { parts, origin: set.origin, share, channels, last: false };
                match job.kernel.finish(summed, recorded) {
                    Outcome::Ready(ready) => {
                        let own = i * members..(i + 1) * members;
                        if O::WAITS {
                            job.kernel.constants(&ready, set.channel, &mut constants, own);
                        }
                        set.ready = true;
                    }
                    // Rare, and the set is in a cache: not worth code of its own.
                    Outcome::Again(_) | Outcome::Gather => job.gather(first + i..first + i + 1, recorded),
                }
            }
            // While this block is written, the next is read.
            let more = O::WAITS && first + count < sets.end && count * bytes <= AHEAD_BYTES;
            let next = if more { count * members * shape.spatial } else { 0 };
            for sample in 0..samples {
                for (set, own) in block.iter().zip((0..).step_by(members)) {
                    if !set.ready {
                        continue;
                    }
                    for member in 0..members {
                        let channel = set.channel + member;
                        let mut values = [D::Real::default(); P];
                        for (value, constants) in values.iter_mut().zip(&constants) {
                            *value = constants[if O::WAITS { own + member } else { channel }];
                        }
                        let constants = Lanes::splats(simd, values);
                        let sources = inputs(job, from, set.sample + sample, channel, extents.run);
                        let at = (set.sample + sample) * to.sample + channel * to.channel;
                        let sink = job.output.rows.run(at, extents.run).streaming(streams);
                        if is_short {
                            map_short(simd, sources, sink, |x| O::compute(x, constants));
                            continue;
                        }
                        let mut ahead = [sources[0].ahead(next); N];
                        for (ahead, source) in ahead.iter_mut().zip(sources) {
                            *ahead = source.ahead(next);
                        }
                        map(simd, ahead, sink, |x| O::compute(x, constants));
                    }
                }
            }
            first += count;
        }
        if streams {
            fence();
        }
    }
}

/// A run of each input.
#[inline(always)]
fn inputs<'a, D: Element, O, const N: usize>(
    job: &Job<'a, D, O, N>,
    steps: [Steps; N],
    sample: usize,
    channel: usize,
    len: usize,
) -> [Source<'a, D>; N] {
    let at = |i: usize| job.inputs[i].rows.run(sample * steps[i].sample + channel * steps[i].channel, len);
    let mut sources = [at(0); N];
    // A loop: what `from_fn` calls may not be inlined.
    for (i, source) in sources.iter_mut().enumerate() {
        *source = at(i);
    }
    sources
}

/// An origin near the mean of a set: of all elements or of a sample. What it is taken from are differences to the first
/// element, so that a constant set is its own origin.
#[inline(always)]
fn origin<S: Isa, D: Element, O, const N: usize, const K: usize, const P: usize>(
    simd: S,
    job: &Job<'_, D, O, N>,
    steps: Steps,
    (sample, channel): (usize, usize),
    extents: Extents,
    is_dense: bool,
) -> Origin<D::Real>
where
    O: Stages<D::Real, N, K, P>,
{
    let scales = O::SCALES;
    let x = &job.inputs[N - 1].rows;
    let start = sample * steps.sample + channel * steps.channel;
    let first = Origin::<D::Real>::near(x.run(start, 1).get(0).to_f64(), 0.0, false).shift;
    let Extents { samples, members, run, elements } = extents;
    let (members, run) = if is_dense { (1, members * run) } else { (members, run) };
    let step = if samples > 1 { steps.sample } else { steps.channel };
    let runs = samples * members;
    let (mut total, mut squares) = (0.0, 0.0);
    let count = if elements <= SMALL {
        let shift = Lanes::splat(simd, first);
        for i in 0..runs {
            let [sum, square] = sum(simd, x.run(start + i * step, run), |x, [sum, squares]| {
                let d = x - shift;
                [sum + d, if scales { d.mul_add(d, squares) } else { squares }]
            });
            total += sum;
            squares += square;
        }
        elements
    } else {
        let (by_run, by_element) = (elements / SAMPLE / run, elements / SAMPLE % run);
        let (mut i, mut place) = (0, 0);
        for _ in 0..SAMPLE {
            let d = x.run(start + i * step + place, 1).get(0).to_f64() - first.to_f64();
            total += d;
            squares += d * d;
            (i, place) = (i + by_run, place + by_element);
            if place >= run {
                (i, place) = (i + 1, place - run);
            }
        }
        SAMPLE
    };
    let mean = total / count as f64;
    Origin::near(first.to_f64() + mean, squares / count as f64 - mean * mean, scales)
}
