//! Data whose channels of one place are dense (channels-last): a place is a row of all channels.
//!
//! A *unit* is the places that share statistics: those of a sample, or of the whole batch. Its sums are taken per
//! column, over segments whose number depends on the shape alone, so that the number of threads changes no bit. Short
//! rows are taken several at a time, as one row with more columns: a few for sums, which stay in registers then; many for
//! the map, which begins anew with every row.

use std::ops::Range;

use super::gathered::SetKernel;
use super::spread::spread;
use super::stages::{Channels, Origin, Outcome, SET, Stages, Summed};
use super::{Division, Job, Steps};
use crate::cpu::parallel;
use crate::simd::{
    self, CACHE_LINE, Column, Element, Isa, Real, STRIP, Sink, Source, Task, fence, map, map_and_fetch, sum_columns,
};

/// Rows that are added up in the working precision.
const BLOCK: usize = 64;

/// Bytes of the rows that are added up before they are mapped, if the map need not wait: a part of the first-level cache;
/// and such rows at least.
const NEAR_BYTES: usize = 16 << 10;
const NEAR_ROWS: usize = 8;

/// The most segments of a unit.
const SEGMENTS: usize = 16;

/// Columns of the map that are enough, if there are rows enough: a row and its constants in the first-level cache.
const COLUMNS: usize = 1024;

/// Rows of the map at least, to be worth repeating its constants.
const MAP_ROWS: usize = 16;

/// Elements of a unit that is worth dividing: threads must meet after the sums, and pass on what they know.
const DIVIDED: usize = 1 << 16;

/// Elements of a set that are sampled for an origin, in at least [`SAMPLED_ROWS`].
const SAMPLE: usize = 32;

/// Rows that are sampled at least.
const SAMPLED_ROWS: usize = 8;

/// How many times more rows there must be for a sample to be worth taking.
const FEW: usize = 8;

/// A call's data as rows.
pub(super) struct Rows<'a, D: Element, O, const N: usize> {
    job: &'a Job<'a, D, O, N>,
    from: [Lying; N],
    to: Lying,
    units: usize,
    /// Places of a unit.
    places: usize,
    /// Places that make a row for sums.
    narrow: usize,
    /// Places that make a row for the map.
    wide: usize,
    /// Channels of a set.
    members: usize,
}

/// Elements from a unit to the next, and from a place to the next.
#[derive(Clone, Copy, Default)]
struct Lying {
    unit: usize,
    place: usize,
}

/// What a thread needs for a unit.
struct Room<R, const P: usize> {
    /// Shift and scale, of a row for sums.
    origins: [Vec<R>; 2],
    /// Of a row for the map.
    constants: [Vec<R>; P],
    /// Per segment, then per sum, then per channel.
    totals: Vec<f64>,
}

impl<'a, D: Element, O, const N: usize> Rows<'a, D, O, N> {
    /// `None` if channels are not dense.
    pub(super) fn new<const K: usize, const P: usize>(
        job: &'a Job<'a, D, O, N>,
        from: [Steps; N],
        to: Steps,
    ) -> Option<Self>
    where
        O: Stages<D::Real, N, K, P>,
    {
        let (batch, channels, space) = (job.shape.batch, job.shape.channels, job.shape.spatial);
        let all = |test: &dyn Fn(&Steps) -> bool| from.iter().chain([&to]).all(test);
        if !all(&|steps| steps.channel == 1) {
            return None;
        }
        let joined = space == 1 || all(&|steps| steps.sample == space * steps.place);
        let one = |steps: Steps| Lying { unit: 0, place: if space == 1 { steps.sample } else { steps.place } };
        let each = |steps: Steps| Lying { unit: steps.sample, place: steps.place };
        let is_one = match job.shape.division {
            Division::Batch if !joined => return None,
            Division::Batch => true,
            // What does not depend on the sums of a sample need not keep samples apart.
            Division::Groups(_) => joined && !O::WAITS,
        };
        let (units, places) = if is_one { (1, batch * space) } else { (batch, space) };
        let lying = |steps| if is_one { one(steps) } else { each(steps) };
        let (mut narrow, mut wide) = (1, 1);
        if all(&|steps| lying(*steps).place == channels) {
            // Whole cache lines have no tails.
            let line = CACHE_LINE / size_of::<D>();
            let lines = |least: usize| {
                (least..least + line).find(|fold| fold * channels % line == 0).unwrap_or(least).min(places)
            };
            narrow = lines((STRIP * CACHE_LINE / size_of::<D::Real>()).div_ceil(channels));
            wide = lines((COLUMNS / channels).min(places / MAP_ROWS).max(1));
        }
        let members = job.shape.members();
        Some(Rows { job, from: from.map(lying), to: lying(to), units, places, narrow, wide, members })
    }

    /// Rows for sums, the last of which may be shorter.
    fn rows(&self) -> usize {
        self.places.div_ceil(self.narrow)
    }

    /// Rows of a segment.
    fn segment(&self) -> usize {
        self.rows().div_ceil(SEGMENTS * BLOCK) * BLOCK
    }

    fn segments(&self) -> usize {
        self.rows().div_ceil(self.segment())
    }

    /// Places from a given one on, in each input: from the first element to the last.
    #[inline(always)]
    fn inputs(&self, unit: usize, place: usize, places: usize) -> [Source<'a, D>; N] {
        let at = |i: usize| {
            let Lying { unit: by_unit, place: by_place } = self.from[i];
            let len = (places - 1) * by_place + self.job.shape.channels;
            self.job.inputs[i].rows.run(unit * by_unit + place * by_place, len)
        };
        let mut sources = [at(0); N];
        // A loop: what `from_fn` calls may not be inlined.
        for (i, source) in sources.iter_mut().enumerate() {
            *source = at(i);
        }
        sources
    }

    #[inline(always)]
    fn output(&self, unit: usize, place: usize, places: usize) -> Sink<'a, D> {
        self.job
            .output
            .rows
            .run(unit * self.to.unit + place * self.to.place, places * self.job.shape.channels)
            .streaming(self.job.streams)
    }

    /// Does all units; see [`run`](super::run).
    pub(super) fn run<const K: usize, const P: usize>(&self, record: &mut Vec<[f64; 2]>)
    where
        O: SetKernel<D, N> + Stages<D::Real, N, K, P>,
    {
        let (threads, channels) = (self.job.shape.threads, self.job.shape.channels);
        let recorded = if O::RECORDS { channels } else { 0 };
        record.truncate(self.units * recorded);
        let ranges = parallel::divide(threads, self.units, self.places * channels);
        // Few large units are divided, others are shared out.
        let (ranges, threads) = if ranges.len() < threads && self.places * channels >= DIVIDED {
            (std::iter::once(0..self.units).collect(), threads)
        } else {
            (ranges, 1)
        };
        let mut rest = &mut record[..];
        let mut parts = parallel::Parts::new();
        for units in ranges {
            let (record, after) = rest.split_at_mut(units.len() * recorded);
            rest = after;
            parts.push((units, record));
        }
        parallel::each(parts, |(units, record)| {
            let mut room = self.room();
            let mut rest = record;
            for unit in units {
                let (record, after) = std::mem::take(&mut rest).split_at_mut(recorded);
                rest = after;
                self.unit(unit, threads, &mut room, record);
            }
        });
    }

    fn room<const K: usize, const P: usize>(&self) -> Room<D::Real, P>
    where
        O: Stages<D::Real, N, K, P>,
    {
        let channels = self.job.shape.channels;
        let columns = self.narrow * channels;
        Room {
            origins: [D::Real::default(), D::Real::from_f64(1.0)].map(|value| vec![value; columns]),
            constants: std::array::from_fn(|_| vec![D::Real::default(); self.wide * channels]),
            totals: vec![0.0; if K > 0 { self.segments() * K * channels } else { 0 }],
        }
    }

    fn unit<const K: usize, const P: usize>(
        &self,
        unit: usize,
        threads: usize,
        room: &mut Room<D::Real, P>,
        record: &mut [[f64; 2]],
    ) where
        O: SetKernel<D, N> + Stages<D::Real, N, K, P>,
    {
        let job = self.job;
        if !O::WAITS {
            for channel in 0..if K > 0 { job.shape.channels } else { 0 } {
                let origin = job.kernel.origin(channel).unwrap_or_default();
                origin.place(channel..channel + 1, &mut room.origins);
            }
            self.repeat_origins(room);
            simd::run(job.instructions, Place { rows: self, room });
            self.repeat_constants(room);
            self.sum(unit, threads, room);
            if K > 0 {
                let mut found = Found::All;
                simd::run(job.instructions, Finish { rows: self, room, last: true, record, found: &mut found });
            }
            return;
        }
        simd::run(job.instructions, Sample { rows: self, unit, room });
        for last in [false, true] {
            self.repeat_origins(room);
            self.sum(unit, threads, room);
            let mut found = Found::All;
            simd::run(job.instructions, Finish { rows: self, room, last, record, found: &mut found });
            match found {
                Found::All => break,
                Found::Farther if !last => {}
                _ => {
                    let sets = job.shape.channels / self.members;
                    return job.gather(unit * sets..(unit + 1) * sets, record);
                }
            }
        }
        self.repeat_constants(room);
        let (count, size) = (self.places.div_ceil(self.wide), self.wide * job.shape.channels);
        let constants = &room.constants;
        let parts = parallel::divide(threads, count, size).into_iter().map(|range| {
            let places = range.start * self.wide..self.places.min(range.end * self.wide);
            Map::<D, O, N, K, P> { rows: self, unit, places, constants }
        });
        parallel::each(parts.collect(), |part| simd::run(job.instructions, part));
    }

    /// Sums of all segments.
    fn sum<const K: usize, const P: usize>(&self, unit: usize, threads: usize, room: &mut Room<D::Real, P>)
    where
        O: SetKernel<D, N> + Stages<D::Real, N, K, P>,
    {
        let (channels, segments) = (self.job.shape.channels, self.segments());
        let mut rest = &mut room.totals[..];
        let mut parts = parallel::Parts::new();
        for segments in parallel::divide(threads, segments, self.segment() * self.narrow * channels) {
            let (totals, after) = rest.split_at_mut(segments.len() * K * channels);
            rest = after;
            parts.push(Sum { rows: self, unit, segments, origins: &room.origins, constants: &room.constants, totals });
        }
        parallel::each(parts, |part| simd::run(self.job.instructions, part));
    }

    fn repeat_origins<const P: usize>(&self, room: &mut Room<D::Real, P>) {
        room.origins.iter_mut().for_each(|values| self.repeat(values));
    }

    fn repeat_constants<const P: usize>(&self, room: &mut Room<D::Real, P>) {
        room.constants.iter_mut().for_each(|values| self.repeat(values));
    }

    /// Repeats what holds for the channels of one place for those of the other places of a row.
    fn repeat(&self, values: &mut [D::Real]) {
        let channels = self.job.shape.channels;
        for place in (channels..values.len()).step_by(channels) {
            values.copy_within(..channels, place);
        }
    }
}

/// What is known of the sets of a unit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Found {
    /// All that the map needs.
    All,
    /// Better origins.
    Farther,
    /// That they must be gathered.
    Nothing,
}

/// Finds origins: the means of a sample of places.
struct Sample<'a, 'b, D: Element, O, const N: usize, const K: usize, const P: usize> {
    rows: &'b Rows<'a, D, O, N>,
    unit: usize,
    room: &'b mut Room<D::Real, P>,
}

impl<D, O, const N: usize, const K: usize, const P: usize> Task for Sample<'_, '_, D, O, N, K, P>
where
    D: Element,
    O: Stages<D::Real, N, K, P>,
{
    #[inline(always)]
    fn run<S: Isa>(self, simd: S) {
        let Sample { rows, unit, room } = self;
        let (channels, members) = (rows.job.shape.channels, rows.members);
        let most = (SAMPLE / members).max(SAMPLED_ROWS);
        if rows.places <= FEW * most {
            // Taken as they are first, and again if that will not do.
            Origin::default().place(0..channels, &mut room.origins);
            return;
        }
        // Differences to the first place: a constant set is its own origin.
        let first = &mut room.constants[0][..channels];
        map(simd, rows.inputs(unit, 0, 1)[N - 1], Sink::from(&mut first[..]), |x| x);
        for first in first.iter_mut() {
            *first = if first.to_f64().is_finite() { *first } else { D::Real::default() };
        }
        let (mut total, mut squares) = (vec![D::Real::default(); channels], vec![D::Real::default(); channels]);
        let constants = [Source::from(&first[..]); 2];
        for place in spread(most, rows.places) {
            let source = rows.inputs(unit, place, 1)[N - 1];
            let sums = &mut [&mut total[..], &mut squares[..]];
            sum_columns(
                simd,
                [Column { source, pitch: 0 }],
                1,
                constants,
                sums,
                false,
                |[x], [first, _], [total, squares]| {
                    let d = x - first;
                    [total + d, if O::SCALES { d.mul_add(d, squares) } else { squares }]
                },
            );
        }
        let share = 1.0 / most as f64;
        if members == 1 {
            let [shifts, scales] = room.origins.each_mut().map(|values| &mut values[..channels]);
            let (first, total, squares) = (&first[..channels], &total[..channels], &squares[..channels]);
            for i in 0..channels {
                let mean = total[i].to_f64() * share;
                let variance = squares[i].to_f64() * share - mean * mean;
                let origin = Origin::near(first[i].to_f64() + mean, variance, O::SCALES);
                [shifts[i], scales[i]] = [origin.shift, origin.scale];
            }
            return;
        }
        for set in (0..channels).step_by(members) {
            let (mut mean, mut square) = (0.0, 0.0);
            let own = room.constants[0][set].to_f64();
            for channel in set..set + members {
                // About the first channel's.
                let apart = room.constants[0][channel].to_f64() - own;
                let more = total[channel].to_f64() * share;
                mean += apart + more;
                square += squares[channel].to_f64() * share + apart * (apart + 2.0 * more);
            }
            let mean = mean / members as f64;
            let origin = Origin::near(own + mean, square / members as f64 - mean * mean, O::SCALES);
            origin.place(set..set + members, &mut room.origins);
        }
    }
}

/// Sums of some segments, and the map if that does not wait for them.
struct Sum<'a, 'b, D: Element, O, const N: usize, const K: usize, const P: usize> {
    rows: &'b Rows<'a, D, O, N>,
    unit: usize,
    segments: Range<usize>,
    origins: &'b [Vec<D::Real>; 2],
    constants: &'b [Vec<D::Real>; P],
    totals: &'b mut [f64],
}

impl<D, O, const N: usize, const K: usize, const P: usize> Task for Sum<'_, '_, D, O, N, K, P>
where
    D: Element,
    O: SetKernel<D, N> + Stages<D::Real, N, K, P>,
{
    #[inline(always)]
    fn run<S: Isa>(self, simd: S) {
        let Sum { rows, unit, segments, origins, constants, totals } = self;
        let channels = rows.job.shape.channels;
        let columns = rows.narrow * channels;
        let mut sums: [_; K] = std::array::from_fn(|_| vec![D::Real::default(); columns]);
        // Rows that are still in the first-level cache when they are mapped.
        let near = if O::WAITS { BLOCK } else { (NEAR_BYTES / (columns * N * size_of::<D>())).clamp(NEAR_ROWS, BLOCK) };
        let first = segments.start;
        for segment in segments {
            let totals = totals.get_mut((segment - first) * K * channels..).unwrap_or_default();
            totals.iter_mut().take(K * channels).for_each(|total| *total = 0.0);
            let at = |segment: usize| rows.places.min(segment * rows.segment() * rows.narrow);
            let (mut place, end) = (at(segment), at(segment + 1));
            while place < end {
                // Rows of a block, or what is left of one row.
                let whole = ((end - place) / rows.narrow).min(BLOCK);
                let (count, row) = if whole > 0 { (whole, rows.narrow) } else { (1, end - place) };
                let width = row * channels;
                for sums in &mut sums {
                    sums.fill(D::Real::default());
                }
                let mut sums = sums.each_mut().map(|sums| &mut sums[..width]);
                for start in (0..count).step_by(near) {
                    let count = near.min(count - start);
                    let place = place + start * row;
                    if K > 0 {
                        let sources = rows.inputs(unit, place, count * row);
                        let mut block = [Column { source: sources[0], pitch: 0 }; N];
                        for (i, block) in block.iter_mut().enumerate() {
                            *block = Column { source: sources[i], pitch: rows.from[i].place * row };
                        }
                        let origins = [Source::from(&origins[0][..width]), Source::from(&origins[1][..width])];
                        sum_columns(simd, block, count, origins, &mut sums, rows.job.streams, |x, origin, sums| {
                            O::add(x, origin, sums)
                        });
                    }
                    if !O::WAITS {
                        map_places(simd, rows, unit, place..place + count * row, constants);
                    }
                }
                for (sums, totals) in sums.iter().zip(totals.chunks_exact_mut(channels)) {
                    sums.chunks_exact(channels).for_each(|place| add_to(totals, place));
                }
                place += count * row;
            }
        }
        if !O::WAITS && rows.job.streams {
            fence();
        }
    }
}

/// Adds up in `f64`.
#[inline(always)]
fn add_to<R: Real>(totals: &mut [f64], sums: &[R]) {
    for (total, sum) in totals.iter_mut().zip(sums) {
        *total += sum.to_f64();
    }
}

/// Adds up the sums of each channel, in one order, and learns what they say of the sets: the constants of the map.
struct Finish<'a, 'b, D: Element, O, const N: usize, const K: usize, const P: usize> {
    rows: &'b Rows<'a, D, O, N>,
    room: &'b mut Room<D::Real, P>,
    last: bool,
    record: &'b mut [[f64; 2]],
    found: &'b mut Found,
}

impl<D, O, const N: usize, const K: usize, const P: usize> Task for Finish<'_, '_, D, O, N, K, P>
where
    D: Element,
    O: SetKernel<D, N> + Stages<D::Real, N, K, P>,
{
    #[inline(always)]
    fn run<S: Isa>(self, _: S) {
        let Finish { rows, room, last, record, found } = self;
        let (channels, members) = (rows.job.shape.channels, rows.members);
        let Room { origins, constants, totals } = room;
        let (totals, segments) = totals.split_at_mut(K * channels);
        for segment in segments.chunks_exact(K * channels) {
            totals.iter_mut().zip(segment).for_each(|(total, sum)| *total += sum);
        }
        let share = 1.0 / (rows.places * members) as f64;
        // Of the channels from one on.
        let sums = |first: usize, count: usize| {
            let mut sums = [&[][..]; K];
            for (sums, totals) in sums.iter_mut().zip(totals.chunks_exact(channels)) {
                *sums = &totals[first..first + count];
            }
            sums
        };
        if members == 1 {
            let [shifts, scales] = &*origins;
            let origins = [&shifts[..channels], &scales[..channels]];
            let sets = Channels { sums: sums(0, channels), origins, share, first: 0 };
            let constants = constants.each_mut().map(|constants| &mut constants[..channels]);
            if rows.job.kernel.finish_channels(sets, record, constants) {
                return;
            }
        }
        let recorded = if O::RECORDS { members } else { 0 };
        for (i, first) in (0..channels).step_by(members).enumerate() {
            let origin = Origin { shift: origins[0][first], scale: origins[1][first] };
            let channels = first..first + members;
            let summed = Summed { parts: sums(first, members), origin, share, channels: channels.clone(), last };
            match rows.job.kernel.finish(summed, &mut record[i * recorded..][..recorded]) {
                Outcome::Ready(set) => {
                    let constants = constants.each_mut().map(|constants| &mut constants[channels.clone()]);
                    if !rows.job.kernel.constants(&set, first, constants) {
                        *found = Found::Nothing;
                    }
                }
                Outcome::Again(origin) => {
                    origin.place(channels, origins);
                    *found = (*found).max(Found::Farther);
                }
                Outcome::Gather => *found = Found::Nothing,
            }
        }
    }
}

/// Puts the constants that do not wait for sums in their place.
struct Place<'a, 'b, D: Element, O, const N: usize, const K: usize, const P: usize> {
    rows: &'b Rows<'a, D, O, N>,
    room: &'b mut Room<D::Real, P>,
}

impl<D, O, const N: usize, const K: usize, const P: usize> Task for Place<'_, '_, D, O, N, K, P>
where
    D: Element,
    O: Stages<D::Real, N, K, P>,
{
    #[inline(always)]
    fn run<S: Isa>(self, _: S) {
        let Place { rows, room } = self;
        let constants = room.constants.each_mut().map(|constants| &mut constants[..rows.job.shape.channels]);
        rows.job.kernel.constants(&[0.0; SET], 0, constants);
    }
}

/// The map of some places.
struct Map<'a, 'b, D: Element, O, const N: usize, const K: usize, const P: usize> {
    rows: &'b Rows<'a, D, O, N>,
    unit: usize,
    places: Range<usize>,
    constants: &'b [Vec<D::Real>; P],
}

impl<D, O, const N: usize, const K: usize, const P: usize> Task for Map<'_, '_, D, O, N, K, P>
where
    D: Element,
    O: Stages<D::Real, N, K, P>,
{
    #[inline(always)]
    fn run<S: Isa>(self, simd: S) {
        let Map { rows, unit, places, constants } = self;
        // The last rows are those still in a cache.
        let step = BLOCK * rows.wide;
        let blocks = places.len().div_ceil(step);
        for block in (0..blocks).rev() {
            let start = places.start + block * step;
            map_places(simd, rows, unit, start..places.end.min(start + step), constants);
        }
        if rows.job.streams {
            fence();
        }
    }
}

/// The map of some places.
#[inline(always)]
fn map_places<S: Isa, D: Element, O, const N: usize, const K: usize, const P: usize>(
    simd: S,
    rows: &Rows<'_, D, O, N>,
    unit: usize,
    places: Range<usize>,
    constants: &[Vec<D::Real>; P],
) where
    O: Stages<D::Real, N, K, P>,
{
    let mut place = places.start;
    while place < places.end {
        let count = rows.wide.min(places.end - place);
        let width = count * rows.job.shape.channels;
        let mut values = [Source::from(&[][..]); P];
        for (values, constants) in values.iter_mut().zip(constants) {
            *values = Source::from(&constants[..width]);
        }
        let (from, to) = (rows.inputs(unit, place, count), rows.output(unit, place, count));
        // While these are written, the next are read, unless they have just been read for their sums.
        let mut next = [None; N];
        if O::WAITS || K == 0 {
            for (i, next) in next.iter_mut().enumerate() {
                *next = Some(from[i].ahead(count * rows.from[i].place));
            }
        }
        map_and_fetch(simd, (from, values), to, |(x, constants)| O::compute(x, constants), next);
        place += count;
    }
}
