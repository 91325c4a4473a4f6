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

use super::rms_norm::{projection, times};
use super::{Gradient, Operator, Rows};
use crate::abi::{Call, Refusal};
use crate::cpu::arguments::for_data_type;
use crate::cpu::moments::Scaling;
use crate::simd::{Element, Isa, Lanes, Real, Source, sum};

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

fn forward_typed<D: Element>(call: &Call<'_>) -> Result<(), Refusal> {
    let rows = Rows::new(call, 1)?;
    rows.forward::<D, _>(&rows.parameters::<D>(false)?, &Compressed)
}

fn backward_typed<D: Element>(call: &Call<'_>) -> Result<(), Refusal> {
    let rows = Rows::new(call, 1)?;
    rows.backward::<D, _>(&rows.parameters::<D>(false)?, &Compressed)
}

/// Normalization by the mean of the squares of the vector that a row stands for.
struct Compressed;

/// The sum of a row, and the reciprocal root of the mean of the squares of the vector it stands for.
#[inline(always)]
fn statistic<S: Isa, E: Element>(simd: S, x: Source<'_, E>, scaling: Scaling) -> Option<(f64, f64)> {
    let [sum, squares] = sum(simd, x, |x, [sum, squares]| [sum + x, x.mul_add(x, squares)]);
    let mean = (squares + sum * sum) / (x.len() as f64 + 1.0);
    scaling.accepts::<E::Real>(mean).then(|| (sum, 1.0 / (mean + scaling.eps).sqrt()))
}

impl<R: Real> Operator<R> for Compressed {
    type Statistic = R;

    #[inline(always)]
    fn measure<S: Isa, E: Element<Real = R>>(&self, simd: S, x: Source<'_, E>, scaling: Scaling) -> Option<R> {
        statistic(simd, x, scaling).map(|(_, rstd)| R::from_f64(rstd))
    }

    #[inline(always)]
    fn normalized<S: Isa>(&self, simd: S, rstd: R) -> impl Fn(Lanes<S, R>) -> Lanes<S, R> + Copy {
        times(simd, rstd)
    }

    /// `dx = (g - (x_hat + s_hat) * sum(g * x_hat) / (m + 1)) * rstd` with `g = dy * weight` and `s_hat = s * rstd`.
    #[inline(always)]
    fn gradient<S: Isa, E: Element<Real = R>, D: Element<Real = R>>(
        &self,
        simd: S,
        dy: Source<'_, D>,
        x: Source<'_, E>,
        weight: Source<'_, R>,
        scaling: Scaling,
    ) -> Option<Gradient<R>> {
        let (sum, rstd) = statistic(simd, x, scaling)?;
        let mean = projection(simd, dy, x, weight, rstd) / (x.len() as f64 + 1.0);
        Some(Gradient { a: R::from_f64(-(mean * (sum * rstd))), ..Gradient::scaled(rstd, mean, scaling) })
    }
}
