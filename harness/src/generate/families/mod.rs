//! Value families: what numbers the tensors of a case hold. One family decides all of them.

mod affine;
mod exact;
mod gradients;
mod moments;
mod ordinary;
mod place;
mod range;
mod special;

use isonorm_kernels::abi::Direction;
use isonorm_oracles::operators::{Operator, Role};
use isonorm_oracles::{Problem, Tensor};

use super::{Draws, Random};
pub use place::{Place, Setting};

/// Every family, from the plainest values on: shrinking goes towards the front.
pub static FAMILIES: [&Family; 24] = [
    &ordinary::NORMAL,
    &ordinary::UNIFORM,
    &moments::CONSTANT,
    &special::ZEROS,
    &exact::EXACT,
    &moments::LARGE_MEAN,
    &moments::ADJACENT,
    &moments::NEAR_EPS,
    &ordinary::OUTLIER,
    &ordinary::CANCELLATION,
    &ordinary::SCALES,
    &range::TINY,
    &range::HUGE,
    &range::SUBNORMAL,
    &range::SUBNORMAL_RESULTS,
    &special::NAN,
    &special::INFINITY,
    &affine::WEIGHT_SIGNS,
    &affine::WEIGHT_LARGE,
    &affine::WEIGHT_NEAR_MINUS_ONE,
    &affine::RUNNING,
    &gradients::GRADIENT_PARALLEL,
    &gradients::GRADIENT_CONSTANT,
    &gradients::GRADIENT_ONE_HOT,
];

/// A way to choose the values of all tensors of a case.
#[derive(Debug)]
pub struct Family {
    /// Its name in cases and reports.
    pub name: &'static str,
    /// What the values are.
    pub summary: &'static str,
    /// The bugs that show with such values, and mostly with such values only.
    pub catches: &'static str,
    /// Activations: `x`, `residual`.
    pub data: fn(&Place<'_>) -> f64,
    /// Gradients of the outputs.
    pub gradient: fn(&Place<'_>) -> f64,
    /// The scale.
    pub weight: fn(&Place<'_>) -> f64,
    /// The shift.
    pub bias: fn(&Place<'_>) -> f64,
    /// Running means.
    pub running_mean: fn(&Place<'_>) -> f64,
    /// Running variances; never negative.
    pub running_var: fn(&Place<'_>) -> f64,
    /// Where it says more than the others.
    pub suits: fn(&Operator, Direction) -> bool,
    /// Moves a problem to where the values bite: attributes, sizes, inputs that are given. Values are right without.
    pub adapt: fn(&mut Problem, &mut Draws),
}

/// What a family is made from: ordinary values everywhere.
pub(crate) const PLAIN: Family = Family {
    name: "",
    summary: "",
    catches: "",
    data: |place| place.normal(0),
    gradient: |place| place.normal(0),
    weight: |place| place.normal(0),
    bias: |place| place.normal(0),
    running_mean: |place| place.normal(0),
    running_var: |place| 0.5 + 1.5 * place.uniform(0),
    suits: |_, _| true,
    adapt: |_, _| {},
};

impl PartialEq for Family {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Family {
    /// The family of this name.
    pub fn find(name: &str) -> Option<&'static Family> {
        FAMILIES.into_iter().find(|family| family.name == name)
    }

    /// The values of an input, dense and row-major, as its element type holds them.
    pub fn fill(&self, setting: &Setting<'_>, tensor: &Tensor) -> Vec<f64> {
        let choose = self.chooser(setting.problem(), tensor);
        let mut values = Vec::with_capacity(tensor.len());
        place::visit(setting, tensor, |place| values.push(place.store(choose(place))));
        values
    }

    fn chooser(&self, problem: &Problem, tensor: &Tensor) -> fn(&Place<'_>) -> f64 {
        match (tensor.role, tensor.name.as_str()) {
            (Role::Data, name) if problem.operator.inputs.iter().any(|input| input.name == name) => self.data,
            (Role::Data, _) => self.gradient,
            (Role::Param, "bias") => self.bias,
            (Role::Param, _) => self.weight,
            (Role::State, "running_var") => self.running_var,
            (Role::State, _) => self.running_mean,
        }
    }
}

/// The families that say something about this half of an operator.
pub fn suitable(operator: &Operator, direction: Direction) -> Vec<&'static Family> {
    FAMILIES.into_iter().filter(|family| (family.suits)(operator, direction)).collect()
}

/// A setting for a problem's values.
pub(crate) fn setting<'a>(problem: &'a Problem, inputs: &'a [Tensor], seed: u64) -> Setting<'a> {
    Setting::new(problem, inputs, Random::new(seed))
}

#[cfg(test)]
mod tests;
