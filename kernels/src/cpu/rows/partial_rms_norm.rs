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

use super::rms_norm::{projection, rstd, times};
use super::{Gradient, Operator, Rows};
use crate::abi::{Call, Refusal};
use crate::cpu::arguments::for_data_type;
use crate::cpu::moments::Scaling;
use crate::simd::{Element, Isa, Lanes, Real, Source};

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
    rows.forward::<D, _>(&rows.parameters::<D>(false)?, &First::new(call, &rows)?)
}

fn backward_typed<D: Element>(call: &Call<'_>) -> Result<(), Refusal> {
    let rows = Rows::new(call, 1)?;
    rows.backward::<D, _>(&rows.parameters::<D>(false)?, &First::new(call, &rows)?)
}

/// Normalization by the mean of the squares of this many elements.
struct First(usize);

impl First {
    fn new(call: &Call<'_>, rows: &Rows<'_>) -> Result<Self, Refusal> {
        let k = call.integer("k")?;
        match usize::try_from(k) {
            // Rows without elements have nothing to divide by, and no output either.
            Ok(k) if (1..=rows.width).contains(&k) || rows.width == 0 => Ok(First(k)),
            _ => Err(Refusal::Failed(format!("k is {k}; it must be 1 to {}", rows.width))),
        }
    }
}

impl<R: Real> Operator<R> for First {
    type Statistic = R;

    const IS_PARTIAL: bool = true;

    #[inline(always)]
    fn measured(&self, _: usize) -> usize {
        self.0
    }

    #[inline(always)]
    fn measure<S: Isa, E: Element<Real = R>>(&self, simd: S, x: Source<'_, E>, scaling: Scaling) -> Option<R> {
        rstd(simd, x.part(0..self.0), scaling).map(R::from_f64)
    }

    #[inline(always)]
    fn normalized<S: Isa>(&self, simd: S, rstd: R) -> impl Fn(Lanes<S, R>) -> Lanes<S, R> + Copy {
        times(simd, rstd)
    }

    /// `dx = (g - [i < k] x_hat * sum(g * x_hat) / k) * rstd` with `g = dy * weight`.
    ///
    /// The sum is over the whole row, as dx of the first `k` depends on all of it.
    #[inline(always)]
    fn gradient<S: Isa, E: Element<Real = R>, D: Element<Real = R>>(
        &self,
        simd: S,
        dy: Source<'_, D>,
        x: Source<'_, E>,
        weight: Source<'_, R>,
        scaling: Scaling,
    ) -> Option<Gradient<R>> {
        let rstd = rstd(simd, x.part(0..self.0), scaling)?;
        Some(Gradient::scaled(rstd, projection(simd, dy, x, weight, rstd) / self.0 as f64, scaling))
    }
}
