//! The true value, in double-double arithmetic.
//!
//! Inputs are finite binary numbers, so what comes out is *the* answer to about 31 digits; casts that the formula
//! states are rounded as stated.

use crate::dd::Dd;
use crate::formula::{AxisSet, Binary, Graph, NodeId, Op, Reduce, Unary};
use crate::storage::Format;

use super::walk::{Sizes, walk, windowed};

/// The value of every live node of a graph, dense and row-major over the node's axes.
#[derive(Clone, Debug)]
pub struct Values {
    /// The sizes they were computed for.
    pub sizes: Sizes,
    /// The sizes of the problem that they are a slice of; the same unless one says otherwise. Sums are as long as these
    /// say when errors are bounded.
    pub whole: Sizes,
    /// By node; empty for a node that no output needs.
    pub nodes: Vec<Vec<Dd>>,
}

/// Evaluates a graph.
///
/// `inputs` are dense row-major elements, numbers of `f64` or double-doubles, by the graph's inputs; an input that no output needs may be empty.
///
/// # Panics
/// If an input that is needed has the wrong number of elements.
pub fn exact<T: Copy + Into<Dd>>(graph: &Graph, sizes: &Sizes, inputs: &[&[T]]) -> Values {
    // Inside `dispatch` the products use the machine's fused multiply-add where it has one.
    pulp::Arch::new().dispatch(
        #[inline(always)]
        || evaluate(graph, sizes, inputs),
    )
}

#[inline(always)]
fn evaluate<T: Copy + Into<Dd>>(graph: &Graph, sizes: &Sizes, inputs: &[&[T]]) -> Values {
    let live = graph.live();
    let mut nodes: Vec<Vec<Dd>> = Vec::with_capacity(graph.nodes.len());
    for (node, live) in graph.nodes.iter().zip(live) {
        if !live {
            nodes.push(Vec::new());
            continue;
        }
        let axes = |id: NodeId| graph.node(id).axes;
        let of = |id: NodeId| nodes[id.index()].as_slice();
        let count = sizes.count(node.axes);
        let value = match node.op {
            Op::Input(index) => {
                let input = inputs[index];
                assert_eq!(input.len(), count, "elements of input `{}`", graph.inputs[index].name);
                input.iter().map(|&element| element.into()).collect()
            }
            Op::Constant(constant) => vec![Dd::from(constant)],
            Op::Count(counted) => vec![Dd::from(sizes.count(counted) as f64)],
            Op::Unary(Unary::Neg, a) => of(a).iter().map(|&a| -a).collect(),
            Op::Unary(Unary::Square, a) => of(a).iter().map(|&a| a * a).collect(),
            Op::Unary(Unary::Sqrt, a) => of(a).iter().map(|a| a.sqrt()).collect(),
            Op::Unary(Unary::Rsqrt, a) => of(a).iter().map(|a| a.rsqrt()).collect(),
            Op::Unary(Unary::Exp, a) => of(a).iter().map(|a| a.exp()).collect(),
            Op::Unary(Unary::Log, a) => of(a).iter().map(|a| a.ln()).collect(),
            Op::Unary(Unary::Tanh, a) => of(a).iter().map(|a| a.tanh()).collect(),
            Op::Unary(Unary::Erf, a) => of(a).iter().map(|a| a.erf()).collect(),
            Op::Binary(binary, a, b) => {
                let operands = [(of(a), axes(a)), (of(b), axes(b))];
                match binary {
                    Binary::Add => zip(sizes, node.axes, operands, |a, b| a + b),
                    Binary::Sub => zip(sizes, node.axes, operands, |a, b| a - b),
                    Binary::Mul => zip(sizes, node.axes, operands, |a, b| a * b),
                    Binary::Div => zip(sizes, node.axes, operands, |a, b| a / b),
                    Binary::Max => zip(sizes, node.axes, operands, Dd::max),
                }
            }
            Op::Select { left, right, then, otherwise } => {
                let mut value = vec![Dd::ZERO; count];
                let operands = [axes(left), axes(right), axes(then), axes(otherwise)];
                walk(sizes, node.axes, operands, |own, start, step, length| {
                    for i in 0..length {
                        let at = |k: usize| start[k] + i * step[k];
                        let holds = of(left)[at(0)].at_least(of(right)[at(1)]);
                        value[own + i] = if holds { of(then)[at(2)] } else { of(otherwise)[at(3)] };
                    }
                });
                value
            }
            Op::Reduce(Reduce::Max, a, _) => fold(sizes, axes(a), node.axes, of(a), f64::NEG_INFINITY.into(), Dd::max),
            Op::Reduce(reduce, a, reduced) => {
                // Started from +0, as kernels do; the sign of a zero sum is never judged.
                let mut value = fold(sizes, axes(a), node.axes, of(a), Dd::ZERO, |sum, addend| sum + addend);
                if reduce != Reduce::Sum {
                    let count = Dd::from(sizes.count(reduced) as f64);
                    value.iter_mut().for_each(|value| *value = *value / count);
                }
                value
            }
            Op::Contract(a, b, summed) => {
                let mut value = vec![Dd::ZERO; count];
                let over = node.axes.union(summed);
                walk(sizes, over, [axes(a), axes(b), node.axes], |_, [x, y, to], [x_step, y_step, to_step], length| {
                    for i in 0..length {
                        let to = to + i * to_step;
                        value[to] = value[to] + of(a)[x + i * x_step] * of(b)[y + i * y_step];
                    }
                });
                value
            }
            Op::Window(a, window) => {
                let mut value = vec![Dd::ZERO; count];
                windowed(sizes, window, axes(a), node.axes, |entry, place| value[place] = of(a)[entry]);
                value
            }
            Op::Overlap(a, window) => {
                let mut value = vec![Dd::ZERO; count];
                windowed(sizes, window, node.axes, axes(a), |entry, place| value[entry] = value[entry] + of(a)[place]);
                value
            }
            Op::Repeat(a, _) => {
                let mut value = vec![Dd::ZERO; count];
                walk(sizes, node.axes, [axes(a)], |own, [start], [step], length| {
                    for i in 0..length {
                        value[own + i] = of(a)[start + i * step];
                    }
                });
                value
            }
            Op::Detach(a) => of(a).to_vec(),
            Op::Cast(a, dtype) => {
                let format = Format::of(dtype);
                of(a).iter().map(|&a| Dd::from(format.round_dd(a))).collect()
            }
        };
        nodes.push(value);
    }
    Values { sizes: sizes.clone(), whole: sizes.clone(), nodes }
}

#[inline(always)]
fn zip(sizes: &Sizes, over: AxisSet, [a, b]: [(&[Dd], AxisSet); 2], f: impl Fn(Dd, Dd) -> Dd) -> Vec<Dd> {
    let mut value = vec![Dd::ZERO; sizes.count(over)];
    walk(sizes, over, [a.1, b.1], |own, [x, y], [x_step, y_step], length| {
        for i in 0..length {
            value[own + i] = f(a.0[x + i * x_step], b.0[y + i * y_step]);
        }
    });
    value
}

#[inline(always)]
fn fold(sizes: &Sizes, over: AxisSet, kept: AxisSet, of: &[Dd], start: Dd, with: impl Fn(Dd, Dd) -> Dd) -> Vec<Dd> {
    let mut value = vec![start; sizes.count(kept)];
    walk(sizes, over, [kept], |own, [start], [step], length| {
        if step == 0 {
            let mut total = value[start];
            for addend in &of[own..own + length] {
                total = with(total, *addend);
            }
            value[start] = total;
        } else {
            for i in 0..length {
                value[start + i * step] = with(value[start + i * step], of[own + i]);
            }
        }
    });
    value
}
