//! Where a value goes: what a family knows when it chooses one.

use std::collections::HashMap;
use std::sync::LazyLock;

use isonorm_kernels::abi::{Direction, Dtype, DtypeSet};
use isonorm_oracles::formula::{Op, Reduce};
use isonorm_oracles::operators::{AxisKind, OPERATORS, Operator};
use isonorm_oracles::storage::Format;
use isonorm_oracles::{Problem, Tensor};

use crate::generate::Random;

/// Random numbers of each element, each slice and each case that do not meet.
const PER_PLACE: u64 = 16;

/// What a statistic of an operator runs over, read from its formula.
#[derive(Debug)]
pub(super) struct Statistic {
    /// The first reduction; none where the statistics are inputs.
    pub(super) reduce: Option<Reduce>,
    /// The axes that belong together: a slice of a tensor is what runs along them.
    pub(super) axes: Vec<&'static str>,
}

impl Statistic {
    pub(super) fn of(operator: &Operator) -> &'static Statistic {
        static ALL: LazyLock<HashMap<&str, Statistic>> = LazyLock::new(|| {
            OPERATORS.into_iter().map(|operator| (operator.name, Statistic::read(operator))).collect()
        });
        &ALL[operator.name]
    }

    fn read(operator: &'static Operator) -> Statistic {
        let problem = Problem {
            operator,
            direction: Direction::Forward,
            dtypes: DtypeSet::uniform(Dtype::F32),
            dims: operator.axes.iter().map(|axis| (axis.name, vec![2; *axis.ranks.start()])).collect(),
            attributes: operator.default_attributes(),
            given: Default::default(),
        };
        let graph = problem.forward_graph();
        let first = graph.nodes.iter().find_map(|node| match node.op {
            Op::Reduce(reduce, _, axes) => Some((reduce, axes)),
            _ => None,
        });
        let reduced = |name: &str| first.is_some_and(|(_, axes)| axes.has(graph.axis(name)));
        let axes = operator.axes.iter().filter(|axis| axis.kind == AxisKind::Reduced || reduced(axis.name));
        Statistic { reduce: first.map(|(reduce, _)| reduce), axes: axes.map(|axis| axis.name).collect() }
    }
}

/// What all values of a case have in common.
#[derive(Debug)]
pub struct Setting<'a> {
    problem: &'a Problem,
    inputs: &'a [Tensor],
    random: Random,
    eps: f64,
    /// The input with the one special element.
    marked: usize,
}

impl<'a> Setting<'a> {
    pub(crate) fn new(problem: &'a Problem, inputs: &'a [Tensor], random: Random) -> Self {
        let eps = if problem.attributes.contains_key("eps") { problem.real("eps") } else { 0.0 };
        let draw = random.named("marked");
        let x = inputs.iter().position(|input| input.name == "x").unwrap_or(0);
        let marked = if draw.below(0, 2) == 0 { x } else { draw.below(1, inputs.len()) };
        Setting { problem, inputs, random, eps, marked }
    }

    /// The problem.
    pub fn problem(&self) -> &'a Problem {
        self.problem
    }
}

/// The element that a value is wanted for.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    setting: &'a Setting<'a>,
    /// The tensor it is an element of.
    pub tensor: &'a Tensor,
    /// Its place in row-major order.
    pub element: usize,
    /// Which slice it belongs to: what one statistic runs over.
    pub slice: usize,
    /// Where in its slice it is.
    pub index: usize,
    /// Elements of a slice.
    pub count: usize,
    /// Whether it is the one special element of its case.
    pub marked: bool,
    random: Random,
    format: Format,
}

impl<'a> Place<'a> {
    /// The problem.
    pub fn problem(&self) -> &'a Problem {
        self.setting.problem
    }

    /// The problem's eps; 0 if it has none.
    pub fn eps(&self) -> f64 {
        self.setting.eps
    }

    /// The format of the tensor's elements.
    pub fn format(&self) -> &Format {
        &self.format
    }

    /// The format of the arithmetic.
    pub fn working(&self) -> Format {
        Format::of(self.setting.problem.dtypes.data.statistics())
    }

    /// A random number of this element in [0, 1); `draw` tells several (0 to 3) from each other.
    pub fn uniform(&self, draw: u64) -> f64 {
        self.random.uniform(self.own(draw))
    }

    /// A random number of this element in [-1, 1).
    pub fn symmetric(&self, draw: u64) -> f64 {
        2.0 * self.uniform(draw) - 1.0
    }

    /// A bell-shaped random number of this element, mean 0 and variance 1; `draw` may be 0 or 1, and uses up the uniform
    /// ones of 2 · draw and 2 · draw + 1.
    pub fn normal(&self, draw: u64) -> f64 {
        self.random.normal(self.own(2 * draw))
    }

    /// A random choice of this element from 0 to `n - 1`; `draw` can be 0 to 7.
    pub fn pick(&self, draw: u64, n: usize) -> usize {
        self.random.below(self.own(PER_PLACE - 1 - draw), n)
    }

    /// 1 or -1, by the element.
    pub fn sign(&self) -> f64 {
        if self.pick(7, 2) == 0 { 1.0 } else { -1.0 }
    }

    /// A random choice from 0 to `n - 1` that is the same for a slice, in every tensor.
    pub fn slice_pick(&self, draw: u64, n: usize) -> usize {
        self.setting.random.child(1).below(self.slice as u64 * PER_PLACE + draw, n)
    }

    /// A random choice from 0 to `n - 1` that is the same for the whole case.
    pub fn case_pick(&self, draw: u64, n: usize) -> usize {
        self.setting.random.child(2).below(draw, n)
    }

    /// The same place in another input, which has the same axes; `None` if it is absent.
    pub fn in_tensor(&self, name: &str) -> Option<Place<'a>> {
        let tensor = self.setting.inputs.iter().find(|input| input.name == name)?;
        let random = self.setting.random.named(name);
        Some(Place { tensor, random, format: Format::of(tensor.dtype), ..*self })
    }

    /// The value as the tensor holds it. A finite one stays finite.
    pub fn store(&self, value: f64) -> f64 {
        let rounded = self.format.round(value);
        if rounded.is_infinite() && value.is_finite() { self.format.largest.copysign(value) } else { rounded }
    }

    /// Where this element's own random numbers are.
    fn own(&self, draw: u64) -> u64 {
        self.element as u64 * PER_PLACE + draw
    }
}

/// Visits every element of a tensor in row-major order.
pub(super) fn visit<'a>(setting: &'a Setting<'a>, tensor: &'a Tensor, mut f: impl FnMut(&Place<'a>)) {
    if tensor.is_empty() {
        return;
    }
    let statistic = Statistic::of(setting.problem.operator);
    let mut names = tensor.axes.concat();
    names.dedup();
    let along = |name: &&str| statistic.axes.contains(name);
    let count: usize = names.iter().filter(|name| along(name)).map(|name| setting.problem.size(name)).product();
    let slices = tensor.len() / count;
    // For each axis, from the innermost out: its size, and its steps in slices and in places of a slice.
    let (mut axes, mut steps) = (Vec::with_capacity(names.len()), [1, 1]);
    for name in names.iter().rev() {
        let (size, inside) = (setting.problem.size(name), usize::from(along(name)));
        let mut step = [0, 0];
        step[inside] = steps[inside];
        steps[inside] *= size;
        axes.push((size, step));
    }
    let marked = (setting.inputs.get(setting.marked).is_some_and(|input| input.name == tensor.name))
        .then(|| mark(setting.random.named("mark"), slices, count));
    let mut place = Place {
        setting,
        tensor,
        element: 0,
        slice: 0,
        index: 0,
        count,
        marked: false,
        random: setting.random.named(&tensor.name),
        format: Format::of(tensor.dtype),
    };
    let mut counters = vec![0; axes.len()];
    loop {
        place.marked = marked == Some((place.slice, place.index));
        f(&place);
        place.element += 1;
        let mut level = 0;
        loop {
            let Some(&(size, [slice, index])) = axes.get(level) else { return };
            counters[level] += 1;
            place.slice += slice;
            place.index += index;
            if counters[level] < size {
                break;
            }
            counters[level] = 0;
            place.slice -= slice * size;
            place.index -= index * size;
            level += 1;
        }
    }
}

/// The special element: first, middle, last, in the last lanes, or anywhere in some slice.
fn mark(random: Random, slices: usize, count: usize) -> (usize, usize) {
    let slice = [0, slices - 1, random.below(0, slices)][random.below(1, 3)];
    let tail = count - 1 - random.below(2, count.min(8));
    let index = [0, count / 2, count - 1, tail, random.below(3, count)][random.below(4, 5)];
    (slice, index)
}

/// 2^exponent, subnormal ones included; 0 or infinity beyond.
pub(super) fn power_of_two(exponent: i32) -> f64 {
    match exponent {
        -1022..=1023 => f64::from_bits(((exponent + 1023) as u64) << 52),
        -1074..-1022 => f64::from_bits(1 << (exponent + 1074)),
        ..-1074 => 0.0,
        _ => f64::INFINITY,
    }
}
