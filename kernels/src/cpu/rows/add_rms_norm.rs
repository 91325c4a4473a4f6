//! Residual addition and root-mean-square normalization in one.
//!
//! `h = x + residual`; `residual_out = round(h)`; `y` is the RMS normalization of `round(h)` (`sum = rounded`) or of `h` in the
//! working precision (`sum = unrounded`). Backward, `dx = dresidual` is the gradient of the normalization at `h` plus
//! `dresidual_out`.
//!
//! **Shapes.** `x`, `residual`, `y`, `residual_out`: `[r.., d..]`; `weight`: `[d..]`, optional.
//!
//! **Dtypes.** As for `rms_norm` without casts; a second rounding, when `residual_out` is stored.
//!
//! **Special values, errors.** As for `rms_norm`.
//!
//! **Source.** Zhang, Sennrich: Root Mean Square Layer Normalization, arXiv:1910.07467; fused as inference libraries
//! do.

use super::add_layer_norm::{Sum, backward_job, forward_job};
use super::rms_norm::{Backward, Cast, Forward};
use super::{Normalization, Room, RowKernel, Rows, Sums, run};
use crate::abi::{Call, Refusal};
use crate::cpu::arguments::for_data_type;
use crate::cpu::moments::attempt;
use crate::simd::{Element, Isa, Sink, Source, map};

/// `x`, `residual`, `weight`? -> `y`, `residual_out`
///
/// # Errors
/// See the module.
pub fn forward(call: &Call<'_>) -> Result<(), Refusal> {
    for_data_type!(call, forward_typed)
}

/// `dy`, `dresidual_out`, `x`, `residual`, `weight`? -> `dx`, `dresidual`, `dweight`?
///
/// # Errors
/// See the module.
pub fn backward(call: &Call<'_>) -> Result<(), Refusal> {
    for_data_type!(call, backward_typed)
}

/// Distinguishes this operator.
struct AddRms(Sum);

fn forward_typed<D: Element>(call: &Call<'_>) -> Result<(), Refusal> {
    let rows = Rows::normalized(call)?;
    run(&rows, &forward_job::<D>(&rows)?, [None, None], &rows.normalization::<D, _>(AddRms(Sum::new(call)?))?)
}

impl<D: Element> RowKernel<D, 2, 2> for Normalization<'_, D::Real, AddRms> {
    #[inline(always)]
    fn row<S: Isa>(
        &self,
        simd: S,
        room: &mut Room<D::Real>,
        [x, residual]: [Source<'_, D>; 2],
        [y, residual_out]: [Sink<'_, D>; 2],
        _: Sums<'_, D::Real>,
    ) {
        self.detail.0.add(simd, (x, residual), &mut room.sum, Some(residual_out));
        let h = Source::from(&room.sum[..]);
        let forward = Forward { y, weight: self.affine.weight.source(), cast: Cast::None };
        attempt(simd, h, self.eps, &mut room.scaled, forward);
    }
}

fn backward_typed<D: Element>(call: &Call<'_>) -> Result<(), Refusal> {
    let rows = Rows::normalized(call)?;
    let this = rows.normalization::<D, _>(AddRms(Sum::new(call)?))?;
    run(&rows, &backward_job::<D>(&rows)?, rows.param_outputs()?, &this)
}

impl<D: Element> RowKernel<D, 4, 2> for Normalization<'_, D::Real, AddRms> {
    #[inline(always)]
    fn row<S: Isa>(
        &self,
        simd: S,
        room: &mut Room<D::Real>,
        [dy, dresidual_out, x, residual]: [Source<'_, D>; 4],
        [mut dx, dresidual]: [Sink<'_, D>; 2],
        sums: Sums<'_, D::Real>,
    ) {
        self.detail.0.add(simd, (x, residual), &mut room.sum, None);
        let h = Source::from(&room.sum[..]);
        let weight = self.affine.weight.source();
        let backward = Backward { dy, more: dresidual_out, dx: dx.reborrow(), weight, cast: Cast::None, sums };
        attempt(simd, h, self.eps, &mut room.scaled, backward);
        map(simd, dx.source(), dresidual, |dx| dx);
    }
}
