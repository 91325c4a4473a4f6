//! The loops forward: `y = normalized(x) * weight + bias`.

use std::ops::Range;

use super::{Measured, Operator, Parameters, Rows, Sum, Sums, Verdict, measure, measuring};
use crate::cpu::moments::{Scaling, rescale};
use crate::cpu::parallel;
use crate::cpu::views::{Input, Output, Reader, Traffic, Writer, writers};
use crate::simd::{
    self, Cached, Element, Fetch, InstructionSet, Isa, Kept, Lanes, Real, Sink, Soon, Source, Task, array, map,
    map_and_fetch, map_and_sum,
};

/// Normalizes all rows. With two inputs, their sum is normalized, and stored in the second output.
pub fn forward<D: Element, O: Operator<D::Real>, const N: usize>(
    rows: &Rows<'_>,
    inputs: [Input<'_, D>; N],
    outputs: [Output<'_, D>; N],
    sum: Sum,
    parameters: &Parameters<'_, D>,
    operator: &O,
) {
    if rows.width == 0 {
        return;
    }
    let traffic = Traffic::new(inputs.each_ref(), outputs.each_ref());
    let job = Job {
        inputs: &inputs,
        outputs: &outputs,
        traffic,
        sum,
        row: RowJob {
            eps: parameters.eps,
            factors: Factors::new::<O>(parameters, rows.count),
            operator,
            width: rows.width,
        },
    };
    let set = InstructionSet::current();
    let parts = parallel::divide(rows.call.threads(), rows.count, rows.width);
    let parts = parts.into_iter().map(|rows| Part { job: &job, rows }).collect();
    parallel::each(parts, |part| simd::run(set, part));
}

/// What a call is about.
struct Job<'a, D: Element, O, const N: usize> {
    inputs: &'a [Input<'a, D>; N],
    outputs: &'a [Output<'a, D>; N],
    traffic: Traffic<N>,
    sum: Sum,
    row: RowJob<'a, D, O>,
}

/// The rows of one thread.
struct Part<'a, D: Element, O, const N: usize> {
    job: &'a Job<'a, D, O, N>,
    rows: Range<usize>,
}

/// The most rows that are measured before the first of them is mapped. The statistic of a row is a long chain of short
/// operations: those of several rows overlap.
const TILE: usize = 8;

/// Bytes of such rows at most, so that they are still in the first-level cache when they are mapped.
const TILE_BYTES: usize = 12 << 10;

/// Bytes of a row up to which reading the next row overlaps with writing one by itself.
const SHORT: usize = 4 << 10;

impl<D: Element, O: Operator<D::Real>, const N: usize> Task for Part<'_, D, O, N> {
    #[inline(always)]
    fn run<S: Isa>(self, simd: S) {
        const { assert!(N == 1 || !O::IS_PARTIAL, "a sum is measured as a whole") };
        let Part { job, rows } = self;
        let mut readers = job.inputs.each_ref().map(|input| input.reader(rows.end));
        let mut writers = writers(job.outputs, rows.end, job.traffic.streams);
        let tile = if job.traffic.streams[0] {
            // While one row is written past the caches, the next is read.
            1
        } else {
            (TILE_BYTES / (job.row.width * size_of::<D>())).clamp(2, TILE)
        };
        let count = job.row.operator.measured(job.row.width);
        // What is written past the caches had better not be read again, nor what was rounded if the sum should not be.
        let reads_stored = !job.traffic.streams[N - 1] && (!D::IS_NARROW || job.sum == Sum::Rounded);
        let mut room = Room { sums: Sums::new(job.row.width, tile), rescued: Vec::new() };
        let mut start = rows.start;
        while start < rows.end {
            let most = tile.min(rows.end - start);
            let most = readers.iter_mut().fold(most, |most, reader| reader.together(start, most));
            let end = start + writers.iter_mut().fold(most, |most, writer| writer.together(start, most));
            let from = readers.each_ref().map(Reader::rows);
            let mut measured = [Measured { count, shift: None, sums: [0.0; 2] }; TILE];
            let (y, stored) = writers.split_at_mut(1);
            let y = &mut y[0];
            // Closures stand where they are called with: elsewhere they cannot be made sure to be inlined.
            match stored {
                [stored] if reads_stored => {
                    for (measured, row) in measured.iter_mut().zip(start..end) {
                        job.row.add(simd, (from[0].row(row), from[N - 1].row(row)), stored.row(row), measured);
                    }
                    job.map_all(
                        simd,
                        start..end,
                        #[inline(always)]
                        |row| stored.written(row),
                        &measured,
                        y,
                        &mut room.rescued,
                    );
                }
                [stored] => {
                    for row in start..end {
                        let from = (from[0].row(row), from[N - 1].row(row));
                        room.sums.add(simd, job.sum, from, Some(stored.row(row)), row - start);
                    }
                    job.tile(
                        simd,
                        start..end,
                        #[inline(always)]
                        |row| room.sums.row(row - start),
                        measured,
                        y,
                        &mut room.rescued,
                    );
                }
                _ => job.tile(
                    simd,
                    start..end,
                    #[inline(always)]
                    |row| from[0].row(row),
                    measured,
                    y,
                    &mut room.rescued,
                ),
            }
            writers.iter_mut().for_each(|writer| writer.commit(end - 1));
            start = end;
        }
    }
}

/// Memory that is used again from row to row.
struct Room<R> {
    sums: Sums<R>,
    rescued: Vec<R>,
}

impl<D: Element, O: Operator<D::Real>, const N: usize> Job<'_, D, O, N> {
    /// Measures rows that `x` has, and maps them.
    #[inline(always)]
    fn tile<'a, S: Isa, E: Element<Real = D::Real>>(
        &self,
        simd: S,
        rows: Range<usize>,
        x: impl Fn(usize) -> Source<'a, E>,
        mut measured: [Measured<D::Real>; TILE],
        y: &mut Writer<'_, D>,
        room: &mut Vec<D::Real>,
    ) {
        // Step by step for all of them: the steps of one wait for each other, those of several do not.
        for (measured, row) in measured.iter_mut().zip(rows.clone()) {
            measured.sums = measure::<_, _, O>(simd, x(row).part(0..measured.count), None);
        }
        self.map_all(simd, rows, x, &measured, y, room);
    }

    /// Maps rows that `x` has and that have been measured: two at a time, for which weight and bias are loaded once.
    #[inline(always)]
    fn map_all<'a, S: Isa, E: Element<Real = D::Real>>(
        &self,
        simd: S,
        rows: Range<usize>,
        x: impl Fn(usize) -> Source<'a, E>,
        measured: &[Measured<D::Real>; TILE],
        y: &mut Writer<'_, D>,
        room: &mut Vec<D::Real>,
    ) {
        let mut statistics = [None; TILE];
        for ((measured, statistic), row) in measured.iter().zip(&mut statistics).zip(rows.clone()) {
            *statistic = self.row.statistic(
                simd,
                #[inline(always)]
                || x(row),
                *measured,
            );
        }
        let mut row = rows.start;
        while row < rows.end {
            let known = &statistics[row - rows.start..];
            if S::PAIRS
                && let Factors::Wide(_) = self.row.factors
                && let [Some(first), Some(second), ..] = *known
                && self.row.are_alike(first, second)
            {
                self.row.map(simd, [x(row), x(row + 1)], [first, second], y.neighbours(row), Cached);
                row += 2;
                continue;
            }
            match known[0] {
                Some(statistic) => self.row.map(simd, [x(row)], [statistic], y.neighbours(row), self.soon(row + 1)),
                None => self.row.rescue(x(row), y.row(row), room),
            }
            row += 1;
        }
    }

    /// A row to be asked for while the one before it is written, so that it need not have been gathered.
    #[inline(always)]
    fn soon(&self, row: usize) -> [Option<Soon<D>>; N] {
        let is_long = self.row.width * size_of::<D>() > SHORT;
        let waits = self.traffic.is_from_memory;
        self.inputs.each_ref().map(|input| if is_long { input.lying(row).map(|run| run.soon(waits)) } else { None })
    }
}

/// Rows of a call up to which weight and bias are worth more as they are stored than converted, which takes as long as
/// mapping some rows.
const FEW: usize = 4;

/// Weight and bias of each element of a row.
enum Factors<'a, D: Element> {
    /// In half precision.
    Stored([Source<'a, D>; 2]),
    /// In the working precision.
    Wide([Source<'a, D::Real>; 2]),
}

impl<'a, D: Element> Factors<'a, D> {
    /// For an operator `O` on so many rows.
    fn new<O: Operator<D::Real>>(parameters: &'a Parameters<'_, D>, rows: usize) -> Self {
        let bias = if O::HAS_BIAS { parameters.bias.stored() } else { Some(Source::from(&[][..])) };
        match (parameters.weight.stored(), bias) {
            (Some(weight), Some(bias)) if rows <= FEW => Factors::Stored([weight, bias]),
            _ => Factors::Wide([parameters.weight.source(), parameters.bias.source()]),
        }
    }
}

/// What is done with each row.
struct RowJob<'a, D: Element, O> {
    eps: f64,
    factors: Factors<'a, D>,
    operator: &'a O,
    width: usize,
}

impl<D: Element, O: Operator<D::Real>> RowJob<'_, D, O> {
    /// Adds two rows, stores the sum, and measures it: on the way, if it is stored as it is, and else as it was rounded.
    ///
    /// The limit, in the first-level cache: two loads for each vector, at one a cycle, two additions and a fused
    /// multiplication, and its store, of two cycles.
    #[inline(always)]
    fn add<S: Isa>(
        &self,
        simd: S,
        (x, residual): (Source<'_, D>, Source<'_, D>),
        mut stored: Sink<'_, D>,
        measured: &mut Measured<D::Real>,
    ) {
        measured.sums = if D::IS_NARROW {
            map(
                simd,
                (x, residual),
                Kept(stored.reborrow()),
                #[inline(always)]
                |(x, residual)| x + residual,
            );
            measure::<_, _, O>(simd, stored.source(), None)
        } else {
            map_and_sum(
                simd,
                (x, residual),
                stored,
                #[inline(always)]
                |(x, residual), terms| (x + residual, measuring::<_, _, O>(x + residual, terms)),
            )
        };
    }

    /// The statistic of a row, once it is measured; `None` if its squares have left the range of the working precision.
    #[inline(always)]
    fn statistic<'a, S: Isa, E: Element<Real = D::Real>>(
        &self,
        simd: S,
        x: impl FnOnce() -> Source<'a, E>,
        measured: Measured<D::Real>,
    ) -> Option<O::Statistic> {
        match self.operator.judge(measured, Scaling::none(self.eps)) {
            Verdict::Accepted(statistic) => Some(statistic),
            Verdict::Again(mean) => self.measure(simd, x(), Some(mean), Scaling::none(self.eps)),
            Verdict::Rejected => None,
        }
    }

    /// The statistic of a row, measured as it is or less a shift; `None` if its squares have left the range of the working
    /// precision.
    #[inline(always)]
    fn measure<S: Isa, E: Element<Real = D::Real>>(
        &self,
        simd: S,
        x: Source<'_, E>,
        mut shift: Option<D::Real>,
        scaling: Scaling,
    ) -> Option<O::Statistic> {
        let count = self.operator.measured(x.len());
        loop {
            let sums = measure::<_, _, O>(simd, x.part(0..count), shift);
            match self.operator.judge(Measured { count, shift, sums }, scaling) {
                Verdict::Accepted(statistic) => return Some(statistic),
                Verdict::Again(mean) => shift = Some(mean),
                Verdict::Rejected => return None,
            }
        }
    }

    /// Whether two rows are mapped the same way, so that together they get the same bits as each by itself.
    #[inline(always)]
    fn are_alike(&self, first: O::Statistic, second: O::Statistic) -> bool {
        !D::IS_NARROW || self.operator.slope(first).is_some() == self.operator.slope(second).is_some()
    }

    /// Maps `R` rows that [are alike](Self::are_alike), and asks for what is read after.
    ///
    /// The limit, in the first-level cache: one load of `x` for each vector, those of weight and bias once for `R` rows,
    /// and the store of `y`; else bandwidth.
    #[inline(always)]
    fn map<S: Isa, E: Element<Real = D::Real>, const R: usize>(
        &self,
        simd: S,
        x: [Source<'_, E>; R],
        statistics: [O::Statistic; R],
        y: [Sink<'_, D>; R],
        soon: impl Fetch,
    ) {
        let slopes = if D::IS_NARROW { slopes(self.operator, statistics) } else { None };
        if let Some(slopes) = slopes {
            let slopes = array::<_, R>(
                #[inline(always)]
                |i| Lanes::splats(simd, slopes[i]),
            );
            return self.map_by(
                simd,
                x,
                #[inline(always)]
                |i, x| x.mul_add(slopes[i][0], slopes[i][1]),
                y,
                soon,
            );
        }
        let x_hat = array::<_, R>(
            #[inline(always)]
            |i| self.operator.normalized(simd, statistics[i]),
        );
        self.map_by(
            simd,
            x,
            #[inline(always)]
            |i, x| x_hat[i](x),
            y,
            soon,
        );
    }

    /// Maps `R` rows: `x_hat` says what stands before weight and bias in each.
    #[inline(always)]
    fn map_by<S: Isa, E: Element<Real = D::Real>, const R: usize>(
        &self,
        simd: S,
        x: [Source<'_, E>; R],
        x_hat: impl Fn(usize, Lanes<S, D::Real>) -> Lanes<S, D::Real> + Copy,
        y: [Sink<'_, D>; R],
        soon: impl Fetch,
    ) {
        match self.factors {
            Factors::Wide(factors) => self.map_with(simd, x, x_hat, factors, y, soon),
            Factors::Stored(factors) if D::IS_NARROW && R == 1 => self.map_with(simd, x, x_hat, factors, y, soon),
            Factors::Stored(_) => unreachable!("half precision is taken row by row"),
        }
    }

    /// Maps `R` rows with weight and bias as they are.
    #[inline(always)]
    fn map_with<S: Isa, E: Element<Real = D::Real>, W: Element<Real = D::Real>, const R: usize>(
        &self,
        simd: S,
        x: [Source<'_, E>; R],
        x_hat: impl Fn(usize, Lanes<S, D::Real>) -> Lanes<S, D::Real> + Copy,
        [weight, bias]: [Source<'_, W>; 2],
        y: [Sink<'_, D>; R],
        soon: impl Fetch,
    ) {
        if O::HAS_BIAS {
            map_and_fetch(
                simd,
                (x, weight, bias),
                y,
                #[inline(always)]
                |(x, w, b)| {
                    each(
                        x,
                        #[inline(always)]
                        |i, x| x_hat(i, x).mul_add(w, b),
                    )
                },
                soon,
            );
        } else if O::ROUNDS && D::IS_NARROW && self.operator.rounds() {
            map_and_fetch(
                simd,
                (x, weight),
                y,
                #[inline(always)]
                |(x, w)| {
                    each(
                        x,
                        #[inline(always)]
                        |i, x| D::round(x_hat(i, x)) * w,
                    )
                },
                soon,
            );
        } else {
            map_and_fetch(
                simd,
                (x, weight),
                y,
                #[inline(always)]
                |(x, w)| {
                    each(
                        x,
                        #[inline(always)]
                        |i, x| x_hat(i, x) * w,
                    )
                },
                soon,
            );
        }
    }

    /// A row whose squares leave the range of the working precision; rare, so compiled for the portable instruction
    /// set only.
    #[cold]
    #[inline(never)]
    fn rescue<E: Element<Real = D::Real>>(&self, x: Source<'_, E>, y: Sink<'_, D>, room: &mut Vec<D::Real>) {
        let count = self.operator.measured(x.len());
        let scaling = rescale(x, count, self.eps, room);
        let x = Source::from(&room[..]);
        if let Some(statistic) = self.measure(pulp::Scalar128b, x, None, scaling) {
            self.map(pulp::Scalar128b, [x], [statistic], [y], Cached);
        }
    }
}

/// What [`Operator::slope`] says of `R` rows, if it does so of all.
#[inline(always)]
fn slopes<R: Real, O: Operator<R>, const N: usize>(operator: &O, statistics: [O::Statistic; N]) -> Option<[[R; 2]; N]> {
    let mut slopes = [[R::default(); 2]; N];
    for (slope, statistic) in slopes.iter_mut().zip(statistics) {
        *slope = operator.slope(statistic)?;
    }
    Some(slopes)
}

/// What `change` makes of each of `R` rows' vectors.
#[inline(always)]
fn each<S: Isa, X: Real, const R: usize>(
    x: [Lanes<S, X>; R],
    change: impl Fn(usize, Lanes<S, X>) -> Lanes<S, X>,
) -> [Lanes<S, X>; R] {
    array(
        #[inline(always)]
        |i| change(i, x[i]),
    )
}
