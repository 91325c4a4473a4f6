//! Graph to graph: the backward operator, by reverse accumulation.

use crate::dd::{Dd, TWO_OVER_ROOT_PI};
use crate::formula::{Application, AxisSet, Binary, Builder, Expr, Graph, NodeId, Op, Reduce, Unary};

/// What to differentiate, and with respect to what.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// An input of the forward graph.
    pub input: String,
    /// The type its gradient is stored in.
    pub dtype: isonorm_kernels::abi::Dtype,
}

/// The graph of the vector-Jacobian product.
///
/// Its inputs are `d<output>` for each of `outputs`, then the inputs of `forward`; its outputs are `d<input>` for each of
/// `wanted`. The gradient of a [`Op::Cast`] is the identity (straight through), of [`Op::Select`] that of the branch
/// taken, of √ at 0 and of [`Op::Detach`] it is 0.
///
/// # Panics
/// If an output or input named is not there.
pub fn gradient(forward: &Graph, outputs: &[&str], wanted: &[Wanted]) -> Graph {
    let mut start = Graph { axes: forward.axes.clone(), ..Graph::default() };
    for &name in outputs {
        let output = forward.outputs.iter().find(|output| output.name == name);
        let output = output.unwrap_or_else(|| panic!("the graph has no output `{name}`"));
        start.add_input(&format!("d{name}"), forward.node(output.node).axes);
    }
    // The forward nodes, moved behind the new inputs.
    let mut moved: Vec<NodeId> = Vec::with_capacity(forward.nodes.len());
    for node in &forward.nodes {
        let id = match node.op {
            Op::Input(index) => start.add_input(&forward.inputs[index].name, node.axes),
            Op::Constant(value) if node.name.is_some() => {
                start.add_named_constant(node.name.as_deref().unwrap_or_default(), value)
            }
            op => {
                let id = start.push(op.moved(|id| moved[id.index()], |axes| axes));
                if let Some(name) = &node.name {
                    start.nodes[id.index()].name.get_or_insert_with(|| name.clone());
                }
                id
            }
        };
        moved.push(id);
    }
    let node = |id: NodeId| moved[id.index()];
    start.applications = forward
        .applications
        .iter()
        .map(|application| Application {
            inputs: application.inputs.iter().map(|&(name, id)| (name, node(id))).collect(),
            output: node(application.output),
            ..application.clone()
        })
        .collect();

    let builder = Builder::from_graph(start);
    let mut adjoints: Vec<Option<Expr<'_>>> = vec![None; forward.nodes.len()];
    for (index, &name) in outputs.iter().enumerate() {
        let output = forward.outputs.iter().find(|output| output.name == name).expect("found above");
        let seed = builder.expr(NodeId(index as u32));
        accumulate(&mut adjoints, output.node, seed);
    }
    for (index, node) in forward.nodes.iter().enumerate().rev() {
        let Some(adjoint) = adjoints[index] else { continue };
        let value = |id: NodeId| builder.expr(moved[id.index()]);
        let own = builder.expr(moved[index]);
        let mut give = |to: NodeId, amount: Expr<'_>| {
            // Broadcasting runs backwards: what was repeated along an axis is summed along it.
            let amount = amount.summed_to(&builder, node.axes, forward.node(to).axes);
            let amount = builder.expr(amount.id());
            accumulate(&mut adjoints, to, amount);
        };
        match node.op {
            Op::Input(_) | Op::Constant(_) | Op::Count(_) | Op::Detach(_) => {}
            Op::Unary(Unary::Neg, a) => give(a, adjoint.neg()),
            Op::Unary(Unary::Square, a) => give(a, adjoint * (value(a) * 2.0)),
            Op::Unary(Unary::Sqrt, a) => {
                let zero = builder.constant(0.0);
                give(a, builder.select(zero, own, zero, adjoint / (own * 2.0)));
            }
            Op::Unary(Unary::Rsqrt, a) => give(a, adjoint * (own.square() * own * -0.5)),
            Op::Unary(Unary::Exp, a) => give(a, adjoint * own),
            Op::Unary(Unary::Log, a) => give(a, adjoint / value(a)),
            Op::Unary(Unary::Tanh, a) => give(a, adjoint - adjoint * own.square()),
            Op::Unary(Unary::Erf, a) => {
                // 2/√π to twice the digits of f64; the second part vanishes where it does not count.
                let Dd { hi, lo } = TWO_OVER_ROOT_PI;
                let factor = builder.constant(hi) + builder.constant(lo);
                give(a, adjoint * (factor * value(a).square().neg().exp()));
            }
            Op::Binary(Binary::Add, a, b) => {
                give(a, adjoint);
                give(b, adjoint);
            }
            Op::Binary(Binary::Sub, a, b) => {
                give(a, adjoint);
                give(b, adjoint.neg());
            }
            Op::Binary(Binary::Mul, a, b) => {
                give(a, adjoint * value(b));
                give(b, adjoint * value(a));
            }
            Op::Binary(Binary::Div, a, b) => {
                give(a, adjoint / value(b));
                give(b, (adjoint * own / value(b)).neg());
            }
            Op::Binary(Binary::Max, a, b) => {
                let zero = builder.constant(0.0);
                give(a, builder.select(value(a), value(b), adjoint, zero));
                give(b, builder.select(value(a), value(b), zero, adjoint));
            }
            Op::Select { left, right, then, otherwise } => {
                let zero = builder.constant(0.0);
                give(then, builder.select(value(left), value(right), adjoint, zero));
                give(otherwise, builder.select(value(left), value(right), zero, adjoint));
            }
            // Every element along the reduced axes gets the same: the adjoint lacks those axes and is broadcast.
            Op::Reduce(Reduce::Sum, a, _) => accumulate(&mut adjoints, a, adjoint),
            Op::Reduce(Reduce::Mean | Reduce::Moment, a, axes) => {
                let shared = adjoint / builder.push(Op::Count(axes));
                accumulate(&mut adjoints, a, shared);
            }
            Op::Reduce(Reduce::Max, a, axes) => {
                // Those that are the largest share it, as in libtorch.
                let (zero, one) = (builder.constant(0.0), builder.constant(1.0));
                let largest = builder.select(value(a), own, one, zero);
                let sharing = builder.push(Op::Reduce(Reduce::Sum, largest.id(), axes));
                accumulate(&mut adjoints, a, largest * (adjoint / sharing));
            }
            Op::Contract(a, b, _) => {
                let full = forward.node(a).axes.union(forward.node(b).axes);
                for (to, other) in [(a, b), (b, a)] {
                    let lost = full.without(forward.node(to).axes);
                    let amount = builder.push(Op::Contract(adjoint.id(), value(other).id(), lost));
                    accumulate(&mut adjoints, to, amount);
                }
            }
            Op::Window(a, window) => {
                let all = adjoint.along(&builder, window.made());
                let amount = builder.push(Op::Overlap(all.id(), window));
                accumulate(&mut adjoints, a, amount);
            }
            Op::Overlap(a, window) => {
                let all = adjoint.along(&builder, AxisSet::of(window.from));
                let amount = builder.push(Op::Window(all.id(), window));
                accumulate(&mut adjoints, a, amount);
            }
            Op::Repeat(a, _) | Op::Cast(a, _) => give(a, adjoint),
        }
    }
    for Wanted { input, dtype } in wanted {
        let found = forward.input(input).unwrap_or_else(|| panic!("the graph has no input `{input}`"));
        let axes = forward.node(found.node).axes;
        let adjoint = adjoints[found.node.index()].unwrap_or_else(|| builder.constant(0.0));
        builder.output(&format!("d{input}"), adjoint, axes, *dtype);
    }
    builder.finish()
}

fn accumulate<'b>(adjoints: &mut [Option<Expr<'b>>], to: NodeId, amount: Expr<'b>) {
    let slot = &mut adjoints[to.index()];
    *slot = Some(match *slot {
        Some(sum) => sum + amount,
        None => amount,
    });
}

impl<'b> Expr<'b> {
    /// The sum of this value, which stands for one with the axes `full`, over those that `target` lacks.
    fn summed_to(self, builder: &'b Builder, full: AxisSet, target: AxisSet) -> Expr<'b> {
        let lost = full.without(target);
        let own = lost.intersection(self.axes());
        let summed = builder.push(Op::Reduce(Reduce::Sum, self.id(), own));
        let repeated = lost.without(own);
        if repeated.is_empty() { summed } else { summed * builder.push(Op::Count(repeated)) }
    }

    /// The same value with these axes spelled out, if it was broadcast along them.
    fn along(self, builder: &'b Builder, axes: AxisSet) -> Expr<'b> {
        let missing = axes.without(self.axes());
        if missing.is_empty() { self } else { builder.push(Op::Repeat(self.id(), missing)) }
    }
}
