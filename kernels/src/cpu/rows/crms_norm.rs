//! Compressed root-mean-square normalization.
//!
//! `y = x / sqrt((sum(x^2) + s^2) / (m + 1) + eps) * weight` with `s = sum(x)`: the RMS normalization of vectors of zero
//! mean and `m + 1` elements, stored without their last one, which is `-s`.
//!
//! **Shapes.** `x`, `y`: `[r.., m]`; `weight`: `[m]`, optional.
//!
//! **Dtypes.** As for `rms_norm`.
//!
//! **Special values.** As for `rms_norm`.
//!
//! **Errors.** Sizes, types or attributes that do not fit are refused, by name.
//!
//! **Source.** Jiang, Gu, Zhu, Pan: Pre-RMSNorm and Pre-CRMSNorm Transformers, arXiv:2305.14858.

use super::rms_norm::projection;
use super::{Gradient, Job, Normalization, Room, RowKernel, Rows, Sums, run, weighted};
use crate::abi::{Call, Refusal};
use crate::cpu::arguments::for_data_type;
use crate::cpu::moments::{Attempt, Scaling, attempt};
use crate::simd::{Discard, Element, Isa, Lanes, Real, Sink, Source, Splat, sum};

/// `x`, `weight`? -> `y`
///
/// # Errors
/// See the module.
pub fn forward(call: &Call<'_>) -> Result<(), Refusal> {
    for_data_type!(call, forward_typed)
}

/// `dy`, `x`, `weight`? -> `dx`, `dweight`?
///
/// # Errors
/// See the module.
pub fn backward(call: &Call<'_>) -> Result<(), Refusal> {
    for_data_type!(call, backward_typed)
}

/// The sum of a row, and the mean of the squares of the vector it stands for.
#[derive(Clone, Copy)]
struct Statistic {
    sum: f64,
    mean: f64,
}

impl Statistic {
    #[inline(always)]
    fn new<S: Isa, E: Element>(simd: S, x: Source<'_, E>) -> Self {
        let [sum, squares] = sum(simd, x, |x, [sum, squares]| [sum + x, x.mul_add(x, squares)]);
        Statistic { sum, mean: (squares + sum * sum) / (x.len() as f64 + 1.0) }
    }
}

/// Distinguishes this operator.
struct Compressed;

fn forward_typed<D: Element>(call: &Call<'_>) -> Result<(), Refusal> {
    let rows = Rows::new(call, 1)?;
    let job = Job { inputs: [rows.input::<D>("x")?], outputs: [rows.output("y")?] };
    run(&rows, &job, [None, None], &rows.normalization::<D, _>(Compressed)?)
}

impl<D: Element> RowKernel<D, 1, 1> for Normalization<'_, D::Real, Compressed> {
    #[inline(always)]
    fn row<S: Isa>(
        &self,
        simd: S,
        room: &mut Room<D::Real>,
        [x]: [Source<'_, D>; 1],
        [y]: [Sink<'_, D>; 1],
        _: Sums<'_, D::Real>,
    ) {
        attempt(simd, x, self.eps, &mut room.scaled, Forward { y, weight: self.affine.weight.source() });
    }
}

/// One row forward.
struct Forward<'a, D: Element> {
    y: Sink<'a, D>,
    weight: Source<'a, D::Real>,
}

impl<D: Element> Attempt<D::Real> for Forward<'_, D> {
    #[inline(always)]
    fn attempt<S: Isa, E: Element<Real = D::Real>>(&mut self, simd: S, x: Source<'_, E>, scaling: Scaling) -> bool {
        let mean = Statistic::new(simd, x).mean;
        if !scaling.accepts::<D::Real>(mean) {
            return false;
        }
        let rstd = Lanes::splat(simd, D::Real::from_f64(1.0 / (mean + scaling.eps).sqrt()));
        weighted(simd, x, self.y.reborrow(), self.weight, |x| x * rstd);
        true
    }
}

fn backward_typed<D: Element>(call: &Call<'_>) -> Result<(), Refusal> {
    let rows = Rows::new(call, 1)?;
    let job = Job { inputs: [rows.input::<D>("dy")?, rows.input("x")?], outputs: [rows.output("dx")?] };
    run(&rows, &job, rows.param_outputs()?, &rows.normalization::<D, _>(Compressed)?)
}

impl<D: Element> RowKernel<D, 2, 1> for Normalization<'_, D::Real, Compressed> {
    #[inline(always)]
    fn row<S: Isa>(
        &self,
        simd: S,
        room: &mut Room<D::Real>,
        [dy, x]: [Source<'_, D>; 2],
        [dx]: [Sink<'_, D>; 1],
        sums: Sums<'_, D::Real>,
    ) {
        let backward = Backward { dy, dx, weight: self.affine.weight.source(), sums };
        attempt(simd, x, self.eps, &mut room.scaled, backward);
    }
}

/// One row backward.
struct Backward<'a, D: Element> {
    dy: Source<'a, D>,
    dx: Sink<'a, D>,
    weight: Source<'a, D::Real>,
    sums: Sums<'a, D::Real>,
}

impl<R: Real, D: Element<Real = R>> Attempt<R> for Backward<'_, D> {
    /// `dx = (g - (x_hat + s_hat) * sum(g * x_hat) / (m + 1)) * rstd` with `g = dy * weight` and `s_hat = s * rstd`.
    #[inline(always)]
    fn attempt<S: Isa, E: Element<Real = R>>(&mut self, simd: S, x: Source<'_, E>, scaling: Scaling) -> bool {
        let statistic = Statistic::new(simd, x);
        if !scaling.accepts::<R>(statistic.mean) {
            return false;
        }
        let rstd = 1.0 / (statistic.mean + scaling.eps).sqrt();
        let from = (self.dy, x, self.weight);
        let b = projection(simd, from, R::from_f64(rstd)) / (x.len() as f64 + 1.0);
        let gradient = Gradient {
            rstd: R::from_f64(rstd),
            a: R::from_f64(b * (statistic.sum * rstd)),
            b: R::from_f64(b),
            scale: R::from_f64(rstd * scaling.scale),
            ..Gradient::default()
        };
        let (more, dx) = (Splat(R::from_f64(-0.0)), self.dx.reborrow());
        match &mut self.sums {
            Some(sums) => gradient.apply(simd, from, more, dx, (&mut *sums.weight, Discard), |x_hat| x_hat),
            None => gradient.apply(simd, from, more, dx, (Discard, Discard), |x_hat| x_hat),
        }
        true
    }
}
