//! Layer normalization.
//!
//! `y = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias`, the biased variance, along the last `normalized_ndim` axes.
//!
//! **Shapes.** `x`, `y`: `[r.., d..]`; `weight`, `bias`: `[d..]`, each optional.
//!
//! **Dtypes.** Storage f32, f64, bf16, f16; parameters alike, or f32 beside bf16 and f16. Arithmetic in f32 (f64 for
//! f64), totals and the square root in f64; the mean is kept as two numbers of the working precision; one
//! rounding, when `y` is stored. Backward the same, `dweight` and `dbias` rounded once from f64 totals.
//!
//! **Special values.** A NaN or an infinity makes its row NaN; a constant row with `eps = 0` too (0 times infinity).
//! Rows whose squares leave the range of the working precision are rescaled by a power of two and come out right.
//!
//! **Errors.** Sizes, types or attributes that do not fit are refused, by name.
//!
//! **Source.** Ba, Kiros, Hinton: Layer Normalization, arXiv:1607.06450.

use super::{Affine, Gradient, Job, Normalization, Room, RowKernel, Rows, Sums, affine, run};
use crate::abi::{Call, Refusal};
use crate::cpu::arguments::for_data_type;
use crate::cpu::moments::{Attempt, Moments, Scaling, attempt};
use crate::simd::{Discard, Element, Isa, Lanes, Load, Real, Sink, Source, Splat, sum};

/// `x`, `weight`?, `bias`? -> `y`
///
/// # Errors
/// See the module.
pub fn forward(call: &Call<'_>) -> Result<(), Refusal> {
    for_data_type!(call, forward_typed)
}

/// `dy`, `x`, `weight`?, `bias`? -> `dx`, `dweight`?, `dbias`?
///
/// # Errors
/// See the module.
pub fn backward(call: &Call<'_>) -> Result<(), Refusal> {
    for_data_type!(call, backward_typed)
}

fn forward_typed<D: Element>(call: &Call<'_>) -> Result<(), Refusal> {
    let rows = Rows::normalized(call)?;
    let job = Job { inputs: [rows.input::<D>("x")?], outputs: [rows.output("y")?] };
    run(&rows, &job, [None, None], &rows.normalization::<D, _>(())?)
}

impl<D: Element> RowKernel<D, 1, 1> for Normalization<'_, D::Real> {
    #[inline(always)]
    fn row<S: Isa>(
        &self,
        simd: S,
        room: &mut Room<D::Real>,
        [x]: [Source<'_, D>; 1],
        [y]: [Sink<'_, D>; 1],
        _: Sums<'_, D::Real>,
    ) {
        attempt(simd, x, self.eps, &mut room.scaled, Forward { y, affine: &self.affine });
    }
}

/// One row forward.
pub(super) struct Forward<'a, D: Element> {
    pub y: Sink<'a, D>,
    pub affine: &'a Affine<'a, D::Real>,
}

impl<D: Element> Attempt<D::Real> for Forward<'_, D> {
    #[inline(always)]
    fn attempt<S: Isa, E: Element<Real = D::Real>>(&mut self, simd: S, x: Source<'_, E>, scaling: Scaling) -> bool {
        let moments = Moments::new(simd, x, scaling.eps);
        if !scaling.accepts::<D::Real>(moments.variance) {
            return false;
        }
        affine(simd, x, self.y.reborrow(), self.affine, moments.normalized(simd));
        true
    }
}

fn backward_typed<D: Element>(call: &Call<'_>) -> Result<(), Refusal> {
    let rows = Rows::normalized(call)?;
    let job = Job { inputs: [rows.input::<D>("dy")?, rows.input("x")?], outputs: [rows.output("dx")?] };
    run(&rows, &job, rows.param_outputs()?, &rows.normalization::<D, _>(())?)
}

impl<D: Element> RowKernel<D, 2, 1> for Normalization<'_, D::Real> {
    const HAS_BIAS: bool = true;

    #[inline(always)]
    fn row<S: Isa>(
        &self,
        simd: S,
        room: &mut Room<D::Real>,
        [dy, x]: [Source<'_, D>; 2],
        [dx]: [Sink<'_, D>; 1],
        sums: Sums<'_, D::Real>,
    ) {
        let more = Splat(D::Real::from_f64(-0.0));
        attempt(simd, x, self.eps, &mut room.scaled, Backward { dy, more, dx, affine: &self.affine, sums });
    }
}

/// One row backward; `more` is added to `dx`.
pub(super) struct Backward<'a, D: Element, M> {
    pub dy: Source<'a, D>,
    pub more: M,
    pub dx: Sink<'a, D>,
    pub affine: &'a Affine<'a, D::Real>,
    pub sums: Sums<'a, D::Real>,
}

impl<R: Real, D: Element<Real = R>, M: Addend<R>> Attempt<R> for Backward<'_, D, M> {
    /// `dx = (g - mean(g) - x_hat * mean(g * x_hat)) * rstd` with `g = dy * weight`.
    #[inline(always)]
    fn attempt<S: Isa, E: Element<Real = R>>(&mut self, simd: S, x: Source<'_, E>, scaling: Scaling) -> bool {
        let moments = Moments::new(simd, x, scaling.eps);
        if !scaling.accepts::<R>(moments.variance) {
            return false;
        }
        let from = (self.dy, x, self.affine.weight.source());
        let x_hat = moments.normalized(simd);
        let [a, b] = sum(simd, from, |(dy, x, w), [a, b]| {
            let g = dy * w;
            [a + g, g.mul_add(x_hat(x), b)]
        });
        let n = x.len() as f64;
        let gradient = Gradient {
            hi: moments.hi,
            lo: moments.lo,
            rstd: moments.rstd,
            a: R::from_f64(a / n),
            b: R::from_f64(b / n),
            scale: R::from_f64(moments.rstd.to_f64() * scaling.scale),
        };
        let (more, dx) = (self.more.lanes::<S>(), self.dx.reborrow());
        match &mut self.sums {
            Some(sums) => {
                gradient.apply(simd, from, more, dx, (&mut *sums.weight, &mut *sums.bias), |x_hat| x_hat);
            }
            None => gradient.apply(simd, from, more, dx, (Discard, Discard), |x_hat| x_hat),
        }
        true
    }
}

/// What is added to a gradient before it is rounded: something to load, on any instruction set.
pub(super) trait Addend<R: Real>: Copy {
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
