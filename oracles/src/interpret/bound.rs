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
    /// Largest distance of the computed value from the true one. If the true value is not finite: 0 where the computed
    /// one is the same. Infinite where nothing can be said.
    error: f64,
    /// Sum of the magnitudes of the terms of the expanded value, as computed; at least |value| + error.
    magnitude: f64,
    /// The computed value is no less, whatever the error; -∞ where that is not known. Counts down to 0 only.
    least: f64,
    /// If positive, value and terms are multiples of this power of two and the error is 0; infinite for exact zeros.
    quantum: f64,
}

impl Cell {
    /// Nothing can be said.
    const OPEN: Cell = Cell { error: f64::INFINITY, magnitude: f64::INFINITY, least: f64::NEG_INFINITY, quantum: 0.0 };
    /// The computed value is NaN or infinite as the true one is.
    const CLASS: Cell = Cell { error: 0.0, ..Cell::OPEN };
    /// An exact zero, made of nothing.
    const ZERO: Cell = Cell { error: 0.0, magnitude: 0.0, least: 0.0, quantum: f64::INFINITY };

    fn is_open(self) -> bool {
        self.error == f64::INFINITY
    }

    /// The same with what is known of its least value.
    fn at_least(self, least: f64) -> Cell {
        if self.is_open() { self } else { Cell { least, ..self } }
    }
}

/// The bound that follows from the classes of the operands alone, if one does. A result that is not finite although all
/// operands are is none of the formula's: it left the range of `f64`.
fn class(value: f64, operands: &[(f64, Cell)]) -> Option<Cell> {
    if operands.iter().any(|(value, cell)| value.is_nan() && !cell.is_open()) {
        return Some(Cell::CLASS);
    }
    let overflows = !value.is_finite() && operands.iter().all(|(value, _)| value.is_finite());
    (overflows || operands.iter().any(|(_, cell)| cell.is_open())).then_some(Cell::OPEN)
}

/// Whether a factor or divisor is sure of its sign, and of not being 0 unless it is 0.
fn sure(&(value, cell): &(f64, Cell)) -> bool {
    cell.error == 0.0 || value.abs() > cell.error
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

    /// The bound of a node with this value, whose operands are not open and bring `carried`, after `roundings` roundings
    /// of terms that add up to `magnitude` and are multiples of `quantum`.
    fn cell(&self, value: f64, carried: f64, magnitude: f64, quantum: f64, roundings: f64, kind: Rounding) -> Cell {
        if !value.is_finite() {
            return Cell::CLASS;
        }
        let exact = carried == 0.0 && self.exact(magnitude, quantum);
        let mut own = 0.0;
        if !exact {
            own = times(roundings * self.roundoff, magnitude);
            if kind == Rounding::Product && magnitude < self.underflow.0 {
                own += self.underflow.1;
            }
        }
        // NaN compares false: a bound that cannot be computed is open.
        let bounded = magnitude + own <= self.largest;
        if !bounded {
            return Cell::OPEN;
        }
        let quantum = if exact { quantum } else { 0.0 };
        Cell { error: carried + own, magnitude: magnitude + own, least: f64::NEG_INFINITY, quantum }
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
        let cell = self.cell(value, 0.0, value.abs(), quantum(value), 1.0, Rounding::Product);
        cell.at_least(value - cell.error)
    }

    fn product(&self, value: f64, a: (f64, Cell), b: (f64, Cell)) -> Cell {
        if let Some(class) = class(value, &[a, b]) {
            return class;
        }
        if !value.is_finite() {
            // ∞ times a number that may be 0, or of either sign, may be anything.
            return if sure(&a) && sure(&b) { Cell::CLASS } else { Cell::OPEN };
        }
        let carried = times(a.0.abs(), b.1.error) + times(b.0.abs(), a.1.error) + times(a.1.error, b.1.error);
        let quantum = match (a.1.quantum, b.1.quantum) {
            (f64::INFINITY, _) | (_, f64::INFINITY) => f64::INFINITY,
            (a, b) => a * b,
        };
        let least = if a.1.least >= 0.0 && b.1.least >= 0.0 { 0.0 } else { f64::NEG_INFINITY };
        let magnitude = times(a.1.magnitude, b.1.magnitude);
        self.cell(value, carried, magnitude, quantum, 1.0, Rounding::Product).at_least(least)
    }

    fn quotient(&self, value: f64, a: (f64, Cell), b: (f64, Cell)) -> Cell {
        let by_zero = b.0 == 0.0 && b.1.error == 0.0;
        if by_zero && !a.1.is_open() {
            return if sure(&a) { Cell::CLASS } else { Cell::OPEN };
        }
        if let Some(class) = class(value, &[a, b]) {
            return class;
        }
        let distance = (b.0.abs() - b.1.error).max(if b.0 > 0.0 { b.1.least } else { 0.0 });
        if distance <= 0.0 {
            return Cell::OPEN;
        }
        if !value.is_finite() {
            return Cell::CLASS;
        }
        let carried = (a.1.error + times(value.abs(), b.1.error)) / distance;
        let quantum = if a.1.quantum == f64::INFINITY || b.0.is_infinite() {
            f64::INFINITY
        } else if b.1.error == 0.0 && power_of_two(b.0) {
            a.1.quantum / b.0.abs()
        } else {
            0.0
        };
        let least = if a.1.least >= 0.0 && b.1.least > 0.0 { 0.0 } else { f64::NEG_INFINITY };
        // Two roundings: a reciprocal, then a product.
        self.cell(value, carried, a.1.magnitude / distance, quantum, 2.0, Rounding::Product).at_least(least)
    }

    /// √ (`reciprocal` false) or 1/√.
    fn root(&self, value: f64, operand: (f64, Cell), reciprocal: bool) -> Cell {
        let (argument, of) = operand;
        if argument == 0.0 && of.error == 0.0 && reciprocal {
            return Cell::CLASS;
        }
        if argument + of.error < 0.0 {
            // The root of a negative number is NaN.
            return Cell::CLASS;
        }
        if let Some(class) = class(value, &[operand]) {
            return class;
        }
        let lowest = (argument - of.error).max(of.least);
        if lowest < 0.0 || (reciprocal && lowest == 0.0) {
            return Cell::OPEN;
        }
        let carried = if of.error == 0.0 || argument == f64::INFINITY {
            0.0
        } else if argument == 0.0 {
            of.error.sqrt()
        } else {
            // Differences of roots, without their cancellation: how far the ends of the argument's range are out.
            let (below, above) = ((argument - lowest) / argument, of.error / argument);
            let (low, high) = ((lowest / argument).sqrt(), (1.0 + above).sqrt());
            let [below, above] = if reciprocal {
                [below / ((1.0 + low) * low), if above.is_finite() { above / ((1.0 + high) * high) } else { 1.0 }]
            } else {
                [below / (1.0 + low), above / (1.0 + high)]
            };
            value * below.max(above)
        };
        let approximate = reciprocal && self.arithmetic.rsqrt == Rsqrt::Approximate;
        let representable =
            if reciprocal { power_of_two(value) } else { self.format.holds(value) && value * value == argument };
        let quantum = if value == 0.0 || (representable && !approximate) { quantum(value) } else { 0.0 };
        let roundings = match (reciprocal, approximate) {
            (false, _) => 1.0,
            // A square root and a division.
            (true, false) => 2.0,
            // A unit in the last place is up to two units of roundoff.
            (true, true) => 6.0,
        };
        self.cell(value, carried, value + carried, quantum, roundings, Rounding::Sum).at_least(0.0)
    }
}

/// What can underflow: sums of numbers of a format are exact in its subnormal range, products are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rounding {
    Sum,
    Product,
}

/// What a reduction sees of its addends.
#[derive(Clone, Copy)]
struct Total {
    /// Sums of errors and magnitudes of the finite addends, their common quantum, and 0 as `least` if none is negative.
    sum: Cell,
    /// Some addend is NaN.
    nan: bool,
    /// Nothing can be said of some addend.
    open: bool,
    /// Some addend is infinite.
    infinite: bool,
    /// The value of all of them, as long as they are alike.
    alike: Option<f64>,
    any: bool,
}

impl Total {
    const NONE: Total = Total { sum: Cell::ZERO, nan: false, open: false, infinite: false, alike: None, any: false };

    #[inline(always)]
    fn add(&mut self, (value, cell): (f64, Cell)) {
        if cell.is_open() {
            self.open = true;
        } else if value.is_nan() {
            self.nan = true;
        } else if value.is_infinite() {
            self.infinite = true;
        } else {
            self.sum.error += cell.error;
            self.sum.magnitude += cell.magnitude;
            self.sum.quantum = self.sum.quantum.min(cell.quantum);
            self.sum.least = self.sum.least.min(if cell.least >= 0.0 { 0.0 } else { f64::NEG_INFINITY });
        }
        self.alike = if self.any { self.alike.filter(|&first| first == value) } else { Some(value) };
        self.any = true;
    }
}

impl Machine {
    fn reduction(&self, value: f64, reduce: Reduce, total: &Total, count: usize) -> Cell {
        let Total { sum, nan, open, infinite, .. } = *total;
        if nan {
            return Cell::CLASS;
        }
        let additions = self.gamma(self.depth(count));
        // Partial sums of finite addends overflow before the mean does, and may do so against an infinite addend.
        let bounded = sum.magnitude * (1.0 + additions * self.roundoff) <= self.largest;
        if open || !bounded || (!value.is_finite() && !infinite) {
            return Cell::OPEN;
        }
        if infinite {
            return Cell::CLASS;
        }
        if reduce == Reduce::Sum {
            let cell = self.cell(value, sum.error, sum.magnitude, sum.quantum, additions, Rounding::Sum);
            return cell.at_least(sum.least);
        }
        let n = count as f64;
        // The sum must be exact before the quotient can be; a running form is exact only where there is nothing to update.
        let steady = reduce == Reduce::Mean || count <= 2 || total.alike.is_some();
        let exact_sum = steady && self.exact(sum.magnitude, sum.quantum);
        let quantum = if exact_sum && count.is_power_of_two() { sum.quantum / n } else { 0.0 };
        // Beyond the additions: a reciprocal and a product, and the rounding of a count that the format does not hold.
        let quotient = if self.format.holds(n) { 2.0 } else { 3.0 };
        let updates = if reduce == Reduce::Moment { self.updates(count) } else { 0.0 };
        let roundings = self.gamma(self.depth(count) + updates.max(quotient));
        let cell = self.cell(value, sum.error / n, sum.magnitude / n, quantum, roundings, Rounding::Product);
        cell.at_least(sum.least)
    }

    /// What a running mean rounds beyond its additions, in units of u: mean' = mean + (x - mean)·(1/k) rounds the second term three
    /// times. That term's weight is 1/k, and mean itself is a mean of what came before, so that an addend's share in
    /// all of them is 3·(1 + 1/2 + … + 1/(n-1)) at most. Means of blocks are merged in the same way.
    fn updates(&self, count: usize) -> f64 {
        let harmonic = |n: usize| match n {
            0 => 0.0,
            n => 1.0 + (n as f64).ln(),
        };
        let any = harmonic(count.saturating_sub(1));
        3.0 * match self.arithmetic.reduction {
            Reduction::Any => any,
            Reduction::Blocked(block) => harmonic(block.min(count)) + harmonic(count.div_ceil(block)),
            Reduction::Tree => self.depth(count),
        }
    }
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
                        if !value.is_finite() {
                            return Cell::CLASS;
                        }
                        let error = a.1.error.max(b.1.error);
                        let least = a.1.least.max(b.1.least);
                        Cell { error, magnitude: value.abs() + error, least, quantum: a.1.quantum.min(b.1.quantum) }
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
            Op::Reduce(reduce, a, reduced) => self.reduce(id, reduce, operand(a), sizes.count(reduced)),
            Op::Head { of, from, to } | Op::Extend { of, from, to } => {
                let of = operand(of);
                let mut out = vec![Cell::ZERO; own.len()];
                copy_along(sizes, [from, to], (of.axes, of.cells), (node.axes, &mut out));
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
