//! Data whose channels of one place are dense (channels-last): a place is a row of all channels.
//!
//! A *unit* is the places that share statistics: those of a sample, or of the whole batch. Its sums are taken per
//! column, over segments whose number depends on the shape alone, so that the number of threads changes no bit. Short
//! rows are taken several at a time, as one row with more columns.

use std::ops::Range;

use super::gathered::SetKernel;
use super::stages::{Origin, Outcome, SET, Stages, Summed};
use super::{Division, Job, Steps};
use crate::cpu::moments::Total;
use crate::cpu::parallel;
use crate::simd::{self, CACHE_LINE, Element, Isa, Real, Sink, Source, Task, fence, map, sum_columns};

/// Rows that are added up in the working precision.
const BLOCK: usize = 64;

/// The most segments of a unit.
const SEGMENTS: usize = 16;

/// Columns that are enough, if there are rows enough: a few rows and their constants in the first-level cache.
const COLUMNS: usize = 1024;

/// Columns that are worth to have even fewer rows.
const LEAST_COLUMNS: usize = 16;

/// Rows that are sampled for an origin, at most.
const SAMPLE: usize = 32;

/// A call's data as rows.
pub(super) struct Rows<'a, D: Element, O, const N: usize> {
    job: &'a Job<'a, D, O, N>,
    from: [Lying; N],
    to: Lying,
    units: usize,
    /// Places of a unit.
    places: usize,
    /// Places that make a row.
    fold: usize,
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
struct Room<R, const K: usize, const P: usize> {
    shift: Vec<R>,
    scale: Vec<R>,
    constants: [Vec<R>; P],
    /// Per segment, then per sum, then per channel.
    totals: Vec<f64>,
    channels: Vec<[f64; K]>,
    origins: Vec<Origin<R>>,
    sets: Vec<[f64; SET]>,
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
        let mut fold = 1;
        if all(&|steps| lying(*steps).place == channels) {
            let least = (COLUMNS / channels).min(places / BLOCK).max(LEAST_COLUMNS.div_ceil(channels));
            // Whole cache lines have no tails.
            let line = CACHE_LINE / size_of::<D>();
            fold = (least..least + line).find(|fold| fold * channels % line == 0).unwrap_or(least);
            fold = fold.min(places);
        }
        Some(Rows { job, from: from.map(lying), to: lying(to), units, places, fold, members: job.shape.members() })
    }

    fn columns(&self) -> usize {
        self.fold * self.job.shape.channels
    }

    /// Whole rows.
    fn rows(&self) -> usize {
        self.places / self.fold
    }

    /// Rows of a segment.
    fn segment(&self) -> usize {
        self.rows().div_ceil(SEGMENTS * BLOCK) * BLOCK
    }

    fn segments(&self) -> usize {
        self.rows().div_ceil(self.segment())
    }

    /// Places from a given one on, in each input.
    #[inline(always)]
    fn inputs(&self, unit: usize, place: usize, places: usize) -> [Source<'a, D>; N] {
        let len = places * self.job.shape.channels;
        let at = |i: usize| self.job.inputs[i].rows.run(unit * self.from[i].unit + place * self.from[i].place, len);
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
        // Few units are divided, many are shared out.
        let all = std::iter::once(0..self.units);
        let (ranges, threads) = if ranges.len() < threads { (all.collect(), threads) } else { (ranges, 1) };
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

    fn room<const K: usize, const P: usize>(&self) -> Room<D::Real, K, P> {
        let (columns, channels) = (self.columns(), self.job.shape.channels);
        let zeros = |count| vec![D::Real::default(); count];
        Room {
            shift: zeros(columns),
            scale: zeros(columns),
            constants: std::array::from_fn(|_| zeros(columns)),
            totals: vec![0.0; self.segments() * K * channels],
            channels: vec![[0.0; K]; channels],
            origins: vec![Origin::default(); channels / self.members],
            sets: vec![[0.0; SET]; channels / self.members],
        }
    }

    fn unit<const K: usize, const P: usize>(
        &self,
        unit: usize,
        threads: usize,
        room: &mut Room<D::Real, K, P>,
        record: &mut [[f64; 2]],
    ) where
        O: SetKernel<D, N> + Stages<D::Real, N, K, P>,
    {
        let job = self.job;
        if !O::WAITS {
            for (channel, origin) in room.origins.iter_mut().enumerate() {
                *origin = job.kernel.origin(channel).unwrap_or_default();
            }
            self.place_constants(room);
            self.place_origins(room);
            self.sum(unit, threads, room);
            self.collect(room);
            self.finish(room, true, record);
            return;
        }
        simd::run(job.instructions, Sample { rows: self, unit, room });
        for last in [false, true] {
            self.place_origins(room);
            self.sum(unit, threads, room);
            self.collect(room);
            match self.finish(room, last, record) {
                Found::All => break,
                Found::Farther if !last => {}
                _ => {
                    let sets = room.sets.len();
                    return job.gather(unit * sets..(unit + 1) * sets, record);
                }
            }
        }
        self.place_constants(room);
        let ranges = parallel::divide(threads, self.rows(), self.columns());
        let constants = &room.constants;
        let parts = ranges.into_iter().map(|range| Map::<D, O, N, K, P> { rows: self, unit, range, constants });
        parallel::each(parts.collect(), |part| simd::run(job.instructions, part));
    }

    /// Sums of all segments.
    fn sum<const K: usize, const P: usize>(&self, unit: usize, threads: usize, room: &mut Room<D::Real, K, P>)
    where
        O: SetKernel<D, N> + Stages<D::Real, N, K, P>,
    {
        let (columns, channels, segments) = (self.columns(), self.job.shape.channels, self.segments());
        let mut rest = &mut room.totals[..];
        let mut parts = parallel::Parts::new();
        for segments in parallel::divide(threads, segments, self.segment() * columns) {
            let (totals, after) = rest.split_at_mut(segments.len() * K * channels);
            rest = after;
            let origins = [&room.shift[..], &room.scale[..]];
            parts.push(Sum { rows: self, unit, segments, origins, constants: &room.constants, totals });
        }
        parallel::each(parts, |part| simd::run(self.job.instructions, part));
    }

    /// Adds up the sums of each channel, in one order.
    fn collect<const K: usize, const P: usize>(&self, room: &mut Room<D::Real, K, P>) {
        let channels = self.job.shape.channels;
        room.channels.fill([0.0; K]);
        for (i, part) in room.totals.chunks_exact(channels).enumerate() {
            let which = i % K.max(1);
            room.channels.iter_mut().zip(part).for_each(|(sums, part)| sums[which] += part);
        }
    }

    fn finish<const K: usize, const P: usize>(
        &self,
        room: &mut Room<D::Real, K, P>,
        last: bool,
        record: &mut [[f64; 2]],
    ) -> Found
    where
        O: SetKernel<D, N> + Stages<D::Real, N, K, P>,
    {
        let share = 1.0 / (self.places * self.members) as f64;
        let mut found = Found::All;
        let recorded = if O::RECORDS { self.members } else { 0 };
        for (i, parts) in room.channels.chunks_exact(self.members).enumerate() {
            let channels = i * self.members..(i + 1) * self.members;
            let summed = Summed { parts, origin: room.origins[i], share, channels, last };
            match self.job.kernel.finish(summed, &mut record[i * recorded..][..recorded]) {
                Outcome::Ready(set) => room.sets[i] = set,
                Outcome::Again(origin) => {
                    room.origins[i] = origin;
                    found = found.max(Found::Farther);
                }
                Outcome::Gather => found = Found::Nothing,
            }
        }
        found
    }

    fn place_origins<const K: usize, const P: usize>(&self, room: &mut Room<D::Real, K, P>) {
        let Room { shift, scale, origins, .. } = room;
        let channels = self.job.shape.channels;
        for (channel, (shift, scale)) in shift[..channels].iter_mut().zip(&mut scale[..]).enumerate() {
            let origin = origins[channel / self.members];
            (*shift, *scale) = (origin.shift, origin.scale);
        }
        self.repeat(shift);
        self.repeat(scale);
    }

    fn place_constants<const K: usize, const P: usize>(&self, room: &mut Room<D::Real, K, P>)
    where
        O: Stages<D::Real, N, K, P>,
    {
        for channel in 0..self.job.shape.channels {
            let values = self.job.kernel.constants(&room.sets[channel / self.members], channel);
            room.constants.iter_mut().zip(values).for_each(|(constants, value)| constants[channel] = value);
        }
        room.constants.iter_mut().for_each(|values| self.repeat(values));
    }

    /// Repeats what holds for the channels of one place for those of the other places of a row.
    fn repeat(&self, values: &mut [D::Real]) {
        let channels = self.job.shape.channels;
        (1..self.fold).for_each(|place| values.copy_within(..channels, place * channels));
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

/// Finds origins: the means of a sample of places, evenly spread.
struct Sample<'a, 'b, D: Element, O, const N: usize, const K: usize, const P: usize> {
    rows: &'b Rows<'a, D, O, N>,
    unit: usize,
    room: &'b mut Room<D::Real, K, P>,
}

impl<D, O, const N: usize, const K: usize, const P: usize> Task for Sample<'_, '_, D, O, N, K, P>
where
    D: Element,
    O: Stages<D::Real, N, K, P>,
{
    #[inline(always)]
    fn run<S: Isa>(self, simd: S) {
        let Sample { rows, unit, room } = self;
        let channels = rows.job.shape.channels;
        let x = |place| rows.inputs(unit, place, 1)[N - 1];
        // Differences to the first place: a constant set is its own origin.
        let shift = &mut room.shift[..channels];
        map(simd, x(0), Sink::from(&mut shift[..]), |x| x);
        for shift in shift.iter_mut().filter(|shift| !shift.to_f64().is_finite()) {
            *shift = D::Real::default();
        }
        let count = (rows.places / 2).clamp(SAMPLE / 2, SAMPLE).min(rows.places);
        let mut total = vec![D::Real::default(); channels];
        let mut squares = vec![D::Real::default(); channels];
        let constants = [Source::from(&shift[..]); 2];
        let places = (0..count).map(|i| [x(i * rows.places / count)]);
        sum_columns(simd, places, constants, &mut [&mut total, &mut squares], |[x], [shift, _], [total, squares]| {
            let d = x - shift;
            [total + d, d.mul_add(d, squares)]
        });
        let members = rows.members;
        for (i, origin) in room.origins.iter_mut().enumerate() {
            let first = shift[i * members].to_f64();
            let (mut mean, mut square) = (Total::default(), Total::default());
            for channel in i * members..(i + 1) * members {
                // About the first channel's.
                let apart = shift[channel].to_f64() - first;
                let own = total[channel].to_f64() / count as f64;
                mean.add(apart + own);
                square.add(squares[channel].to_f64() / count as f64 + apart * (apart + 2.0 * own));
            }
            let mean = mean.get() / members as f64;
            *origin = Origin::near(first + mean, square.get() / members as f64 - mean * mean, O::SCALES);
        }
    }
}

/// Sums of some segments, and the map if that does not wait for them.
struct Sum<'a, 'b, D: Element, O, const N: usize, const K: usize, const P: usize> {
    rows: &'b Rows<'a, D, O, N>,
    unit: usize,
    segments: Range<usize>,
    origins: [&'b [D::Real]; 2],
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
        let (columns, channels) = (rows.columns(), rows.job.shape.channels);
        let mut sums: [_; K] = std::array::from_fn(|_| vec![D::Real::default(); columns]);
        // Of a segment, per column.
        let mut wide = vec![0.0; K * columns];
        let at = |segment: usize| (segment * rows.segment()).min(rows.rows());
        let first = segments.start;
        for segment in segments {
            wide.fill(0.0);
            let end = at(segment + 1);
            let mut row = at(segment);
            let rest = rows.places % rows.fold;
            let has_rest = end == rows.rows() && rest > 0;
            while row < end || (row == end && has_rest) {
                // Rows of a block, or what is left of one row.
                let (next, places) = if row < end { (end.min(row + BLOCK), rows.fold) } else { (end + 1, rest) };
                if K > 0 {
                    let width = places * rows.job.shape.channels;
                    let sources = (row..next).map(|row| rows.inputs(unit, row * rows.fold, places));
                    for sums in &mut sums {
                        sums.fill(D::Real::default());
                    }
                    let mut sums = sums.each_mut().map(|sums| &mut sums[..width]);
                    let origins = origins.map(|values| Source::from(&values[..width]));
                    sum_columns(simd, sources, origins, &mut sums, |x, origin, sums| O::add(x, origin, sums));
                    for (sums, totals) in sums.iter().zip(wide.chunks_exact_mut(columns)) {
                        sums.iter().zip(totals).for_each(|(sum, total)| *total += sum.to_f64());
                    }
                }
                if !O::WAITS {
                    map_rows(simd, rows, unit, row..next, places, constants);
                }
                row = next;
            }
            let totals = totals.get_mut((segment - first) * K * channels..).unwrap_or_default();
            for (totals, wide) in totals.chunks_exact_mut(channels).zip(wide.chunks_exact(columns)) {
                totals.fill(0.0);
                for place in wide.chunks_exact(channels) {
                    totals.iter_mut().zip(place).for_each(|(total, sum)| *total += sum);
                }
            }
        }
        if !O::WAITS && rows.job.streams {
            fence();
        }
    }
}

/// The map of some rows.
struct Map<'a, 'b, D: Element, O, const N: usize, const K: usize, const P: usize> {
    rows: &'b Rows<'a, D, O, N>,
    unit: usize,
    range: Range<usize>,
    constants: &'b [Vec<D::Real>; P],
}

impl<D, O, const N: usize, const K: usize, const P: usize> Task for Map<'_, '_, D, O, N, K, P>
where
    D: Element,
    O: Stages<D::Real, N, K, P>,
{
    #[inline(always)]
    fn run<S: Isa>(self, simd: S) {
        let Map { rows, unit, range, constants } = self;
        let rest = rows.places % rows.fold;
        if range.end == rows.rows() && rest > 0 {
            map_rows(simd, rows, unit, range.end..range.end + 1, rest, constants);
        }
        // The last rows are those still in a cache.
        let mut end = range.end;
        while end > range.start {
            let start = end.saturating_sub(BLOCK).max(range.start);
            map_rows(simd, rows, unit, start..end, rows.fold, constants);
            end = start;
        }
        if rows.job.streams {
            fence();
        }
    }
}

/// The map of some rows, of which `places` are there.
#[inline(always)]
fn map_rows<S: Isa, D: Element, O, const N: usize, const K: usize, const P: usize>(
    simd: S,
    rows: &Rows<'_, D, O, N>,
    unit: usize,
    range: Range<usize>,
    places: usize,
    constants: &[Vec<D::Real>; P],
) where
    O: Stages<D::Real, N, K, P>,
{
    let width = places * rows.job.shape.channels;
    let constants = constants.each_ref().map(|values| Source::from(&values[..width]));
    for row in range {
        let place = row * rows.fold;
        let (from, to) = (rows.inputs(unit, place, places), rows.output(unit, place, places));
        map(simd, (from, constants), to, |(x, constants)| O::compute(x, constants));
    }
}
