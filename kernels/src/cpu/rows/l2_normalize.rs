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

use super::{Line, Measured, Operator, Parameters, Rows, Verdict};
use crate::abi::{Call, Refusal};
use crate::cpu::arguments::{Param, eps, for_data_type};
use crate::cpu::moments::Scaling;
use crate::simd::{Element, Isa, Lanes, Real};

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

/// What a row is divided by.
#[derive(Clone, Copy)]
struct Divisor {
    /// The norm or the least divisor.
    divisor: f64,
    /// Whether it depends on the row.
    is_norm: bool,
}

impl From<Divisor> for Line {
    #[inline(always)]
    fn from(divisor: Divisor) -> Line {
        Line { mean: 0.0, rstd: 1.0 / divisor.divisor, is_near: true }
    }
}

impl Floor {
    /// Squares are compared with the square of the floor.
    fn new<'a, D: Element>(call: &Call<'_>, rows: &Rows<'_>) -> Result<(Parameters<'a, D>, Self), Refusal> {
        let (floor, one) = (eps(call)?, vec![Element::from_f64(1.0); rows.width]);
        Ok((Parameters { eps: floor * floor, weight: Param::Owned(one), bias: Param::Owned(Vec::new()) }, Floor(floor)))
    }
}

impl<R: Real> Operator<R> for Floor {
    type Statistic = Divisor;

    const HAS_WEIGHT: bool = false;

    /// Rejects a sum of squares that is not to be trusted; its error does not matter where the floor is far above.
    #[inline(always)]
    fn judge(&self, measured: Measured<R>, scaling: Scaling) -> Verdict<R, Divisor> {
        let total = measured.sums[1];
        if !scaling.accepts::<R>(total) {
            return Verdict::Rejected;
        }
        let (norm, floor) = (total.sqrt(), self.0 * scaling.scale);
        // A norm of NaN stays one.
        let divisor = if norm < floor { floor } else { norm };
        Verdict::Accepted(Divisor { divisor, is_norm: norm >= floor && norm != 0.0 })
    }

    #[inline(always)]
    fn normalized<S: Isa>(&self, simd: S, divisor: Divisor) -> impl Fn(Lanes<S, R>) -> Lanes<S, R> + Copy {
        let divisor = Lanes::splat(simd, R::from_f64(divisor.divisor));
        move |x| x / divisor
    }

    /// `dx = (dy - x_hat * sum(dy * x_hat)) / divisor` with `x_hat = x / divisor`; the second term only where the
    /// norm is the divisor, and not 0.
    #[inline(always)]
    fn gradient(&self, divisor: Divisor, _: f64, [_, projection]: [f64; 2]) -> [f64; 2] {
        [-0.0, if divisor.is_norm { -projection } else { -0.0 }]
    }
}
