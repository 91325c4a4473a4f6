//! Instance normalization.
//!
//! `y = (x - mean) / sqrt(var + eps) * weight + bias`, the moments of each channel of each sample over space, the variance
//! biased. `new_running = (1 - momentum) * running + momentum * m`, where `m` is the mean over the samples of mean and
//! unbiased variance.
//!
//! **Shapes.** `x`, `y`: `[n, c, s..]`; `weight`, `bias`, `running_mean`, `running_var` and the new ones: `[c]`, each
//! parameter optional, the running statistics both or neither.
//!
//! **Dtypes.** As for `batch_norm`.
//!
//! **Special values.** A NaN or an infinity makes its channel of its sample NaN; so does a constant one with `eps = 0`. An
//! empty batch leaves the running statistics as they are.
//!
//! **Errors.** Sizes, types or attributes that do not fit are refused, by name; running statistics of a single value per
//! channel and sample, too.
//!
//! **Source.** Ulyanov, Vedaldi, Lempitsky: Instance Normalization, arXiv:1607.08022.

use super::running::Batch;
use super::{Backward, Division, Forward, Running, Sets, add_up, run, write_params};
use crate::abi::{Call, Refusal};
use crate::cpu::arguments::for_data_type;
use crate::simd::Element;

/// `x`, `weight`?, `bias`?, `running_mean`?, `running_var`? -> `y`, `new_running_mean`?, `new_running_var`?
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

/// Groups of one channel.
fn sets<'a, D: Element>(call: &'a Call<'a>) -> Result<Sets<'a, D::Real>, Refusal> {
    Sets::new::<D>(call, Division::Groups)
}

fn forward_typed<D: Element>(call: &Call<'_>) -> Result<(), Refusal> {
    let sets = sets::<D>(call)?;
    let count = if sets.batch == 0 { 0 } else { sets.spatial };
    let running = Running::new::<D>(call, sets.channels as i64, count)?;
    let momentum = if running.is_some() { call.real("momentum")? } else { 0.0 };
    let record = run(&sets, &[sets.input::<D>("x")?], &sets.output("y")?, &Forward::new(&sets.parameters));
    let Some(running) = running else { return Ok(()) };
    let totals = add_up(&record, sets.channels);
    let batch = Batch { totals: &totals, samples: sets.batch as f64, count: count as f64 };
    running.update(momentum, (count > 0).then_some(&batch))
}

fn backward_typed<D: Element>(call: &Call<'_>) -> Result<(), Refusal> {
    let sets = sets::<D>(call)?;
    let params = sets.param_outputs()?;
    let inputs = [sets.input::<D>("dy")?, sets.input("x")?];
    let record = run(&sets, &inputs, &sets.output("dx")?, &Backward::new(&sets.parameters));
    write_params(&sets, params, &record)
}
