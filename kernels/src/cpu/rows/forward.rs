//! The loops forward: `y = normalized(x) * weight + bias`.

use std::ops::Range;

use super::{Measured, Operator, Parameters, Rows, Sum, Sums, Verdict, measuring};
use crate::cpu::moments::{Scaling, rescale};
use crate::cpu::parallel;
use crate::cpu::views::{Input, Output, streams, writers};
use crate::simd::{self, Element, Fetch, InstructionSet, Isa, Sink, Source, Task, map_and_fetch, sum};

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
    let streams = streams(inputs.each_ref(), outputs.each_ref());
    let job = Job {
        inputs: &inputs,
        outputs: &outputs,
        streams,
        sum,
        row: RowJob { parameters, operator, width: rows.width },
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
    streams: [bool; N],
    sum: Sum,
    row: RowJob<'a, D, O>,
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
        let (mut sums, mut room) = (Sums::new(job.row.width), Vec::new());
        let mut start = rows.start;
        while start < rows.end {
            let most = rows.end - start;
            let most = readers.iter_mut().fold(most, |most, reader| reader.together(start, most));
            let end = start + writers.iter_mut().fold(most, |most, writer| writer.together(start, most));
            for row in start..end {
                // Only asked for, so that it need not have been gathered.
                let soon = job.inputs.each_ref().map(|input| input.lying(row + 1));
                if N == 2 {
                    let from = readers.each_mut().map(|reader| reader.row(row));
                    let stored = Some(writers[N - 1].row(row));
                    sums.add(simd, job.sum, (from[0], from[N - 1]), stored);
                    job.row.run(simd, sums.row(), writers[0].row(row), soon, &mut room);
                } else {
                    job.row.run(simd, readers[0].row(row), writers[0].row(row), soon, &mut room);
                }
            }
            writers.iter_mut().for_each(|writer| writer.commit(end - 1));
            start = end;
        }
    }
}

/// What is done with each row.
struct RowJob<'a, D: Element, O> {
    parameters: &'a Parameters<'a, D::Real>,
    operator: &'a O,
    width: usize,
}

impl<D: Element, O: Operator<D::Real>> RowJob<'_, D, O> {
    /// Measures a row, and maps it.
    #[inline(always)]
    fn run<S: Isa, E: Element<Real = D::Real>>(
        &self,
        simd: S,
        x: Source<'_, E>,
        y: Sink<'_, D>,
        soon: impl Fetch,
        room: &mut Vec<D::Real>,
    ) {
        match self.measure(simd, x, Scaling::none(self.parameters.eps)) {
            Some(statistic) => self.map(simd, x, statistic, y, soon),
            None => self.rescue(x, y, room),
        }
    }

    /// The statistic of a row; `None` if its squares have left the range of the working precision.
    #[inline(always)]
    fn measure<S: Isa, E: Element<Real = D::Real>>(
        &self,
        simd: S,
        x: Source<'_, E>,
        scaling: Scaling,
    ) -> Option<O::Statistic> {
        let count = self.operator.measured(x.len());
        let (mut shift, mut is_second) = (self.operator.shift(simd, x), false);
        loop {
            let sums = sum(simd, x.part(0..count), measuring(simd, shift));
            match self.operator.judge(Measured { count, shift, sums, is_second }, scaling) {
                Verdict::Accepted(statistic) => return Some(statistic),
                Verdict::Again(nearer) => (shift, is_second) = (nearer, true),
                Verdict::Rejected => return None,
            }
        }
    }

    /// Maps a row, and asks for what is read after.
    ///
    /// The limit: loading `x`, weight and bias, and storing `y`, in the first-level cache; else bandwidth.
    #[inline(always)]
    fn map<S: Isa, E: Element<Real = D::Real>>(
        &self,
        simd: S,
        x: Source<'_, E>,
        statistic: O::Statistic,
        y: Sink<'_, D>,
        soon: impl Fetch,
    ) {
        let (weight, bias) = (self.parameters.weight.source(), self.parameters.bias.source());
        let x_hat = self.operator.normalized(simd, statistic);
        if O::HAS_BIAS {
            let from = (x, weight, bias);
            map_and_fetch(
                simd,
                from,
                y,
                #[inline(always)]
                |(x, w, b)| x_hat(x).mul_add(w, b),
                soon,
            );
        } else if O::ROUNDS && D::IS_NARROW && self.operator.rounds() {
            map_and_fetch(
                simd,
                (x, weight),
                y,
                #[inline(always)]
                |(x, w)| D::round(x_hat(x)) * w,
                soon,
            );
        } else {
            map_and_fetch(
                simd,
                (x, weight),
                y,
                #[inline(always)]
                |(x, w)| x_hat(x) * w,
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
        let scaling = rescale(x, count, self.parameters.eps, room);
        let x = Source::from(&room[..]);
        if let Some(statistic) = self.measure(pulp::Scalar128b, x, scaling) {
            self.map(pulp::Scalar128b, x, statistic, y, ());
        }
    }
}
