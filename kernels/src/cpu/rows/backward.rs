//! The loops backward: `dx`, and the sums that are the gradients of weight and bias.

use std::ops::Range;

use super::{Line, Measured, Operator, Parameters, Rows, Sum, Sums, Terms, Verdict, measuring};
use crate::abi::Refusal;
use crate::cpu::moments::{Scaling, Total, rescale};
use crate::cpu::parallel;
use crate::cpu::views::{Input, Output, streams, writers};
use crate::simd::{
    self, Discard, Element, Fetch, InstructionSet, Isa, Lanes, Load, Real, Sink, Slot, Source, Splat, Task,
    map_and_fetch, sum,
};

/// The most rows that add up their share of a parameter's gradient in the working precision, before `f64`.
const MAX_BLOCK: usize = 64;

/// The least: fewer would make the rows of sums a large part of the traffic.
const MIN_BLOCK: usize = 8;

/// Blocks that a call has at least, if it has the rows: for the threads to share.
const BLOCKS: usize = 8;

/// Computes the gradients of all rows. Inputs are `dy` and `x`; or `dy`, what is added to `dx`, and two inputs whose sum
/// was normalized: then there are two outputs alike.
///
/// Rows are taken in blocks whose size depends on the shape alone. A block's share of the gradients of the parameters
/// is added up row by row in the working precision, the blocks in their order in `f64`: the same sums for any number of
/// threads.
///
/// # Errors
/// If the gradients of the parameters cannot be written.
pub fn backward<D: Element, O: Operator<D::Real>, const N: usize, const M: usize>(
    rows: &Rows<'_>,
    inputs: [Input<'_, D>; N],
    outputs: [Output<'_, D>; M],
    sum: Sum,
    parameters: &Parameters<'_, D::Real>,
    operator: &O,
) -> Result<(), Refusal> {
    let params = rows.param_outputs()?;
    let (count, width) = (rows.count, rows.width);
    let any = params.iter().any(Option::is_some);
    let block = count.div_ceil(BLOCKS).clamp(MIN_BLOCK, MAX_BLOCK);
    let blocks = if width == 0 { 0 } else { count.div_ceil(block) };
    let size = if any { blocks * width } else { 0 };
    let mut partial = [size, if O::HAS_BIAS { size } else { 0 }].map(|size| vec![D::Real::default(); size]);
    let set = InstructionSet::current();
    let streams = streams(inputs.each_ref(), outputs.each_ref());
    let row = RowJob { parameters, operator, width, block };
    let job = Job { inputs: &inputs, outputs: &outputs, streams, sum, row };
    let [weight, bias] = &mut partial;
    let mut rest = (&mut weight[..], &mut bias[..]);
    let mut parts = parallel::Parts::new();
    for range in parallel::divide(rows.call.threads(), blocks, block * width) {
        let share = range.len() * width;
        let (weight, weight_rest) = rest.0.split_at_mut(share.min(rest.0.len()));
        let (bias, bias_rest) = rest.1.split_at_mut(share.min(rest.1.len()));
        rest = (weight_rest, bias_rest);
        parts.push(Part { job: &job, rows: range.start * block..count.min(range.end * block), weight, bias });
    }
    parallel::each(parts, |part| simd::run(set, part));
    for (output, partial) in params.iter().zip(&partial) {
        let Some(output) = output else { continue };
        output.write(totals(partial, width).into_iter())?;
    }
    Ok(())
}

/// The sums of rows of `width` elements.
fn totals<R: Real>(rows: &[R], width: usize) -> Vec<f64> {
    let mut totals = vec![0.0; width];
    let mut block = vec![0.0; width];
    for rows in rows.chunks(width.max(1) * Total::BLOCK) {
        block.fill(0.0);
        for row in rows.chunks_exact(width.max(1)) {
            block.iter_mut().zip(row).for_each(|(sum, term)| *sum += term.to_f64());
        }
        totals.iter_mut().zip(&block).for_each(|(total, sum)| *total += sum);
    }
    totals
}

/// What a call is about.
struct Job<'a, D: Element, O, const N: usize, const M: usize> {
    inputs: &'a [Input<'a, D>; N],
    outputs: &'a [Output<'a, D>; M],
    streams: [bool; M],
    sum: Sum,
    row: RowJob<'a, D, O>,
}

/// The rows of one thread, and the sums of their blocks.
struct Part<'a, D: Element, O, const N: usize, const M: usize> {
    job: &'a Job<'a, D, O, N, M>,
    rows: Range<usize>,
    weight: &'a mut [D::Real],
    bias: &'a mut [D::Real],
}

impl<D: Element, O: Operator<D::Real>, const N: usize, const M: usize> Task for Part<'_, D, O, N, M> {
    #[inline(always)]
    fn run<S: Isa>(self, simd: S) {
        let Part { job, rows, weight, bias } = self;
        let mut readers = job.inputs.each_ref().map(|input| input.reader(rows.end));
        let mut writers = writers(job.outputs, rows.end, job.streams);
        let (mut sums, mut room) = (Sums::new(job.row.width), Vec::new());
        let mut unwanted =
            [O::HAS_WEIGHT, O::HAS_BIAS].map(|has| vec![D::Real::default(); if has { job.row.width } else { 0 }]);
        let mut params = if weight.is_empty() {
            // Added up all the same, over and over: not worth code of its own.
            let [weight, bias] = &mut unwanted;
            Params { first: rows.start, block: usize::MAX, weight, bias }
        } else {
            Params { first: rows.start, block: job.row.block, weight: &mut *weight, bias: &mut *bias }
        };
        let mut start = rows.start;
        while start < rows.end {
            let most = rows.end - start;
            let most = readers.iter_mut().fold(most, |most, reader| reader.together(start, most));
            let end = start + writers.iter_mut().fold(most, |most, writer| writer.together(start, most));
            for row in start..end {
                // Only asked for, so that it need not have been gathered.
                let soon = job.inputs.each_ref().map(|input| input.lying(row + 1));
                let from = readers.each_mut().map(|reader| reader.row(row));
                let outputs = writers.each_mut().map(|writer| writer.row(row));
                let place = (row, &mut params, &mut room);
                if N == 4 {
                    sums.add(simd, job.sum, (from[N - 2], from[N - 1]), None);
                    job.row.run(simd, (from[0], from[1], sums.row()), outputs, soon, place);
                } else {
                    let nothing = Splat(D::Real::from_f64(-0.0));
                    job.row.run(simd, (from[0], nothing, from[1]), outputs, soon, place);
                }
            }
            writers.iter_mut().for_each(|writer| writer.commit(end - 1));
            start = end;
        }
    }
}

/// The sums of the blocks of one thread.
struct Params<'a, R> {
    /// The first row of the thread.
    first: usize,
    /// Rows of a block.
    block: usize,
    /// Of `dy * x_hat`; empty if the operator has no weight.
    weight: &'a mut [R],
    /// Of `dy`; empty if the operator has no bias.
    bias: &'a mut [R],
}

/// What is done with each row.
struct RowJob<'a, D: Element, O> {
    parameters: &'a Parameters<'a, D::Real>,
    operator: &'a O,
    width: usize,
    block: usize,
}

/// A row's `dy`, what is added to `dx`, and `x`.
type RowInputs<'a, D, L, E> = (Source<'a, D>, L, Source<'a, E>);

impl<D: Element, O: Operator<D::Real>> RowJob<'_, D, O> {
    /// Measures a row, and maps it.
    #[inline(always)]
    fn run<S: Isa, E: Element<Real = D::Real>, L: Addend<D::Real>, const M: usize>(
        &self,
        simd: S,
        (dy, more, x): RowInputs<'_, D, L, E>,
        dx: [Sink<'_, D>; M],
        soon: impl Fetch,
        (row, params, room): (usize, &mut Params<'_, D::Real>, &mut Vec<D::Real>),
    ) {
        match self.measure(simd, (dy, x), Scaling::none(self.parameters.eps)) {
            Some(gradient) => self.map(simd, (dy, more, x), gradient, dx, (row, params), soon),
            None => self.rescue((dy, more, x), dx, (row, params), room),
        }
    }

    /// The gradient of a row, from the sums of `d = x - shift`, `d^2`, `g = dy * weight` and `g * d`; `None` if squares
    /// have left the range of the working precision.
    #[inline(always)]
    fn measure<S: Isa, E: Element<Real = D::Real>>(
        &self,
        simd: S,
        (dy, x): (Source<'_, D>, Source<'_, E>),
        scaling: Scaling,
    ) -> Option<Gradient<D::Real>> {
        let weight = self.parameters.weight.source();
        let count = self.operator.measured(x.len());
        let (mut shift, mut is_second) = (self.operator.shift(simd, x), false);
        let ([g, product], statistic) = loop {
            let [mut total, mut squares, g, product] = sum(simd, (dy, x, weight), products(simd, shift));
            if O::IS_PARTIAL {
                [total, squares] = sum(simd, x.part(0..count), measuring(simd, shift));
            }
            let measured = Measured { count, shift, sums: [total, squares], is_second };
            match self.operator.judge(measured, scaling) {
                Verdict::Accepted(statistic) => break ([g, product], statistic),
                Verdict::Again(nearer) => (shift, is_second) = (nearer, true),
                Verdict::Rejected => return None,
            }
        };
        let line: Line = statistic.into();
        let [centre, rstd, offset] = line.parts();
        let projection = if product.is_finite() && product.abs() >= D::Real::TINY {
            let distance = line.mean - shift.to_f64();
            if distance == 0.0 { product * line.rstd } else { (product - distance * g) * line.rstd }
        } else {
            // `x_hat` is of size 1, unlike `d`: its product with `g` stays within the range of the type if any does.
            let [centre, rstd, offset] = Lanes::splats(simd, [centre, rstd, offset]);
            let [sum] = sum(
                simd,
                (dy, x, weight),
                #[inline(always)]
                |(dy, x, w), [sum]| [(dy * w).mul_add((x - centre).mul_add(rstd, offset), sum)],
            );
            sum
        };
        let [a, b] = self.operator.gradient(statistic, count as f64, [g, projection]).map(D::Real::from_f64);
        Some(Gradient { centre, rstd, offset, a, b, scale: D::Real::from_f64(line.rstd * scaling.scale) })
    }

    /// Maps a row, and asks for what is read after.
    #[inline(always)]
    fn map<S: Isa, E: Element<Real = D::Real>, L: Addend<D::Real>, const M: usize>(
        &self,
        simd: S,
        (dy, more, x): RowInputs<'_, D, L, E>,
        gradient: Gradient<D::Real>,
        mut dx: [Sink<'_, D>; M],
        (row, params): (usize, &mut Params<'_, D::Real>),
        soon: impl Fetch,
    ) {
        let at = (row - params.first) / params.block * self.width;
        let weight = self.parameters.weight.source();
        let (whole, same) = (gradient.lanes(simd), |x_hat| x_hat);
        if O::IS_PARTIAL {
            // Behind the measured elements `dx` does not depend on `x`: a NaN or an infinity there must not reach it.
            let (count, nothing) = (self.operator.measured(self.width), Splat(D::Real::from_f64(-0.0)));
            for (range, is_coupled) in [(0..count, true), (count..self.width, false)] {
                let dx = dx.each_mut().map(|dx| dx.part(range.clone()));
                let from = (dy.part(range.clone()), x.part(range.clone()), weight.part(range.clone()), nothing);
                let sums = &mut params.weight[at + range.start..at + range.end];
                GradientLanes { is_coupled, ..whole }.map(simd, from, dx, (sums, Discard), same, ());
            }
            return;
        }
        let from = (dy, x, weight, more.lanes::<S>());
        if !O::HAS_WEIGHT {
            return whole.map(simd, from, dx, (Discard, Discard), same, soon);
        }
        let sums = &mut params.weight[at..][..self.width];
        if O::HAS_BIAS {
            whole.map(simd, from, dx, (sums, &mut params.bias[at..][..self.width]), same, soon);
        } else if O::ROUNDS && D::IS_NARROW && self.operator.rounds() {
            whole.map(simd, from, dx, (sums, Discard), D::round, soon);
        } else {
            whole.map(simd, from, dx, (sums, Discard), same, soon);
        }
    }

    /// A row whose squares leave the range of the working precision; rare, so compiled for the portable instruction
    /// set only.
    #[cold]
    #[inline(never)]
    fn rescue<E: Element<Real = D::Real>, L: Addend<D::Real>, const M: usize>(
        &self,
        (dy, more, x): RowInputs<'_, D, L, E>,
        dx: [Sink<'_, D>; M],
        place: (usize, &mut Params<'_, D::Real>),
        room: &mut Vec<D::Real>,
    ) {
        let simd = pulp::Scalar128b;
        let scaling = rescale(x, self.operator.measured(x.len()), self.parameters.eps, room);
        let x = Source::from(&room[..]);
        if let Some(gradient) = self.measure(simd, (dy, x), scaling) {
            self.map(simd, (dy, more, x), gradient, dx, place, ());
        }
    }
}

/// Adds a vector's `d = x - shift`, `d^2`, `g = dy * weight` and `g * d` to the sums.
#[expect(clippy::type_complexity, reason = "a function's type has no name")]
#[inline(always)]
fn products<S: Isa, R: Real>(
    simd: S,
    shift: R,
) -> impl Fn((Lanes<S, R>, Lanes<S, R>, Lanes<S, R>), Terms<S, R, 4>) -> Terms<S, R, 4> {
    let shift = Lanes::splat(simd, shift);
    move |(dy, x, w), [total, squares, g_sum, product]| {
        let (d, g) = (x - shift, dy * w);
        [total + d, d.mul_add(d, squares), g_sum + g, g.mul_add(d, product)]
    }
}

/// What is added to a gradient before it is rounded: something to load, on any instruction set.
trait Addend<R: Real>: Copy {
    fn lanes<S: Isa>(self) -> impl Load<S, R, Item = Lanes<S, R>>;
}

impl<D: Element> Addend<D::Real> for Source<'_, D> {
    #[inline(always)]
    fn lanes<S: Isa>(self) -> impl Load<S, D::Real, Item = Lanes<S, D::Real>> {
        self
    }
}

impl<R: Real> Addend<R> for Splat<R> {
    #[inline(always)]
    fn lanes<S: Isa>(self) -> impl Load<S, R, Item = Lanes<S, R>> {
        self
    }
}

/// What the gradient of a row needs of its statistics: `dx = (g + a + x_hat * b) * scale` with `g = dy * weight` and
/// `x_hat = (x - centre) * rstd + offset`.
#[derive(Clone, Copy)]
struct Gradient<R> {
    centre: R,
    rstd: R,
    offset: R,
    a: R,
    b: R,
    /// The derivative of `x_hat`: `rstd`, but for rescaled rows.
    scale: R,
}

impl<R: Real> Gradient<R> {
    #[inline(always)]
    fn lanes<S: Isa>(self, simd: S) -> GradientLanes<S, R> {
        let Gradient { centre, rstd, offset, a, b, scale } = self;
        let [centre, rstd, offset, a, b, scale] = Lanes::splats(simd, [centre, rstd, offset, a, b, scale]);
        GradientLanes { centre, rstd, offset, a, b, scale, is_coupled: true }
    }
}

/// A [`Gradient`] in every lane.
#[derive(Clone, Copy)]
struct GradientLanes<S: Isa, R: Real> {
    centre: Lanes<S, R>,
    rstd: Lanes<S, R>,
    offset: Lanes<S, R>,
    a: Lanes<S, R>,
    b: Lanes<S, R>,
    scale: Lanes<S, R>,
    /// Whether `dx` depends on `x`.
    is_coupled: bool,
}

/// `dy`, `x`, the weight, and what is added to `dx`.
type From<'a, D, E, L> = (Source<'a, D>, Source<'a, E>, Source<'a, <D as Element>::Real>, L);

impl<S: Isa, R: Real> GradientLanes<S, R> {
    /// Computes `dx`, and adds to the sums of `dweight` and `dbias`. `stored` is what the operator makes of `x_hat` before
    /// it multiplies it with the weight.
    ///
    /// The limit: five multiplications or fused ones per vector, at two a cycle, and the loads of seven vectors, in the
    /// first-level cache; else bandwidth.
    #[inline(always)]
    fn map<D: Element<Real = R>, E: Element<Real = R>, L: Load<S, R, Item = Lanes<S, R>>, const M: usize>(
        self,
        simd: S,
        (dy, x, weight, more): From<'_, D, E, L>,
        dx: [Sink<'_, D>; M],
        (weight_sums, bias_sums): (impl Slot<S, R>, impl Slot<S, R>),
        stored: impl Fn(Lanes<S, R>) -> Lanes<S, R>,
        soon: impl Fetch,
    ) {
        let ((weight_sum, weight_to), (bias_sum, bias_to)) = (weight_sums.ends(), bias_sums.ends());
        let (from, to) = ((dy, x, weight, more, weight_sum, bias_sum), (dx, weight_to, bias_to));
        map_and_fetch(
            simd,
            from,
            to,
            #[inline(always)]
            |(dy, x, w, more, weight, bias)| {
                let x_hat = (x - self.centre).mul_add(self.rstd, self.offset);
                let g = dy * w;
                let whole = x_hat.mul_add(self.b, g + self.a);
                let dx = (if self.is_coupled { whole } else { g }) * self.scale + more;
                ([dx; M], dy.mul_add(stored(x_hat), weight), bias + dy)
            },
            soon,
        );
    }
}
