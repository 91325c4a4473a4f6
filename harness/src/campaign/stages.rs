//! Where the time of a campaign goes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// One stage of the way of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Making the case and its bytes.
    Generate,
    /// The true values.
    Exact,
    /// The bounds.
    Bound,
    /// The kernel, all its calls and the checks of its conduct.
    Kernel,
    /// Comparing.
    Judge,
    /// libtorch's answer and its comparison.
    Torch,
    /// Transformed inputs.
    Relations,
    /// From a failing case to the smallest.
    Shrink,
}

impl Stage {
    /// Its name in records.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Generate => "generate",
            Stage::Exact => "exact",
            Stage::Bound => "bound",
            Stage::Kernel => "kernel",
            Stage::Judge => "judge",
            Stage::Torch => "torch",
            Stage::Relations => "relations",
            Stage::Shrink => "shrink",
        }
    }
}

/// Seconds by stage.
#[derive(Clone, Debug, Default)]
pub struct Stages(BTreeMap<Stage, f64>);

impl Stages {
    /// Does something on the clock of a stage.
    pub fn time<T>(&mut self, stage: Stage, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = work();
        self.add(stage, start.elapsed());
        result
    }

    /// Adds time to a stage.
    pub fn add(&mut self, stage: Stage, time: Duration) {
        *self.0.entry(stage).or_default() += time.as_secs_f64();
    }

    /// Adds another's seconds.
    pub fn merge(&mut self, other: &Stages) {
        for (stage, seconds) in &other.0 {
            *self.0.entry(*stage).or_default() += seconds;
        }
    }

    /// Stages and seconds.
    pub fn iter(&self) -> impl Iterator<Item = (Stage, f64)> + '_ {
        self.0.iter().map(|(stage, seconds)| (*stage, *seconds))
    }
}
