//! The expression graph: what a formula is made of.

use isonorm_kernels::abi::{Dtype, Value};

/// The place of an axis in its graph. The order of a graph's axes is the row-major order of every tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Axis(pub(crate) u8);

/// A set of axes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct AxisSet(u32);

impl Axis {
    /// As an index into [`Graph::axes`].
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl AxisSet {
    /// No axis: a number.
    pub const NONE: AxisSet = AxisSet(0);

    /// Just this axis.
    pub fn of(axis: Axis) -> Self {
        AxisSet(1 << axis.0)
    }

    /// Whether the axis is in the set.
    pub fn has(self, axis: Axis) -> bool {
        self.0 & (1 << axis.0) != 0
    }

    /// Axes in either set.
    pub fn union(self, other: Self) -> Self {
        AxisSet(self.0 | other.0)
    }

    /// Axes in both sets.
    pub fn intersection(self, other: Self) -> Self {
        AxisSet(self.0 & other.0)
    }

    /// Axes of this set that are not in the other.
    pub fn without(self, other: Self) -> Self {
        AxisSet(self.0 & !other.0)
    }

    /// Whether there is no axis in it.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The axes, in the graph's order.
    pub fn iter(self) -> impl Iterator<Item = Axis> {
        (0..32).map(Axis).filter(move |&axis| self.has(axis))
    }
}

/// The place of a node in its graph. A node's operands come before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub(crate) u32);

impl NodeId {
    /// As an index into [`Graph::nodes`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Functions of one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unary {
    /// -a
    Neg,
    /// a²
    Square,
    /// √a; its derivative at 0 is taken to be 0, as libtorch does for norms.
    Sqrt,
    /// 1/√a
    Rsqrt,
    /// eᵃ
    Exp,
    /// The natural logarithm.
    Log,
    /// The hyperbolic tangent.
    Tanh,
    /// The error function.
    Erf,
}

/// Functions of two arguments; an axis that one of them lacks is broadcast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary {
    /// a + b
    Add,
    /// a - b
    Sub,
    /// a · b
    Mul,
    /// a / b
    Div,
    /// The larger; NaN if either is.
    Max,
}

/// Functions of all values along some axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduce {
    /// Their sum.
    Sum,
    /// Their sum over their number.
    Mean,
    /// A mean of which kernels also keep a running form (Welford 1962, Chan et al. 1979): the mean that data are
    /// centred by, and the variance. The value is that of [`Reduce::Mean`]; the roundings are more.
    Moment,
    /// The largest; NaN if any is.
    Max,
}

/// Which entry along one axis each place along one or two others shows.
///
/// At `to` = p and `tap` = k that is the entry `stride`·p + k - `before` along `from`; outside of the axis there are zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The axis that is looked at.
    pub from: Axis,
    /// The axis of the places one looks from.
    pub to: Axis,
    /// The axis of what is seen from one place; none if that is one entry.
    pub tap: Option<Axis>,
    /// How many entries lie between neighbouring places, at least 1.
    pub stride: usize,
    /// How many zeros there are before the first entry; if negative, how many entries are skipped.
    pub before: isize,
}

impl Window {
    /// The axes that take the place of `from`.
    pub fn made(&self) -> AxisSet {
        AxisSet::of(self.to).union(self.tap.map_or(AxisSet::NONE, AxisSet::of))
    }
}

/// What a node computes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Op {
    /// The graph's input of this index.
    Input(usize),
    /// A number that the formula states, or an attribute.
    Constant(f64),
    /// The number of elements along some axes.
    Count(AxisSet),
    /// A function of one node.
    Unary(Unary, NodeId),
    /// A function of two nodes.
    Binary(Binary, NodeId, NodeId),
    /// `then` where `left >= right`, else `otherwise`; the branch not taken does not matter, NaN or not.
    Select {
        /// Compared.
        left: NodeId,
        /// With this.
        right: NodeId,
        /// Where the comparison holds.
        then: NodeId,
        /// Where it does not, or where either is NaN.
        otherwise: NodeId,
    },
    /// All values along some axes made one.
    Reduce(Reduce, NodeId, AxisSet),
    /// The sum over some axes of a product: matrix products, attention, convolution over windows.
    Contract(NodeId, NodeId, AxisSet),
    /// Entries along one axis, seen from the places along others: heads, renamed axes, shifts, the windows of a convolution.
    Window(NodeId, Window),
    /// The adjoint of `Window`: every entry along `from` is the sum of what is seen of it.
    Overlap(NodeId, Window),
    /// Repeated along axes that the node lacks.
    Repeat(NodeId, AxisSet),
    /// Rounded to a storage type, ties to even.
    Cast(NodeId, Dtype),
    /// The same value, of which no gradient is taken.
    Detach(NodeId),
}

/// One node: what it computes, its axes, and what people call it.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// What it computes.
    pub op: Op,
    /// The axes its value has.
    pub axes: AxisSet,
    /// The name that the formula gives it (`mean`, `eps`, ...).
    pub name: Option<String>,
}

/// A named input.
#[derive(Clone, Debug, PartialEq)]
pub struct GraphInput {
    /// Its name.
    pub name: String,
    /// Its node.
    pub node: NodeId,
}

/// A named output, rounded once to its storage type.
#[derive(Clone, Debug, PartialEq)]
pub struct GraphOutput {
    /// Its name.
    pub name: String,
    /// Its node.
    pub node: NodeId,
    /// The type it is stored in.
    pub dtype: Dtype,
}

/// A part of a formula that is an operator of its own, by which it can be read or computed as one.
#[derive(Clone, Debug, PartialEq)]
pub struct Application {
    /// The name of the operator.
    pub operator: &'static str,
    /// Its attributes.
    pub attributes: Vec<(&'static str, Value)>,
    /// Its axes, and which axes of this formula each stands for.
    pub axes: Vec<(&'static str, AxisSet)>,
    /// Its inputs that are given, with the nodes that they are.
    pub inputs: Vec<(&'static str, NodeId)>,
    /// The node that is its first output.
    pub output: NodeId,
}

/// A formula: inputs, nodes, outputs, over named axes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graph {
    /// Names of the axes, in row-major order.
    pub axes: Vec<&'static str>,
    /// Every node after its operands.
    pub nodes: Vec<Node>,
    /// Inputs, by position.
    pub inputs: Vec<GraphInput>,
    /// Outputs, by position.
    pub outputs: Vec<GraphOutput>,
    /// Parts that are operators.
    pub applications: Vec<Application>,
}

impl Op {
    /// The nodes this one reads, in order.
    pub fn operands(&self) -> Vec<NodeId> {
        match *self {
            Op::Input(_) | Op::Constant(_) | Op::Count(_) => vec![],
            Op::Unary(_, a) | Op::Reduce(_, a, _) | Op::Repeat(a, _) | Op::Cast(a, _) | Op::Detach(a) => vec![a],
            Op::Window(a, _) | Op::Overlap(a, _) => vec![a],
            Op::Binary(_, a, b) | Op::Contract(a, b, _) => vec![a, b],
            Op::Select { left, right, then, otherwise } => vec![left, right, then, otherwise],
        }
    }

    /// The same of other nodes, over other axes.
    ///
    /// # Panics
    /// If one axis of a window becomes several.
    pub(crate) fn moved(self, at: impl Fn(NodeId) -> NodeId, over: impl Fn(AxisSet) -> AxisSet) -> Op {
        let axis = |axis: Axis| {
            let mut axes = over(AxisSet::of(axis)).iter();
            axes.next().filter(|_| axes.next().is_none()).expect("a window looks along single axes")
        };
        let window = |window: Window| Window {
            from: axis(window.from),
            to: axis(window.to),
            tap: window.tap.map(axis),
            ..window
        };
        match self {
            Op::Input(_) | Op::Constant(_) => self,
            Op::Count(axes) => Op::Count(over(axes)),
            Op::Unary(unary, a) => Op::Unary(unary, at(a)),
            Op::Binary(binary, a, b) => Op::Binary(binary, at(a), at(b)),
            Op::Select { left, right, then, otherwise } => {
                Op::Select { left: at(left), right: at(right), then: at(then), otherwise: at(otherwise) }
            }
            Op::Reduce(reduce, a, axes) => Op::Reduce(reduce, at(a), over(axes)),
            Op::Contract(a, b, axes) => Op::Contract(at(a), at(b), over(axes)),
            Op::Window(a, seen) => Op::Window(at(a), window(seen)),
            Op::Overlap(a, seen) => Op::Overlap(at(a), window(seen)),
            Op::Repeat(a, axes) => Op::Repeat(at(a), over(axes)),
            Op::Cast(a, dtype) => Op::Cast(at(a), dtype),
            Op::Detach(a) => Op::Detach(at(a)),
        }
    }
}

impl Graph {
    /// The node.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    /// The axis of this name.
    ///
    /// # Panics
    /// If the graph has no such axis.
    pub fn axis(&self, name: &str) -> Axis {
        let place = self.axes.iter().position(|&axis| axis == name);
        Axis(place.unwrap_or_else(|| panic!("the graph has no axis `{name}`")) as u8)
    }

    /// The set of these axes, given as names separated by spaces.
    ///
    /// # Panics
    /// If the graph lacks one of them.
    pub fn axis_set(&self, names: &str) -> AxisSet {
        names.split_whitespace().fold(AxisSet::NONE, |set, name| set.union(AxisSet::of(self.axis(name))))
    }

    /// The input of this name.
    pub fn input(&self, name: &str) -> Option<&GraphInput> {
        self.inputs.iter().find(|input| input.name == name)
    }

    /// The application that a node is the output of.
    pub fn application(&self, id: NodeId) -> Option<&Application> {
        self.applications.iter().find(|application| application.output == id)
    }

    /// Which nodes some output depends on.
    pub fn live(&self) -> Vec<bool> {
        self.reached(|id| self.node(id).op.operands())
    }

    /// Which nodes some output depends on if every application is computed as a whole.
    pub fn live_with_applications(&self) -> Vec<bool> {
        self.reached(|id| match self.application(id) {
            Some(application) => application.inputs.iter().map(|(_, id)| *id).collect(),
            None => self.node(id).op.operands(),
        })
    }

    /// Which nodes are steps of an application: neither its output nor its inputs.
    pub fn within_applications(&self) -> Vec<bool> {
        let mut within = vec![false; self.nodes.len()];
        for application in &self.applications {
            let is_input = |id: NodeId| application.inputs.iter().any(|&(_, input)| input == id);
            let mut open = vec![application.output];
            while let Some(id) = open.pop() {
                for operand in self.node(id).op.operands() {
                    if !is_input(operand) && !within[operand.index()] {
                        within[operand.index()] = true;
                        open.push(operand);
                    }
                }
            }
        }
        within
    }

    fn reached(&self, operands: impl Fn(NodeId) -> Vec<NodeId>) -> Vec<bool> {
        let mut live = vec![false; self.nodes.len()];
        for output in &self.outputs {
            live[output.node.index()] = true;
        }
        for index in (0..self.nodes.len()).rev() {
            if live[index] {
                for operand in operands(NodeId(index as u32)) {
                    live[operand.index()] = true;
                }
            }
        }
        live
    }

    /// Adds a node, or finds the one that computes the same, and folds what needs no node.
    pub fn push(&mut self, op: Op) -> NodeId {
        if let Some(id) = self.simplify(op) {
            return id;
        }
        if let Some(index) = self.nodes.iter().position(|node| node.op == op && !self.is_attribute(node)) {
            return NodeId(index as u32);
        }
        let axes = self.axes_of(op);
        self.nodes.push(Node { op, axes, name: None });
        NodeId(self.nodes.len() as u32 - 1)
    }

    fn is_one(&self, id: NodeId) -> bool {
        let node = self.node(id);
        node.op == Op::Constant(1.0) && node.name.is_none()
    }

    /// A constant with a name is an attribute: its value is not the formula's.
    fn is_attribute(&self, node: &Node) -> bool {
        matches!(node.op, Op::Constant(_)) && node.name.is_some()
    }

    /// Rewrites that hold for every value, infinities and NaN included, and that people would make on paper.
    fn simplify(&mut self, op: Op) -> Option<NodeId> {
        match op {
            Op::Binary(Binary::Mul, a, b) if self.is_one(b) => Some(a),
            Op::Binary(Binary::Mul, a, b) if self.is_one(a) => Some(b),
            // A sum over axes divided by their count is a mean.
            Op::Binary(Binary::Div, a, b) => match (self.nodes[a.index()].op, self.nodes[b.index()].op) {
                (Op::Reduce(Reduce::Sum, of, axes), Op::Count(counted)) if axes == counted => {
                    Some(self.push(Op::Reduce(Reduce::Mean, of, axes)))
                }
                (Op::Unary(Unary::Neg, inner), Op::Count(_)) => {
                    let quotient = self.push(Op::Binary(Binary::Div, inner, b));
                    Some(self.push(Op::Unary(Unary::Neg, quotient)))
                }
                _ => None,
            },
            Op::Binary(Binary::Add, a, b) => match self.nodes[b.index()].op {
                Op::Unary(Unary::Neg, inner) => Some(self.push(Op::Binary(Binary::Sub, a, inner))),
                _ => None,
            },
            Op::Reduce(Reduce::Sum | Reduce::Max, a, axes) if axes.is_empty() => Some(a),
            Op::Contract(a, b, axes) if axes.is_empty() => Some(self.push(Op::Binary(Binary::Mul, a, b))),
            _ => None,
        }
    }

    fn axes_of(&self, op: Op) -> AxisSet {
        let axes = |id: NodeId| self.nodes[id.index()].axes;
        match op {
            Op::Input(_) => unreachable!("inputs are made by Graph::add_input"),
            Op::Constant(_) | Op::Count(_) => AxisSet::NONE,
            Op::Unary(_, a) | Op::Cast(a, _) | Op::Detach(a) => axes(a),
            Op::Binary(_, a, b) => axes(a).union(axes(b)),
            Op::Select { left, right, then, otherwise } => {
                axes(left).union(axes(right)).union(axes(then)).union(axes(otherwise))
            }
            Op::Reduce(_, a, reduced) => axes(a).without(reduced),
            Op::Repeat(a, repeated) => axes(a).union(repeated),
            Op::Contract(a, b, summed) => axes(a).union(axes(b)).without(summed),
            Op::Window(a, window) => axes(a).without(AxisSet::of(window.from)).union(window.made()),
            Op::Overlap(a, window) => axes(a).without(window.made()).union(AxisSet::of(window.from)),
        }
    }

    /// Adds a number under a name, or finds it.
    pub fn add_named_constant(&mut self, name: &str, value: f64) -> NodeId {
        let node = Node { op: Op::Constant(value), axes: AxisSet::NONE, name: Some(name.to_owned()) };
        let place = self.nodes.iter().position(|other| *other == node);
        NodeId(place.unwrap_or_else(|| {
            self.nodes.push(node);
            self.nodes.len() - 1
        }) as u32)
    }

    /// Adds an input with these axes.
    pub fn add_input(&mut self, name: &str, axes: AxisSet) -> NodeId {
        let id = NodeId(self.nodes.len() as u32);
        self.nodes.push(Node { op: Op::Input(self.inputs.len()), axes, name: Some(name.to_owned()) });
        self.inputs.push(GraphInput { name: name.to_owned(), node: id });
        id
    }
}
