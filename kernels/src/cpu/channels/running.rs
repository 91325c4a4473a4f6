//! Running statistics.

use crate::abi::{Call, Refusal};
use crate::cpu::arguments::{ParamOutput, running};
use crate::simd::Element;

/// The running mean and variance of each channel, and where the new ones go.
pub struct Running<'a> {
    old: [Vec<f64>; 2],
    new: [ParamOutput<'a>; 2],
}

impl<'a> Running<'a> {
    /// The running statistics of a call, if it has them.
    ///
    /// # Errors
    /// If there is one but not the other, if sizes or types do not fit, or if `count`, the number of values that a
    /// variance is taken from, is 1.
    pub fn new<D: Element>(call: &Call<'a>, channels: i64, count: usize) -> Result<Option<Self>, Refusal> {
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

    /// Writes `(1 - factor) * old + factor * new`, where `new` gives mean and unbiased variance of a channel; without
    /// `new`, the old ones.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn update(&self, factor: f64, new: Option<impl Fn(usize) -> [f64; 2]>) -> Result<(), Refusal> {
        for (which, output) in self.new.iter().enumerate() {
            let mix = |(channel, &old): (usize, &f64)| match &new {
                Some(new) => (1.0 - factor) * old + factor * new(channel)[which],
                None => old,
            };
            output.write(self.old[which].iter().enumerate().map(mix))?;
        }
        Ok(())
    }
}
