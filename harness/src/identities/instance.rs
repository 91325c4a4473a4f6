//! An identity with sizes and numbers.

use isonorm_kernels::abi::Dtype;
use isonorm_oracles::formula::Graph;
use isonorm_oracles::identities::{Identity, Input, Size, Values};
use isonorm_oracles::interpret::Sizes;
use isonorm_oracles::storage::Format;

use crate::generate::Random;

/// How large a case is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Layers.
    pub depth: usize,
    /// The size of the axis that stands for the width.
    pub width: usize,
    /// Whether it is one of those that are drawn.
    pub drawn: bool,
}

/// An identity with sizes and the values of all inputs.
#[derive(Clone, Debug)]
pub struct Instance {
    /// Which identity.
    pub identity: &'static Identity,
    /// How large.
    pub shape: Shape,
    /// The sizes of all axes.
    pub sizes: Sizes,
    /// The inputs.
    pub inputs: Vec<Input>,
    /// Their values.
    pub values: Vec<Vec<f64>>,
}

impl Instance {
    /// Draws what the shape leaves open. Values are numbers of f64 with bits to spare in f32.
    pub fn new(identity: &'static Identity, shape: Shape, random: Random) -> Instance {
        let drawn = random.named("sizes");
        let sizes = identity.sizes(|axis| match axis.size {
            Size::Between(from, to) => from + drawn.named(axis.name).below(0, to - from + 1),
            Size::Width(..) | Size::Follows(_) => shape.width,
        });
        let inputs = (identity.inputs)(shape.depth);
        let names = Graph { axes: identity.axes.iter().map(|axis| axis.name).collect(), ..Graph::default() };
        let values = inputs.iter().map(|input| fill(input, &names, &sizes, random.named(&input.name))).collect();
        Instance { identity, shape, sizes, inputs, values }
    }

    /// The same with the values rounded to a type.
    pub fn rounded(&self, dtype: Dtype) -> Instance {
        let format = Format::of(dtype);
        let round = |values: &Vec<f64>| values.iter().map(|&value| format.round(value)).collect();
        Instance { values: self.values.iter().map(round).collect(), ..self.clone() }
    }
}

fn fill(input: &Input, names: &Graph, sizes: &Sizes, random: Random) -> Vec<f64> {
    let axes = names.axis_set(input.axes);
    let count = sizes.count(axes);
    let value = |place: usize| match input.values {
        Values::Normal(mean, deviation) => mean + deviation * random.normal(2 * place as u64),
        Values::Fan(over, deviation) => {
            deviation * random.normal(2 * place as u64) / (sizes.count(names.axis_set(over)) as f64).sqrt()
        }
        Values::Uniform(low, high) => low + (high - low) * random.uniform(place as u64),
        Values::OneHot => {
            let last = axes.iter().last().map_or(1, |axis| sizes.of(axis));
            f64::from(place % last == random.below((place / last) as u64, last))
        }
    };
    (0..count).map(value).collect()
}
