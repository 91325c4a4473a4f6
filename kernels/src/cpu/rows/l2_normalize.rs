//! Division by the Euclidean norm.
//!
//! `y = x / max(sqrt(sum(x^2)), eps)`, along the last axis. Backward, the gradient passes through the norm where it is at
//! least `eps`, and the norm's own gradient at 0 is 0.
//!
//! **Shapes.** `x`, `y`: `[r.., d]`.
//!
//! **Dtypes.** Storage f32, f64, bf16, f16. Arithmetic in f32 (f64 for f64), totals and the square root in f64; a true
//! division; one rounding, when `y` is stored.
//!
//! **Special values.** A NaN makes its row NaN; an infinity makes its own place NaN and the rest of its row 0; a row of
//! zeros with `eps = 0` is NaN (0 / 0). Rows whose squares leave the range of the working precision are rescaled by a
//! power of two and come out right.
//!
//! **Errors.** Sizes, types or attributes that do not fit are refused, by name.
//!
//! **Source.** `torch.nn.functional.normalize` with p = 2.

use super::rms_norm::projection;
use super::{Gradient, Operator, Parameters, Rows};
use crate::abi::{Call, Refusal};
use crate::cpu::arguments::{Param, eps, for_data_type};
use crate::cpu::moments::{Scaling, squares};
use crate::simd::{Element, Isa, Lanes, Real, Source};

/// `x` -> `y`
///
/// # Errors
/// See the module.
pub fn forward(call: &Call<'_>) -> Result<(), Refusal> {
    for_data_type!(call, forward_typed)
}

/// `dy`, `x` -> `dx`
///
/// # Errors
/// See the module.
pub fn backward(call: &Call<'_>) -> Result<(), Refusal> {
    for_data_type!(call, backward_typed)
}

fn forward_typed<D: Element>(call: &Call<'_>) -> Result<(), Refusal> {
    let rows = Rows::new(call, 1)?;
    let (parameters, operator) = Floor::new(call, &rows)?;
    rows.forward::<D, _>(&parameters, &operator)
}

fn backward_typed<D: Element>(call: &Call<'_>) -> Result<(), Refusal> {
    let rows = Rows::new(call, 1)?;
    let (parameters, operator) = Floor::new(call, &rows)?;
    rows.backward::<D, _>(&parameters, &operator)
}

/// Division by the norm, or by the least divisor.
struct Floor(f64);

/// The norm of a row and the least divisor, both as the row is scaled.
#[derive(Clone, Copy)]
struct Norm {
    norm: f64,
    floor: f64,
}

impl Floor {
    /// Squares are compared with the square of the floor.
    fn new<'a, R: Real>(call: &Call<'_>, rows: &Rows<'_>) -> Result<(Parameters<'a, R>, Self), Refusal> {
        let (floor, one) = (eps(call)?, vec![R::from_f64(1.0); rows.width]);
        Ok((Parameters { eps: floor * floor, weight: Param::Owned(one), bias: Param::Owned(Vec::new()) }, Floor(floor)))
    }

    /// `None` if the sum of squares is not to be trusted; its error does not matter where the floor is far above.
    #[inline(always)]
    fn norm<S: Isa, E: Element>(&self, simd: S, x: Source<'_, E>, scaling: Scaling) -> Option<Norm> {
        let total = squares(simd, x);
        scaling.accepts::<E::Real>(total).then(|| Norm { norm: total.sqrt(), floor: self.0 * scaling.scale })
    }
}

impl Norm {
    /// A norm of NaN stays one.
    #[inline(always)]
    fn divisor(self) -> f64 {
        if self.norm < self.floor { self.floor } else { self.norm }
    }
}

impl<R: Real> Operator<R> for Floor {
    type Statistic = R;

    #[inline(always)]
    fn measure<S: Isa, E: Element<Real = R>>(&self, simd: S, x: Source<'_, E>, scaling: Scaling) -> Option<R> {
        self.norm(simd, x, scaling).map(|norm| R::from_f64(norm.divisor()))
    }

    #[inline(always)]
    fn normalized<S: Isa>(&self, simd: S, divisor: R) -> impl Fn(Lanes<S, R>) -> Lanes<S, R> + Copy {
        let divisor = Lanes::splat(simd, divisor);
        move |x| x / divisor
    }

    /// `dx = (dy - x_hat * sum(dy * x_hat)) / divisor` with `x_hat = x / divisor`; the second term only where the
    /// norm is the divisor, and not 0.
    #[inline(always)]
    fn gradient<S: Isa, E: Element<Real = R>, D: Element<Real = R>>(
        &self,
        simd: S,
        dy: Source<'_, D>,
        x: Source<'_, E>,
        weight: Source<'_, R>,
        scaling: Scaling,
    ) -> Option<Gradient<R>> {
        let norm = self.norm(simd, x, scaling)?;
        let rstd = 1.0 / norm.divisor();
        let is_coupled = norm.norm >= norm.floor && norm.norm != 0.0;
        let sum = if is_coupled { projection(simd, dy, x, weight, rstd) } else { 0.0 };
        Some(Gradient::scaled(rstd, sum, scaling))
    }
}
