//! One concrete question about an operator: which half, which sizes, attributes and element types.

use std::collections::{BTreeMap, BTreeSet};

use isonorm_kernels::abi::{Direction, Dtype, DtypeSet, Value};

use crate::formula::{Builder, Expr, Graph};
use crate::interpret::Sizes;
use crate::interpret::gradient::{Wanted, gradient};
use crate::operators::{Attribute, Dim, Operator, Role, TensorSpec};

/// An operator with everything decided but the values of its tensors.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// Which operator.
    pub operator: &'static Operator,
    /// Which half of it.
    pub direction: Direction,
    /// Element types.
    pub dtypes: DtypeSet,
    /// The dimensions of each axis that the operator lets one choose, by its name.
    pub dims: BTreeMap<&'static str, Vec<usize>>,
    /// The attributes that the operator lets one choose.
    pub attributes: BTreeMap<&'static str, Value>,
    /// The optional inputs that are given.
    pub given: BTreeSet<&'static str>,
}

/// A tensor of a problem.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Its name at the door and in the graph.
    pub name: String,
    /// What it stands for.
    pub role: Role,
    /// Element type.
    pub dtype: Dtype,
    /// Sizes; row-major order is that of the graph's axes.
    pub shape: Vec<usize>,
    /// For each entry of `shape`, the axes that it is made of.
    pub axes: Vec<Vec<&'static str>>,
}

impl Tensor {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Why a problem cannot be asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidProblem(pub String);

impl Problem {
    /// Checks that the operator is defined for these sizes, attributes and inputs.
    ///
    /// # Errors
    /// A sentence that says what is wrong and what is possible.
    pub fn validate(&self) -> Result<(), InvalidProblem> {
        let operator = self.operator;
        let fail = |message: String| Err(InvalidProblem(format!("{}: {message}", operator.name)));
        for axis in operator.axes {
            let Some(dims) = self.dims.get(axis.name) else {
                return fail(format!("axis `{}` has no size", axis.name));
            };
            if !axis.ranks.contains(&dims.len()) {
                let (low, high) = (axis.ranks.start(), axis.ranks.end());
                return fail(format!("axis `{}` can have {low} to {high} dimensions, not {}", axis.name, dims.len()));
            }
            if dims.iter().any(|&dim| dim < axis.least) {
                return fail(format!("axis `{}` must have a size of at least {}", axis.name, axis.least));
            }
            let size = dims.iter().try_fold(1usize, |size, &dim| size.checked_mul(dim));
            if size.is_none_or(|size| size > 1 << 40) {
                return fail(format!("axis `{}` is too long", axis.name));
            }
        }
        if let Some(name) = self.dims.keys().find(|name| !operator.axes.iter().any(|axis| axis.name == **name)) {
            return fail(format!("there is no axis `{name}`"));
        }
        for attribute in operator.attributes {
            match self.attributes.get(attribute.name) {
                Some(value) => attribute
                    .domain
                    .check(value)
                    .or_else(|message| fail(format!("attribute `{}` is {value}: {message}", attribute.name)))?,
                None if attribute.optional => {}
                None => return fail(format!("attribute `{}` is missing", attribute.name)),
            }
        }
        if let Some(name) = self.attributes.keys().find(|name| !operator.attributes.iter().any(|a| a.name == **name)) {
            return fail(format!("there is no attribute `{name}`"));
        }
        if let Some(name) =
            self.given.iter().find(|name| !operator.inputs.iter().any(|i| i.optional && i.name == **name))
        {
            return fail(format!("there is no optional input `{name}`"));
        }
        (operator.check)(self).or_else(fail)
    }

    /// The number of elements along an axis, a derived one included.
    ///
    /// # Panics
    /// If there is no such axis.
    pub fn size(&self, axis: &str) -> usize {
        match self.dims.get(axis) {
            Some(dims) => dims.iter().product(),
            None => {
                let derived = self.operator.derived_axes.iter().find(|derived| derived.name == axis);
                (derived.unwrap_or_else(|| panic!("no axis `{axis}`")).size)(self)
            }
        }
    }

    /// A real attribute.
    ///
    /// # Panics
    /// If it is absent or of another kind: [`Problem::validate`] first.
    pub fn real(&self, name: &str) -> f64 {
        match self.attributes.get(name) {
            Some(Value::Real(real)) => *real,
            other => panic!("attribute `{name}` is {other:?}"),
        }
    }

    /// Whether a text attribute has this value.
    pub fn says(&self, name: &str, text: &str) -> bool {
        matches!(self.attributes.get(name), Some(Value::Text(value)) if value == text)
    }

    /// Whether an input is there: not optional, or given.
    pub fn has(&self, name: &str) -> bool {
        self.operator.inputs.iter().any(|input| input.name == name && (!input.optional || self.given.contains(name)))
    }

    /// The sizes of the graph's axes.
    pub fn sizes(&self) -> Sizes {
        Sizes(self.operator.graph_axes().iter().map(|axis| self.size(axis)).collect())
    }

    /// The sizes of the graph's axes, with their names.
    pub fn named_sizes(&self) -> Vec<(String, usize)> {
        self.operator.graph_axes().into_iter().map(|axis| (axis.to_owned(), self.size(axis))).collect()
    }

    /// The attributes as a kernel gets them: those chosen and those that follow from the sizes.
    pub fn call_attributes(&self) -> Vec<(String, Value)> {
        let chosen = self.attributes.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        let derived = self.operator.derived_attributes.iter();
        chosen.chain(derived.map(|attribute| (attribute.name.to_owned(), (attribute.value)(self)))).collect()
    }

    /// The input tensors, in the order of the graph's inputs.
    pub fn inputs(&self) -> Vec<Tensor> {
        let forward = self.operator.inputs.iter().filter(|input| self.has(input.name));
        match self.direction {
            Direction::Forward => forward.map(|input| self.tensor(input.name.to_owned(), input)).collect(),
            Direction::Backward => {
                let gradients = self.operator.outputs.iter().filter(|output| output.differentiable);
                let gradients = gradients.map(|output| self.tensor(format!("d{}", output.name), output));
                let forward = forward.filter(|input| input.in_backward);
                gradients.chain(forward.map(|input| self.tensor(input.name.to_owned(), input))).collect()
            }
        }
    }

    /// The output tensors, in the order of the graph's outputs.
    pub fn outputs(&self) -> Vec<Tensor> {
        match self.direction {
            Direction::Forward => {
                self.forward_outputs().map(|output| self.tensor(output.name.to_owned(), output)).collect()
            }
            Direction::Backward => self.wanted().map(|input| self.tensor(format!("d{}", input.name), input)).collect(),
        }
    }

    /// The graph of this half of the operator. Its inputs are [`Problem::inputs`] (unused ones included), its outputs
    /// [`Problem::outputs`].
    pub fn graph(&self) -> Graph {
        let forward = self.forward_graph();
        match self.direction {
            Direction::Forward => forward,
            Direction::Backward => {
                let outputs: Vec<&str> = self
                    .operator
                    .outputs
                    .iter()
                    .filter(|output| output.differentiable)
                    .map(|output| output.name)
                    .collect();
                let wanted: Vec<Wanted> = self
                    .wanted()
                    .map(|input| Wanted { input: input.name.to_owned(), dtype: self.dtype(input.role) })
                    .collect();
                gradient(&forward, &outputs, &wanted)
            }
        }
    }

    /// The graph of the forward half.
    pub fn forward_graph(&self) -> Graph {
        let builder = Builder::new(self.operator.graph_axes());
        let scope = Scope { builder: &builder, problem: self };
        for input in self.operator.inputs.iter().filter(|input| self.has(input.name)) {
            builder.input(input.name, builder.axis_set(&input.axes().join(" ")));
        }
        let results = (self.operator.define)(&scope);
        for output in self.forward_outputs() {
            let value = results.iter().find(|(name, _)| *name == output.name);
            let (_, value) = value.unwrap_or_else(|| panic!("the definition gives no `{}`", output.name));
            let axes = builder.axis_set(&output.axes().join(" "));
            builder.output(output.name, *value, axes, self.dtype(output.role));
        }
        builder.finish()
    }

    fn forward_outputs(&self) -> impl Iterator<Item = &'static TensorSpec> {
        self.operator.outputs.iter().filter(|output| output.with.is_none_or(|input| self.has(input)))
    }

    fn wanted(&self) -> impl Iterator<Item = &'static TensorSpec> {
        self.operator.inputs.iter().filter(|input| input.differentiable && self.has(input.name))
    }

    fn dtype(&self, role: Role) -> Dtype {
        match role {
            Role::Data => self.dtypes.data,
            Role::Param => self.dtypes.param,
            Role::State => self.dtypes.data.statistics(),
        }
    }

    fn tensor(&self, name: String, spec: &TensorSpec) -> Tensor {
        let (mut shape, mut axes) = (Vec::new(), Vec::new());
        for dim in spec.dims {
            match dim {
                Dim::Axis(axis) => {
                    for &size in &self.dims[axis] {
                        shape.push(size);
                        axes.push(vec![*axis]);
                    }
                }
                Dim::Merged(merged) => {
                    shape.push(merged.iter().map(|axis| self.size(axis)).product());
                    axes.push(merged.to_vec());
                }
            }
        }
        Tensor { name, role: spec.role, dtype: self.dtype(spec.role), shape, axes }
    }
}

/// What a definition sees: the inputs that are there, the attributes, and the builder.
pub struct Scope<'b> {
    builder: &'b Builder,
    problem: &'b Problem,
}

impl<'b> Scope<'b> {
    /// The builder.
    pub fn builder(&self) -> &'b Builder {
        self.builder
    }

    /// The problem that the definition is instantiated for.
    pub fn problem(&self) -> &'b Problem {
        self.problem
    }

    /// An input that is always there.
    ///
    /// # Panics
    /// If it is not.
    pub fn input(&self, name: &str) -> Expr<'b> {
        self.optional(name).unwrap_or_else(|| panic!("input `{name}` is absent"))
    }

    /// An input that may be absent.
    pub fn optional(&self, name: &str) -> Option<Expr<'b>> {
        self.builder.find_input(name)
    }

    /// A real attribute, under its name.
    pub fn attribute(&self, name: &str) -> Expr<'b> {
        self.builder.attribute(name, self.problem.real(name))
    }

    /// `normalized` times the weight, plus the bias, where these are given.
    pub fn affine(&self, normalized: Expr<'b>) -> Expr<'b> {
        let scaled = self.optional("weight").map_or(normalized, |weight| normalized * weight);
        self.optional("bias").map_or(scaled, |bias| scaled + bias)
    }
}

/// The value that an attribute has unless one is chosen.
pub(crate) fn default_attributes(attributes: &[Attribute]) -> BTreeMap<&'static str, Value> {
    attributes
        .iter()
        .filter(|attribute| !attribute.optional)
        .map(|attribute| (attribute.name, attribute.domain.default()))
        .collect()
}
