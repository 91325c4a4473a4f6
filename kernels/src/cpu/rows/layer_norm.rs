//! Layer normalization.
//!
//! `y = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias`, the biased variance, along the last `normalized_ndim` axes.
//!
//! **Shapes.** `x`, `y`: `[r.., d..]`; `weight`, `bias`: `[d..]`, each optional.
//!
//! **Dtypes.** Storage f32, f64, bf16, f16; parameters alike, or f32 beside bf16 and f16. Arithmetic in f32 (f64 for
//! f64), totals and the square root in f64; the mean is kept as two numbers of the working precision (as one beside half
//! precision, where it is well within the spread); one rounding, when `y` is stored. Backward the same, `dweight` and
//! `dbias` rounded once from f64 totals.
//!
//! **Special values.** A NaN or an infinity makes its row NaN; a constant row with `eps = 0` too (0 times infinity).
//! Rows whose squares leave the range of the working precision are rescaled by a power of two and come out right.
//!
//! **Errors.** Sizes, types or attributes that do not fit are refused, by name.
//!
//! **Source.** Ba, Kiros, Hinton: Layer Normalization, arXiv:1607.06450.

use super::{Line, Measured, Operator, Rows, Verdict};
use crate::abi::{Call, Refusal};
use crate::cpu::arguments::for_data_type;
use crate::cpu::moments::Scaling;
use crate::simd::{Element, Isa, Lanes, Real};

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

/// How much of the variance the square of the distance from shift to mean may be: the digits lost in the difference of
/// the two are fewer than one.
const NEAR: f64 = 0.25;

impl<R: Real> Operator<R> for LayerNorm {
    type Statistic = Line;

    const HAS_BIAS: bool = true;
    const TOTALS: bool = true;
    const SHIFTS: bool = true;

    /// From `d = x - shift`: `mean = shift + mean(d)`, `variance = mean(d^2) - mean(d)^2`, where the latter is small. If it
    /// is not, once more about the mean: what is left of `mean(d)` is the rounding of the first pass.
    #[inline(always)]
    fn judge(&self, measured: Measured<R>, scaling: Scaling) -> Verdict<R, Line> {
        let [distance, squares] = measured.sums.map(|sum| sum / measured.count as f64);
        let mean = measured.shift.map_or(0.0, Real::to_f64) + distance;
        let variance = squares - distance * distance;
        // Not `max`, which would turn NaN into 0.
        let variance = if variance < 0.0 { 0.0 } else { variance };
        if distance * distance <= NEAR * variance || measured.shift.is_some() {
            if !scaling.accepts::<R>(variance) {
                return Verdict::Rejected;
            }
            let rstd = 1.0 / (variance + scaling.eps).sqrt();
            return Verdict::Accepted(Line { mean, rstd, is_near: mean * mean <= NEAR * variance });
        }
        Verdict::Again(R::from_f64(mean))
    }

    #[inline(always)]
    fn normalized<S: Isa>(&self, simd: S, line: Line) -> impl Fn(Lanes<S, R>) -> Lanes<S, R> + Copy {
        let [centre, rstd, offset] = Lanes::splats(simd, line.parts());
        move |x| (x - centre).mul_add(rstd, offset)
    }

    /// For a mean well within the spread: what rounding `mean * rstd` loses is no more than the sums had lost before.
    #[inline(always)]
    fn slope(&self, line: Line) -> Option<[R; 2]> {
        let slope = R::from_f64(line.rstd);
        if line.is_near { Some([slope, R::from_f64(-(line.mean * slope.to_f64()))]) } else { None }
    }

    /// `dx = (g - mean(g) - x_hat * mean(g * x_hat)) * rstd` with `g = dy * weight`.
    #[inline(always)]
    fn gradient(&self, _: Line, count: f64, [g, projection]: [f64; 2]) -> [f64; 2] {
        [-(g / count), -(projection / count)]
    }
}
