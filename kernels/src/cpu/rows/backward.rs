//! The loops backward: `dx`, and the sums that are the gradients of weight and bias.

use std::ops::Range;

use super::{Line, Measured, Operator, Parameters, Rows, Sum, Sums, Terms, Verdict, measure};
use crate::abi::Refusal;
use crate::cpu::arguments::PART;
use crate::cpu::moments::{Scaling, Total, rescale};
use crate::cpu::parallel;
use crate::cpu::scratch::Scratch;
use crate::cpu::views::{Input, Output, Reader, Traffic, Writer, writers};
use crate::simd::{
    self, Cached, Discard, Element, Fetch, InstructionSet, Isa, Lanes, Load, Real, Sink, Slot, Soon, Source, Splat,
    Task, array, map_and_fetch, sum,
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
    parameters: &Parameters<'_, D>,
    operator: &O,
) -> Result<(), Refusal> {
    let params = rows.param_outputs()?;
    let (count, width) = (rows.count, rows.width);
    let any = params.iter().any(Option::is_some);
    let block = count.div_ceil(BLOCKS).clamp(MIN_BLOCK, MAX_BLOCK);
    let blocks = if width == 0 { 0 } else { count.div_ceil(block) };
    let size = if any { blocks * width } else { 0 };
    let mut scratch = Scratch::<D::Real>::take(size * if O::HAS_BIAS { 2 } else { 1 });
    let (weights, biases) = scratch.values().split_at_mut(size);
    let set = InstructionSet::current();
    let traffic = Traffic::new(inputs.each_ref(), outputs.each_ref());
    let row = RowJob { eps: parameters.eps, weight: parameters.weight.source(), operator, width, block };
    let job = Job { inputs: &inputs, outputs: &outputs, traffic, sum, row };
    let mut rest = (&mut *weights, &mut *biases);
    let mut parts = parallel::Parts::new();
    for range in parallel::divide(rows.call.threads(), blocks, block * width) {
        let share = range.len() * width;
        let (weight, weight_rest) = rest.0.split_at_mut(share.min(rest.0.len()));
        let (bias, bias_rest) = rest.1.split_at_mut(share.min(rest.1.len()));
        rest = (weight_rest, bias_rest);
        parts.push(Part { job: &job, rows: range.start * block..count.min(range.end * block), weight, bias });
    }
    parallel::each(parts, |part| simd::run(set, part));
    for (output, partial) in params.iter().zip([&*weights, &*biases]) {
        let Some(output) = output else { continue };
        output.write_parts(
            #[inline(always)]
            |start, part| totals(partial, width, start, part),
        )?;
    }
    Ok(())
}

/// The sums of some columns, from the one at `start` on, of rows of `width` elements: those of [`Total::BLOCK`] rows, and
/// then the sums of these.
#[inline(always)]
fn totals<R: Real>(rows: &[R], width: usize, start: usize, totals: &mut [f64]) {
    let (first, rest) = rows.split_at(rows.len().min(width * Total::BLOCK));
    add_up(first, width, start, totals);
    let mut block = [0.0; PART];
    for rows in rest.chunks(width * Total::BLOCK) {
        let block = &mut block[..totals.len()];
        add_up(rows, width, start, block);
        totals.iter_mut().zip(block).for_each(|(total, sum)| *total += *sum);
    }
}

/// The sums of some columns of rows, one after the other.
#[inline(always)]
fn add_up<R: Real>(rows: &[R], width: usize, start: usize, sums: &mut [f64]) {
    let (first, rest) = rows.split_at(rows.len().min(width));
    let Some(first) = first.get(start..start + sums.len()) else { return sums.fill(0.0) };
    sums.iter_mut().zip(first).for_each(|(sum, term)| *sum = term.to_f64());
    for row in rest.chunks_exact(width) {
        sums.iter_mut().zip(&row[start..]).for_each(|(sum, term)| *sum += term.to_f64());
    }
}

/// What a call is about.
struct Job<'a, D: Element, O, const N: usize, const M: usize> {
    inputs: &'a [Input<'a, D>; N],
    outputs: &'a [Output<'a, D>; M],
    traffic: Traffic<M>,
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
        let mut writers = writers(job.outputs, rows.end, job.traffic.streams);
        let (mut sums, mut room) = (Sums::new(job.row.width, 2), Vec::new());
        let is_unwanted = weight.is_empty();
        let spare = |has| vec![D::Real::default(); if has && is_unwanted { job.row.width } else { 0 }];
        let mut unwanted = [spare(O::HAS_WEIGHT), spare(O::HAS_BIAS)];
        let mut params = if is_unwanted {
            // Added up all the same, over and over: not worth code of its own.
            let [weight, bias] = &mut unwanted;
            Params { first: rows.start, block: usize::MAX, weight, bias }
        } else {
            Params { first: rows.start, block: job.row.block, weight: &mut *weight, bias: &mut *bias }
        };
        // Four inputs of two rows, and what is written, are more than a cache has places for where rows are whole pages; with
        // fewer rows at once, and those of the next asked for, nothing waits for memory.
        let pairs = !job.traffic.streams[0] || N < 4 || D::IS_NARROW;
        let mut start = rows.start;
        while start < rows.end {
            // Neighbours within a block share its sums.
            let left = params.block - (start - rows.start) % params.block;
            let most = if pairs { left.min(2) } else { 1 }.min(rows.end - start);
            let most = readers.iter_mut().fold(most, |most, reader| reader.together(start, most));
            let end = start + writers.iter_mut().fold(most, |most, writer| writer.together(start, most));
            let from = readers.each_ref().map(Reader::rows);
            if N == 4 {
                for row in start..end {
                    sums.add(simd, job.sum, (from[N - 2].row(row), from[N - 1].row(row)), None, row - start);
                }
            }
            let place = (&mut params, &mut room);
            if N == 4 {
                job.tile(
                    simd,
                    start..end,
                    #[inline(always)]
                    |row| (from[0].row(row), from[1].row(row), sums.row(row - start)),
                    &mut writers,
                    place,
                );
            } else {
                let nothing = Splat(D::Real::from_f64(-0.0));
                job.tile(
                    simd,
                    start..end,
                    #[inline(always)]
                    |row| (from[0].row(row), nothing, from[1].row(row)),
                    &mut writers,
                    place,
                );
            }
            writers.iter_mut().for_each(|writer| writer.commit(end - 1));
            start = end;
        }
    }
}

impl<D: Element, O: Operator<D::Real>, const N: usize, const M: usize> Job<'_, D, O, N, M> {
    /// Measures one row or two of a block, and maps them: two together, for which the weight and the sums are loaded once.
    #[inline(always)]
    fn tile<'a, S: Isa, E: Element<Real = D::Real>, L: Addend<D::Real>>(
        &self,
        simd: S,
        rows: Range<usize>,
        inputs: impl Fn(usize) -> (Source<'a, D>, L, Source<'a, E>),
        writers: &mut [Writer<'_, D>; M],
        (params, room): (&mut Params<'_, D::Real>, &mut Vec<D::Real>),
    ) {
        let scaling = Scaling::none(self.row.eps);
        let mut gradients = [None; 2];
        for (row, gradient) in rows.clone().zip(&mut gradients) {
            let (dy, _, x) = inputs(row);
            *gradient = self.row.measure(simd, (dy, x), scaling);
        }
        let mut row = rows.start;
        while row < rows.end {
            let (dy, more, x) = inputs(row);
            let known = &gradients[row - rows.start..];
            if S::PAIRS
                && let [Some(first), Some(second)] = *known
            {
                let (next_dy, next_more, next_x) = inputs(row + 1);
                let inputs = ([dy, next_dy], [more, next_more], [x, next_x]);
                let dx = neighbours(writers, row);
                let soon = [self.soon(row + 2), self.soon(row + 3)];
                self.row.map(simd, inputs, [first, second], dx, (row, params), soon);
                row += 2;
                continue;
            }
            let (inputs, dx) = (([dy], [more], [x]), neighbours(writers, row));
            match known[0] {
                Some(gradient) => self.row.map(simd, inputs, [gradient], dx, (row, params), self.soon(row + 1)),
                None => self.row.rescue(inputs, dx, (row, params), room),
            }
            row += 1;
        }
    }

    /// Rows to be asked for while the ones before them are written, so that they need not have been gathered.
    #[inline(always)]
    fn soon(&self, row: usize) -> [Option<Soon<D>>; N] {
        let waits = self.traffic.is_from_memory;
        self.inputs.each_ref().map(|input| input.lying(row).map(|run| run.soon(waits)))
    }
}

/// `R` rows of each output.
#[inline(always)]
fn neighbours<'w, D: Element, const R: usize, const M: usize>(
    writers: &'w mut [Writer<'_, D>; M],
    row: usize,
) -> [[Sink<'w, D>; R]; M] {
    let mut rows = [const { [const { Sink::NONE }; R] }; M];
    for (rows, writer) in rows.iter_mut().zip(writers) {
        *rows = writer.neighbours(row);
    }
    rows
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
    eps: f64,
    weight: Source<'a, D::Real>,
    operator: &'a O,
    width: usize,
    block: usize,
}

/// `dy`, what is added to `dx`, and `x`, of some rows.
type RowInputs<'a, D, L, E, const R: usize> = ([Source<'a, D>; R], [L; R], [Source<'a, E>; R]);

impl<D: Element, O: Operator<D::Real>> RowJob<'_, D, O> {
    /// The gradient of a row; `None` if squares have left the range of the working precision.
    #[inline(always)]
    fn measure<S: Isa, E: Element<Real = D::Real>>(
        &self,
        simd: S,
        (dy, x): (Source<'_, D>, Source<'_, E>),
        scaling: Scaling,
    ) -> Option<Gradient<D::Real>> {
        let (weight, count) = (self.weight, self.operator.measured(x.len()));
        let mut shift = None;
        let ([g, product], statistic) = loop {
            let [mut total, mut squares, g, product] = multiply::<_, _, _, O>(simd, (dy, x, weight), shift);
            if O::IS_PARTIAL {
                [total, squares] = measure::<_, _, O>(simd, x.part(0..count), shift);
            }
            match self.operator.judge(Measured { count, shift, sums: [total, squares] }, scaling) {
                Verdict::Accepted(statistic) => break ([g, product], statistic),
                Verdict::Again(mean) => shift = Some(mean),
                Verdict::Rejected => return None,
            }
        };
        let line: Line = statistic.into();
        let [centre, rstd, offset] = line.parts();
        let projection = if product.is_finite() && product.abs() >= D::Real::TINY {
            let distance = line.mean - shift.map_or(0.0, Real::to_f64);
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

    /// Maps `R` rows of one block, and asks for what is read after.
    #[inline(always)]
    fn map<S: Isa, E: Element<Real = D::Real>, L: Addend<D::Real>, const R: usize, const M: usize>(
        &self,
        simd: S,
        (dy, more, x): RowInputs<'_, D, L, E, R>,
        gradients: [Gradient<D::Real>; R],
        mut dx: [[Sink<'_, D>; R]; M],
        (row, params): (usize, &mut Params<'_, D::Real>),
        soon: impl Fetch,
    ) {
        let at = (row - params.first) / params.block * self.width;
        let weight = self.weight;
        let same = |x_hat| x_hat;
        let whole = array::<_, R>(
            #[inline(always)]
            |i| gradients[i].lanes(simd),
        );
        if O::IS_PARTIAL {
            // Behind the measured elements `dx` does not depend on `x`: a NaN or an infinity there must not reach it.
            let (count, nothing) = (self.operator.measured(self.width), [Splat(D::Real::from_f64(-0.0)); R]);
            for (range, is_coupled) in [(0..count, true), (count..self.width, false)] {
                let dx = dx.each_mut().map(|dx| dx.each_mut().map(|dx| dx.part(range.clone())));
                let (dy, x) = (dy.map(|dy| dy.part(range.clone())), x.map(|x| x.part(range.clone())));
                let sums = &mut params.weight[at + range.start..at + range.end];
                let lanes = whole.map(|whole| GradientLanes { is_coupled, ..whole });
                map_gradients(simd, (dy, x, weight.part(range), nothing), lanes, dx, (sums, Discard), same, ());
            }
            return;
        }
        let more = array::<_, R>(
            #[inline(always)]
            |i| more[i].lanes::<S>(),
        );
        let from = (dy, x, weight, more);
        if !O::HAS_WEIGHT {
            return map_gradients(simd, from, whole, dx, (Discard, Discard), same, soon);
        }
        let sums = &mut params.weight[at..][..self.width];
        if O::HAS_BIAS {
            map_gradients(simd, from, whole, dx, (sums, &mut params.bias[at..][..self.width]), same, soon);
        } else if O::ROUNDS && D::IS_NARROW && self.operator.rounds() {
            map_gradients(simd, from, whole, dx, (sums, Discard), D::round, soon);
        } else {
            map_gradients(simd, from, whole, dx, (sums, Discard), same, soon);
        }
    }

    /// A row whose squares leave the range of the working precision; rare, so compiled for the portable instruction
    /// set only.
    #[cold]
    #[inline(never)]
    fn rescue<E: Element<Real = D::Real>, L: Addend<D::Real>, const M: usize>(
        &self,
        (dy, more, [x]): RowInputs<'_, D, L, E, 1>,
        dx: [[Sink<'_, D>; 1]; M],
        place: (usize, &mut Params<'_, D::Real>),
        room: &mut Vec<D::Real>,
    ) {
        let simd = pulp::Scalar128b;
        let scaling = rescale(x, self.operator.measured(x.len()), self.eps, room);
        let x = Source::from(&room[..]);
        if let Some(gradient) = self.measure(simd, (dy[0], x), scaling) {
            self.map(simd, (dy, more, [x]), [gradient], dx, place, Cached);
        }
    }
}

/// The sums of a row for an operator `O`: of `d`, `d^2`, `g = dy * weight` and `g * d`, where `d` is `x` as it is, or less
/// `shift`; see [`measure`].
#[inline(always)]
fn multiply<S: Isa, D: Element, E: Element<Real = D::Real>, O: Operator<D::Real>>(
    simd: S,
    from: (Source<'_, D>, Source<'_, E>, Source<'_, D::Real>),
    shift: Option<D::Real>,
) -> [f64; 4] {
    if O::SHIFTS
        && let Some(shift) = shift
    {
        let shift = Lanes::splat(simd, shift);
        return sum(
            simd,
            from,
            #[inline(always)]
            |(dy, x, w), sums| products::<_, _, O>((dy, x - shift, w), sums),
        );
    }
    sum(simd, from, products::<_, _, O>)
}

/// Adds the terms of a vector to the sums that an operator `O` wants.
#[inline(always)]
fn products<S: Isa, R: Real, O: Operator<R>>(
    (dy, d, w): (Lanes<S, R>, Lanes<S, R>, Lanes<S, R>),
    [total, squares, g_sum, product]: Terms<S, R, 4>,
) -> Terms<S, R, 4> {
    let g = dy * w;
    let total = if O::TOTALS { total + d } else { total };
    // What `dx` needs the sum of `g` for is a mean.
    let g_sum = if O::TOTALS { g_sum + g } else { g_sum };
    [total, d.mul_add(d, squares), g_sum, g.mul_add(d, product)]
}

/// What is added to a gradient before it is rounded: something to load, on any instruction set.
trait Addend<R: Real>: Copy {
    fn lanes<S: Isa>(self) -> impl Load<S, R, Item = Lanes<S, R>> + Copy;
}

impl<D: Element> Addend<D::Real> for Source<'_, D> {
    #[inline(always)]
    fn lanes<S: Isa>(self) -> impl Load<S, D::Real, Item = Lanes<S, D::Real>> + Copy {
        self
    }
}

impl<R: Real> Addend<R> for Splat<R> {
    #[inline(always)]
    fn lanes<S: Isa>(self) -> impl Load<S, R, Item = Lanes<S, R>> + Copy {
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

/// `dy` and `x` of some rows, the weight, and what is added to each row's `dx`.
type From<'a, D, E, L, const R: usize> =
    ([Source<'a, D>; R], [Source<'a, E>; R], Source<'a, <D as Element>::Real>, [L; R]);

/// Computes `dx` of `R` rows, and adds to the sums of `dweight` and `dbias`, row by row. `stored` is what the operator makes
/// of `x_hat` before it multiplies it with the weight.
///
/// The limit, in the first-level cache: the store of `dx` and, once for `R` rows, the load and store of both sums, at two
/// cycles a store; five multiplications or fused ones per vector. Else bandwidth.
#[inline(always)]
fn map_gradients<S: Isa, D: Element, E: Element<Real = D::Real>, L, const R: usize, const M: usize>(
    simd: S,
    (dy, x, weight, more): From<'_, D, E, L, R>,
    lanes: [GradientLanes<S, D::Real>; R],
    dx: [[Sink<'_, D>; R]; M],
    (weight_sums, bias_sums): (impl Slot<S, D::Real>, impl Slot<S, D::Real>),
    stored: impl Fn(Lanes<S, D::Real>) -> Lanes<S, D::Real>,
    soon: impl Fetch,
) where
    L: Load<S, D::Real, Item = Lanes<S, D::Real>>,
{
    let ((weight_sum, weight_to), (bias_sum, bias_to)) = (weight_sums.ends(), bias_sums.ends());
    let (from, to) = ((dy, x, weight, more, weight_sum, bias_sum), (dx, weight_to, bias_to));
    map_and_fetch(
        simd,
        from,
        to,
        #[inline(always)]
        |(dy, x, w, more, mut weight, mut bias)| {
            let dx = array(
                #[inline(always)]
                |i| {
                    let (row, dy): (GradientLanes<S, D::Real>, Lanes<S, D::Real>) = (lanes[i], dy[i]);
                    let x_hat = (x[i] - row.centre).mul_add(row.rstd, row.offset);
                    let g = dy * w;
                    let whole = x_hat.mul_add(row.b, g + row.a);
                    weight = dy.mul_add(stored(x_hat), weight);
                    bias = bias + dy;
                    (if row.is_coupled { whole } else { g }) * row.scale + more[i]
                },
            );
            ([dx; M], weight, bias)
        },
        soon,
    );
}
