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

use super::{Gradient, Operator, Rows};
use crate::abi::{Call, Refusal};
use crate::cpu::arguments::for_data_type;
use crate::cpu::moments::{Moments, Scaling};
use crate::simd::{Element, Isa, Lanes, Real, Source, sum};

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
    rows.forward::<D, _>(&rows.parameters::<D>(true)?, &LayerNorm)
}

fn backward_typed<D: Element>(call: &Call<'_>) -> Result<(), Refusal> {
    let rows = Rows::normalized(call)?;
    rows.backward::<D, _>(&rows.parameters::<D>(true)?, &LayerNorm)
}

/// Normalization by mean and variance.
pub(super) struct LayerNorm;

/// `x_hat = (x - centre) * rstd + offset`: the rounding error of the mean goes with the offset.
#[derive(Clone, Copy)]
pub(super) struct Line<R> {
    centre: R,
    rstd: R,
    offset: R,
}

impl<R: Real> Line<R> {
    #[inline(always)]
    fn new(moments: &Moments<R>) -> Self {
        let offset = R::from_f64(-(moments.lo.to_f64() * moments.rstd.to_f64()));
        Line { centre: moments.hi, rstd: moments.rstd, offset }
    }
}

impl<R: Real> Operator<R> for LayerNorm {
    type Statistic = Line<R>;

    const SHARES: bool = true;
    const HAS_BIAS: bool = true;

    #[inline(always)]
    fn measure<S: Isa, E: Element<Real = R>>(&self, simd: S, x: Source<'_, E>, scaling: Scaling) -> Option<Line<R>> {
        let moments = Moments::new(simd, x, scaling.eps);
        scaling.accepts::<R>(moments.variance).then(|| Line::new(&moments))
    }

    #[inline(always)]
    fn normalized<S: Isa>(&self, simd: S, line: Line<R>) -> impl Fn(Lanes<S, R>) -> Lanes<S, R> + Copy {
        let (centre, rstd) = (Lanes::splat(simd, line.centre), Lanes::splat(simd, line.rstd));
        let offset = Lanes::splat(simd, line.offset);
        move |x| (x - centre).mul_add(rstd, offset)
    }

    /// `dx = (g - mean(g) - x_hat * mean(g * x_hat)) * rstd` with `g = dy * weight`.
    #[inline(always)]
    fn gradient<S: Isa, E: Element<Real = R>, D: Element<Real = R>>(
        &self,
        simd: S,
        dy: Source<'_, D>,
        x: Source<'_, E>,
        weight: Source<'_, R>,
        scaling: Scaling,
    ) -> Option<Gradient<R>> {
        let moments = Moments::new(simd, x, scaling.eps);
        if !scaling.accepts::<R>(moments.variance) {
            return None;
        }
        let x_hat = moments.normalized(simd);
        let [a, b] = sum(simd, (dy, x, weight), |(dy, x, w), [a, b]| {
            let g = dy * w;
            [a + g, g.mul_add(x_hat(x), b)]
        });
        let (n, Line { centre, rstd, offset }) = (x.len() as f64, Line::new(&moments));
        let scale = R::from_f64(rstd.to_f64() * scaling.scale);
        Some(Gradient { centre, rstd, offset, a: R::from_f64(-(a / n)), b: R::from_f64(-(b / n)), scale })
    }
}
