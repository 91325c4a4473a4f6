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

use super::{Job, Room, RowKernel, Rows, Sums, run};
use crate::abi::{Call, Refusal};
use crate::cpu::arguments::{eps, for_data_type};
use crate::cpu::moments::{Attempt, Scaling, attempt, squares};
use crate::simd::{Element, Isa, Lanes, Real, Sink, Source, map, sum};

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

/// The least divisor.
struct Floor(f64);

/// The norm of a row and the least divisor, both as the row is scaled.
#[derive(Clone, Copy)]
struct Norm {
    norm: f64,
    floor: f64,
}

impl Norm {
    /// `None` if the sum of squares is not to be trusted; its error does not matter where the floor is far above.
    #[inline(always)]
    fn new<S: Isa, E: Element>(simd: S, x: Source<'_, E>, floor: f64, scaling: Scaling) -> Option<Self> {
        let total = squares(simd, x);
        scaling.accepts::<E::Real>(total).then(|| Norm { norm: total.sqrt(), floor: floor * scaling.scale })
    }

    /// A norm of NaN stays one.
    #[inline(always)]
    fn divisor(self) -> f64 {
        if self.norm < self.floor { self.floor } else { self.norm }
    }
}

fn forward_typed<D: Element>(call: &Call<'_>) -> Result<(), Refusal> {
    let rows = Rows::new(call, 1)?;
    let job = Job { inputs: [rows.input::<D>("x")?], outputs: [rows.output("y")?] };
    run(&rows, &job, [None, None], &Floor(eps(call)?))
}

impl<D: Element> RowKernel<D, 1, 1> for Floor {
    #[inline(always)]
    fn row<S: Isa>(
        &self,
        simd: S,
        room: &mut Room<D::Real>,
        [x]: [Source<'_, D>; 1],
        [y]: [Sink<'_, D>; 1],
        _: Sums<'_, D::Real>,
    ) {
        attempt(simd, x, self.0 * self.0, &mut room.scaled, Forward { y, floor: self.0 });
    }
}

/// One row forward.
struct Forward<'a, D> {
    y: Sink<'a, D>,
    floor: f64,
}

impl<D: Element> Attempt<D::Real> for Forward<'_, D> {
    #[inline(always)]
    fn attempt<S: Isa, E: Element<Real = D::Real>>(&mut self, simd: S, x: Source<'_, E>, scaling: Scaling) -> bool {
        let Some(norm) = Norm::new(simd, x, self.floor, scaling) else { return false };
        let divisor = Lanes::splat(simd, D::Real::from_f64(norm.divisor()));
        map(simd, x, self.y.reborrow(), |x| x / divisor);
        true
    }
}

fn backward_typed<D: Element>(call: &Call<'_>) -> Result<(), Refusal> {
    let rows = Rows::new(call, 1)?;
    let job = Job { inputs: [rows.input::<D>("dy")?, rows.input("x")?], outputs: [rows.output("dx")?] };
    run(&rows, &job, [None, None], &Floor(eps(call)?))
}

impl<D: Element> RowKernel<D, 2, 1> for Floor {
    #[inline(always)]
    fn row<S: Isa>(
        &self,
        simd: S,
        room: &mut Room<D::Real>,
        [dy, x]: [Source<'_, D>; 2],
        [dx]: [Sink<'_, D>; 1],
        _: Sums<'_, D::Real>,
    ) {
        attempt(simd, x, self.0 * self.0, &mut room.scaled, Backward { dy, dx, floor: self.0 });
    }
}

/// One row backward.
struct Backward<'a, D> {
    dy: Source<'a, D>,
    dx: Sink<'a, D>,
    floor: f64,
}

impl<R: Real, D: Element<Real = R>> Attempt<R> for Backward<'_, D> {
    /// `dx = (dy - x_hat * sum(dy * x_hat)) / divisor` with `x_hat = x / divisor`; the second term only where the
    /// norm is the divisor, and not 0.
    #[inline(always)]
    fn attempt<S: Isa, E: Element<Real = R>>(&mut self, simd: S, x: Source<'_, E>, scaling: Scaling) -> bool {
        let Some(norm) = Norm::new(simd, x, self.floor, scaling) else { return false };
        let divisor = Lanes::splat(simd, R::from_f64(norm.divisor()));
        let unscaled = Lanes::splat(simd, R::from_f64(norm.divisor() / scaling.scale));
        let dx = self.dx.reborrow();
        if norm.norm >= norm.floor && norm.norm != 0.0 {
            let [b] = sum(simd, (self.dy, x), |(dy, x), [b]| [dy.mul_add(x / divisor, b)]);
            let b = Lanes::splat(simd, R::from_f64(b));
            map(simd, (self.dy, x), dx, |(dy, x)| (dy - (x / divisor) * b) / unscaled);
        } else {
            map(simd, self.dy, dx, |dy| dy / unscaled);
        }
        true
    }
}
