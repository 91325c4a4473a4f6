//! Group normalization.
//!
//! `y = (x - mean) / sqrt(var + eps) * weight + bias`, the moments of each of `num_groups` groups of channels of each sample,
//! over its channels and space, the variance biased.
//!
//! **Shapes.** `x`, `y`: `[n, c, s..]`; `weight`, `bias`: `[c]`, each optional. `num_groups` divides `c` (no channels may come in no groups).
//!
//! **Dtypes.** As for `layer_norm`.
//!
//! **Special values.** A NaN or an infinity makes its group NaN; so does a constant group with `eps = 0`.
//!
//! **Errors.** Sizes, types or attributes that do not fit are refused, by name.
//!
//! **Source.** Wu, He: Group Normalization, arXiv:1803.08494.

use super::{Backward, Division, Forward, Sets, run, write_params};
use crate::abi::{Call, Refusal};
use crate::cpu::arguments::for_data_type;
use crate::simd::Element;

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

fn sets<'a, D: Element>(call: &'a Call<'a>) -> Result<Sets<'a, D::Real>, Refusal> {
    let groups = call.integer("num_groups")?;
    let groups = usize::try_from(groups).map_err(|_| Refusal::Failed(format!("num_groups is {groups}")))?;
    Sets::new::<D>(call, |_| Division::Groups(groups))
}

fn forward_typed<D: Element>(call: &Call<'_>) -> Result<(), Refusal> {
    let sets = sets::<D>(call)?;
    run(&sets, &[sets.input::<D>("x")?], &sets.output("y")?, &Forward::new(&sets.parameters));
    Ok(())
}

fn backward_typed<D: Element>(call: &Call<'_>) -> Result<(), Refusal> {
    let sets = sets::<D>(call)?;
    let params = sets.param_outputs()?;
    let inputs = [sets.input::<D>("dy")?, sets.input("x")?];
    let record = run(&sets, &inputs, &sets.output("dx")?, &Backward::new(&sets.parameters));
    write_params(&sets, params, &record)
}
