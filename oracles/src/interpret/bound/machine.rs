//! The arithmetic of bounds: what one operation adds to the errors of its operands.

use isonorm_kernels::abi::{Reduction, Rsqrt};

use crate::dd::Dd;
use crate::formula::{Reduce, Unary};
use crate::storage::Format;

use super::Arithmetic;

/// The bound of one element of one node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Cell {
    /// Largest distance of the computed value from the true one. If the true value is not finite: 0 where the computed
    /// one is the same. Infinite where nothing can be said.
    pub(super) error: f64,
    /// Sum of the magnitudes of the terms of the expanded value, as computed; at least |value| + error.
    pub(super) magnitude: f64,
    /// The computed value is no less, whatever the error; -∞ where that is not known. Counts down to 0 only.
    pub(super) least: f64,
    /// If positive, value and terms are multiples of this power of two and the error is 0; infinite for exact zeros.
    pub(super) quantum: f64,
}

impl Cell {
    /// Nothing can be said.
    pub(super) const OPEN: Cell =
        Cell { error: f64::INFINITY, magnitude: f64::INFINITY, least: f64::NEG_INFINITY, quantum: 0.0 };
    /// The computed value is NaN or infinite as the true one is.
    pub(super) const CLASS: Cell = Cell { error: 0.0, ..Cell::OPEN };
    /// An exact zero, made of nothing.
    pub(super) const ZERO: Cell = Cell { error: 0.0, magnitude: 0.0, least: 0.0, quantum: f64::INFINITY };

    pub(super) fn is_open(self) -> bool {
        self.error == f64::INFINITY
    }

    /// The same with what is known of its least value.
    pub(super) fn at_least(self, least: f64) -> Cell {
        if self.is_open() { self } else { Cell { least, ..self } }
    }
}

/// The bound that follows from the classes of the operands alone, if one does. A result that is not finite although all
/// operands are is none of the formula's: it left the range of `f64`.
pub(super) fn class(value: f64, operands: &[(f64, Cell)]) -> Option<Cell> {
    if operands.iter().any(|(value, cell)| value.is_nan() && !cell.is_open()) {
        return Some(Cell::CLASS);
    }
    let overflows = !value.is_finite() && operands.iter().all(|(value, _)| value.is_finite());
    (overflows || operands.iter().any(|(_, cell)| cell.is_open())).then_some(Cell::OPEN)
}

/// Whether a factor or divisor is sure of its sign, and of not being 0 unless it is 0.
pub(super) fn sure(&(value, cell): &(f64, Cell)) -> bool {
    cell.error == 0.0 || value.abs() > cell.error
}

/// Numbers of the working precision.
pub(super) struct Machine {
    pub(super) arithmetic: Arithmetic,
    pub(super) format: Format,
    pub(super) roundoff: f64,
    /// Where results may lose bits to underflow, and how much a rounding then adds.
    pub(super) underflow: (f64, f64),
    pub(super) largest: f64,
}

impl Machine {
    pub(super) fn new(arithmetic: Arithmetic) -> Self {
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
    pub(super) fn cell(
        &self,
        value: f64,
        carried: f64,
        magnitude: f64,
        quantum: f64,
        roundings: f64,
        kind: Rounding,
    ) -> Cell {
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

    pub(super) fn exact(&self, magnitude: f64, quantum: f64) -> bool {
        // Comparing through a division keeps clear of overflow; an infinite quantum means that all terms are zero.
        quantum >= self.format.smallest && magnitude / quantum <= 1.0 / self.roundoff
    }

    /// The most additions that one of `n` addends passes through.
    pub(super) fn depth(&self, n: usize) -> f64 {
        let n = n.max(1);
        let any = n - 1;
        (match self.arithmetic.reduction {
            Reduction::Any => any,
            Reduction::Blocked(block) => any.min(block.min(n) - 1 + n.div_ceil(block)),
            Reduction::Tree => any.min(n.next_power_of_two().trailing_zeros() as usize),
        }) as f64
    }

    /// γ_k = k·u / (1 - k·u), in units of u; infinite where that says nothing.
    pub(super) fn gamma(&self, roundings: f64) -> f64 {
        let total = roundings * self.roundoff;
        if total < 1.0 { roundings / (1.0 - total) } else { f64::INFINITY }
    }

    pub(super) fn leaf(&self, value: f64) -> Cell {
        let cell = self.cell(value, 0.0, value.abs(), quantum(value), 1.0, Rounding::Product);
        cell.at_least(value - cell.error)
    }

    pub(super) fn product(&self, value: f64, a: (f64, Cell), b: (f64, Cell)) -> Cell {
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

    pub(super) fn quotient(&self, value: f64, a: (f64, Cell), b: (f64, Cell)) -> Cell {
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
    pub(super) fn root(&self, value: f64, operand: (f64, Cell), reciprocal: bool) -> Cell {
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

impl Machine {
    /// exp, log, tanh or erf, computed to two units in the last place.
    pub(super) fn function(&self, unary: Unary, value: f64, operand: (f64, Cell)) -> Cell {
        let (argument, of) = operand;
        if let Some(class) = class(value, &[operand]) {
            return class;
        }
        // How far from 0 an argument within the error is at least.
        let nearest = (argument.abs() - of.error).max(0.0);
        let carried = match unary {
            _ if of.error == 0.0 => 0.0,
            Unary::Exp => times(value, of.error.exp_m1()),
            Unary::Log => {
                let lowest = (argument - of.error).max(of.least);
                if lowest <= 0.0 {
                    return Cell::OPEN;
                }
                (argument / lowest).ln().max((of.error / argument).ln_1p())
            }
            Unary::Tanh => of.error * (1.0 - nearest.tanh().powi(2)),
            Unary::Erf => of.error * std::f64::consts::FRAC_2_SQRT_PI * (-nearest * nearest).exp(),
            Unary::Neg | Unary::Square | Unary::Sqrt | Unary::Rsqrt => unreachable!("these have rules of their own"),
        };
        // Two units in the last place are up to four units of roundoff.
        // Nowhere else are values numbers of any format (Lindemann, Weierstrass).
        let rational = argument == if unary == Unary::Log { 1.0 } else { 0.0 };
        let quantum = if rational { quantum(value) } else { 0.0 };
        let cell = self.cell(value, carried, value.abs() + carried, quantum, 4.0, Rounding::Product);
        if unary == Unary::Exp { cell.at_least(0.0) } else { cell }
    }

    /// The larger of two, which has this value.
    pub(super) fn larger(&self, value: f64, a: Cell, b: Cell) -> Cell {
        if !value.is_finite() {
            return Cell::CLASS;
        }
        let error = a.error.max(b.error);
        Cell { error, magnitude: value.abs() + error, least: a.least.max(b.least), quantum: a.quantum.min(b.quantum) }
    }

    /// What is left of a bound where the node is computed apart from all others and stored in a type, after so many roundings
    /// to it: its terms are no longer expanded.
    pub(super) fn stored(&self, value: Dd, cell: Cell, format: Format, roundings: f64) -> Cell {
        if cell.is_open() || !value.hi.is_finite() {
            return cell;
        }
        let reach = value.hi.abs() + cell.error;
        let exact = cell.error == 0.0 && value.lo == 0.0 && format.holds(value.hi);
        let coarser = format.precision < self.format.precision && !exact;
        let own = if coarser { roundings * (format.unit_roundoff() * reach + format.smallest) } else { 0.0 };
        let error = cell.error + own;
        let quantum = if error == 0.0 { cell.quantum } else { 0.0 };
        let least = if own == 0.0 || cell.least <= 0.0 { cell.least } else { (cell.least - own).max(0.0) };
        Cell { error, magnitude: value.hi.abs() + error, least, quantum }
    }
}

/// What can underflow: sums of numbers of a format are exact in its subnormal range, products are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rounding {
    Sum,
    Product,
}

/// What a reduction sees of its addends.
#[derive(Clone, Copy)]
pub(super) struct Total {
    /// Sums of errors and magnitudes of the finite addends, their common quantum, and 0 as `least` if none is negative.
    pub(super) sum: Cell,
    /// Some addend is NaN.
    pub(super) nan: bool,
    /// Nothing can be said of some addend.
    pub(super) open: bool,
    /// Some addend is infinite.
    pub(super) infinite: bool,
    /// The value of all of them, as long as they are alike.
    pub(super) alike: Option<f64>,
    pub(super) any: bool,
}

impl Total {
    pub(super) const NONE: Total =
        Total { sum: Cell::ZERO, nan: false, open: false, infinite: false, alike: None, any: false };

    #[inline(always)]
    pub(super) fn add(&mut self, (value, cell): (f64, Cell)) {
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
    pub(super) fn reduction(&self, value: f64, reduce: Reduce, total: &Total, count: usize) -> Cell {
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
    pub(super) fn updates(&self, count: usize) -> f64 {
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

/// a · b where nothing times infinity is nothing: an exact zero does not feel the other's error.
pub(super) fn times(a: f64, b: f64) -> f64 {
    if a == 0.0 || b == 0.0 { 0.0 } else { a * b }
}

pub(super) fn power_of_two(value: f64) -> bool {
    value.is_normal() && value.to_bits() & 0xf_ffff_ffff_ffff == 0
}

/// The largest power of two that divides a number: the place of its last bit. Infinite for 0, 0 if it is not finite.
pub(super) fn quantum(value: f64) -> f64 {
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
