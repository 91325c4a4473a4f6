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

use super::layer_norm::Addend;
use super::{Gradient, Job, Normalization, Room, RowKernel, Rows, Sums, run, weighted};
use crate::abi::{Call, Refusal};
use crate::cpu::arguments::for_data_type;
use crate::cpu::moments::{Attempt, Scaling, attempt, squares};
use crate::simd::{Discard, Element, Isa, Lanes, Real, Sink, Source, Splat, sum};

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

/// Where half-precision implementations round.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Cast {
    /// Nowhere but at the end.
    None,
    /// Before the weight.
    Llama,
}

fn normalization<'a, D: Element>(
    call: &Call<'a>,
    rows: &Rows<'a>,
) -> Result<Normalization<'a, D::Real, Cast>, Refusal> {
    let (cast, gemma) = match call.text("cast")? {
        "none" => (Cast::None, false),
        // Rounding to the working precision itself changes nothing.
        "llama" => (if D::IS_NARROW { Cast::Llama } else { Cast::None }, false),
        "gemma" => (Cast::None, call.input("weight").is_some()),
        other => return Err(Refusal::Unsupported(format!("cast is `{other}`; it can be none, llama or gemma"))),
    };
    let mut this = rows.normalization::<D, _>(cast)?;
    if gemma {
        this.affine.weight = this.affine.weight.map(|w| Element::from_f64(1.0 + w.to_f64()));
    }
    Ok(this)
}

fn forward_typed<D: Element>(call: &Call<'_>) -> Result<(), Refusal> {
    let rows = Rows::normalized(call)?;
    let job = Job { inputs: [rows.input::<D>("x")?], outputs: [rows.output("y")?] };
    run(&rows, &job, [None, None], &normalization::<D>(call, &rows)?)
}

impl<D: Element> RowKernel<D, 1, 1> for Normalization<'_, D::Real, Cast> {
    #[inline(always)]
    fn row<S: Isa>(
        &self,
        simd: S,
        room: &mut Room<D::Real>,
        [x]: [Source<'_, D>; 1],
        [y]: [Sink<'_, D>; 1],
        _: Sums<'_, D::Real>,
    ) {
        let forward = Forward { y, weight: self.affine.weight.source(), cast: self.detail };
        attempt(simd, x, self.eps, &mut room.scaled, forward);
    }
}

/// One row forward.
pub(super) struct Forward<'a, D: Element> {
    pub y: Sink<'a, D>,
    pub weight: Source<'a, D::Real>,
    pub cast: Cast,
}

impl<D: Element> Attempt<D::Real> for Forward<'_, D> {
    #[inline(always)]
    fn attempt<S: Isa, E: Element<Real = D::Real>>(&mut self, simd: S, x: Source<'_, E>, scaling: Scaling) -> bool {
        let mean = squares(simd, x) / x.len() as f64;
        if !scaling.accepts::<D::Real>(mean) {
            return false;
        }
        let rstd = Lanes::splat(simd, D::Real::from_f64(1.0 / (mean + scaling.eps).sqrt()));
        let y = self.y.reborrow();
        if D::IS_NARROW && self.cast == Cast::Llama {
            weighted(simd, x, y, self.weight, |x| D::round(x * rstd));
        } else {
            weighted(simd, x, y, self.weight, |x| x * rstd);
        }
        true
    }
}

fn backward_typed<D: Element>(call: &Call<'_>) -> Result<(), Refusal> {
    let rows = Rows::normalized(call)?;
    let job = Job { inputs: [rows.input::<D>("dy")?, rows.input("x")?], outputs: [rows.output("dx")?] };
    run(&rows, &job, rows.param_outputs()?, &normalization::<D>(call, &rows)?)
}

impl<D: Element> RowKernel<D, 2, 1> for Normalization<'_, D::Real, Cast> {
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
        let backward = Backward { dy, more, dx, weight: self.affine.weight.source(), cast: self.detail, sums };
        attempt(simd, x, self.eps, &mut room.scaled, backward);
    }
}

/// One row backward; `more` is added to `dx`.
pub(super) struct Backward<'a, D: Element, M> {
    pub dy: Source<'a, D>,
    pub more: M,
    pub dx: Sink<'a, D>,
    pub weight: Source<'a, D::Real>,
    pub cast: Cast,
    pub sums: Sums<'a, D::Real>,
}

impl<R: Real, D: Element<Real = R>, M: Addend<R>> Attempt<R> for Backward<'_, D, M> {
    /// `dx = (g - x_hat * mean(g * x_hat)) * rstd` with `g = dy * weight`.
    #[inline(always)]
    fn attempt<S: Isa, E: Element<Real = R>>(&mut self, simd: S, x: Source<'_, E>, scaling: Scaling) -> bool {
        let mean = squares(simd, x) / x.len() as f64;
        if !scaling.accepts::<R>(mean) {
            return false;
        }
        let rstd = 1.0 / (mean + scaling.eps).sqrt();
        let from = (self.dy, x, self.weight);
        let gradient = Gradient {
            rstd: R::from_f64(rstd),
            b: R::from_f64(projection(simd, from, R::from_f64(rstd)) / x.len() as f64),
            scale: R::from_f64(rstd * scaling.scale),
            ..Gradient::default()
        };
        let (more, dx) = (self.more.lanes::<S>(), self.dx.reborrow());
        match &mut self.sums {
            Some(sums) if D::IS_NARROW && self.cast == Cast::Llama => {
                gradient.apply(simd, from, more, dx, (&mut *sums.weight, Discard), D::round);
            }
            Some(sums) => gradient.apply(simd, from, more, dx, (&mut *sums.weight, Discard), |x_hat| x_hat),
            None => gradient.apply(simd, from, more, dx, (Discard, Discard), |x_hat| x_hat),
        }
        true
    }
}

/// `sum(dy * weight * x_hat)` with `x_hat = x * rstd`.
#[inline(always)]
pub(super) fn projection<S: Isa, R: Real, E: Element<Real = R>, D: Element<Real = R>>(
    simd: S,
    from: (Source<'_, D>, Source<'_, E>, Source<'_, R>),
    rstd: R,
) -> f64 {
    let rstd = Lanes::splat(simd, rstd);
    let [sum] = sum(simd, from, |(dy, x, w), [b]| [(dy * w).mul_add(x * rstd, b)]);
    sum
}
