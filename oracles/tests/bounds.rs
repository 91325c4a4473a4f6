//! Bounds hold for straightforward evaluation on data of every magnitude, and do not for other formulas.

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{Numbers, Truth, Values, fill, problems, torch_answer};
use isonorm_kernels::abi::{Direction, Dtype, DtypeSet, Value};
use isonorm_oracles::formula::{Axis, AxisSet, Binary, Graph, NodeId, Op, Reduce, Unary, Window};
use isonorm_oracles::interpret::Sizes;
use isonorm_oracles::interpret::bound::Arithmetic;
use isonorm_oracles::operators::{OPERATORS, find};
use isonorm_oracles::{Problem, Tensor};

/// Families of values: a rule for `x`-like tensors each.
type Family = (&'static str, fn(&mut Numbers) -> f64);
const FAMILIES: [Family; 11] = [
    ("uniform", |numbers| numbers.uniform(-1.0, 1.0)),
    ("every magnitude", |numbers| sign(numbers) * 2f64.powf(numbers.uniform(-60.0, 60.0))),
    ("tiny", |numbers| numbers.uniform(-1e-20, 1e-20)),
    ("subnormal", |numbers| numbers.uniform(-1e-40, 1e-40)),
    ("huge", |numbers| numbers.uniform(-1e18, 1e18)),
    ("overflowing", |numbers| numbers.uniform(-3e38, 3e38)),
    ("large mean", |numbers| 1e4 + numbers.uniform(-1.0, 1.0)),
    ("larger mean", |numbers| 3e6 + numbers.uniform(-1.0, 1.0)),
    ("integers", |numbers| numbers.uniform(-8.0, 8.0).round()),
    ("constant", |_| 3.3),
    ("spikes", |numbers| if numbers.bits() % 8 == 0 { 1e6 } else { 1e-6 }),
];

fn sign(numbers: &mut Numbers) -> f64 {
    if numbers.bits() & 1 == 0 { 1.0 } else { -1.0 }
}

fn values(problem: &Problem, family: fn(&mut Numbers) -> f64, seed: u64) -> Values {
    fill(problem, seed, |numbers: &mut Numbers, tensor: &Tensor| match tensor.name.as_str() {
        "weight" | "bias" | "running_mean" => numbers.uniform(-2.0, 2.0),
        "running_var" => numbers.uniform(0.0, 4.0),
        _ => family(numbers),
    })
}

/// The order in which a sequential evaluation adds.
#[derive(Clone, Copy)]
enum Order {
    Forward,
    Reverse,
}

/// The graph in plain `f32`, one operation at a time, sums one addend at a time.
fn sequential(graph: &Graph, sizes: &Sizes, inputs: &Values, order: Order) -> Values {
    let mut nodes: Vec<Vec<f32>> = Vec::new();
    for (node, live) in graph.nodes.iter().zip(graph.live()) {
        let count = if live { sizes.count(node.axes) } else { 0 };
        let place = |own: usize, axes: AxisSet| index(sizes, node.axes, own, axes);
        let of = |id: NodeId, own: usize| nodes[id.index()][place(own, graph.node(id).axes)];
        let mut value: Vec<f32> = match node.op {
            Op::Reduce(_, a, _) | Op::Window(a, _) | Op::Overlap(a, _) if live => {
                let (source, axes) = (&nodes[a.index()], graph.node(a).axes);
                let mut value = vec![0f32; count];
                let mut add = |element: usize| match node.op {
                    // No operator has others than those that take the first entries.
                    Op::Window(_, Window { from, to, .. }) | Op::Overlap(_, Window { from: to, to: from, .. }) => {
                        if let Some(place) = moved(sizes, (axes, element), node.axes, [from, to]) {
                            value[place] = source[element];
                        }
                    }
                    _ => value[index(sizes, axes, element, node.axes)] += source[element],
                };
                match order {
                    Order::Forward => (0..source.len()).for_each(&mut add),
                    Order::Reverse => (0..source.len()).rev().for_each(&mut add),
                }
                value
            }
            _ => (0..count)
                .map(|own| match node.op {
                    Op::Input(input) => inputs[input][own] as f32,
                    Op::Constant(constant) => constant as f32,
                    Op::Count(axes) => sizes.count(axes) as f32,
                    Op::Unary(Unary::Neg, a) => -of(a, own),
                    Op::Unary(Unary::Square, a) => of(a, own) * of(a, own),
                    Op::Unary(Unary::Sqrt, a) => of(a, own).sqrt(),
                    Op::Unary(Unary::Rsqrt, a) => 1.0 / of(a, own).sqrt(),
                    Op::Binary(Binary::Add, a, b) => of(a, own) + of(b, own),
                    Op::Binary(Binary::Sub, a, b) => of(a, own) - of(b, own),
                    Op::Binary(Binary::Mul, a, b) => of(a, own) * of(b, own),
                    Op::Binary(Binary::Div, a, b) => of(a, own) / of(b, own),
                    Op::Binary(Binary::Max, a, b) => match (of(a, own), of(b, own)) {
                        (a, b) if a.is_nan() || b.is_nan() => f32::NAN,
                        (a, b) => a.max(b),
                    },
                    Op::Select { left, right, then, otherwise } => {
                        of(if of(left, own) >= of(right, own) { then } else { otherwise }, own)
                    }
                    Op::Repeat(a, _) | Op::Cast(a, Dtype::F32) => of(a, own),
                    op => unreachable!("{op:?} in an f32 problem"),
                })
                .collect(),
        };
        if let Op::Reduce(Reduce::Mean | Reduce::Moment, _, axes) = node.op {
            value.iter_mut().for_each(|value| *value /= sizes.count(axes) as f32);
        }
        nodes.push(value);
    }
    let outputs = graph.outputs.iter().map(|output| nodes[output.node.index()].iter().map(|&v| v.into()).collect());
    outputs.collect()
}

/// The place in a tensor with the axes `axes` of what lies at `own` in one with the axes `over`.
fn index(sizes: &Sizes, over: AxisSet, mut own: usize, axes: AxisSet) -> usize {
    let (mut place, mut step) = (0, 1);
    let all: Vec<Axis> = over.union(axes).iter().collect();
    for axis in all.into_iter().rev() {
        let size = sizes.of(axis);
        if over.has(axis) {
            if axes.has(axis) {
                place += own % size * step;
            }
            own /= size;
        }
        if axes.has(axis) {
            step *= size;
        }
    }
    place
}

/// The place of an element after its coordinate along `from` became one along `to`, if it is there.
fn moved(sizes: &Sizes, (over, own): (AxisSet, usize), axes: AxisSet, [from, to]: [Axis; 2]) -> Option<usize> {
    let coordinate = index(sizes, over, own, AxisSet::of(from));
    let rest = index(sizes, over, own, axes.without(AxisSet::of(to)));
    let (common, to_size) = (axes.without(AxisSet::of(to)), sizes.of(to));
    let inner: usize = common.iter().filter(|&axis| axis > to).map(|axis| sizes.of(axis)).product();
    (coordinate < to_size).then(|| rest / inner * inner * to_size + coordinate * inner + rest % inner)
}

#[test]
fn straightforward_evaluation_stays_within_the_bound() {
    tch::set_num_threads(1);
    let (mut highest, mut failures) = (0.0f64, Vec::new());
    for (operator, direction) in
        OPERATORS.iter().flat_map(|operator| [Direction::Forward, Direction::Backward].map(|half| (operator, half)))
    {
        let mut worst = [0.0f64; FAMILIES.len()];
        for (seed, problem) in problems(operator, direction, DtypeSet::uniform(Dtype::F32)).iter().enumerate() {
            // A third of the problems with each family is plenty.
            for (index, (name, family)) in FAMILIES.iter().enumerate().filter(|(index, _)| (seed + index) % 3 == 0) {
                let inputs = values(problem, *family, seed as u64);
                let truth = Truth::new(problem, inputs, Arithmetic::plain(Dtype::F32));
                let sizes = problem.sizes();
                for answer in [
                    sequential(&truth.graph, &sizes, &truth.inputs, Order::Forward),
                    sequential(&truth.graph, &sizes, &truth.inputs, Order::Reverse),
                    torch_answer(problem, &truth.graph, &truth.inputs, Dtype::F32),
                ] {
                    match truth.judge(&answer, true) {
                        Ok(ratio) => worst[index] = worst[index].max(ratio),
                        Err(message) => failures.push(format!("{name}: {message}")),
                    }
                }
            }
        }
        println!("{} {}: {worst:.2?}", operator.name, direction.name());
        highest = worst.iter().copied().fold(highest, f64::max);
    }
    assert!(
        failures.is_empty(),
        "{} failures, such as {}",
        failures.len(),
        failures[..failures.len().min(10)].join("\n")
    );
    assert!(highest > 0.5, "the bound is loose everywhere: {highest}");
}

fn layer_norm_of_rows(d: usize, eps: f64) -> Problem {
    let operator = find("layer_norm").expect("an operator");
    let dims = BTreeMap::from([("r", vec![1]), ("d", vec![d])]);
    let attributes = BTreeMap::from([("eps", Value::Real(eps))]);
    let dtypes = DtypeSet::uniform(Dtype::F32);
    Problem { operator, direction: Direction::Forward, dtypes, dims, attributes, given: BTreeSet::new() }
}

/// LayerNorm of one row from its mean and variance.
fn normalized(row: &[f64], eps: f64, (mean, var): (f32, f32)) -> Values {
    let rstd = 1.0 / (var + eps as f32).sqrt();
    vec![row.iter().map(|&x| ((x as f32 - mean) * rstd).into()).collect()]
}

fn welford(row: &[f64]) -> (f32, f32) {
    let (mut mean, mut squares) = (0f32, 0f32);
    for (index, &x) in row.iter().enumerate() {
        let x = x as f32;
        let delta = x - mean;
        mean += delta * (1.0 / (index + 1) as f32);
        squares += delta * (x - mean);
    }
    (mean, squares / row.len() as f32)
}

fn single_pass(row: &[f64]) -> (f32, f32) {
    let n = row.len() as f32;
    let sum = |f: &dyn Fn(f32) -> f32| row.iter().fold(0f32, |sum, &x| sum + f(x as f32));
    let mean = sum(&|x| x) / n;
    (mean, sum(&|x| x * x) / n - mean * mean)
}

/// Searches for the rows that are worst for a way to take the moments, by random changes that are kept if they are worse.
fn worst_row(d: usize, eps: f64, seed: u64, moments: fn(&[f64]) -> (f32, f32)) -> Result<f64, String> {
    let (problem, mut numbers) = (layer_norm_of_rows(d, eps), Numbers(seed));
    let ratio = |row: &Vec<f64>| {
        let truth = Truth::new(&problem, vec![row.clone()], Arithmetic::plain(Dtype::F32));
        truth.judge(&normalized(row, eps, moments(row)), true)
    };
    let offset = [0.0, 1.0, 1e2, 1e4][seed as usize % 4];
    let mut row: Vec<f64> = (0..d).map(|_| (offset + numbers.uniform(-1.0, 1.0)) as f32 as f64).collect();
    let mut worst = ratio(&row)?;
    for _ in 0..300 {
        let mut changed = row.clone();
        let place = numbers.bits() as usize % d;
        let reach = 2f64.powf(numbers.uniform(-24.0, 1.0));
        changed[place] = (changed[place] * (1.0 + numbers.uniform(-reach, reach))) as f32 as f64;
        let found = ratio(&changed)?;
        if found >= worst {
            (worst, row) = (found, changed);
        }
    }
    Ok(worst)
}

#[test]
fn running_moments_stay_within_the_bound_on_rows_made_to_be_worst_for_them() {
    let mut worst = 0.0f64;
    for d in [2, 3, 4, 5, 7, 16, 50] {
        for (seed, eps) in [0.0, 1e-5, 0.0, 1e-12, 1e-5, 0.0, 0.1, 1e-5].into_iter().enumerate() {
            worst = worst.max(worst_row(d, eps, seed as u64, welford).unwrap_or_else(|message| panic!("{message}")));
        }
    }
    println!("Welford: {worst:.3} of the bound");
    assert!(worst > 0.2, "the search finds nothing: {worst}");
}

#[test]
fn variance_in_a_single_pass_is_beyond_the_bound_on_large_means() {
    for (d, offset) in [(64, 1e2), (64, 1e4), (1000, 1e4), (3, 1e3)] {
        let problem = layer_norm_of_rows(d, 1e-5);
        let inputs = values(&problem, |numbers| numbers.uniform(-1.0, 1.0), 7);
        let row: Vec<f64> = inputs[0].iter().map(|x| (x + offset) as f32 as f64).collect();
        let truth = Truth::new(&problem, vec![row.clone()], Arithmetic::plain(Dtype::F32));
        assert!(truth.bounds[0].errors.iter().all(|error| error.is_finite()), "the bound is open");
        truth.judge(&normalized(&row, 1e-5, welford(&row)), true).expect("running moments are within it");
        let verdict = truth.judge(&normalized(&row, 1e-5, single_pass(&row)), true);
        assert!(verdict.is_err(), "d = {d}, offset {offset}: {verdict:?}");
    }
}

#[test]
fn nothing_negative_is_feared_of_a_sum_of_squares() {
    // The variance of a constant row may come out as anything small, but not as less than 0: the bound stays finite.
    let problem = layer_norm_of_rows(5, 1e-12);
    let truth = Truth::new(&problem, vec![vec![1234.1f32.into(); 5]], Arithmetic::plain(Dtype::F32));
    assert!(truth.bounds[0].errors.iter().all(|error| error.is_finite()));
    assert!(truth.judge(&vec![vec![f64::NAN; 5]], true).is_err());
}
