//! Data whose elements of one channel of one sample are dense: a set is a list of runs.
//!
//! Sets are taken in blocks that stay in a cache, so that memory is read once: sums of all runs of a block, in the order of
//! memory, then what they say of each set, then the map of all its runs.

use std::ops::Range;

use super::gathered::SetKernel;
use super::spread::spread;
use super::stages::{Channels, Origin, Outcome, Stages, Summed};
use super::{Division, Job, Steps};
use crate::cpu::parallel;
use crate::simd::{
    self, Column, Element, Isa, Lanes, Real, Source, Task, fence, map_and_fetch, map_rows, sum, sum_rows,
};

/// Bytes of the inputs of a block whose runs follow one another: a part of the first-level cache.
const NEAR_BYTES: usize = 16 << 10;

/// Bytes of the inputs of a block whose runs lie far apart, for which longer runs are worth more: a part of the
/// second-level cache.
const FAR_BYTES: usize = 384 << 10;

/// Bytes of the inputs of a block up to which the next one is asked for as well: half of the second-level cache.
const AHEAD_BYTES: usize = 512 << 10;

/// Bytes of a run from which on it is written past the caches: shorter ones have too many parts of lines at their ends.
const STREAMED_RUN: usize = 1024;

/// Bytes of a run up to which it is not taken by lines, which takes longer to begin with.
const SHORT_RUN: usize = 512;

/// Vectors that are sampled for an origin.
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
        let Part { job, from, to, sets, mut record } = self;
        let shape = job.shape;
        let (groups, samples) = match shape.division {
            Division::Batch => (shape.channels, shape.batch),
            Division::Groups(groups) => (groups, 1),
        };
        let members = shape.members();
        let extents = Extents { samples, members, run: shape.spatial, elements: samples * members * shape.spatial };
        let is_dense = members == 1 || from.iter().all(|steps| steps.channel == shape.spatial);
        // Parts of a set, each one run, whose sums are taken apart.
        let parts = if O::BY_CHANNEL || !is_dense { members } else { 1 };
        let streams = job.streams && extents.run * size_of::<D>() >= STREAMED_RUN;
        let is_short = extents.run * size_of::<D>() <= SHORT_RUN;
        let share = 1.0 / extents.elements as f64;
        let bytes = extents.elements * N * size_of::<D>();
        let most = if samples > 1 { FAR_BYTES } else { NEAR_BYTES } / bytes;
        let most = most.clamp(1, sets.len());
        let mut origins = [const { Vec::new() }; 2];
        origins.iter_mut().for_each(|values| values.resize(most * members, D::Real::default()));
        let mut sums = [const { Vec::new() }; K];
        sums.iter_mut().for_each(|values| values.resize(most * parts, 0.0));
        let mut done = [const { Vec::new() }; K];
        done.iter_mut().for_each(|values| values.resize(if samples > BLOCK { most * parts } else { 0 }, 0.0));
        let mut constants = [const { Vec::new() }; P];
        constants.iter_mut().for_each(|values| values.resize(most * members, D::Real::default()));
        let mut is_ready = vec![true; most];
        let recorded = if O::RECORDS { members } else { 0 };
        let (mut sample, mut group) =
            if samples > 1 { (0, sets.start) } else { (sets.start / groups, sets.start % groups) };
        let mut first = sets.start;
        while first < sets.end {
            // Of one sample, if not of all.
            let count = most.min(sets.end - first).min(groups - group);
            let channel = |set: usize| (group + set) * members;
            // What is in a near cache is taken as it is first, and again if that will not do; or if a sample were half of it.
            let as_they_are = samples == 1 || extents.elements <= 2 * SAMPLE * D::Real::lanes::<S>();
            let from_rows = O::WAITS && is_short && members == 1 && !as_they_are;
            if from_rows {
                origins_of_rows(simd, job, from[N - 1], group, extents, &mut origins, &mut sums, count);
            }
            for set in if from_rows || K == 0 { 0..0 } else { 0..count } {
                let origin = if !O::WAITS {
                    job.kernel.origin(channel(set)).unwrap_or_default()
                } else if as_they_are {
                    Origin::default()
                } else {
                    origin(simd, job, from[N - 1], channel(set), extents)
                };
                origin.place(set * members..(set + 1) * members, &mut origins);
            }
            let block = Block { job, from, extents, first: (sample, channel(0)), parts };
            let (recorded_here, rest) = record.split_at_mut(count * recorded);
            record = rest;
            is_ready[..count].fill(true);
            // Sets whose sums are wanted; the first that is not judged yet; whether it was summed again.
            let (mut wanted, mut set, mut last) = (0..count, 0, false);
            'sums: while set < count {
                if K > 0 {
                    block.sum(simd, wanted.clone(), &origins, &mut sums, &mut done);
                }
                if members == 1 && wanted.len() == count && !last {
                    let (sums, origins) = (slices(&sums, 0..count), slices(&origins, 0..count));
                    let sets = Channels { sums, origins, share, first: group };
                    if job.kernel.finish_channels(sets, recorded_here, slices_mut(&mut constants, 0..count)) {
                        break;
                    }
                }
                while set < count {
                    let own = set * members..(set + 1) * members;
                    let recorded = &mut recorded_here[set * recorded..][..recorded];
                    let origin = Origin { shift: origins[0][own.start], scale: origins[1][own.start] };
                    let (sums, channels) =
                        (slices(&sums, set * parts..(set + 1) * parts), channel(set)..channel(set + 1));
                    let summed = Summed { parts: sums, origin, share, channels, last };
                    is_ready[set] = match job.kernel.finish(summed, recorded) {
                        Outcome::Ready(ready) => {
                            job.kernel.constants(&ready, channel(set), slices_mut(&mut constants, own))
                        }
                        Outcome::Again(origin) if !last => {
                            origin.place(own, &mut origins);
                            (wanted, last) = (set..set + 1, true);
                            continue 'sums;
                        }
                        Outcome::Again(_) | Outcome::Gather => false,
                    };
                    if !is_ready[set] {
                        job.gather(first + set..first + set + 1, recorded);
                    }
                    (set, last) = (set + 1, false);
                }
            }
            // While this block is written, the next is read: so many channels further on.
            let next = (O::WAITS
                && count * bytes <= AHEAD_BYTES
                && first + 2 * count <= sets.end
                && group + 2 * count <= groups)
                .then_some(count * members);
            // What was read last is still in a cache.
            for sample in (sample..sample + samples).rev() {
                for sets in ready(&is_ready[..count]) {
                    let own = sets.start * members..sets.end * members;
                    let values = slices(&constants, own.clone());
                    let first = channel(0) + own.start;
                    if is_short {
                        let at = sample * to.sample + first * to.channel;
                        let sink = job.output.rows.run(at, (own.len() - 1) * to.channel + extents.run);
                        let rows = rows(job, from, sample, first, own.len(), extents.run);
                        map_rows(simd, rows, (sink, to.channel), extents.run, values, |x, values| {
                            O::compute(x, values)
                        });
                        continue;
                    }
                    for i in 0..own.len() {
                        let sources = |channel| inputs(job, from, sample, channel, extents.run);
                        let mut of_channel = [D::Real::default(); P];
                        for (value, values) in of_channel.iter_mut().zip(&values) {
                            *value = values[i];
                        }
                        let constants = Lanes::splats(simd, of_channel);
                        let at = sample * to.sample + (first + i) * to.channel;
                        let sink = job.output.rows.run(at, extents.run).streaming(streams);
                        let next = next.map(|step| sources(first + i + step).map(|run| run.soon(job.is_from_memory)));
                        map_and_fetch(simd, sources(first + i), sink, |x| O::compute(x, constants), next);
                    }
                }
            }
            first += count;
            group += count;
            if group == groups {
                (sample, group) = (sample + 1, 0);
            }
        }
        if streams {
            fence();
        }
    }
}

/// Sets whose sums are taken together.
struct Block<'a, 'b, D: Element, O, const N: usize> {
    job: &'b Job<'a, D, O, N>,
    from: [Steps; N],
    extents: Extents,
    /// Sample and channel of the first set.
    first: (usize, usize),
    /// Sums of a set.
    parts: usize,
}

impl<D: Element, O, const N: usize> Block<'_, '_, D, O, N> {
    /// The sums of some sets of the block, about their origins; `done` is room.
    #[inline(always)]
    fn sum<S: Isa, const K: usize, const P: usize>(
        &self,
        simd: S,
        sets: Range<usize>,
        origins: &[Vec<D::Real>; 2],
        sums: &mut [Vec<f64>; K],
        done: &mut [Vec<f64>; K],
    ) where
        O: Stages<D::Real, N, K, P>,
    {
        let &Block { job, from, extents: Extents { samples, members, run, .. }, first: (sample, channel), parts } =
            self;
        let (own, of_channels) = (sets.start * parts..sets.end * parts, sets.start * members..sets.end * members);
        sums.iter_mut().for_each(|values| values[own.clone()].fill(0.0));
        done.iter_mut().for_each(|values| values.fill(0.0));
        // Short runs, a sum each, are taken together.
        let together = run * size_of::<D>() <= SHORT_RUN && parts == members;
        for more in 0..samples {
            if together {
                let rows = rows(job, from, sample + more, channel + of_channels.start, of_channels.len(), run);
                let origins = slices(origins, of_channels.clone());
                sum_rows(simd, rows, run, origins, slices_mut(sums, own.clone()), |x, origin, sums| {
                    O::add(x, origin, sums)
                });
            }
            for set in if together { 0..0 } else { sets.clone() } {
                let origin = Lanes::splats(simd, [origins[0][set * members], origins[1][set * members]]);
                for part in 0..parts {
                    let channel = channel + set * members + part;
                    let sources = inputs(job, from, sample + more, channel, members / parts * run);
                    let add: [f64; K] = sum(simd, sources, |x, sums| O::add(x, origin, sums));
                    for (sums, add) in sums.iter_mut().zip(add) {
                        sums[set * parts + part] += add;
                    }
                }
            }
            if samples > BLOCK && (more + 1) % BLOCK == 0 {
                for (done, sums) in done.iter_mut().zip(&mut *sums) {
                    done[own.clone()].iter_mut().zip(&sums[own.clone()]).for_each(|(done, sum)| *done += sum);
                    sums[own.clone()].fill(0.0);
                }
            }
        }
        for (done, sums) in done.iter().zip(sums) {
            let done = done.get(own.clone()).unwrap_or_default();
            sums[own.clone()].iter_mut().zip(done).for_each(|(sum, done)| *sum += done);
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

/// The runs of each input of `count` channels of one sample.
#[inline(always)]
fn rows<'a, D: Element, O, const N: usize>(
    job: &Job<'a, D, O, N>,
    steps: [Steps; N],
    sample: usize,
    channel: usize,
    count: usize,
    len: usize,
) -> [Column<'a, D>; N] {
    let at = |i: usize| {
        let Steps { sample: by_sample, channel: pitch, .. } = steps[i];
        let source = job.inputs[i].rows.run(sample * by_sample + channel * pitch, (count - 1) * pitch + len);
        Column { source, pitch }
    };
    let mut rows = [at(0); N];
    for (i, rows) in rows.iter_mut().enumerate() {
        *rows = at(i);
    }
    rows
}

/// Ranges of those that are.
fn ready(is_ready: &[bool]) -> impl Iterator<Item = Range<usize>> {
    let mut end = 0;
    is_ready.chunk_by(|one, other| one == other).filter_map(move |chunk| {
        end += chunk.len();
        chunk[0].then(|| end - chunk.len()..end)
    })
}

/// [`origin`] of `count` channels whose runs are short, from one on; `sums` is room, left as it comes.
#[inline(always)]
#[expect(clippy::too_many_arguments)]
fn origins_of_rows<S: Isa, D: Element, O, const N: usize, const K: usize, const P: usize>(
    simd: S,
    job: &Job<'_, D, O, N>,
    steps: Steps,
    channel: usize,
    extents: Extents,
    origins: &mut [Vec<D::Real>; 2],
    sums: &mut [Vec<f64>; K],
    count: usize,
) where
    O: Stages<D::Real, N, K, P>,
{
    let [shifts, scales] = origins.each_mut().map(|values| &mut values[..count]);
    let [totals, squares, ..] = &mut sums[..] else { return };
    let (totals, squares) = (&mut totals[..count], &mut squares[..count]);
    totals.fill(0.0);
    squares.fill(0.0);
    let x = &job.inputs[N - 1].rows;
    let column = |sample: usize| {
        let start = sample * steps.sample + channel * steps.channel;
        Column { source: x.run(start, (count - 1) * steps.channel + extents.run), pitch: steps.channel }
    };
    let firsts = column(0);
    for (i, shift) in shifts.iter_mut().enumerate() {
        *shift = Origin::near(firsts.source.get(i * firsts.pitch).to_f64(), 0.0, false).shift;
    }
    // As many samples as have enough elements.
    let enough = (SAMPLE * D::Real::lanes::<S>()).div_ceil(extents.run.max(1));
    let step = extents.samples / enough.clamp(1, extents.samples);
    let mut taken = 0;
    for sample in (0..extents.samples).step_by(step) {
        let (rows, constants) = ([column(sample)], [&*shifts, &*shifts]);
        taken += 1;
        if O::SCALES {
            let sums = [&mut *totals, &mut *squares];
            sum_rows(simd, rows, extents.run, constants, sums, |[x], [first, _], [total, squares]| {
                let d = x - first;
                [total + d, d.mul_add(d, squares)]
            });
        } else {
            let sums = [&mut *totals];
            sum_rows(simd, rows, extents.run, constants, sums, |[x], [first, _], [total]| [total + (x - first)]);
        }
    }
    let share = 1.0 / (taken * extents.run) as f64;
    for i in 0..count {
        let mean = totals[i] * share;
        let origin = Origin::near(shifts[i].to_f64() + mean, squares[i] * share - mean * mean, O::SCALES);
        [shifts[i], scales[i]] = [origin.shift, origin.scale];
    }
}

/// An origin near the mean of a channel of a batch, whose runs are longer than a vector: that of a sample of vectors. What it is
/// taken from are differences to the first element, so that a constant set is its own origin.
#[inline(always)]
fn origin<S: Isa, D: Element, O, const N: usize, const K: usize, const P: usize>(
    simd: S,
    job: &Job<'_, D, O, N>,
    steps: Steps,
    channel: usize,
    Extents { run, elements, .. }: Extents,
) -> Origin<D::Real>
where
    O: Stages<D::Real, N, K, P>,
{
    let scales = O::SCALES;
    let x = &job.inputs[N - 1].rows;
    let start = channel * steps.channel;
    let first = Origin::<D::Real>::near(x.run(start, 1).get(0).to_f64(), 0.0, false).shift;
    let shift = Lanes::splat(simd, first);
    let lanes = D::Real::lanes::<S>();
    let (mut total, mut squares) = (0.0, 0.0);
    let (mut sample, mut before) = (0, 0);
    for at in spread(SAMPLE, elements) {
        // Divisions take longer than sums: none as long as the run is the same.
        if at - before >= run {
            sample = at / run;
            before = sample * run;
        }
        let vector = x.run(start + sample * steps.sample + (at - before).min(run - lanes), lanes);
        let [more, square] = sum(simd, vector, |x, [sum, squares]| {
            let d = x - shift;
            [sum + d, if scales { d.mul_add(d, squares) } else { squares }]
        });
        (total, squares) = (total + more, squares + square);
    }
    let share = 1.0 / (SAMPLE * lanes) as f64;
    let mean = total * share;
    Origin::near(first.to_f64() + mean, squares * share - mean * mean, scales)
}

/// A part of each.
#[inline(always)]
fn slices<T, const N: usize>(from: &[Vec<T>; N], range: Range<usize>) -> [&[T]; N] {
    let mut parts = [&[][..]; N];
    for (part, from) in parts.iter_mut().zip(from) {
        *part = &from[range.clone()];
    }
    parts
}

/// A part of each.
#[inline(always)]
fn slices_mut<T, const N: usize>(from: &mut [Vec<T>; N], range: Range<usize>) -> [&mut [T]; N] {
    from.each_mut().map(|from| &mut from[range.clone()])
}
