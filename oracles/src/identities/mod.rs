//! Identities: pairs of formulas that are the same function, with a map of parameters from one to the other.
//!
//! Each is a file: the two sides, the map, the condition, and what is wrong on purpose. To add one, copy a neighbour and name
//! it in [`IDENTITIES`].

use std::collections::BTreeMap;

use isonorm_kernels::abi::Dtype;

use crate::apply;
use crate::formula::{Builder, Expr, Graph};
use crate::interpret::Sizes;
use crate::operators::Paper;

mod activation_equalization;
mod batch_norm_into_convolution;
mod batch_norm_into_linear;
mod batch_norm_into_next;
mod batch_norm_into_separable_convolution;
mod batch_norm_into_transposed_convolution;
mod batch_statistics;
mod block;
mod centred_layer_norm;
mod divisive_normalization;
mod flash_norm;
mod frozen_affine;
mod group_norm;
mod layer_norm_projection;
mod learnable_scaling;
mod membrane_potential;
mod mixed_statistics;
mod pre_crms_norm_transformer;
mod pre_rms_norm_transformer;
mod rep_batch_norm;
mod reversible;
mod rotated_transformer;
mod scale_invariance;
mod step_on_invariant_weights;
mod unified_norm;
mod weight_normalizations;

/// Every identity. Tests, the command, texts and reports all start from this list.
pub static IDENTITIES: [&Identity; 42] = [
    &pre_rms_norm_transformer::IDENTITY,
    &pre_crms_norm_transformer::IDENTITY,
    &rotated_transformer::IDENTITY,
    &batch_norm_into_linear::IDENTITY,
    &batch_norm_into_convolution::IDENTITY,
    &batch_norm_into_separable_convolution::IDENTITY,
    &batch_norm_into_transposed_convolution::IDENTITY,
    &batch_norm_into_next::LINEAR,
    &batch_norm_into_next::CONVOLUTION,
    &flash_norm::DEFERRED,
    &flash_norm::CANCELLED,
    &centred_layer_norm::WEIGHTS,
    &centred_layer_norm::CENTRED,
    &centred_layer_norm::RESCALED,
    &layer_norm_projection::IDENTITY,
    &scale_invariance::BATCH_NORM,
    &scale_invariance::LAYER_NORM,
    &scale_invariance::WEIGHT_NORM,
    &step_on_invariant_weights::DECAY,
    &step_on_invariant_weights::PROJECTION,
    &rep_batch_norm::MERGED,
    &rep_batch_norm::START,
    &unified_norm::IDENTITY,
    &membrane_potential::IDENTITY,
    &learnable_scaling::IDENTITY,
    &activation_equalization::IDENTITY,
    &weight_normalizations::STANDARDIZED,
    &weight_normalizations::SPECTRAL,
    &group_norm::ONE_GROUP,
    &group_norm::SINGLE_CHANNELS,
    &group_norm::ONE_SAMPLE,
    &batch_statistics::SYNCHRONISED,
    &batch_statistics::CROSS_MINI_BATCH,
    &reversible::INSTANCE,
    &reversible::FLOW,
    &divisive_normalization::RMS,
    &divisive_normalization::INVERSE,
    &mixed_statistics::SOURCE_END,
    &mixed_statistics::TARGET_END,
    &mixed_statistics::TRANSFORMED,
    &frozen_affine::BATCH_NORM,
    &frozen_affine::LAYER_NORM,
];

/// The identity of this name.
pub fn find(name: &str) -> Option<&'static Identity> {
    IDENTITIES.into_iter().find(|identity| identity.name == name)
}

/// Two formulas that are the same function of parameters and data.
#[derive(Debug)]
pub struct Identity {
    /// Its name, everywhere.
    pub name: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// Under which condition it holds, in words.
    pub condition: &'static str,
    /// How the parameters of the right side are made of those of the left, in words.
    pub map_in_words: &'static str,
    /// The axes, in row-major order.
    pub axes: &'static [AxisRange],
    /// How many layers it can have, where it has some.
    pub depth: (usize, usize),
    /// Data, parameters and numbers that do not change, for so many layers.
    pub inputs: fn(usize) -> Vec<Input>,
    /// ε of its norms.
    pub eps: f64,
    /// One side.
    pub left: Side,
    /// The parameters of the right side that are made of others. All others keep their names.
    pub map: for<'b> fn(&Scope<'b>) -> Vec<(String, Expr<'b>)>,
    /// The other side.
    pub right: Side,
    /// What it is no longer true with.
    pub deviations: &'static [Deviation],
    /// Whether it still holds after steps of an optimizer.
    pub training: &'static [Training],
    /// Where it comes from.
    pub papers: &'static [Paper],
}

/// A formula of parameters and data.
pub type Side = for<'b> fn(&Scope<'b>) -> Expr<'b>;

/// An axis of an identity.
#[derive(Clone, Copy, Debug)]
pub struct AxisRange {
    /// Its name.
    pub name: &'static str,
    /// What lies along it.
    pub meaning: &'static str,
    /// How long it is.
    pub size: Size,
}

/// How long an axis is.
#[derive(Clone, Copy, Debug)]
pub enum Size {
    /// Anything between these.
    Between(usize, usize),
    /// The width that results are shown by; between these.
    Width(usize, usize),
    /// What follows from those that do not follow, and from those before it.
    Follows(fn(SizeOf<'_>) -> usize),
}

/// The sizes of axes by their names.
pub type SizeOf<'a> = &'a dyn Fn(&str) -> usize;

/// An input of an identity.
#[derive(Clone, Debug)]
pub struct Input {
    /// Its name.
    pub name: String,
    /// Its axes, as names separated by spaces.
    pub axes: &'static str,
    /// What it stands for.
    pub kind: Kind,
    /// Which numbers it has.
    pub values: Values,
}

/// What an input stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Activations: gradients with respect to them are compared.
    Data,
    /// Weights: as data, and optimizers change them.
    Param,
    /// Neither: running statistics, tokens.
    Fixed,
}

/// Which numbers an input has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Values {
    /// Normal numbers about a mean, with a deviation.
    Normal(f64, f64),
    /// Normal numbers with this deviation over √n, for n entries along these axes.
    Fan(&'static str, f64),
    /// Even over an interval.
    Uniform(f64, f64),
    /// A single 1 along the last axis, and zeros.
    OneHot,
}

/// What an identity does not survive.
#[derive(Debug)]
pub struct Deviation {
    /// Its name, by which [`Scope::is`] asks.
    pub name: &'static str,
    /// What kind it is.
    pub wrong: Wrong,
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// The condition does not hold.
    Condition,
    /// The map or a side is wrong, as people have it wrong.
    Planted,
}

/// What is known of an identity in training.
#[derive(Debug)]
pub struct Training {
    /// How the right side is trained.
    pub scheme: Scheme,
    /// With which optimizer.
    pub optimizer: Optimizer,
    /// Whether both sides are still the same function afterwards.
    pub holds: bool,
    /// Why, in words.
    pub why: &'static str,
}

/// How the right side is trained. The left one always changes its own parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scheme {
    /// It has the parameters of the left side, and the map is a part of what is differentiated.
    ThroughMap,
    /// It has its own, mapped once before the first step; the learning rate is the left one's times this factor.
    Own(f64),
    /// It has its own, and the map is applied to them again after every step.
    Projected,
}

/// An optimizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Optimizer {
    /// Plain gradient descent.
    Sgd,
    /// Adam (Kingma, Ba 2014).
    Adam,
}

/// It holds through the map with both optimizers: equal gradients make equal steps.
const THROUGH_MAP: &[Training] = &[
    Training { scheme: Scheme::ThroughMap, optimizer: Optimizer::Sgd, holds: true, why: EQUAL_GRADIENTS },
    Training { scheme: Scheme::ThroughMap, optimizer: Optimizer::Adam, holds: true, why: EQUAL_GRADIENTS },
];
const EQUAL_GRADIENTS: &str = "the map is differentiated too: both sides have the same gradients, hence the same steps";

impl Deviation {
    const fn condition(name: &'static str) -> Deviation {
        Deviation { name, wrong: Wrong::Condition }
    }

    const fn planted(name: &'static str) -> Deviation {
        Deviation { name, wrong: Wrong::Planted }
    }
}

fn input(name: &str, axes: &'static str, kind: Kind, values: Values) -> Input {
    Input { name: name.to_owned(), axes, kind, values }
}

fn data(name: &str, axes: &'static str) -> Input {
    input(name, axes, Kind::Data, Values::Normal(0.5, 1.5))
}

/// A matrix whose products with data of `fan` entries are as large as these.
fn weight(name: &str, axes: &'static str, fan: &'static str) -> Input {
    input(name, axes, Kind::Param, Values::Fan(fan, 1.0))
}

/// The gain of a norm, away from 0.
fn gain(name: &str, axes: &'static str) -> Input {
    input(name, axes, Kind::Param, Values::Uniform(0.5, 2.0))
}

fn bias(name: &str, axes: &'static str) -> Input {
    input(name, axes, Kind::Param, Values::Normal(0.1, 0.5))
}

fn running_mean(name: &str, axes: &'static str) -> Input {
    input(name, axes, Kind::Fixed, Values::Normal(0.3, 1.0))
}

fn running_var(name: &str, axes: &'static str) -> Input {
    input(name, axes, Kind::Fixed, Values::Uniform(0.25, 4.0))
}

/// What the sides and the map of an identity see.
pub struct Scope<'b> {
    builder: &'b Builder,
    values: BTreeMap<String, Expr<'b>>,
    identity: &'static Identity,
    depth: usize,
    deviation: Option<&'static str>,
}

impl<'b> Scope<'b> {
    /// The builder.
    pub fn builder(&self) -> &'b Builder {
        self.builder
    }

    /// An input, or what the map made of it.
    ///
    /// # Panics
    /// If there is none of this name.
    pub fn get(&self, name: &str) -> Expr<'b> {
        *self.values.get(name).unwrap_or_else(|| panic!("{} has no input `{name}`", self.identity.name))
    }

    /// Whether it is wrong on purpose in this way.
    ///
    /// # Panics
    /// If the identity does not know this way.
    pub fn is(&self, deviation: &str) -> bool {
        let known = self.identity.deviations.iter().any(|known| known.name == deviation);
        assert!(known, "{} has no deviation `{deviation}`", self.identity.name);
        self.deviation == Some(deviation)
    }

    /// The number of layers.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// ε.
    pub fn eps(&self) -> Expr<'b> {
        self.builder.attribute("eps", self.identity.eps)
    }

    /// A number.
    pub fn number(&self, value: f64) -> Expr<'b> {
        self.builder.constant(value)
    }

    /// LayerNorm without gain and bias.
    pub fn layer_norm(&self, x: Expr<'b>, axes: &str) -> Expr<'b> {
        apply(self.builder, "layer_norm", self.identity.eps, &[("d", axes)], &[("x", x)])
    }

    /// RMSNorm without gain.
    pub fn rms_norm(&self, x: Expr<'b>, axes: &str) -> Expr<'b> {
        apply(self.builder, "rms_norm", self.identity.eps, &[("d", axes)], &[("x", x)])
    }

    /// BatchNorm in inference, from the inputs `weight`, `bias`, `running_mean` and `running_var`, over these axes of
    /// channels and positions.
    pub fn batch_norm_inference(&self, x: Expr<'b>, channels: &str, positions: &str) -> Expr<'b> {
        let named = ["weight", "bias", "running_mean", "running_var"].map(|name| (name, self.get(name)));
        let inputs: Vec<_> = std::iter::once(("x", x)).chain(named).collect();
        apply(self.builder, "batch_norm_inference", self.identity.eps, &[("c", channels), ("s", positions)], &inputs)
    }
}

impl Identity {
    /// Graphs of both sides as functions of the inputs, the right one through the map; the output of each is `y`.
    pub fn sides(&'static self, depth: usize, deviation: Option<&'static str>) -> [Graph; 2] {
        let [left, right] = [self.builder(), self.builder()];
        let value = {
            let left = (self.left)(&self.scope(&left, depth, deviation));
            let right = (self.right)(&self.mapped(&self.scope(&right, depth, deviation)));
            [left, right].map(|value| (value.id(), value.axes()))
        };
        let axes = value[0].1.union(value[1].1);
        for (builder, (id, _)) in [&left, &right].into_iter().zip(value) {
            builder.output("y", builder.expr(id), axes, Dtype::F64);
        }
        [left.finish(), right.finish()]
    }

    /// A graph of the left side alone; its output is `y`.
    pub fn left_graph(&'static self, depth: usize, deviation: Option<&'static str>) -> Graph {
        let builder = self.builder();
        let y = (self.left)(&self.scope(&builder, depth, deviation));
        builder.output("y", y, y.axes(), Dtype::F64);
        builder.finish()
    }

    /// A graph of the right side alone, as a function of its own parameters; its output is `y`.
    pub fn right_graph(&'static self, depth: usize, deviation: Option<&'static str>) -> Graph {
        let builder = self.builder();
        let mut scope = self.scope(&builder, depth, deviation);
        for (name, axes) in self.made(depth, deviation) {
            // What keeps its name and its axes is the same input.
            if scope.values.get(&name).is_none_or(|old| old.axes() != axes) {
                scope.values.insert(name.clone(), builder.input(&name, axes));
            }
        }
        let y = (self.right)(&scope);
        builder.output("y", y, y.axes(), Dtype::F64);
        builder.finish()
    }

    /// A graph of the map: its outputs are the parameters that it makes.
    pub fn map_graph(&'static self, depth: usize, deviation: Option<&'static str>) -> Graph {
        let builder = self.builder();
        let scope = self.scope(&builder, depth, deviation);
        for (name, value) in (self.map)(&scope) {
            builder.output(&name, value, value.axes(), Dtype::F64);
        }
        builder.finish()
    }

    /// The sizes of the axes, where `choose` decides on what is free.
    pub fn sizes(&self, mut choose: impl FnMut(&AxisRange) -> usize) -> Sizes {
        let free = |axis: &AxisRange| match axis.size {
            Size::Follows(_) => None,
            Size::Between(..) | Size::Width(..) => Some(choose(axis)),
        };
        let mut sizes: Vec<Option<usize>> = self.axes.iter().map(free).collect();
        for (place, axis) in self.axes.iter().enumerate() {
            if let Size::Follows(follows) = axis.size {
                let size = follows(&|name| {
                    let other = self.axes.iter().position(|axis| axis.name == name);
                    other.and_then(|other| sizes[other]).unwrap_or_else(|| panic!("{} has no `{name}` yet", self.name))
                });
                sizes[place] = Some(size);
            }
        }
        Sizes(sizes.into_iter().flatten().collect())
    }

    fn builder(&self) -> Builder {
        Builder::new(self.axes.iter().map(|axis| axis.name).collect())
    }

    fn scope<'b>(&'static self, builder: &'b Builder, depth: usize, deviation: Option<&'static str>) -> Scope<'b> {
        let inputs = (self.inputs)(depth).into_iter();
        let values = inputs.map(|input| {
            let value = builder.input(&input.name, builder.axis_set(input.axes));
            (input.name, value)
        });
        Scope { builder, values: values.collect(), identity: self, depth, deviation }
    }

    /// What the right side sees: where the map makes something, that.
    fn mapped<'b>(&'static self, scope: &Scope<'b>) -> Scope<'b> {
        let mut values = scope.values.clone();
        values.extend((self.map)(scope));
        Scope { values, ..*scope }
    }

    fn made(&'static self, depth: usize, deviation: Option<&'static str>) -> Vec<(String, crate::formula::AxisSet)> {
        let builder = self.builder();
        let scope = self.scope(&builder, depth, deviation);
        (self.map)(&scope).into_iter().map(|(name, value)| (name, value.axes())).collect()
    }
}
