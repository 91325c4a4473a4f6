//! Writing a graph as one writes the formula.

use std::cell::RefCell;
use std::ops::{Add, Div, Mul, Sub};

use isonorm_kernels::abi::Dtype;

use super::graph::{AxisSet, Binary, Graph, GraphOutput, NodeId, Op, Reduce, Unary};

/// A graph under construction. [`Expr`]s of it are combined with the usual operators.
#[derive(Debug)]
pub struct Builder {
    graph: RefCell<Graph>,
}

/// A node of a graph under construction.
#[derive(Clone, Copy)]
pub struct Expr<'b> {
    builder: &'b Builder,
    id: NodeId,
}

impl Builder {
    /// An empty graph over these axes.
    pub fn new(axes: Vec<&'static str>) -> Self {
        Builder { graph: RefCell::new(Graph { axes, ..Graph::default() }) }
    }

    /// Goes on with a graph.
    pub fn from_graph(graph: Graph) -> Self {
        Builder { graph: RefCell::new(graph) }
    }

    /// The finished graph.
    pub fn finish(self) -> Graph {
        self.graph.into_inner()
    }

    /// A new input with these axes.
    pub fn input(&self, name: &str, axes: AxisSet) -> Expr<'_> {
        self.expr(self.graph.borrow_mut().add_input(name, axes))
    }

    /// A number.
    pub fn constant(&self, value: f64) -> Expr<'_> {
        self.push(Op::Constant(value))
    }

    /// An attribute's value, under the attribute's name. Attributes of equal value stay apart.
    pub fn attribute(&self, name: &str, value: f64) -> Expr<'_> {
        let id = self.graph.borrow_mut().add_named_constant(name, value);
        self.expr(id)
    }

    /// The input of this name, if it is there.
    pub fn find_input(&self, name: &str) -> Option<Expr<'_>> {
        let node = self.graph.borrow().input(name).map(|input| input.node);
        node.map(|id| self.expr(id))
    }

    /// The set of these axes, given as names separated by spaces.
    pub fn axis_set(&self, axes: &str) -> AxisSet {
        self.graph.borrow().axis_set(axes)
    }

    /// How many elements lie along these axes.
    pub fn count(&self, axes: &str) -> Expr<'_> {
        let axes = self.graph.borrow().axis_set(axes);
        self.push(Op::Count(axes))
    }

    /// `then` where `left >= right`, else `otherwise`.
    pub fn select<'b>(&'b self, left: Expr<'b>, right: Expr<'b>, then: Expr<'b>, otherwise: Expr<'b>) -> Expr<'b> {
        self.push(Op::Select { left: left.id, right: right.id, then: then.id, otherwise: otherwise.id })
    }

    /// Declares an output with these axes, stored in this type; the value is repeated along those that it lacks.
    pub fn output(&self, name: &str, value: Expr<'_>, axes: AxisSet, dtype: Dtype) {
        let missing = axes.without(value.axes());
        let node = if missing.is_empty() { value.id } else { self.push(Op::Repeat(value.id, missing)).id };
        self.graph.borrow_mut().outputs.push(GraphOutput { name: name.to_owned(), node, dtype });
    }

    /// The handle of a node that is there already.
    pub fn expr(&self, id: NodeId) -> Expr<'_> {
        Expr { builder: self, id }
    }

    /// Adds a node.
    pub fn push(&self, op: Op) -> Expr<'_> {
        self.expr(self.graph.borrow_mut().push(op))
    }
}

impl<'b> Expr<'b> {
    /// Its node.
    pub fn id(self) -> NodeId {
        self.id
    }

    /// Its axes.
    pub fn axes(self) -> AxisSet {
        self.builder.graph.borrow().node(self.id).axes
    }

    /// Gives it a name, under which texts show it.
    pub fn named(self, name: &str) -> Self {
        self.builder.graph.borrow_mut().nodes[self.id.index()].name.get_or_insert_with(|| name.to_owned());
        self
    }

    /// 1/√self
    pub fn rsqrt(self) -> Self {
        self.builder.push(Op::Unary(Unary::Rsqrt, self.id))
    }

    /// √self
    pub fn sqrt(self) -> Self {
        self.builder.push(Op::Unary(Unary::Sqrt, self.id))
    }

    /// self²
    pub fn square(self) -> Self {
        self.builder.push(Op::Unary(Unary::Square, self.id))
    }

    /// -self
    #[allow(clippy::should_implement_trait)]
    pub fn neg(self) -> Self {
        self.builder.push(Op::Unary(Unary::Neg, self.id))
    }

    /// The larger of the two.
    pub fn max(self, other: Self) -> Self {
        self.builder.push(Op::Binary(Binary::Max, self.id, other.id))
    }

    /// The sum over these axes, given as names separated by spaces.
    pub fn sum(self, axes: &str) -> Self {
        self.reduce(Reduce::Sum, axes)
    }

    /// The mean over these axes.
    pub fn mean(self, axes: &str) -> Self {
        self.reduce(Reduce::Mean, axes)
    }

    /// Mean and biased variance over these axes, named `mean` and `var`.
    pub fn moments(self, axes: &str) -> (Self, Self) {
        let mean = self.reduce(Reduce::Moment, axes).named("mean");
        let var = (self - mean).square().reduce(Reduce::Moment, axes).named("var");
        (mean, var)
    }

    /// The first entries along the axis `from`, which become the axis `to`.
    pub fn head(self, from: &str, to: &str) -> Self {
        let (from, to) = {
            let graph = self.builder.graph.borrow();
            (graph.axis(from), graph.axis(to))
        };
        self.builder.push(Op::Head { of: self.id, from, to })
    }

    /// Rounded to a storage type.
    pub fn cast(self, dtype: Dtype) -> Self {
        self.builder.push(Op::Cast(self.id, dtype))
    }

    fn reduce(self, reduce: Reduce, axes: &str) -> Self {
        let axes = self.builder.graph.borrow().axis_set(axes);
        self.builder.push(Op::Reduce(reduce, self.id, axes))
    }
}

macro_rules! operator {
    ($trait:ident, $method:ident, $binary:expr) => {
        impl<'b> $trait for Expr<'b> {
            type Output = Expr<'b>;
            fn $method(self, other: Expr<'b>) -> Expr<'b> {
                self.builder.push(Op::Binary($binary, self.id, other.id))
            }
        }
        impl<'b> $trait<f64> for Expr<'b> {
            type Output = Expr<'b>;
            fn $method(self, other: f64) -> Expr<'b> {
                let other = self.builder.constant(other);
                self.builder.push(Op::Binary($binary, self.id, other.id))
            }
        }
    };
}

operator!(Add, add, Binary::Add);
operator!(Sub, sub, Binary::Sub);
operator!(Mul, mul, Binary::Mul);
operator!(Div, div, Binary::Div);
