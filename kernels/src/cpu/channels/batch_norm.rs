//! Batch normalization, training.
//!
//! `y = (x - mean) / sqrt(var + eps) * weight + bias`, the moments of each channel over batch and space, the variance biased.
//! `new_running = (1 - f) * running + f * batch`, with the unbiased variance; `f` is `momentum`, or
//! `1 / (num_batches_tracked + 1)` without one.
//!
//! **Shapes.** `x`, `y`: `[n, c, s..]`; `weight`, `bias`, `running_mean`, `running_var` and the new ones: `[c]`, each
//! parameter optional, the running statistics both or neither.
//!
//! **Dtypes.** Storage f32, f64, bf16, f16; parameters alike, or f32 beside bf16 and f16; running statistics f32 (f64 for
//! f64). Arithmetic in f32 (f64 for f64), totals, the square root and the running statistics in f64; one rounding, when
//! a value is stored.
//!
//! **Special values.** A NaN or an infinity makes its channel NaN; so does a constant channel with `eps = 0`. An empty batch
//! leaves the running statistics as they are.
//!
//! **Errors.** Sizes, types or attributes that do not fit are refused, by name; running statistics of a single value per
//! channel, too.
//!
//! **Source.** Ioffe, Szegedy: Batch Normalization, arXiv:1502.03167.

use super::running::Batch;
use super::{Backward, Division, Forward, Running, Sets, run, write_params};
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

fn forward_typed<D: Element>(call: &Call<'_>) -> Result<(), Refusal> {
    let sets = Sets::new::<D>(call, |_| Division::Batch)?;
    let count = sets.batch * sets.spatial;
    let running = Running::new::<D>(call, sets.channels as i64, count)?;
    let factor = match &running {
        None => 0.0,
        Some(_) if call.has_attribute("momentum") => call.real("momentum")?,
        Some(_) => 1.0 / (call.integer("num_batches_tracked")? as f64 + 1.0),
    };
    let record = run(&sets, &[sets.input::<D>("x")?], &sets.output("y")?, &Forward::new(&sets.parameters));
    let batch = Batch { totals: &record, samples: 1.0, count: count as f64 };
    running.map_or(Ok(()), |running| running.update(factor, (count > 0).then_some(&batch)))
}

fn backward_typed<D: Element>(call: &Call<'_>) -> Result<(), Refusal> {
    let sets = Sets::new::<D>(call, |_| Division::Batch)?;
    let params = sets.param_outputs()?;
    let inputs = [sets.input::<D>("dy")?, sets.input("x")?];
    let record = run(&sets, &inputs, &sets.output("dx")?, &Backward::new(&sets.parameters));
    write_params(&sets, params, &record)
}
