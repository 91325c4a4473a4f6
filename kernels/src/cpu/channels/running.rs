//! Running statistics.

use crate::abi::{Call, Refusal};
use crate::cpu::arguments::{Param, ParamOutput, running};
use crate::simd::{Element, Real};

/// The running mean and variance of each channel, and where the new ones go.
pub struct Running<'a, R: Real> {
    old: [Param<'a, R>; 2],
    new: [ParamOutput<'a>; 2],
}

impl<'a, R: Real> Running<'a, R> {
    /// The running statistics of a call, if it has them.
    ///
    /// # Errors
    /// If there is one but not the other, if sizes or types do not fit, or if `count`, the number of values that a
    /// variance is taken from, is 1.
    pub fn new<D: Element<Real = R>>(call: &Call<'a>, channels: i64, count: usize) -> Result<Option<Self>, Refusal> {
        let (mean, variance) = match (call.input("running_mean"), call.input("running_var")) {
            (Some(mean), Some(variance)) => (mean, variance),
            (None, None) => return Ok(None),
            _ => return Err(Refusal::Failed("running_mean and running_var come together or not at all".to_owned())),
        };
        if count == 1 {
            let message = "running statistics need at least 2 values per channel: one value has no unbiased variance";
            return Err(Refusal::Failed(message.to_owned()));
        }
        let output = |name| {
            let missing = || Refusal::Failed(format!("output `{name}` is missing"));
            ParamOutput::find(call, name, &[channels])?.ok_or_else(missing)
        };
        Ok(Some(Running {
            old: [running::<D>("running_mean", &mean, channels)?, running::<D>("running_var", &variance, channels)?],
            new: [output("new_running_mean")?, output("new_running_var")?],
        }))
    }

    /// Writes `(1 - factor) * old + factor * new`, with the moments of each channel; without `new`, the old ones.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn update(&self, factor: f64, new: Option<&Batch<'_>>) -> Result<(), Refusal> {
        for (which, output) in self.new.iter().enumerate() {
            let old = self.old[which].source();
            let mut mixed: Vec<f64> = (0..old.len()).map(|channel| old.get(channel).to_f64()).collect();
            if let Some(Batch { totals, samples, count }) = new {
                let unbiased = if which == 1 { count / (count - 1.0) } else { 1.0 };
                for (mixed, total) in mixed.iter_mut().zip(*totals) {
                    *mixed = (1.0 - factor) * *mixed + factor * (total[which] / samples * unbiased);
                }
            }
            output.write(mixed.into_iter())?;
        }
        Ok(())
    }
}

/// The moments of a batch.
pub struct Batch<'a> {
    /// Mean and biased variance of each channel, added up over samples.
    pub totals: &'a [[f64; 2]],
    /// How many samples those are.
    pub samples: f64,
    /// Values that each variance is taken from.
    pub count: f64,
}
