//! Residual addition and layer normalization in one.
//!
//! `h = x + residual`; `residual_out = round(h)`; `y` is the layer normalization of `round(h)` (`sum = rounded`) or of `h` in
//! the working precision (`sum = unrounded`). Backward, `dx = dresidual` is the gradient of the normalization at `h`
//! plus `dresidual_out`.
//!
//! **Shapes.** `x`, `residual`, `y`, `residual_out`: `[r.., d..]`; `weight`, `bias`: `[d..]`, each optional.
//!
//! **Dtypes.** As for `layer_norm`; a second rounding, when `residual_out` is stored.
//!
//! **Special values, errors.** As for `layer_norm`.
//!
//! **Source.** Ba, Kiros, Hinton: Layer Normalization, arXiv:1607.06450; fused as inference libraries do.

use super::Rows;
use super::layer_norm::LayerNorm;
use crate::abi::{Call, Refusal};
use crate::cpu::arguments::for_data_type;
use crate::simd::Element;

/// `x`, `residual`, `weight`?, `bias`? -> `y`, `residual_out`
///
/// # Errors
/// See the module.
pub fn forward(call: &Call<'_>) -> Result<(), Refusal> {
    for_data_type!(call, forward_typed)
}

/// `dy`, `dresidual_out`, `x`, `residual`, `weight`?, `bias`? -> `dx`, `dresidual`, `dweight`?, `dbias`?
///
/// # Errors
/// See the module.
pub fn backward(call: &Call<'_>) -> Result<(), Refusal> {
    for_data_type!(call, backward_typed)
}

fn forward_typed<D: Element>(call: &Call<'_>) -> Result<(), Refusal> {
    let rows = Rows::normalized(call)?;
    rows.add_forward::<D, _>(&rows.parameters::<D>(true)?, &LayerNorm)
}

fn backward_typed<D: Element>(call: &Call<'_>) -> Result<(), Refusal> {
    let rows = Rows::normalized(call)?;
    rows.add_backward::<D, _>(&rows.parameters::<D>(true)?, &LayerNorm)
}
