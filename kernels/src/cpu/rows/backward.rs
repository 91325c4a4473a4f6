//! The loops backward: `dx`, and the sums that are the gradients of weight and bias.

use std::ops::Range;

use super::{COLUMNS, Operator, Parameters, Rows, Sum, Sums};
use crate::abi::Refusal;
use crate::cpu::moments::{Scaling, Total, rescale};
use crate::cpu::parallel;
use crate::cpu::views::{Input, Output, Writer, streams, writers};
use crate::simd::{
    self, Discard, Element, InstructionSet, Isa, Lanes, Load, Real, Sink, Slot, Source, Splat, Task, array, map,
};

/// Rows that go through the map stage together: more would need more registers for addresses than there are.
const TILE: usize = 2;

/// The most rows that add up their share of a parameter's gradient in the working precision, before `f64`.
const MAX_BLOCK: usize = 64;

/// The least: fewer would make the rows of sums a large part of the traffic.
const MIN_BLOCK: usize = 8;

/// Blocks that a call has at least, if it has the rows: for the threads to share.
const BLOCKS: usize = 8;

/// What the gradient of a row needs of its statistics: `dx = (g + a + x_hat * b) * scale` with `g = dy * weight` and
/// `x_hat = (x - centre) * rstd + offset`.
#[derive(Clone, Copy)]
pub struct Gradient<R> {
    /// The mean, rounded.
    pub centre: R,
    /// What makes `x_hat`.
    pub rstd: R,
    /// What rounding the mean lost, as it comes to `x_hat`.
    pub offset: R,
    /// Added to `g`.
    pub a: R,
    /// Times `x_hat`, added to `g`.
    pub b: R,
    /// The derivative of `x_hat`: `rstd`, but for rescaled rows.
    pub scale: R,
}

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
    let block = count.div_ceil(BLOCKS).next_multiple_of(4).clamp(MIN_BLOCK, MAX_BLOCK);
    let blocks = if width == 0 { 0 } else { count.div_ceil(block) };
    let mut partial =
        [any, any && O::HAS_BIAS].map(|wanted| vec![D::Real::default(); if wanted { blocks * width } else { 0 }]);
    let set = InstructionSet::current();
    let streams = streams(&inputs, &outputs);
    let job = Job {
        inputs: &inputs,
        outputs: &outputs,
        streams,
        sum,
        parameters,
        operator,
        width,
        tile: rows.tile::<D>(TILE, streams.contains(&true)),
        fetches: rows.fetches::<D>(N + M),
        block,
    };
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
    parameters: &'a Parameters<'a, D::Real>,
    operator: &'a O,
    width: usize,
    tile: usize,
    fetches: bool,
    block: usize,
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
        let (mut sums, mut room) = (Sums::new(job.width), Vec::new());
        let mut row = rows.start;
        while row < rows.end {
            let done = (row - rows.start) % job.block;
            let at = (row - rows.start) / job.block * job.width;
            let most = job.tile.min(rows.end - row).min(job.block - done);
            let most = readers.iter_mut().fold(most, |most, reader| reader.together(row, most));
            let count = writers.iter_mut().fold(most, |most, writer| writer.together(row, most));
            let next = (job.fetches && row + count < rows.end).then_some(row + count);
            let params = (!weight.is_empty()).then(|| Params {
                weight: &mut weight[at..][..job.width],
                bias: if O::HAS_BIAS { &mut bias[at..][..job.width] } else { &mut [] },
            });
            let tile = Tile { job, row, count, next };
            if N == 4 {
                for i in 0..count {
                    let from = readers.each_mut().map(|reader| reader.row(row + i));
                    sums.add(simd, job.sum, i, (from[N - 2], from[N - 1]), None);
                }
            }
            let inputs = readers.each_mut().map(|reader| reader.rows(row, count));
            if N == 4 {
                tile.differentiate(simd, inputs, sums.rows(count), &mut writers, params, &mut room);
            } else {
                tile.differentiate(simd, inputs, inputs[1], &mut writers, params, &mut room);
            }
            for i in 0..count {
                writers.iter_mut().for_each(|writer| writer.commit(row + i));
            }
            row += count;
        }
    }
}

/// The sums of one block of rows.
struct Params<'a, R> {
    /// Of `dy * x_hat`.
    weight: &'a mut [R],
    /// Of `dy`; empty if the operator has no bias.
    bias: &'a mut [R],
}

impl<R> Params<'_, R> {
    #[inline(always)]
    fn part(&mut self, columns: Range<usize>) -> Params<'_, R> {
        let bias = if self.bias.is_empty() { &mut [] } else { &mut self.bias[columns.clone()] };
        Params { weight: &mut self.weight[columns], bias }
    }
}

/// Neighbouring rows that go through the stages together.
struct Tile<'a, D: Element, O, const N: usize, const M: usize> {
    job: &'a Job<'a, D, O, N, M>,
    row: usize,
    count: usize,
    /// The first row to be fetched ahead.
    next: Option<usize>,
}

impl<D: Element, O: Operator<D::Real>, const N: usize, const M: usize> Tile<'_, D, O, N, M> {
    /// Measures all rows, then maps them: together, if there are enough. `x` is what was normalized.
    #[inline(always)]
    fn differentiate<S: Isa, E: Element<Real = D::Real>>(
        &self,
        simd: S,
        inputs: [[Source<'_, D>; TILE]; N],
        x: [Source<'_, E>; TILE],
        outputs: &mut [Writer<'_, D>; M],
        mut params: Option<Params<'_, D::Real>>,
        room: &mut Vec<D::Real>,
    ) {
        let Tile { job, row, count, .. } = *self;
        let (eps, weight) = (job.parameters.eps, job.parameters.weight.source());
        let mut gradients = [None; TILE];
        for i in 0..count {
            gradients[i] = job.operator.gradient(simd, inputs[0][i], x[i], weight, Scaling::none(eps));
        }
        if O::SHARES
            && S::REGISTERS >= 32
            && let [Some(a), Some(b)] = gradients
        {
            let outputs = outputs.each_mut().map(|output| output.rows(row));
            return self.map(simd, inputs, x, [a, b], outputs, params);
        }
        for i in 0..count {
            let inputs = array(#[inline(always)] |k| [inputs[k][i]]);
            let outputs = outputs.each_mut().map(|output| output.rows(row + i));
            let params = params.as_mut().map(|params| params.part(0..job.width));
            match gradients[i] {
                Some(gradient) => self.map(simd, inputs, [x[i]], [gradient], outputs, params),
                None => self.rescue(inputs, x[i], outputs, params, room),
            }
        }
    }

    /// Maps rows, and fetches others meanwhile.
    #[inline(always)]
    fn map<S: Isa, E: Element<Real = D::Real>, const R: usize>(
        &self,
        simd: S,
        inputs: [[Source<'_, D>; R]; N],
        x: [Source<'_, E>; R],
        gradients: [Gradient<D::Real>; R],
        mut outputs: [[Sink<'_, D>; R]; M],
        mut params: Option<Params<'_, D::Real>>,
    ) {
        let Job { parameters, operator, width, .. } = *self.job;
        let measured = operator.measured(width);
        let gradients = array(#[inline(always)] |i| gradients[i].lanes(simd));
        let columns = if self.next.is_some() { COLUMNS } else { width };
        let mut start = 0;
        while start < width {
            let end = (start + columns).min(if start < measured { measured } else { width });
            let range = start..end;
            let inputs: [[_; R]; N] = array(#[inline(always)] |k| array(#[inline(always)] |i| inputs[k][i].part(range.clone())));
            let columns = Columns {
                dy: inputs[0],
                x: array(#[inline(always)] |i| x[i].part(range.clone())),
                weight: parameters.weight.source().part(range.clone()),
                dx: outputs.each_mut().map(|rows| rows.each_mut().map(|row| row.part(range.clone()))),
                params: params.as_mut().map(|params| params.part(range.clone())),
            };
            let coupled = !O::IS_PARTIAL || start < measured;
            if N == 4 {
                columns.map(simd, &gradients, inputs[N - 3], coupled, operator);
            } else {
                columns.map(simd, &gradients, [Splat(D::Real::from_f64(-0.0)); R], coupled, operator);
            }
            self.fetch(range);
            start = end;
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
    fn rescue<E: Element<Real = D::Real>>(
        &self,
        inputs: [[Source<'_, D>; 1]; N],
        x: Source<'_, E>,
        outputs: [[Sink<'_, D>; 1]; M],
        params: Option<Params<'_, D::Real>>,
        room: &mut Vec<D::Real>,
    ) {
        let (simd, Job { parameters, operator, .. }) = (pulp::Scalar128b, self.job);
        let scaling = rescale(x, operator.measured(x.len()), parameters.eps, room);
        let x = Source::from(&room[..]);
        if let Some(gradient) = operator.gradient(simd, inputs[0][0], x, parameters.weight.source(), scaling) {
            self.map(simd, inputs, [x], [gradient], outputs, params);
        }
    }
}

/// Some columns of some rows.
struct Columns<'a, D: Element, E, const R: usize, const M: usize> {
    dy: [Source<'a, D>; R],
    x: [Source<'a, E>; R],
    weight: Source<'a, D::Real>,
    dx: [[Sink<'a, D>; R]; M],
    params: Option<Params<'a, D::Real>>,
}

impl<D: Element, E: Element<Real = D::Real>, const R: usize, const M: usize> Columns<'_, D, E, R, M> {
    /// The map stage in the form that the call needs; `dx` depends on `x` if they are `coupled`.
    #[inline(always)]
    fn map<S: Isa, O: Operator<D::Real>, L: Load<S, D::Real, Item = Lanes<S, D::Real>>>(
        mut self,
        simd: S,
        gradients: &[GradientLanes<S, D::Real>; R],
        more: [L; R],
        coupled: bool,
        operator: &O,
    ) {
        let params = self.params.take();
        let whole = GradientLanes::<S, D::Real>::dx;
        match params {
            // What does not depend on x must not see a NaN or an infinity there.
            None if !coupled => self.stage(simd, gradients, more, (Discard, Discard), GradientLanes::uncoupled, #[inline(always)] |x| x),
            Some(Params { weight, .. }) if !coupled => {
                self.stage(simd, gradients, more, (weight, Discard), GradientLanes::uncoupled, #[inline(always)] |x| x);
            }
            None => self.stage(simd, gradients, more, (Discard, Discard), whole, #[inline(always)] |x| x),
            Some(Params { weight, bias }) if O::HAS_BIAS => {
                self.stage(simd, gradients, more, (weight, bias), whole, #[inline(always)] |x| x);
            }
            Some(Params { weight, .. }) if O::ROUNDS && D::IS_NARROW && operator.rounds() => {
                self.stage(simd, gradients, more, (weight, Discard), whole, D::round);
            }
            Some(Params { weight, .. }) => self.stage(simd, gradients, more, (weight, Discard), whole, #[inline(always)] |x| x),
        }
    }

    /// Computes `dx`, and adds to the sums of `dweight` and `dbias`. `more` is added to `dx` before it is rounded;
    /// `stored` is what the operator makes of `x_hat` before it multiplies it with the weight.
    ///
    /// The limit: five multiplications or fused ones per vector, at two a cycle; the loads of `dy` and `x` and a share of
    /// three others, one store and a share of two others; else bandwidth.
    #[inline(always)]
    fn stage<S: Isa, L: Load<S, D::Real, Item = Lanes<S, D::Real>>>(
        self,
        simd: S,
        gradients: &[GradientLanes<S, D::Real>; R],
        more: [L; R],
        (weight, bias): (impl Slot<S, D::Real>, impl Slot<S, D::Real>),
        dx_of: impl Fn(&GradientLanes<S, D::Real>, [Lanes<S, D::Real>; 3]) -> Lanes<S, D::Real>,
        stored: impl Fn(Lanes<S, D::Real>) -> Lanes<S, D::Real>,
    ) {
        let ((weight_sum, weight_to), (bias_sum, bias_to)) = (weight.ends(), bias.ends());
        let from = (self.dy, self.x, self.weight, more, weight_sum, bias_sum);
        map(simd, from, (self.dx, weight_to, bias_to), #[inline(always)] |(dy, x, w, more, mut weight, mut bias)| {
            let mut dx = dy;
            for (i, gradient) in gradients.iter().enumerate() {
                let x_hat = gradient.x_hat(x[i]);
                dx[i] = dx_of(gradient, [dy[i], w, x_hat]) + more[i];
                weight = dy[i].mul_add(stored(x_hat), weight);
                bias = bias + dy[i];
            }
            ([dx; M], weight, bias)
        });
    }
}

impl<R: Real> Gradient<R> {
    /// That of `x_hat = x * rstd`, for `dx = (g - x_hat * b) * rstd`.
    #[inline(always)]
    pub fn scaled(rstd: f64, b: f64, scaling: Scaling) -> Self {
        Gradient {
            centre: R::default(),
            rstd: R::from_f64(rstd),
            // x + (-0) is x, for every x.
            offset: R::from_f64(-0.0),
            a: R::from_f64(-0.0),
            b: R::from_f64(-b),
            scale: R::from_f64(rstd * scaling.scale),
        }
    }

    #[inline(always)]
    fn lanes<S: Isa>(self, simd: S) -> GradientLanes<S, R> {
        GradientLanes {
            centre: Lanes::splat(simd, self.centre),
            rstd: Lanes::splat(simd, self.rstd),
            offset: Lanes::splat(simd, self.offset),
            a: Lanes::splat(simd, self.a),
            b: Lanes::splat(simd, self.b),
            scale: Lanes::splat(simd, self.scale),
        }
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
}

impl<S: Isa, R: Real> GradientLanes<S, R> {
    #[inline(always)]
    fn x_hat(&self, x: Lanes<S, R>) -> Lanes<S, R> {
        (x - self.centre).mul_add(self.rstd, self.offset)
    }

    #[inline(always)]
    fn dx(&self, [dy, w, x_hat]: [Lanes<S, R>; 3]) -> Lanes<S, R> {
        x_hat.mul_add(self.b, dy * w + self.a) * self.scale
    }

    /// Where the statistic does not depend on the element.
    #[inline(always)]
    fn uncoupled(&self, [dy, w, _]: [Lanes<S, R>; 3]) -> Lanes<S, R> {
        (dy * w) * self.scale
    }
}
