//! Partial root-mean-square normalization.
//!
//! `y = x / sqrt(mean(x[..k]^2) + eps) * weight`: the statistic comes from the first `k` elements of a row, all are
//! scaled.
//!
//! **Shapes.** `x`, `y`: `[r.., d]`; `weight`: `[d]`, optional.
//!
//! **Dtypes.** As for `rms_norm`.
//!
//! **Special values.** As for `rms_norm`; a NaN or an infinity behind the first `k` elements stays in its place.
//!
//! **Errors.** Sizes, types or attributes that do not fit are refused, by name; `k` must be 1 to `d`.
//!
//! **Source.** Zhang, Sennrich: Root Mean Square Layer Normalization, arXiv:1910.07467, section 4 (pRMSNorm).

use super::rms_norm::projection;
use super::{Gradient, Job, Normalization, Room, RowKernel, Rows, Sums, run, weighted};
use crate::abi::{Call, Refusal};
use crate::cpu::arguments::for_data_type;
use crate::cpu::moments::{Attempt, Scaling, attempt, squares};
use crate::simd::{Discard, Element, Isa, Lanes, Real, Sink, Slot, Source, Splat, map};

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

/// How many elements the statistic comes from.
struct First(usize);

fn first(call: &Call<'_>, rows: &Rows<'_>) -> Result<First, Refusal> {
    let k = call.integer("k")?;
    match usize::try_from(k) {
        // Rows without elements have nothing to divide by, and no output either.
        Ok(k) if (1..=rows.width).contains(&k) || rows.width == 0 => Ok(First(k)),
        _ => Err(Refusal::Failed(format!("k is {k}; it must be 1 to {}", rows.width))),
    }
}

fn forward_typed<D: Element>(call: &Call<'_>) -> Result<(), Refusal> {
    let rows = Rows::new(call, 1)?;
    let job = Job { inputs: [rows.input::<D>("x")?], outputs: [rows.output("y")?] };
    run(&rows, &job, [None, None], &rows.normalization::<D, _>(first(call, &rows)?)?)
}

impl<D: Element> RowKernel<D, 1, 1> for Normalization<'_, D::Real, First> {
    #[inline(always)]
    fn row<S: Isa>(
        &self,
        simd: S,
        room: &mut Room<D::Real>,
        [x]: [Source<'_, D>; 1],
        [y]: [Sink<'_, D>; 1],
        _: Sums<'_, D::Real>,
    ) {
        let forward = Forward { y, weight: self.affine.weight.source(), k: self.detail.0 };
        attempt(simd, x, self.eps, &mut room.scaled, forward);
    }
}

/// One row forward.
struct Forward<'a, D: Element> {
    y: Sink<'a, D>,
    weight: Source<'a, D::Real>,
    k: usize,
}

impl<D: Element> Attempt<D::Real> for Forward<'_, D> {
    #[inline(always)]
    fn measured<'a, E: Element>(&self, x: Source<'a, E>) -> Source<'a, E> {
        x.split_at(self.k).0
    }

    #[inline(always)]
    fn attempt<S: Isa, E: Element<Real = D::Real>>(&mut self, simd: S, x: Source<'_, E>, scaling: Scaling) -> bool {
        let mean = squares(simd, self.measured(x)) / self.k as f64;
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
    run(&rows, &job, rows.param_outputs()?, &rows.normalization::<D, _>(first(call, &rows)?)?)
}

impl<D: Element> RowKernel<D, 2, 1> for Normalization<'_, D::Real, First> {
    #[inline(always)]
    fn row<S: Isa>(
        &self,
        simd: S,
        room: &mut Room<D::Real>,
        [dy, x]: [Source<'_, D>; 2],
        [dx]: [Sink<'_, D>; 1],
        sums: Sums<'_, D::Real>,
    ) {
        let backward = Backward { dy, dx, weight: self.affine.weight.source(), k: self.detail.0, sums };
        attempt(simd, x, self.eps, &mut room.scaled, backward);
    }
}

/// One row backward.
struct Backward<'a, D: Element> {
    dy: Source<'a, D>,
    dx: Sink<'a, D>,
    weight: Source<'a, D::Real>,
    k: usize,
    sums: Sums<'a, D::Real>,
}

impl<R: Real, D: Element<Real = R>> Attempt<R> for Backward<'_, D> {
    #[inline(always)]
    fn measured<'a, E: Element>(&self, x: Source<'a, E>) -> Source<'a, E> {
        x.split_at(self.k).0
    }

    /// `dx = (g - [i < k] x_hat * sum(g * x_hat) / k) * rstd` with `g = dy * weight`.
    #[inline(always)]
    fn attempt<S: Isa, E: Element<Real = R>>(&mut self, simd: S, x: Source<'_, E>, scaling: Scaling) -> bool {
        let k = self.k;
        let mean = squares(simd, self.measured(x)) / k as f64;
        if !scaling.accepts::<R>(mean) {
            return false;
        }
        let rstd = 1.0 / (mean + scaling.eps).sqrt();
        let b = R::from_f64(projection(simd, (self.dy, x, self.weight), R::from_f64(rstd)) / k as f64);
        let gradient =
            Gradient { rstd: R::from_f64(rstd), b, scale: R::from_f64(rstd * scaling.scale), ..Gradient::default() };
        let ((dy, dy_rest), (x, x_rest)) = (self.dy.split_at(k), x.split_at(k));
        let ((weight, weight_rest), (dx, dx_rest)) = (self.weight.split_at(k), self.dx.reborrow().split_at(k));
        let more = Splat(R::from_f64(-0.0));
        // Behind the first k elements dx does not depend on x: a NaN or an infinity there must not reach it.
        let (rstd, scale) = (Lanes::splat(simd, gradient.rstd), Lanes::splat(simd, gradient.scale));
        match &mut self.sums {
            Some(sums) => {
                let (first, rest) = sums.weight.split_at_mut(k);
                gradient.apply(simd, (dy, x, weight), more, dx, (first, Discard), |x_hat| x_hat);
                let (sum, to) = <&mut [R] as Slot<S, R>>::ends(rest);
                map(simd, (dy_rest, x_rest, weight_rest, sum), (dx_rest, to), |(dy, x, w, sum)| {
                    ((dy * w) * scale, dy.mul_add(x * rstd, sum))
                });
            }
            None => {
                gradient.apply(simd, (dy, x, weight), more, dx, (Discard, Discard), |x_hat| x_hat);
                map(simd, (dy_rest, weight_rest), dx_rest, |(dy, w)| (dy * w) * scale);
            }
        }
        true
    }
}
