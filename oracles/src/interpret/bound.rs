//! How far a kernel that evaluates a formula in a stated precision can be from the truth.
//!
//! Running error analysis (Wilkinson; Higham, *Accuracy and Stability of Numerical Algorithms*, 2nd ed., 3.3 and 4.2): every
//! node carries a bound on the error of its computed value, made of what its operands bring along and of what its own
//! roundings add. The result is the tolerance; nothing in it is tuned. It covers every kernel that
//!
//! - adds in any order, or in the order it declares ([`Reduction`]), with or without fused multiply-add;
//! - keeps the moments it centres by in running form (Welford 1962; Chan, Golub, LeVeque 1979);
//! - divides, or multiplies by a reciprocal; takes 1/√ within 3 units of roundoff;
//! - expands products over sums: (x - mean)·r·w + b may be evaluated as x·(r·w) + (b - mean·r·w). The local rounding error of
//!   a node is therefore taken relative to the sum of the magnitudes of its expanded terms (`magnitude`), not to its
//!   value. Squares and roots are not expanded: E\[x²\] - E\[x\]² is another formula, and it fails.
//!
//! Where every term is a multiple of some quantum and their magnitudes add up to no more than 2^p quanta, every order of
//! evaluation is exact, and the error is zero: the answer must then be the correctly rounded truth, to the bit.
//!
//! An intermediate that may overflow the working precision makes the bound infinite (anything is accepted; the usable range
//! is measured apart); one that may be subnormal adds an absolute error of the smallest subnormal.

use isonorm_kernels::abi::{Dtype, Reduction, Rsqrt};

use crate::dd::Dd;
use crate::formula::{AxisSet, Binary, Graph, NodeId, Op, Reduce, Unary};
use crate::storage::Format;

use super::exact::{Values, copy_along};
use super::walk::walk;

/// The arithmetic that a kernel says it uses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arithmetic {
    /// Of every intermediate: [`Dtype::F32`] or [`Dtype::F64`].
    pub precision: Dtype,
    /// The shape of its sums.
    pub reduction: Reduction,
    /// How it takes 1/√.
    pub rsqrt: Rsqrt,
    /// Whether intermediates may overflow and underflow. Without, the bound is that of an unlimited exponent, against
    /// which the usable range is measured.
    pub limited_range: bool,
}

impl Arithmetic {
    /// Any order of summation in this precision.
    pub fn plain(precision: Dtype) -> Self {
        Arithmetic { precision, reduction: Reduction::Any, rsqrt: Rsqrt::Exact, limited_range: true }
    }
}

/// The bound of one element of one node.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Cell {
    /// Largest distance of the computed value from the true one.
    error: f64,
    /// Sum of the magnitudes of the terms of the expanded value; at least |value|.
    magnitude: f64,
    /// If positive, value and terms are multiples of this power of two and the error is 0; infinite for exact zeros.
    quantum: f64,
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
    for (index, &live) in live.iter().enumerate() {
        let node = if live { analysis.node(NodeId(index as u32), &cells) } else { Vec::new() };
        cells.push(node);
    }
    // The analysis itself is done in f64: its own roundings are covered by the last factor.
    let errors = |node: Vec<Cell>| node.iter().map(|cell| cell.error * (1.0 + 1e-9)).collect();
    cells.into_iter().map(errors).collect()
}

/// Numbers of the working precision.
struct Machine {
    arithmetic: Arithmetic,
    format: Format,
    roundoff: f64,
    /// Where results may lose bits to underflow, and how much a rounding then adds.
    underflow: (f64, f64),
    largest: f64,
}

impl Machine {
    fn new(arithmetic: Arithmetic) -> Self {
        let format = Format::of(arithmetic.precision);
        let limited = arithmetic.limited_range;
        Machine {
            arithmetic,
            format,
            roundoff: format.unit_roundoff(),
            underflow: if limited { (4.0 * format.smallest_normal, 2.0 * format.smallest) } else { (0.0, 0.0) },
            largest: if limited { format.largest } else { f64::INFINITY },
        }
    }

    /// The bound of a node with this value, whose operands bring `carried`, after `roundings` roundings of terms that add
    /// up to `magnitude` and are multiples of `quantum`.
    fn cell(&self, value: f64, carried: f64, magnitude: f64, quantum: f64, roundings: f64, kind: Rounding) -> Cell {
        if !value.is_finite() {
            // A class, not a number: it must be met unless an operand was open.
            let error = if carried.is_nan() || carried == f64::INFINITY { f64::INFINITY } else { 0.0 };
            return Cell { error, magnitude, quantum: 0.0 };
        }
        let exact = carried == 0.0 && self.exact(magnitude, quantum);
        let mut error = carried;
        if !exact {
            error += roundings * self.roundoff * (magnitude + carried);
            if kind == Rounding::Product && magnitude < self.underflow.0 {
                error += self.underflow.1;
            }
        }
        // NaN compares false: a bound that cannot be computed is infinite.
        if !(magnitude + error <= self.largest) {
            error = f64::INFINITY;
        }
        Cell { error, magnitude: magnitude.max(value.abs()), quantum: if exact { quantum } else { 0.0 } }
    }

    fn exact(&self, magnitude: f64, quantum: f64) -> bool {
        // Comparing through a division keeps clear of overflow; an infinite quantum means that all terms are zero.
        quantum >= self.format.smallest && magnitude / quantum <= 1.0 / self.roundoff
    }

    /// The most additions that one of `n` addends passes through.
    fn depth(&self, n: usize) -> f64 {
        let n = n.max(1);
        let any = n - 1;
        (match self.arithmetic.reduction {
            Reduction::Any => any,
            Reduction::Blocked(block) => any.min(block.min(n) - 1 + n.div_ceil(block)),
            Reduction::Tree => any.min(n.next_power_of_two().trailing_zeros() as usize),
        }) as f64
    }

    /// γ_k = k·u / (1 - k·u), in units of u; infinite where that says nothing.
    fn gamma(&self, roundings: f64) -> f64 {
        let total = roundings * self.roundoff;
        if total < 1.0 { roundings / (1.0 - total) } else { f64::INFINITY }
    }

    fn leaf(&self, value: f64) -> Cell {
        self.cell(value, 0.0, value.abs(), quantum(value), 1.0, Rounding::Product)
    }

    fn product(&self, value: f64, a: (f64, Cell), b: (f64, Cell)) -> Cell {
        let mut carried = times(a.0.abs(), b.1.error) + times(b.0.abs(), a.1.error) + times(a.1.error, b.1.error);
        if !value.is_finite() && carried.is_infinite() && a.1.error.is_finite() && b.1.error.is_finite() {
            // ∞ times a finite factor: the class is open only if that factor may be zero or of either sign.
            let certain = |(value, cell): (f64, Cell)| value.abs() > cell.error || cell.error == 0.0;
            carried = if certain(a) && certain(b) { 0.0 } else { f64::INFINITY };
        }
        let quantum = match (a.1.quantum, b.1.quantum) {
            (f64::INFINITY, _) | (_, f64::INFINITY) if value == 0.0 => f64::INFINITY,
            (a, b) => a * b,
        };
        self.cell(value, carried, times(a.1.magnitude, b.1.magnitude), quantum, 1.0, Rounding::Product)
    }

    fn quotient(&self, value: f64, a: (f64, Cell), b: (f64, Cell)) -> Cell {
        let distance = b.0.abs() - b.1.error;
        let carried = if a.1.error == 0.0 && b.1.error == 0.0 {
            0.0
        } else if distance > 0.0 {
            let share = times(if value.is_finite() { value.abs() } else { 0.0 }, b.1.error);
            (a.1.error + share) / distance.min(f64::MAX)
        } else {
            f64::INFINITY
        };
        let quantum = if value == 0.0 && a.1.quantum == f64::INFINITY {
            f64::INFINITY
        } else if power_of_two(b.0) {
            a.1.quantum / b.0.abs()
        } else {
            0.0
        };
        // Two roundings: a reciprocal, then a product.
        self.cell(value, carried, a.1.magnitude / b.0.abs(), quantum, 2.0, Rounding::Product)
    }

    /// √ (`reciprocal` false) or 1/√ of a non-negative value.
    fn root(&self, value: f64, (argument, of): (f64, Cell), reciprocal: bool) -> Cell {
        let share = if of.error == 0.0 { 0.0 } else { of.error / argument };
        let carried = if of.error == 0.0 {
            0.0
        } else if share < 1.0 {
            let rest = (1.0 - share).sqrt();
            value * share / ((1.0 + rest) * if reciprocal { rest } else { 1.0 })
        } else if reciprocal {
            f64::INFINITY
        } else {
            (argument.max(0.0) + of.error).sqrt()
        };
        let approximate = self.arithmetic.rsqrt == Rsqrt::Approximate;
        let representable =
            if reciprocal { power_of_two(value) } else { self.format.holds(value) && value * value == argument };
        let quantum = if representable && !approximate { quantum(value) } else { 0.0 };
        let roundings = if reciprocal || approximate { 3.0 } else { 1.0 };
        self.cell(value, carried, value.abs(), quantum, roundings, Rounding::Sum)
    }
}

/// What can underflow: sums of numbers of a format are exact in its subnormal range, products are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rounding {
    Sum,
    Product,
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
        let same = |_: f64, (_, cell): (f64, Cell)| cell;
        match node.op {
            // Inputs are numbers of their own type; wider ones than the working precision do not occur.
            Op::Input(_) => {
                own.iter().map(|v| Cell { error: 0.0, magnitude: v.hi.abs(), quantum: quantum(v.hi) }).collect()
            }
            Op::Constant(_) | Op::Count(_) => own.iter().map(|value| machine.leaf(value.hi)).collect(),
            Op::Unary(Unary::Neg, a) => map(a, &same),
            Op::Unary(Unary::Square, a) => map(a, &|value, (a, cell)| {
                // The argument is evaluated before it is squared: its terms are not expanded.
                let cell = Cell { magnitude: a.abs(), ..cell };
                machine.product(value, (a, cell), (a, cell))
            }),
            Op::Unary(Unary::Sqrt, a) => map(a, &|value, a| machine.root(value, a, false)),
            Op::Unary(Unary::Rsqrt, a) => map(a, &|value, a| machine.root(value, a, true)),
            Op::Binary(binary, a, b) => {
                let operands = [operand(a), operand(b)];
                match binary {
                    Binary::Add | Binary::Sub => self.zip(id, operands, |value, (_, a), (_, b)| {
                        let magnitude = a.magnitude + b.magnitude;
                        let quantum = a.quantum.min(b.quantum);
                        machine.cell(value, a.error + b.error, magnitude, quantum, 1.0, Rounding::Sum)
                    }),
                    Binary::Mul => self.zip(id, operands, |value, a, b| machine.product(value, a, b)),
                    Binary::Div => self.zip(id, operands, |value, a, b| machine.quotient(value, a, b)),
                    Binary::Max => self.zip(id, operands, |value, (_, a), (_, b)| Cell {
                        error: a.error.max(b.error),
                        magnitude: value.abs(),
                        quantum: a.quantum.min(b.quantum),
                    }),
                }
            }
            Op::Select { left, right, then, otherwise } => {
                let [left, right, then, otherwise] = [left, right, then, otherwise].map(operand);
                let mut out = vec![EMPTY; own.len()];
                let axes = [left.axes, right.axes, then.axes, otherwise.axes];
                walk(sizes, node.axes, axes, |start, others, steps, length| {
                    for i in 0..length {
                        let at = |k: usize| others[k] + i * steps[k];
                        let (l, r) = (left.at(at(0)), right.at(at(1)));
                        let (t, o) = (then.at(at(2)), otherwise.at(at(3)));
                        let taken = if left.values[at(0)].at_least(right.values[at(1)]) { t } else { o };
                        let uncertainty = l.1.error + r.1.error;
                        let mut cell = taken.1;
                        if uncertainty > 0.0 && (l.0 - r.0).abs() <= uncertainty {
                            let reach = |(value, cell): (f64, Cell)| (value - taken.0).abs() + cell.error;
                            cell.error = reach(t).max(reach(o));
                            cell.quantum = 0.0;
                            if cell.error.is_nan() {
                                cell.error = f64::INFINITY;
                            }
                        }
                        out[start + i] = cell;
                    }
                });
                out
            }
            Op::Reduce(reduce, a, reduced) => self.reduce(id, reduce, operand(a), sizes.count(reduced)),
            Op::Head { of, from, to } | Op::Extend { of, from, to } => {
                let of = operand(of);
                let mut out = vec![Cell { error: 0.0, magnitude: 0.0, quantum: f64::INFINITY }; own.len()];
                copy_along(sizes, [from, to], (of.axes, of.cells), (node.axes, &mut out));
                out
            }
            Op::Repeat(a, _) => {
                let a = operand(a);
                let mut out = vec![EMPTY; own.len()];
                walk(sizes, node.axes, [a.axes], |own, [start], [step], length| {
                    for i in 0..length {
                        out[own + i] = a.cells[start + i * step];
                    }
                });
                out
            }
            Op::Cast(a, dtype) => self.cast(id, operand(a), Format::of(dtype)),
        }
    }

    fn zip(
        &self,
        id: NodeId,
        [a, b]: [Operand<'_>; 2],
        f: impl Fn(f64, (f64, Cell), (f64, Cell)) -> Cell,
    ) -> Vec<Cell> {
        let own = &self.values.nodes[id.index()];
        let mut out = vec![EMPTY; own.len()];
        let axes = self.graph.node(id).axes;
        walk(&self.values.sizes, axes, [a.axes, b.axes], |start, [x, y], [x_step, y_step], length| {
            for i in 0..length {
                out[start + i] = f(own[start + i].hi, a.at(x + i * x_step), b.at(y + i * y_step));
            }
        });
        out
    }

    fn reduce(&self, id: NodeId, reduce: Reduce, a: Operand<'_>, count: usize) -> Vec<Cell> {
        let machine = &self.machine;
        let own = &self.values.nodes[id.index()];
        // Sums over the addends of errors and magnitudes, their common quantum, and whether they are all alike.
        let mut sums = vec![(Cell { error: 0.0, magnitude: 0.0, quantum: f64::INFINITY }, f64::NAN, true); own.len()];
        walk(&self.values.sizes, a.axes, [self.graph.node(id).axes], |start, [to], [step], length| {
            for i in 0..length {
                let (value, cell) = a.at(start + i);
                let (sum, first, alike) = &mut sums[to + i * step];
                sum.error += cell.error;
                sum.magnitude += cell.magnitude;
                sum.quantum = sum.quantum.min(cell.quantum);
                if first.is_nan() {
                    *first = value;
                }
                *alike &= value == *first;
            }
        });
        let n = count as f64;
        own.iter()
            .zip(sums)
            .map(|(own, (sum, _, alike))| {
                let roundings = machine.gamma(machine.depth(count));
                if reduce == Reduce::Sum {
                    return machine.cell(own.hi, sum.error, sum.magnitude, sum.quantum, roundings, Rounding::Sum);
                }
                // The sum must be exact before the quotient can be; a running form is exact only where there is
                // nothing to update.
                let steady = reduce == Reduce::Mean || count <= 2 || alike;
                let exact_sum = steady && machine.exact(sum.magnitude, sum.quantum);
                let quantum = if exact_sum && count.is_power_of_two() { sum.quantum / n } else { 0.0 };
                // Beyond the additions: the quotient (two roundings with a reciprocal), one more in a running form.
                let roundings = machine.gamma(machine.depth(count) + 3.0);
                let cell =
                    machine.cell(own.hi, sum.error / n, sum.magnitude / n, quantum, roundings, Rounding::Product);
                // The sum overflows before the mean does.
                let overflows = sum.magnitude > machine.largest;
                Cell { error: if overflows && own.hi.is_finite() { f64::INFINITY } else { cell.error }, ..cell }
            })
            .collect()
    }

    /// A rounding that the formula states: the computed argument may round to either side.
    fn cast(&self, id: NodeId, a: Operand<'_>, format: Format) -> Vec<Cell> {
        let own = &self.values.nodes[id.index()];
        own.iter()
            .zip(a.values)
            .zip(a.cells)
            .map(|((own, of), cell)| {
                let reach = |error: f64| (format.round_dd(*of + error.into()) - own.hi).abs();
                let error = if cell.error == 0.0 || !own.hi.is_finite() {
                    if cell.error == f64::INFINITY { f64::INFINITY } else { 0.0 }
                } else {
                    reach(cell.error).max(reach(-cell.error))
                };
                let error = if error.is_nan() { f64::INFINITY } else { error };
                let quantum = if error == 0.0 { quantum(own.hi) } else { 0.0 };
                Cell { error, magnitude: own.hi.abs(), quantum }
            })
            .collect()
    }
}

const EMPTY: Cell = Cell { error: f64::INFINITY, magnitude: 0.0, quantum: 0.0 };

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

/// a · b where nothing times infinity is nothing: an exact zero does not feel the other's error.
fn times(a: f64, b: f64) -> f64 {
    if a == 0.0 || b == 0.0 { 0.0 } else { a * b }
}

fn power_of_two(value: f64) -> bool {
    value.is_normal() && value.to_bits() & 0xf_ffff_ffff_ffff == 0
}

/// The largest power of two that divides a number: the place of its last bit. Infinite for 0, 0 if it is not finite.
fn quantum(value: f64) -> f64 {
    if value == 0.0 {
        return f64::INFINITY;
    }
    if !value.is_finite() {
        return 0.0;
    }
    let bits = value.to_bits();
    let exponent = ((bits >> 52) & 0x7ff).max(1) as i32 - 1075;
    let mantissa = (bits & 0xf_ffff_ffff_ffff) | if value.is_normal() { 1 << 52 } else { 0 };
    2f64.powi(exponent + mantissa.trailing_zeros() as i32)
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
            Op::Count(_) | Op::Unary(Unary::Square | Unary::Sqrt | Unary::Rsqrt, _) => Plus,
            Op::Unary(Unary::Neg, a) => {
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
            Op::Binary(Binary::Sub, ..) | Op::Select { .. } | Op::Extend { .. } => Open,
            Op::Reduce(_, a, _) => {
                if of(a) == Plus {
                    Plus
                } else {
                    Open
                }
            }
            Op::Head { of: a, .. } | Op::Repeat(a, _) | Op::Cast(a, _) => of(a),
        };
        signs.push(sign);
    }
    signs
}
