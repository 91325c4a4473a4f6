//! The operators: one file each, and the one list of them.

use std::ops::RangeInclusive;

use isonorm_kernels::abi::{Direction, Dtype, DtypeSet, Value};

use crate::formula::Expr;
use crate::native::Forward;
use crate::problem::{Problem, Scope};

mod add_layer_norm;
mod add_rms_norm;
mod batch_norm;
mod batch_norm_inference;
mod crms_norm;
mod group_norm;
mod instance_norm;
mod l2_normalize;
mod layer_norm;
mod partial_rms_norm;
mod rms_norm;
mod shared;

/// Every operator. Tests, campaigns, texts and reports all start from this list.
pub static OPERATORS: [&Operator; 11] = [
    &layer_norm::OPERATOR,
    &rms_norm::OPERATOR,
    &partial_rms_norm::OPERATOR,
    &crms_norm::OPERATOR,
    &batch_norm::OPERATOR,
    &batch_norm_inference::OPERATOR,
    &group_norm::OPERATOR,
    &instance_norm::OPERATOR,
    &add_layer_norm::OPERATOR,
    &add_rms_norm::OPERATOR,
    &l2_normalize::OPERATOR,
];

/// The operator of this name.
pub fn find(name: &str) -> Option<&'static Operator> {
    OPERATORS.into_iter().find(|operator| operator.name == name)
}

/// What an operator is: tensors, attributes, formula, and what is known of it.
#[derive(Debug)]
pub struct Operator {
    /// Its name, everywhere.
    pub name: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// The axes whose sizes one chooses, in row-major order.
    pub axes: &'static [AxisSpec],
    /// Axes whose sizes follow from the others and the attributes; each comes last in row-major order.
    pub derived_axes: &'static [DerivedAxis],
    /// Attributes that one chooses.
    pub attributes: &'static [Attribute],
    /// Attributes that follow from the sizes, told to kernels for their convenience.
    pub derived_attributes: &'static [DerivedAttribute],
    /// Inputs, optional ones included.
    pub inputs: &'static [TensorSpec],
    /// Outputs.
    pub outputs: &'static [TensorSpec],
    /// The formula: the value of each output, by name.
    pub define: for<'b> fn(&Scope<'b>) -> Vec<(&'static str, Expr<'b>)>,
    /// What the types cannot say: which problems are defined.
    pub check: fn(&Problem) -> Result<(), String>,
    /// What transformed inputs must give.
    pub relations: &'static [Relation],
    /// Axes along which every output element depends on its own slice only; what has none of them is summed over it.
    pub independent: &'static [&'static str],
    /// NaN, infinities, zero variance, sizes 0 and 1: what the formula makes of them.
    pub special_values: &'static str,
    /// The same in libtorch, if it has it: the forward half.
    pub native: Option<Forward>,
    /// Where the definition comes from.
    pub papers: &'static [Paper],
}

impl PartialEq for Operator {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Operator {
    /// The axes of its graphs, in row-major order.
    pub fn graph_axes(&self) -> Vec<&'static str> {
        self.axes.iter().map(|axis| axis.name).chain(self.derived_axes.iter().map(|axis| axis.name)).collect()
    }

    /// A small problem of this operator: four elements along each axis, everything optional given, f32. `None` if the
    /// defaults do not make one.
    pub fn typical(&'static self, direction: Direction) -> Option<Problem> {
        let mut problem = Problem {
            operator: self,
            direction,
            dtypes: DtypeSet::uniform(Dtype::F32),
            dims: self.axes.iter().map(|axis| (axis.name, vec![4; (*axis.ranks.start()).max(1)])).collect(),
            attributes: self.default_attributes(),
            given: self.inputs.iter().filter(|input| input.optional).map(|input| input.name).collect(),
        };
        // Of attributes that exclude each other the first is the usual one.
        for attribute in self.attributes.iter().filter(|attribute| attribute.optional) {
            if problem.validate().is_err() {
                problem.attributes.insert(attribute.name, attribute.domain.default());
            }
        }
        problem.validate().is_ok().then_some(problem)
    }

    /// The attributes a problem has unless it says otherwise.
    pub fn default_attributes(&self) -> std::collections::BTreeMap<&'static str, Value> {
        crate::problem::default_attributes(self.attributes)
    }
}

/// An axis whose size one chooses.
#[derive(Debug)]
pub struct AxisSpec {
    /// Its name.
    pub name: &'static str,
    /// What lies along it.
    pub meaning: &'static str,
    /// How many dimensions it can be made of.
    pub ranks: RangeInclusive<usize>,
    /// The least size of each dimension.
    pub least: usize,
    /// What its length means for the arithmetic.
    pub kind: AxisKind,
}

/// What the length of an axis means for the arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AxisKind {
    /// Statistics run over it.
    Reduced,
    /// Everything repeats along it; parameter gradients are summed over it.
    Batch,
    /// Parameters differ along it.
    Channel,
}

/// An axis whose size follows.
#[derive(Debug)]
pub struct DerivedAxis {
    /// Its name.
    pub name: &'static str,
    /// What lies along it.
    pub meaning: &'static str,
    /// Its size.
    pub size: fn(&Problem) -> usize,
}

/// An attribute that one chooses.
#[derive(Debug)]
pub struct Attribute {
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub meaning: &'static str,
    /// The values it can have.
    pub domain: Domain,
    /// Whether it may be left out.
    pub optional: bool,
}

/// An attribute that follows from the sizes.
#[derive(Debug)]
pub struct DerivedAttribute {
    /// Its name.
    pub name: &'static str,
    /// What it says.
    pub meaning: &'static str,
    /// Its value.
    pub value: fn(&Problem) -> Value,
}

/// The values an attribute can have.
#[derive(Debug)]
pub enum Domain {
    /// A real number.
    Real {
        /// The least.
        from: f64,
        /// The greatest.
        to: f64,
        /// Values worth trying; the first is the default.
        samples: &'static [f64],
    },
    /// A whole number.
    Integer {
        /// The least.
        from: i64,
        /// The greatest.
        to: i64,
        /// Values worth trying; the first is the default.
        samples: &'static [i64],
    },
    /// One of these words; the first is the default.
    Choice(&'static [&'static str]),
}

impl Domain {
    /// The value unless one is chosen.
    pub fn default(&self) -> Value {
        match self {
            Domain::Real { samples, .. } => Value::Real(samples[0]),
            Domain::Integer { samples, .. } => Value::Integer(samples[0]),
            Domain::Choice(words) => Value::Text(words[0].to_owned()),
        }
    }

    /// The values worth trying.
    pub fn samples(&self) -> Vec<Value> {
        match self {
            Domain::Real { samples, .. } => samples.iter().map(|&sample| Value::Real(sample)).collect(),
            Domain::Integer { samples, .. } => samples.iter().map(|&sample| Value::Integer(sample)).collect(),
            Domain::Choice(words) => words.iter().map(|&word| Value::Text(word.to_owned())).collect(),
        }
    }

    /// Reads a value of this domain.
    ///
    /// # Errors
    /// What is possible.
    pub fn parse(&self, text: &str) -> Result<Value, String> {
        let value = match self {
            Domain::Real { .. } => text.parse().ok().map(Value::Real),
            Domain::Integer { .. } => text.parse().ok().map(Value::Integer),
            Domain::Choice(_) => Some(Value::Text(text.to_owned())),
        };
        let value = value.ok_or_else(|| self.allowed())?;
        self.check(&value).map(|()| value)
    }

    /// Whether a value is in the domain.
    ///
    /// # Errors
    /// What is possible.
    pub fn check(&self, value: &Value) -> Result<(), String> {
        let inside = match (self, value) {
            (Domain::Real { from, to, .. }, Value::Real(real)) => (*from..=*to).contains(real),
            (Domain::Integer { from, to, .. }, Value::Integer(integer)) => (*from..=*to).contains(integer),
            (Domain::Choice(words), Value::Text(text)) => words.contains(&text.as_str()),
            _ => false,
        };
        if inside { Ok(()) } else { Err(self.allowed()) }
    }

    /// The values it can have, for people.
    pub fn allowed(&self) -> String {
        match self {
            Domain::Real { from, to, .. } => format!("it can be a number from {from} to {to}"),
            Domain::Integer { from, to, .. } => format!("it can be a whole number from {from} to {to}"),
            Domain::Choice(words) => format!("it can be {}", words.join(", ")),
        }
    }
}

/// What a tensor stands for; decides its element type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Activations and their gradients.
    Data,
    /// Weights, biases and their gradients.
    Param,
    /// Running statistics, in the precision of the arithmetic.
    State,
}

/// A dimension, or several, of a tensor.
#[derive(Clone, Copy, Debug)]
pub enum Dim {
    /// The dimensions of an axis.
    Axis(&'static str),
    /// Several axes as one dimension.
    Merged(&'static [&'static str]),
}

/// An input or output.
#[derive(Clone, Copy, Debug)]
pub struct TensorSpec {
    /// Its name.
    pub name: &'static str,
    /// What it stands for.
    pub role: Role,
    /// Its dimensions.
    pub dims: &'static [Dim],
    /// An input that may be absent.
    pub optional: bool,
    /// Input: has a gradient. Output: gradients come from it.
    pub differentiable: bool,
    /// An input that the backward half gets too.
    pub in_backward: bool,
    /// An output that is there only with this input.
    pub with: Option<&'static str>,
}

impl TensorSpec {
    /// Activations: an input with a gradient, or an output that gradients come from.
    pub const fn data(name: &'static str, dims: &'static [Dim]) -> Self {
        let (optional, differentiable, in_backward) = (false, true, true);
        TensorSpec { name, role: Role::Data, dims, optional, differentiable, in_backward, with: None }
    }

    /// An optional weight or bias.
    pub const fn param(name: &'static str, dims: &'static [Dim]) -> Self {
        TensorSpec { role: Role::Param, optional: true, ..TensorSpec::data(name, dims) }
    }

    /// Running statistics that the forward half reads.
    pub const fn state(name: &'static str, dims: &'static [Dim]) -> Self {
        let data = TensorSpec::data(name, dims);
        TensorSpec { role: Role::State, differentiable: false, ..data }
    }

    /// New running statistics, there if the old ones are.
    pub const fn new_state(name: &'static str, dims: &'static [Dim], old: &'static str) -> Self {
        TensorSpec { with: Some(old), ..TensorSpec::state(name, dims) }
    }

    /// The axes of its graph node, in row-major order; one of no dimensions included.
    pub fn axes(&self) -> Vec<&'static str> {
        let axes = |dim: &Dim| match dim {
            Dim::Axis(axis) => vec![*axis],
            Dim::Merged(axes) => axes.to_vec(),
        };
        self.dims.iter().flat_map(axes).collect()
    }

    /// Optional, and not needed by the backward half.
    pub const fn forward_only(self) -> Self {
        TensorSpec { optional: true, in_backward: false, ..self }
    }
}

/// What a transformed input must give, for any kernel of the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// Slices along this axis, computed alone, give what they give together.
    Independent(&'static str),
    /// Permuting along this axis permutes the outputs alike.
    Permutation(&'static str),
    /// With eps = 0: inputs scaled by a power of two give the same `y`.
    ScaleInvariant,
    /// -x gives -y, without bias.
    Odd,
}

impl std::fmt::Display for Relation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Relation::Independent(axis) => {
                write!(f, "slices along {axis}, computed alone, give what they give together")
            }
            Relation::Permutation(axis) => write!(f, "permuting along {axis} permutes the outputs alike"),
            Relation::ScaleInvariant => f.write_str("with eps = 0, inputs scaled by a power of two give the same y"),
            Relation::Odd => f.write_str("-x gives -y, without bias"),
        }
    }
}

/// A source.
#[derive(Clone, Copy, Debug)]
pub struct Paper {
    /// Its title.
    pub title: &'static str,
    /// Where it is: arXiv number or venue.
    pub reference: &'static str,
}
