//! How far a kernel that evaluates a formula in a stated precision can be from the truth.
//!
//! Running error analysis (Wilkinson; Higham, *Accuracy and Stability of Numerical Algorithms*, 2nd ed., 3.3 and 4.2): every
//! node carries a bound on the error of its computed value, made of what its operands bring along and of what its own
//! roundings add. The result is the tolerance; nothing in it is tuned. It covers every kernel that
//!
//! - adds in any order, or in the order it declares ([`Reduction`]), with or without fused multiply-add;
//! - keeps the moments it centres by in running form (Welford 1962; Chan, Golub, LeVeque 1979);
//! - divides, or multiplies by a reciprocal; takes 1/√ as it declares ([`Rsqrt`]);
//! - expands products over sums: (x - mean)·r·w + b may be evaluated as x·(r·w) + (b - mean·r·w). The local rounding error of
//!   a node is therefore taken relative to the sum of the magnitudes of its expanded terms (`magnitude`), not to its
//!   value. Squares and roots are not expanded: E\[x²\] - E\[x\]² is another formula, and it fails. A sum of squares is
//!   therefore never negative, whatever its error.
//!
//! Where every term is a multiple of some quantum and their magnitudes add up to no more than 2^p quanta, every order of
//! evaluation is exact, and the error is zero: the answer must then be the correctly rounded truth, to the bit.
//!
//! An intermediate that may overflow the working precision makes the bound infinite (anything is accepted; the usable range
//! is measured apart); one that may be subnormal adds an absolute error of the smallest subnormal. NaN and infinities are
//! met exactly, unless they come from an intermediate of which nothing can be said; what meets a NaN is NaN even then.

use isonorm_kernels::abi::{Dtype, Reduction, Rsqrt};

use super::exact::Values;
use super::walk::{walk, windowed};
use crate::dd::Dd;
use crate::formula::{AxisSet, Binary, Graph, NodeId, Op, Reduce, Unary};
use crate::storage::Format;

mod machine;

use machine::{Cell, Machine, Rounding, Total, class, quantum};

/// The arithmetic that a kernel says it uses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arithmetic {
    /// Of every intermediate: [`Dtype::F32`] or [`Dtype::F64`].
    pub precision: Dtype,
    /// The shape of its sums.
    pub reduction: Reduction,
    /// How it takes 1/√.
    pub rsqrt: Rsqrt,
    /// The type that every node is rounded to, where each is computed apart as in a network that is run operator by operator
    /// (a mean may be rounded twice, as a sum and as a quotient). Within applications products are still expanded over
    /// sums. None where everything may be, and intermediates stay in the working precision.
    pub stored: Option<Dtype>,
    /// Whether intermediates may overflow and underflow. Without, the bound is that of an unlimited exponent, against
    /// which the usable range is measured.
    pub limited_range: bool,
}

impl Arithmetic {
    /// Any order of summation in this precision.
    pub fn plain(precision: Dtype) -> Self {
        Arithmetic { precision, reduction: Reduction::Any, rsqrt: Rsqrt::Exact, stored: None, limited_range: true }
    }

    /// That of a network that is run operator by operator in a type: half types are computed in f32 and rounded each time.
    pub fn by_operator(dtype: Dtype) -> Self {
        let half = matches!(dtype, Dtype::Bf16 | Dtype::F16);
        Arithmetic { stored: Some(dtype), ..Arithmetic::plain(if half { Dtype::F32 } else { dtype }) }
    }
}

/// What is known of the sign of a node's zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ZeroSign {
    /// They are +0, whatever the order of evaluation.
    Plus,
    /// They have the sign that the formula gives them.
    Formula,
    /// They depend on the order of evaluation.
    Open,
}

/// The largest errors of one output.
#[derive(Clone, Debug, PartialEq)]
pub struct OutputBound {
    /// By element, before the rounding to the storage type. Infinite where nothing can be said.
    pub errors: Vec<f64>,
    /// Whether a zero must have the sign of the true zero.
    pub zero_sign: bool,
}

/// Bounds every output of a graph whose true values are known.
pub fn bound(graph: &Graph, values: &Values, arithmetic: Arithmetic) -> Vec<OutputBound> {
    let errors = trace(graph, values, arithmetic);
    let signs = zero_signs(graph);
    // Two outputs may be the same node: the gradients of a sum.
    let nodes = graph.outputs.iter().map(|output| output.node.index());
    nodes.map(|node| OutputBound { errors: errors[node].clone(), zero_sign: signs[node] != ZeroSign::Open }).collect()
}

/// The bounds of every live node, by node and element.
pub fn trace(graph: &Graph, values: &Values, arithmetic: Arithmetic) -> Vec<Vec<f64>> {
    let analysis = Analysis { graph, values, machine: Machine::new(arithmetic) };
    let live = graph.live();
    let mut cells: Vec<Vec<Cell>> = Vec::with_capacity(graph.nodes.len());
    let within = graph.within_applications();
    for (index, &live) in live.iter().enumerate() {
        let mut node = if live { analysis.node(NodeId(index as u32), &cells) } else { Vec::new() };
        if let Some(dtype) = arithmetic.stored {
            analysis.store(NodeId(index as u32), Format::of(dtype), within[index], &mut node);
        }
        cells.push(node);
    }
    // The analysis itself is done in f64: its own roundings are covered by the last factor.
    let errors = |node: Vec<Cell>| node.iter().map(|cell| cell.error * (1.0 + 1e-9)).collect();
    cells.into_iter().map(errors).collect()
}

struct Analysis<'a> {
    graph: &'a Graph,
    values: &'a Values,
    machine: Machine,
}

impl Analysis<'_> {
    fn node(&self, id: NodeId, cells: &[Vec<Cell>]) -> Vec<Cell> {
        let machine = &self.machine;
        let node = self.graph.node(id);
        let sizes = &self.values.sizes;
        let own = &self.values.nodes[id.index()];
        let operand = |id: NodeId| Operand {
            axes: self.graph.node(id).axes,
            values: &self.values.nodes[id.index()],
            cells: &cells[id.index()],
        };
        let map = |a: NodeId, f: &dyn Fn(f64, (f64, Cell)) -> Cell| -> Vec<Cell> {
            let a = operand(a);
            own.iter().zip(a.values).zip(a.cells).map(|((own, a), cell)| f(own.hi, (a.hi, *cell))).collect()
        };
        match node.op {
            // Inputs are numbers of their own type; wider ones than the working precision do not occur.
            Op::Input(_) => own
                .iter()
                .map(|value| match value.hi {
                    value if value.is_finite() => {
                        Cell { error: 0.0, magnitude: value.abs(), least: value, quantum: quantum(value) }
                    }
                    _ => Cell::CLASS,
                })
                .collect(),
            Op::Constant(_) | Op::Count(_) => own.iter().map(|value| machine.leaf(value.hi)).collect(),
            Op::Unary(Unary::Neg, a) => map(a, &|_, (_, cell)| cell.at_least(f64::NEG_INFINITY)),
            Op::Unary(Unary::Square, a) => map(a, &|value, (a, cell)| {
                // The argument is evaluated before it is squared: its terms are not expanded.
                let cell = Cell { magnitude: a.abs() + cell.error, ..cell };
                machine.product(value, (a, cell), (a, cell)).at_least(0.0)
            }),
            Op::Unary(Unary::Sqrt, a) => map(a, &|value, a| machine.root(value, a, false)),
            Op::Unary(Unary::Rsqrt, a) => map(a, &|value, a| machine.root(value, a, true)),
            Op::Unary(unary @ (Unary::Exp | Unary::Log | Unary::Tanh | Unary::Erf), a) => {
                map(a, &|value, a| machine.function(unary, value, a))
            }
            Op::Binary(binary, a, b) => {
                let operands = [operand(a), operand(b)];
                match binary {
                    Binary::Add | Binary::Sub => self.zip(id, operands, |value, a, b| {
                        if let Some(class) = class(value, &[a, b]) {
                            return class;
                        }
                        let (a, b) = (a.1, b.1);
                        let magnitude = a.magnitude + b.magnitude;
                        let quantum = a.quantum.min(b.quantum);
                        let least = match binary {
                            Binary::Add if a.least >= 0.0 && b.least >= 0.0 => {
                                (a.least + b.least) * (1.0 - 2.0 * machine.roundoff)
                            }
                            _ => f64::NEG_INFINITY,
                        };
                        machine.cell(value, a.error + b.error, magnitude, quantum, 1.0, Rounding::Sum).at_least(least)
                    }),
                    Binary::Mul => self.zip(id, operands, |value, a, b| machine.product(value, a, b)),
                    Binary::Div => self.zip(id, operands, |value, a, b| machine.quotient(value, a, b)),
                    Binary::Max => self.zip(id, operands, |value, a, b| {
                        if let Some(class) = class(value, &[a, b]) {
                            return class;
                        }
                        machine.larger(value, a.1, b.1)
                    }),
                }
            }
            Op::Select { left, right, then, otherwise } => {
                let [left, right, then, otherwise] = [left, right, then, otherwise].map(operand);
                let mut out = vec![Cell::OPEN; own.len()];
                let axes = [left.axes, right.axes, then.axes, otherwise.axes];
                walk(sizes, node.axes, axes, |start, others, steps, length| {
                    for i in 0..length {
                        let at = |k: usize| others[k] + i * steps[k];
                        let (l, r) = (left.at(at(0)), right.at(at(1)));
                        let (t, o) = (then.at(at(2)), otherwise.at(at(3)));
                        let taken = if left.values[at(0)].at_least(right.values[at(1)]) { t } else { o };
                        let uncertainty = l.1.error + r.1.error;
                        let close = l.1.is_open() || r.1.is_open() || (l.0 - r.0).abs() <= uncertainty;
                        let mut cell = taken.1;
                        if uncertainty > 0.0 && close {
                            let reach = |(value, cell): (f64, Cell)| (value - taken.0).abs() + cell.error;
                            cell.error = reach(t).max(reach(o));
                            cell.magnitude = t.1.magnitude.max(o.1.magnitude);
                            cell.least = t.1.least.min(o.1.least);
                            cell.quantum = 0.0;
                            if !cell.error.is_finite() || t.0.is_nan() || o.0.is_nan() {
                                cell = Cell::OPEN;
                            }
                        }
                        out[start + i] = cell;
                    }
                });
                out
            }
            Op::Reduce(Reduce::Max, a, _) => {
                let (a, mut out) = (operand(a), vec![None; own.len()]);
                walk(sizes, a.axes, [node.axes], |start, [to], [step], length| {
                    for i in 0..length {
                        let (value, cell) = a.at(start + i);
                        let so_far: &mut Option<Cell> = &mut out[to + i * step];
                        *so_far = Some(match *so_far {
                            _ if cell.is_open() => Cell::OPEN,
                            Some(so_far) if so_far.is_open() => Cell::OPEN,
                            _ if value.is_nan() => Cell::CLASS,
                            Some(so_far) => machine.larger(own[to + i * step].hi, so_far, cell),
                            None => machine.larger(own[to + i * step].hi, cell, cell),
                        });
                    }
                });
                out.into_iter().map(|cell| cell.unwrap_or(Cell::CLASS)).collect()
            }
            Op::Reduce(reduce, a, reduced) => self.reduce(id, reduce, operand(a), self.values.whole.count(reduced)),
            Op::Contract(a, b, summed) => {
                let (a, b) = (operand(a), operand(b));
                let mut totals = vec![Total::NONE; own.len()];
                let over = node.axes.union(summed);
                walk(sizes, over, [a.axes, b.axes, node.axes], |_, [x, y, to], [x_step, y_step, to_step], length| {
                    for i in 0..length {
                        let (a, b) = (a.at(x + i * x_step), b.at(y + i * y_step));
                        let value = a.0 * b.0;
                        totals[to + i * to_step].add((value, machine.product(value, a, b)));
                    }
                });
                let count = self.values.whole.count(summed.intersection(a.axes.union(b.axes)));
                let all = own.iter().zip(totals);
                all.map(|(own, total)| machine.reduction(own.hi, Reduce::Sum, &total, count)).collect()
            }
            Op::Window(a, window) => {
                let (a, mut out) = (operand(a), vec![Cell::ZERO; own.len()]);
                windowed(sizes, window, a.axes, node.axes, |entry, place| out[place] = a.cells[entry]);
                out
            }
            Op::Overlap(a, window) => {
                let (a, mut totals) = (operand(a), vec![(Total::NONE, 0); own.len()]);
                windowed(sizes, window, node.axes, a.axes, |entry, place| {
                    totals[entry].0.add(a.at(place));
                    totals[entry].1 += 1;
                });
                let mut out: Vec<Cell> = own
                    .iter()
                    .zip(&totals)
                    .map(|(own, (total, count))| machine.reduction(own.hi, Reduce::Sum, total, *count))
                    .collect();
                // What is seen once or never is not summed.
                windowed(sizes, window, node.axes, a.axes, |entry, place| {
                    if totals[entry].1 == 1 {
                        out[entry] = a.cells[place];
                    }
                });
                out.iter_mut().zip(&totals).filter(|(_, total)| total.1 == 0).for_each(|(cell, _)| *cell = Cell::ZERO);
                out
            }
            Op::Repeat(a, _) => {
                let a = operand(a);
                let mut out = vec![Cell::OPEN; own.len()];
                walk(sizes, node.axes, [a.axes], |own, [start], [step], length| {
                    for i in 0..length {
                        out[own + i] = a.cells[start + i * step];
                    }
                });
                out
            }
            Op::Detach(a) => cells[a.index()].clone(),
            Op::Cast(a, dtype) => self.cast(id, operand(a), Format::of(dtype)),
        }
    }

    fn store(&self, id: NodeId, format: Format, expanded: bool, cells: &mut [Cell]) {
        let mean = matches!(self.graph.node(id).op, Op::Reduce(Reduce::Mean | Reduce::Moment, ..));
        let roundings = if mean { 2.0 } else { 1.0 };
        for (cell, value) in cells.iter_mut().zip(&self.values.nodes[id.index()]) {
            let magnitude = cell.magnitude;
            *cell = self.machine.stored(*value, *cell, format, roundings);
            if expanded {
                cell.magnitude = cell.magnitude.max(magnitude);
            }
        }
    }

    fn zip(
        &self,
        id: NodeId,
        [a, b]: [Operand<'_>; 2],
        f: impl Fn(f64, (f64, Cell), (f64, Cell)) -> Cell,
    ) -> Vec<Cell> {
        let own = &self.values.nodes[id.index()];
        let mut out = vec![Cell::OPEN; own.len()];
        let axes = self.graph.node(id).axes;
        walk(&self.values.sizes, axes, [a.axes, b.axes], |start, [x, y], [x_step, y_step], length| {
            for i in 0..length {
                out[start + i] = f(own[start + i].hi, a.at(x + i * x_step), b.at(y + i * y_step));
            }
        });
        out
    }

    fn reduce(&self, id: NodeId, reduce: Reduce, a: Operand<'_>, count: usize) -> Vec<Cell> {
        let own = &self.values.nodes[id.index()];
        let mut totals = vec![Total::NONE; own.len()];
        walk(&self.values.sizes, a.axes, [self.graph.node(id).axes], |start, [to], [step], length| {
            for i in 0..length {
                totals[to + i * step].add(a.at(start + i));
            }
        });
        let all = own.iter().zip(totals);
        all.map(|(own, total)| self.machine.reduction(own.hi, reduce, &total, count)).collect()
    }

    /// A rounding that the formula states: the computed argument may round to either side.
    fn cast(&self, id: NodeId, a: Operand<'_>, format: Format) -> Vec<Cell> {
        let own = &self.values.nodes[id.index()];
        own.iter()
            .zip(a.values)
            .zip(a.cells)
            .map(|((own, of), cell)| {
                if cell.is_open() || of.hi.is_nan() {
                    return Cell { quantum: 0.0, ..*cell };
                }
                // Infinite, or NaN, where an end of the range rounds to infinity and the truth does not, or both do.
                let reach = |error: f64| match format.round_dd(*of + error.into()) {
                    rounded if rounded == own.hi => 0.0,
                    rounded => (rounded - own.hi).abs(),
                };
                let error = reach(cell.error).max(reach(-cell.error));
                if !error.is_finite() {
                    return Cell::OPEN;
                }
                if !own.hi.is_finite() {
                    return Cell::CLASS;
                }
                let quantum = if error == 0.0 { quantum(own.hi) } else { 0.0 };
                let least = if cell.least >= 0.0 { 0.0 } else { f64::NEG_INFINITY };
                Cell { error, magnitude: own.hi.abs() + error, least, quantum }
            })
            .collect()
    }
}

#[derive(Clone, Copy)]
struct Operand<'a> {
    axes: AxisSet,
    values: &'a [Dd],
    cells: &'a [Cell],
}

impl Operand<'_> {
    fn at(&self, index: usize) -> (f64, Cell) {
        (self.values[index].hi, self.cells[index])
    }
}

fn zero_signs(graph: &Graph) -> Vec<ZeroSign> {
    use ZeroSign::{Formula, Open, Plus};
    let mut signs: Vec<ZeroSign> = Vec::with_capacity(graph.nodes.len());
    for node in &graph.nodes {
        let of = |id: NodeId| signs[id.index()];
        let sign = match node.op {
            Op::Input(_) => Formula,
            Op::Constant(constant) => {
                if constant.is_sign_negative() {
                    Formula
                } else {
                    Plus
                }
            }
            Op::Count(_) | Op::Unary(Unary::Square | Unary::Sqrt | Unary::Rsqrt | Unary::Exp, _) => Plus,
            Op::Unary(Unary::Log, _) => Plus,
            Op::Unary(Unary::Neg | Unary::Tanh | Unary::Erf, a) => {
                if of(a) == Open {
                    Open
                } else {
                    Formula
                }
            }
            Op::Binary(Binary::Mul | Binary::Div, a, b) => match (of(a), of(b)) {
                (Open, _) | (_, Open) => Open,
                (Plus, Plus) => Plus,
                _ => Formula,
            },
            Op::Binary(Binary::Add | Binary::Max, a, b) => {
                if (of(a), of(b)) == (Plus, Plus) {
                    Plus
                } else {
                    Open
                }
            }
            Op::Binary(Binary::Sub, ..) | Op::Select { .. } | Op::Contract(..) | Op::Overlap(..) => Open,
            Op::Reduce(_, a, _) => {
                if of(a) == Plus {
                    Plus
                } else {
                    Open
                }
            }
            Op::Window(a, _) | Op::Repeat(a, _) | Op::Cast(a, _) | Op::Detach(a) => of(a),
        };
        signs.push(sign);
    }
    signs
}
