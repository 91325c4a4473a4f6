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

use super::rms_norm::Rstd;
use super::{Line, Measured, Operator, Rows, Verdict};
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
    rows.forward::<D, _>(&rows.parameters::<D>(false)?, &Compressed)
}

fn backward_typed<D: Element>(call: &Call<'_>) -> Result<(), Refusal> {
    let rows = Rows::new(call, 1)?;
    rows.backward::<D, _>(&rows.parameters::<D>(false)?, &Compressed)
}

/// Normalization by the mean of the squares of the vector that a row stands for.
struct Compressed;

/// The sum of a row, and the reciprocal root of the mean of the squares of the vector it stands for.
#[derive(Clone, Copy)]
struct Statistic {
    sum: f64,
    rstd: Rstd,
}

impl From<Statistic> for Line {
    #[inline(always)]
    fn from(statistic: Statistic) -> Line {
        statistic.rstd.into()
    }
}

impl<R: Real> Operator<R> for Compressed {
    type Statistic = Statistic;

    const TOTALS: bool = true;

    #[inline(always)]
    fn judge(&self, measured: Measured<R>, scaling: Scaling) -> Verdict<R, Statistic> {
        let [sum, squares] = measured.sums;
        let mean = (squares + sum * sum) / (measured.count as f64 + 1.0);
        match Rstd::judge(mean, scaling) {
            Verdict::Accepted(rstd) => Verdict::Accepted(Statistic { sum, rstd }),
            Verdict::Again(shift) => Verdict::Again(shift),
            Verdict::Rejected => Verdict::Rejected,
        }
    }

    #[inline(always)]
    fn normalized<S: Isa>(&self, simd: S, statistic: Statistic) -> impl Fn(Lanes<S, R>) -> Lanes<S, R> + Copy {
        statistic.rstd.normalized(simd)
    }

    /// `dx = (g - (x_hat + s_hat) * sum(g * x_hat) / (m + 1)) * rstd` with `g = dy * weight` and `s_hat = s * rstd`.
    #[inline(always)]
    fn gradient(&self, statistic: Statistic, count: f64, [_, projection]: [f64; 2]) -> [f64; 2] {
        let mean = projection / (count + 1.0);
        [-(mean * (statistic.sum * statistic.rstd.0)), -mean]
    }
}
