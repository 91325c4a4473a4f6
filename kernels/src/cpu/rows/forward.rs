//! The loops forward: `y = normalized(x) * weight + bias`.

use std::ops::Range;

use super::{Measured, Operator, Parameters, Rows, Sum, Sums, Verdict, measuring};
use crate::cpu::moments::{Scaling, rescale};
use crate::cpu::parallel;
use crate::cpu::views::{Input, Output, Writer, streams, writers};
use crate::simd::{self, Element, InstructionSet, Isa, Kept, Lanes, Load, Sink, Source, Task, map, sum, sum_and_map};

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
            let mut measured = None;
            for row in start..=end {
                let next = (row < end).then_some(row);
                if N == 2 {
                    if let Some(row) = next {
                        let from = readers.each_mut().map(|reader| reader.row(row));
                        sums.add(simd, job.sum, row, (from[0], from[N - 1]), Some(writers[N - 1].row(row)));
                    }
                    job.row.step(simd, |row| sums.row(row), next, &mut measured, &mut writers[0], &mut room);
                } else {
                    let x = readers[0].rows();
                    job.row.step(simd, |row| x.row(row), next, &mut measured, &mut writers[0], &mut room);
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
    /// Measures the `next` row, if any, while the one that was `measured` before is mapped.
    #[inline(always)]
    fn step<'x, S: Isa, E: Element<Real = D::Real>>(
        &self,
        simd: S,
        x: impl Fn(usize) -> Source<'x, E>,
        next: Option<usize>,
        measured: &mut Option<(usize, O::Statistic)>,
        y: &mut Writer<'_, D>,
        room: &mut Vec<D::Real>,
    ) {
        let scaling = Scaling::none(self.parameters.eps);
        let mut shift = next.map(|row| self.operator.shift(simd, x(row)));
        let mut is_second = false;
        loop {
            let beside = next.zip(shift).map(|(row, shift)| (x(row), shift));
            let sums = match measured.take() {
                Some((row, statistic)) => self.map(simd, x(row), statistic, y.row(row), beside),
                None => match beside {
                    Some((x, shift)) => self.measure(simd, x, shift),
                    None => return,
                },
            };
            let Some((row, (x, used))) = next.zip(beside) else { return };
            let sums = Measured { count: self.operator.measured(x.len()), shift: used, sums, is_second };
            match self.operator.judge(sums, scaling) {
                Verdict::Accepted(statistic) => {
                    *measured = Some((row, statistic));
                    return;
                }
                Verdict::Again(nearer) => (shift, is_second) = (Some(nearer), true),
                Verdict::Rejected => return self.rescue(x, y.row(row), room),
            }
        }
    }

    /// The sums of a row that its statistic is made of.
    #[inline(always)]
    fn measure<S: Isa, E: Element<Real = D::Real>>(&self, simd: S, x: Source<'_, E>, shift: D::Real) -> [f64; 2] {
        sum(simd, x.part(0..self.operator.measured(x.len())), measuring(simd, shift))
    }

    /// Maps a row, and measures another beside.
    #[inline(always)]
    fn map<S: Isa, E: Element<Real = D::Real>>(
        &self,
        simd: S,
        x: Source<'_, E>,
        statistic: O::Statistic,
        y: Sink<'_, D>,
        beside: Option<(Source<'_, E>, D::Real)>,
    ) -> [f64; 2] {
        let (weight, bias) = (self.parameters.weight.source(), self.parameters.bias.source());
        let x_hat = self.operator.normalized(simd, statistic);
        if O::HAS_BIAS {
            self.stage(
                simd,
                (x, weight, bias),
                y,
                #[inline(always)]
                |(x, w, b)| x_hat(x).mul_add(w, b),
                beside,
            )
        } else if O::ROUNDS && D::IS_NARROW && self.operator.rounds() {
            self.stage(
                simd,
                (x, weight),
                y,
                #[inline(always)]
                |(x, w)| D::round(x_hat(x)) * w,
                beside,
            )
        } else {
            self.stage(
                simd,
                (x, weight),
                y,
                #[inline(always)]
                |(x, w)| x_hat(x) * w,
                beside,
            )
        }
    }

    /// The limit: loading `x` twice, weight and bias, and storing `y`, in the first-level cache; else bandwidth.
    #[inline(always)]
    fn stage<S: Isa, E: Element<Real = D::Real>, L: Load<S, D::Real>>(
        &self,
        simd: S,
        from: L,
        y: Sink<'_, D>,
        compute: impl Fn(L::Item) -> Lanes<S, D::Real>,
        beside: Option<(Source<'_, E>, D::Real)>,
    ) -> [f64; 2] {
        if O::IS_PARTIAL {
            map(simd, from, y, compute);
            return beside.map_or([0.0; 2], |(x, shift)| self.measure(simd, x, shift));
        }
        match beside {
            Some((x, shift)) => sum_and_map(simd, x, measuring(simd, shift), (from, y), compute),
            None => {
                // One row, the last: not worth the code for streaming it.
                map(simd, from, Kept(y), compute);
                [0.0; 2]
            }
        }
    }

    /// A row whose squares leave the range of the working precision; rare, so compiled for the portable instruction
    /// set only.
    #[cold]
    #[inline(never)]
    fn rescue<E: Element<Real = D::Real>>(&self, x: Source<'_, E>, y: Sink<'_, D>, room: &mut Vec<D::Real>) {
        let simd = pulp::Scalar128b;
        let count = self.operator.measured(x.len());
        let scaling = rescale(x, count, self.parameters.eps, room);
        let x = Source::from(&room[..]);
        let (mut shift, mut is_second) = (self.operator.shift(simd, x), false);
        loop {
            let sums = self.measure(simd, x, shift);
            match self.operator.judge(Measured { count, shift, sums, is_second }, scaling) {
                Verdict::Accepted(statistic) => {
                    self.map(simd, x, statistic, y, None);
                    return;
                }
                Verdict::Again(nearer) => (shift, is_second) = (nearer, true),
                Verdict::Rejected => unreachable!("a rescaled row is taken as it comes"),
            }
        }
    }
}
