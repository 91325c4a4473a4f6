//! The loops forward: `y = normalized(x) * weight + bias`.

use std::ops::Range;

use super::{COLUMNS, Operator, Parameters, Rows, Sum, Sums};
use crate::cpu::moments::{Scaling, rescale};
use crate::cpu::parallel;
use crate::cpu::views::{Input, Output, Writer, streams, writers};
use crate::simd::{self, Element, InstructionSet, Isa, Sink, Source, Task, array, map};

/// Rows that go through the map stage together: what they share is loaded once for all of them.
const TILE: usize = 4;

/// Normalizes all rows. With two inputs, their sum is normalized, and stored in the second output.
pub fn forward<D: Element, O: Operator<D::Real>, const N: usize>(
    rows: &Rows<'_>,
    inputs: [Input<'_, D>; N],
    outputs: [Output<'_, D>; N],
    sum: Sum,
    parameters: &Parameters<'_, D::Real>,
    operator: &O,
) {
    if rows.width == 0 {
        return;
    }
    let set = InstructionSet::current();
    let streams = streams(&inputs, &outputs);
    let tile = rows.tile::<D>(TILE, streams.contains(&true));
    let job = Job {
        inputs: &inputs,
        outputs: &outputs,
        streams,
        sum,
        parameters,
        operator,
        width: rows.width,
        tile,
        fetches: rows.fetches::<D>(2 * N),
    };
    let tiles = rows.count.div_ceil(tile);
    let parts: parallel::Parts<_> = parallel::divide(rows.call.threads(), tiles, tile * rows.width)
        .into_iter()
        .map(|tiles| Part { job: &job, rows: tiles.start * tile..rows.count.min(tiles.end * tile) })
        .collect();
    parallel::each(parts, |part| simd::run(set, part));
}

/// What a call is about.
struct Job<'a, D: Element, O, const N: usize> {
    inputs: &'a [Input<'a, D>; N],
    outputs: &'a [Output<'a, D>; N],
    streams: [bool; N],
    sum: Sum,
    parameters: &'a Parameters<'a, D::Real>,
    operator: &'a O,
    width: usize,
    tile: usize,
    fetches: bool,
}

/// The rows of one thread.
struct Part<'a, D: Element, O, const N: usize> {
    job: &'a Job<'a, D, O, N>,
    rows: Range<usize>,
}

impl<D: Element, O: Operator<D::Real>, const N: usize> Task for Part<'_, D, O, N> {
    #[inline(always)]
    fn run<S: Isa>(self, simd: S) {
        let Part { job, rows } = self;
        let mut readers = job.inputs.each_ref().map(|input| input.reader(rows.end));
        let mut writers = writers(job.outputs, rows.end, job.streams);
        let (mut sums, mut room) = (Sums::new(job.width), Vec::new());
        let mut row = rows.start;
        while row < rows.end {
            let most = job.tile.min(rows.end - row);
            let most = readers.iter_mut().fold(most, |most, reader| reader.together(row, most));
            let count = writers.iter_mut().fold(most, |most, writer| writer.together(row, most));
            let next = (job.fetches && row + count < rows.end).then_some(row + count);
            let tile = Tile { job, row, count, next };
            if N == 2 {
                for i in 0..count {
                    let from = readers.each_mut().map(|reader| reader.row(row + i));
                    sums.add(simd, job.sum, i, (from[0], from[N - 1]), Some(writers[N - 1].row(row + i)));
                }
                tile.normalize(simd, sums.rows(count), &mut writers[0], &mut room);
            } else {
                tile.normalize(simd, readers[0].rows(row, count), &mut writers[0], &mut room);
            }
            for i in 0..count {
                writers.iter_mut().for_each(|writer| writer.commit(row + i));
            }
            row += count;
        }
    }
}

/// Neighbouring rows that go through the stages together.
struct Tile<'a, D: Element, O, const N: usize> {
    job: &'a Job<'a, D, O, N>,
    row: usize,
    count: usize,
    /// The first row to be fetched ahead.
    next: Option<usize>,
}

impl<D: Element, O: Operator<D::Real>, const N: usize> Tile<'_, D, O, N> {
    /// Measures all rows, then maps them: together, if there are enough.
    #[inline(always)]
    fn normalize<S: Isa, E: Element<Real = D::Real>>(
        &self,
        simd: S,
        x: [Source<'_, E>; TILE],
        y: &mut Writer<'_, D>,
        room: &mut Vec<D::Real>,
    ) {
        let Tile { job, row, count, .. } = *self;
        let mut statistics = [None; TILE];
        for (statistic, &x) in statistics[..count].iter_mut().zip(&x) {
            *statistic = job.operator.measure(simd, x, Scaling::none(job.parameters.eps));
        }
        if O::SHARES
            && S::REGISTERS >= 32
            && let [Some(a), Some(b), Some(c), Some(d)] = statistics
        {
            return self.map(simd, x, [a, b, c, d], y.rows(row));
        }
        for i in 0..count {
            match statistics[i] {
                Some(statistic) => self.map(simd, [x[i]], [statistic], y.rows(row + i)),
                None => self.rescue(x[i], y.rows(row + i), room),
            }
        }
    }

    /// Maps rows, and fetches others meanwhile.
    ///
    /// The limit: per vector, the load of `x`, one store, and a share of the loads of weight and bias; else bandwidth.
    #[inline(always)]
    fn map<S: Isa, E: Element<Real = D::Real>, const R: usize>(
        &self,
        simd: S,
        x: [Source<'_, E>; R],
        statistics: [O::Statistic; R],
        mut y: [Sink<'_, D>; R],
    ) {
        let Job { parameters, operator, width, .. } = *self.job;
        let normalized = array(#[inline(always)] |i| operator.normalized(simd, statistics[i]));
        let columns = if self.next.is_some() { COLUMNS } else { width };
        for start in (0..width).step_by(columns) {
            let range = start..width.min(start + columns);
            let x: [_; R] = array(#[inline(always)] |i| x[i].part(range.clone()));
            let y = y.each_mut().map(|y| y.part(range.clone()));
            let weight = parameters.weight.source().part(range.clone());
            if O::HAS_BIAS {
                let bias = parameters.bias.source().part(range.clone());
                map(simd, (x, weight, bias), y, #[inline(always)] |(x, w, b)| each(&normalized, x, #[inline(always)] |x_hat| x_hat.mul_add(w, b)));
            } else if O::ROUNDS && D::IS_NARROW && operator.rounds() {
                map(simd, (x, weight), y, #[inline(always)] |(x, w)| each(&normalized, x, #[inline(always)] |x_hat| D::round(x_hat) * w));
            } else {
                map(simd, (x, weight), y, #[inline(always)] |(x, w)| each(&normalized, x, #[inline(always)] |x_hat| x_hat * w));
            }
            self.fetch(range);
        }
    }

    /// Fetches some columns of the next rows.
    #[inline(always)]
    fn fetch(&self, columns: Range<usize>) {
        let Some(next) = self.next else { return };
        for input in self.job.inputs {
            for i in 0..self.count {
                if let Some(row) = input.lying(next + i) {
                    row.part(columns.clone()).prefetch();
                }
            }
        }
    }

    /// A row whose squares leave the range of the working precision; rare, so compiled for the portable instruction
    /// set only.
    #[cold]
    #[inline(never)]
    fn rescue<E: Element<Real = D::Real>>(&self, x: Source<'_, E>, y: [Sink<'_, D>; 1], room: &mut Vec<D::Real>) {
        let (simd, operator) = (pulp::Scalar128b, self.job.operator);
        let scaling = rescale(x, operator.measured(x.len()), self.job.parameters.eps, room);
        let x = Source::from(&room[..]);
        if let Some(statistic) = operator.measure(simd, x, scaling) {
            self.map(simd, [x], [statistic], y);
        }
    }
}

/// Normalizes a vector of each row, and finishes it.
#[inline(always)]
fn each<V: Copy, const R: usize>(
    normalized: &[impl Fn(V) -> V; R],
    mut values: [V; R],
    finish: impl Fn(V) -> V,
) -> [V; R] {
    for (value, normalized) in values.iter_mut().zip(normalized) {
        *value = finish(normalized(*value));
    }
    values
}
