//! Writing a graph as one writes the formula.

use std::cell::RefCell;
use std::ops::{Add, Div, Mul, Sub};

use isonorm_kernels::abi::Dtype;

use super::graph::{Application, AxisSet, Binary, Graph, GraphOutput, NodeId, Op, Reduce, Unary, Window};

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

    /// Says that a part of the formula is an operator.
    pub(crate) fn record(&self, application: Application) {
        self.graph.borrow_mut().applications.push(application);
    }

    /// The handle of a node that is there already.
    pub fn expr(&self, id: NodeId) -> Expr<'_> {
        Expr { builder: self, id }
    }

    fn window(&self, from: &str, to: &str, tap: Option<&str>, stride: usize, before: isize) -> Window {
        let graph = self.graph.borrow();
        Window { from: graph.axis(from), to: graph.axis(to), tap: tap.map(|tap| graph.axis(tap)), stride, before }
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

    /// The largest along these axes.
    pub fn largest(self, axes: &str) -> Self {
        self.reduce(Reduce::Max, axes)
    }

    /// The sum over these axes of the product with another: a matrix product.
    pub fn dot(self, other: Self, axes: &str) -> Self {
        let axes = self.builder.graph.borrow().axis_set(axes);
        self.builder.push(Op::Contract(self.id, other.id, axes))
    }

    /// The first entries along the axis `from`, which become the axis `to`; all of them, if both are of one length.
    pub fn head(self, from: &str, to: &str) -> Self {
        self.tail(from, to, 0)
    }

    /// As many entries along the axis `from`, from this one on, as the axis `to` has, which they become.
    pub fn tail(self, from: &str, to: &str, first: usize) -> Self {
        self.builder.push(Op::Window(self.id, self.builder.window(from, to, None, 1, -(first as isize))))
    }

    /// The windows of a convolution: from each place along `to`, the entries along `from` that the `tap`s see, with
    /// `before` zeros in front and as many zeros behind as are needed.
    pub fn windows(self, from: &str, to: &str, tap: &str, stride: usize, before: isize) -> Self {
        self.builder.push(Op::Window(self.id, self.builder.window(from, to, Some(tap), stride, before)))
    }

    /// The adjoint of [`Expr::windows`], by which convolutions are transposed.
    pub fn overlap(self, from: &str, to: &str, tap: &str, stride: usize, before: isize) -> Self {
        self.builder.push(Op::Overlap(self.id, self.builder.window(from, to, Some(tap), stride, before)))
    }

    /// eˢᵉˡᶠ
    pub fn exp(self) -> Self {
        self.builder.push(Op::Unary(Unary::Exp, self.id))
    }

    /// The natural logarithm.
    pub fn log(self) -> Self {
        self.builder.push(Op::Unary(Unary::Log, self.id))
    }

    /// The hyperbolic tangent.
    pub fn tanh(self) -> Self {
        self.builder.push(Op::Unary(Unary::Tanh, self.id))
    }

    /// The error function.
    pub fn erf(self) -> Self {
        self.builder.push(Op::Unary(Unary::Erf, self.id))
    }

    /// max(self, 0)
    pub fn relu(self) -> Self {
        self.max(self.builder.constant(0.0))
    }

    /// self · Φ(self), Φ the distribution function of the normal distribution (Hendrycks, Gimpel 2016).
    pub fn gelu(self) -> Self {
        let half = self * 0.5;
        half + half * (self * std::f64::consts::FRAC_1_SQRT_2).erf()
    }

    /// The same value, of which no gradient is taken.
    pub fn detached(self) -> Self {
        self.builder.push(Op::Detach(self.id))
    }

    /// e raised to the entries along these axes, over their sum. The largest, which is taken away first so that nothing
    /// overflows, changes neither the value nor the gradient.
    pub fn softmax(self, axes: &str) -> Self {
        let power = (self - self.largest(axes).detached()).exp();
        power / power.sum(axes)
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
