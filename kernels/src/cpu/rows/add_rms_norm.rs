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

use super::Rows;
use super::rms_norm::RmsNorm;
use crate::abi::{Call, Refusal};
use crate::cpu::arguments::for_data_type;
use crate::simd::Element;

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

fn forward_typed<D: Element>(call: &Call<'_>) -> Result<(), Refusal> {
    let rows = Rows::normalized(call)?;
    rows.add_forward::<D, _>(&rows.parameters::<D>(false)?, &RmsNorm { rounds: false })
}

fn backward_typed<D: Element>(call: &Call<'_>) -> Result<(), Refusal> {
    let rows = Rows::normalized(call)?;
    rows.add_backward::<D, _>(&rows.parameters::<D>(false)?, &RmsNorm { rounds: false })
}
