//! Root-mean-square normalization.
//!
//! `y = x / sqrt(mean(x^2) + eps) * weight`, along the last `normalized_ndim` axes. `cast` is the convention for
//! half precision: `none`, as it stands; `llama`, the quotient is rounded to the type of `x` before it is multiplied;
//! `gemma`, the factor is `1 + weight`, in the working precision.
//!
//! **Shapes.** `x`, `y`: `[r.., d..]`; `weight`: `[d..]`, optional.
//!
//! **Dtypes.** Storage f32, f64, bf16, f16; the weight alike, or f32 beside bf16 and f16. Arithmetic in f32 (f64 for
//! f64), totals and the square root in f64; one rounding, when `y` is stored, besides llama's. Backward the same (a
//! rounding has gradient 1), `dweight` rounded once from f64 totals.
//!
//! **Special values.** A NaN makes its row NaN; an infinity makes its own place NaN and the rest of its row 0; a row of
//! zeros with `eps = 0` is NaN (0 times infinity). Rows whose squares leave the range of the working precision are
//! rescaled by a power of two and come out right.
//!
//! **Errors.** Sizes, types or attributes that do not fit are refused, by name.
//!
//! **Source.** Zhang, Sennrich: Root Mean Square Layer Normalization, arXiv:1910.07467.

use super::{Line, Measured, Operator, Parameters, Rows, Verdict};
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
    let rows = Rows::normalized(call)?;
    let (parameters, operator) = with_cast::<D>(call, &rows)?;
    rows.forward::<D, _>(&parameters, &operator)
}

fn backward_typed<D: Element>(call: &Call<'_>) -> Result<(), Refusal> {
    let rows = Rows::normalized(call)?;
    let (parameters, operator) = with_cast::<D>(call, &rows)?;
    rows.backward::<D, _>(&parameters, &operator)
}

/// The operator with the convention that the call asks for.
fn with_cast<'a, D: Element>(call: &'a Call<'a>, rows: &Rows<'a>) -> Result<(Parameters<'a, D>, RmsNorm), Refusal> {
    let (rounds, gemma) = match call.text("cast")? {
        "none" => (false, false),
        "llama" => (true, false),
        "gemma" => (false, call.input("weight").is_some()),
        other => return Err(Refusal::Unsupported(format!("cast is `{other}`; it can be none, llama or gemma"))),
    };
    let mut parameters = rows.parameters::<D>(false)?;
    if gemma {
        parameters.weight = parameters.weight.map(|w| Element::from_f64(1.0 + w.to_f64()));
    }
    Ok((parameters, RmsNorm { rounds }))
}

/// Normalization by the mean of the squares.
pub(super) struct RmsNorm {
    /// Whether half precision is rounded before the weight.
    pub rounds: bool,
}

impl<R: Real> Operator<R> for RmsNorm {
    type Statistic = Rstd;

    const ROUNDS: bool = true;

    #[inline(always)]
    fn rounds(&self) -> bool {
        self.rounds
    }

    #[inline(always)]
    fn judge(&self, measured: Measured<R>, scaling: Scaling) -> Verdict<R, Rstd> {
        Rstd::judge(measured.sums[1] / measured.count as f64, scaling)
    }

    #[inline(always)]
    fn normalized<S: Isa>(&self, simd: S, rstd: Rstd) -> impl Fn(Lanes<S, R>) -> Lanes<S, R> + Copy {
        rstd.normalized(simd)
    }

    /// `dx = (g - x_hat * mean(g * x_hat)) * rstd` with `g = dy * weight`.
    #[inline(always)]
    fn gradient(&self, _: Rstd, count: f64, [_, projection]: [f64; 2]) -> [f64; 2] {
        [-0.0, -(projection / count)]
    }
}

/// The reciprocal root of a mean of squares.
#[derive(Clone, Copy)]
pub(super) struct Rstd(pub f64);

impl Rstd {
    #[inline(always)]
    pub(super) fn judge<R: Real>(mean: f64, scaling: Scaling) -> Verdict<R, Rstd> {
        if !scaling.accepts::<R>(mean) {
            return Verdict::Rejected;
        }
        Verdict::Accepted(Rstd(1.0 / (mean + scaling.eps).sqrt()))
    }

    #[inline(always)]
    pub(super) fn normalized<S: Isa, R: Real>(self, simd: S) -> impl Fn(Lanes<S, R>) -> Lanes<S, R> + Copy {
        let factor = Lanes::splat(simd, R::from_f64(self.0));
        move |x| x * factor
    }
}

impl From<Rstd> for Line {
    #[inline(always)]
    fn from(Rstd(rstd): Rstd) -> Line {
        Line { mean: 0.0, rstd, is_near: true }
    }
}
