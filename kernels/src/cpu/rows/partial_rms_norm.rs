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

use super::rms_norm::Rstd;
use super::{Measured, Operator, Rows, Verdict};
use crate::abi::{Call, Refusal};
use crate::cpu::arguments::for_data_type;
use crate::cpu::moments::Scaling;
use crate::simd::{Element, Isa, Lanes, Real};

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
    type Statistic = Rstd;

    const IS_PARTIAL: bool = true;

    #[inline(always)]
    fn measured(&self, _: usize) -> usize {
        self.0
    }

    #[inline(always)]
    fn judge(&self, measured: Measured<R>, scaling: Scaling) -> Verdict<R, Rstd> {
        Rstd::judge(measured.sums[1] / measured.count as f64, scaling)
    }

    #[inline(always)]
    fn normalized<S: Isa>(&self, simd: S, rstd: Rstd) -> impl Fn(Lanes<S, R>) -> Lanes<S, R> + Copy {
        rstd.normalized(simd)
    }

    /// `dx = (g - [i < k] x_hat * sum(g * x_hat) / k) * rstd` with `g = dy * weight`; the sum is over the whole row.
    #[inline(always)]
    fn gradient(&self, _: Rstd, count: f64, [_, projection]: [f64; 2]) -> [f64; 2] {
        [-0.0, -(projection / count)]
    }
}
