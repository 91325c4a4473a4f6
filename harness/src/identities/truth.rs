//! Both sides of an identity in double-double arithmetic.

use isonorm_kernels::abi::Dtype;
use isonorm_oracles::dd::Dd;
use isonorm_oracles::formula::Graph;
use isonorm_oracles::identities::Kind;
use isonorm_oracles::interpret::bound::{Arithmetic, OutputBound, bound};
use isonorm_oracles::interpret::exact::{Values, exact};
use isonorm_oracles::interpret::gradient::{Wanted, gradient};

use super::instance::Instance;
use crate::generate::Random;

/// The same outputs of both sides, as graphs with their values.
pub struct Truth {
    /// Both sides.
    pub sides: [Graph; 2],
    /// The values of the graphs' inputs, which are the same for both.
    pub inputs: Vec<Vec<f64>>,
    /// The values of the graphs' nodes.
    pub values: [Values; 2],
}

impl Truth {
    /// The values of both sides, wrong in this way if in one.
    pub fn forward(instance: &Instance, deviation: Option<&'static str>) -> Truth {
        let sides = instance.identity.sides(instance.shape.depth, deviation);
        Truth::of(sides, instance.values.clone(), instance)
    }

    /// The gradients of both sides with respect to data and parameters; none where there are none.
    pub fn gradient(instance: &Instance) -> Option<Truth> {
        let wanted: Vec<Wanted> = instance
            .inputs
            .iter()
            .filter(|input| input.kind != Kind::Fixed)
            .map(|input| Wanted { input: input.name.clone(), dtype: Dtype::F64 })
            .collect();
        if wanted.is_empty() {
            return None;
        }
        let forward = instance.identity.sides(instance.shape.depth, None);
        let sides = forward.each_ref().map(|side| gradient(side, &["y"], &wanted));
        let random = Random::new(1).named("dy");
        let seed = instance.sizes.count(forward[0].node(forward[0].outputs[0].node).axes);
        // Multiples of 1/8: numbers of every type.
        let seed = (0..seed as u64).map(|place| (random.normal(2 * place) * 8.0).round() / 8.0).collect();
        let inputs = std::iter::once(seed).chain(instance.values.iter().cloned()).collect();
        Some(Truth::of(sides, inputs, instance))
    }

    fn of(sides: [Graph; 2], inputs: Vec<Vec<f64>>, instance: &Instance) -> Truth {
        let slices: Vec<&[f64]> = inputs.iter().map(Vec::as_slice).collect();
        let values = sides.each_ref().map(|side| exact(side, &instance.sizes, &slices));
        Truth { sides, inputs, values }
    }

    /// An output of a side.
    pub fn output(&self, side: usize, place: usize) -> &[Dd] {
        &self.values[side].nodes[self.sides[side].outputs[place].node.index()]
    }

    /// How many outputs there are.
    pub fn outputs(&self) -> usize {
        self.sides[0].outputs.len()
    }

    /// The largest difference of both sides relative to [`Truth::scale`], over all outputs.
    pub fn discrepancy(&self) -> f64 {
        let apart = |place| {
            let pairs = self.output(0, place).iter().zip(self.output(1, place));
            pairs.map(|(&left, &right)| (left - right).abs().hi).fold(0.0, worse) / self.scale(place)
        };
        (0..self.outputs()).map(apart).fold(0.0, worse)
    }

    /// The bounds of both sides.
    pub fn bounds(&self, arithmetic: Arithmetic) -> [Vec<OutputBound>; 2] {
        [0, 1].map(|side| bound(&self.sides[side], &self.values[side], arithmetic))
    }

    /// The largest value of an output. What is so small everywhere, beside data and gradients of magnitude 1, is a 0 that
    /// was rounded: then 1.
    pub fn scale(&self, place: usize) -> f64 {
        const ZERO: f64 = 1e-20;
        let largest = self.output(0, place).iter().map(|value| value.abs().hi).fold(0.0, f64::max);
        if largest < ZERO { 1.0 } else { largest }
    }
}

/// The larger; NaN if either is.
pub fn worse(a: f64, b: f64) -> f64 {
    if a.is_nan() || a >= b { a } else { b }
}

/// Whether a difference is more than this; one that is NaN is.
pub fn beyond(difference: f64, limit: f64) -> bool {
    difference > limit || difference.is_nan()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nan_is_not_equal() {
        for (a, b) in [(f64::NAN, 1.0), (1.0, f64::NAN)] {
            assert!(worse(a, b).is_nan());
        }
        assert_eq!((worse(1.0, 2.0), worse(2.0, 1.0)), (2.0, 2.0));
        assert!(beyond(f64::NAN, 1.0) && beyond(2.0, 1.0) && !beyond(1.0, 1.0));
    }
}
