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

use super::{Gradient, Operator, Parameters, Rows};
use crate::abi::{Call, Refusal};
use crate::cpu::arguments::for_data_type;
use crate::cpu::moments::{Scaling, squares};
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
fn with_cast<'a, D: Element>(
    call: &'a Call<'a>,
    rows: &Rows<'a>,
) -> Result<(Parameters<'a, D::Real>, RmsNorm), Refusal> {
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

/// The reciprocal root of the mean of the squares.
#[inline(always)]
pub(super) fn rstd<S: Isa, E: Element>(simd: S, x: Source<'_, E>, scaling: Scaling) -> Option<f64> {
    let mean = squares(simd, x) / x.len() as f64;
    scaling.accepts::<E::Real>(mean).then(|| 1.0 / (mean + scaling.eps).sqrt())
}

impl<R: Real> Operator<R> for RmsNorm {
    type Statistic = R;

    const SHARES: bool = true;
    const ROUNDS: bool = true;

    #[inline(always)]
    fn rounds(&self) -> bool {
        self.rounds
    }

    #[inline(always)]
    fn measure<S: Isa, E: Element<Real = R>>(&self, simd: S, x: Source<'_, E>, scaling: Scaling) -> Option<R> {
        rstd(simd, x, scaling).map(R::from_f64)
    }

    #[inline(always)]
    fn normalized<S: Isa>(&self, simd: S, rstd: R) -> impl Fn(Lanes<S, R>) -> Lanes<S, R> + Copy {
        times(simd, rstd)
    }

    /// `dx = (g - x_hat * mean(g * x_hat)) * rstd` with `g = dy * weight`.
    #[inline(always)]
    fn gradient<S: Isa, E: Element<Real = R>, D: Element<Real = R>>(
        &self,
        simd: S,
        dy: Source<'_, D>,
        x: Source<'_, E>,
        weight: Source<'_, R>,
        scaling: Scaling,
    ) -> Option<Gradient<R>> {
        let rstd = rstd(simd, x, scaling)?;
        Some(Gradient::scaled(rstd, projection(simd, dy, x, weight, rstd) / x.len() as f64, scaling))
    }
}

/// The factor that normalizes, in every lane.
#[inline(always)]
pub(super) fn times<S: Isa, R: Real>(simd: S, factor: R) -> impl Fn(Lanes<S, R>) -> Lanes<S, R> + Copy {
    let factor = Lanes::splat(simd, factor);
    move |x| x * factor
}

/// `sum(dy * weight * x_hat)` with `x_hat = x * rstd`.
#[inline(always)]
pub(super) fn projection<S: Isa, R: Real, E: Element<Real = R>, D: Element<Real = R>>(
    simd: S,
    dy: Source<'_, D>,
    x: Source<'_, E>,
    weight: Source<'_, R>,
    rstd: f64,
) -> f64 {
    let rstd = Lanes::splat(simd, R::from_f64(rstd));
    let [sum] = sum(simd, (dy, x, weight), |(dy, x, w), [b]| [(dy * w).mul_add(x * rstd, b)]);
    sum
}
