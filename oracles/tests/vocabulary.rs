//! What operators do not use but identities do: products over axes, windows, functions, maxima; each read in every way.

mod common;

use common::Numbers;
use isonorm_kernels::abi::Dtype;
use isonorm_oracles::dd::Dd;
use isonorm_oracles::formula::{Builder, Expr, Graph};
use isonorm_oracles::interpret::Sizes;
use isonorm_oracles::interpret::bound::{Arithmetic, bound};
use isonorm_oracles::interpret::exact::exact;
use isonorm_oracles::interpret::gradient::{Wanted, gradient};
use isonorm_oracles::interpret::text::text;
use isonorm_oracles::interpret::torch::torch;
use tch::{Device, Kind, Tensor};

/// A formula of `x[n c t]` and `w[c k]`.
type Formula = for<'b> fn(&'b Builder, Expr<'b>, Expr<'b>) -> Expr<'b>;

/// By what each is about.
const FORMULAS: [(&str, Formula); 16] = [
    ("exp", |_, x, _| x.exp()),
    ("log", |_, x, _| (x.square() + 0.5).log()),
    ("tanh", |_, x, _| x.tanh()),
    ("erf", |_, x, _| x.erf()),
    ("gelu", |_, x, _| x.gelu()),
    ("relu", |_, x, _| (x + 0.125).relu()),
    ("max", |_, x, _| x.largest("c")),
    ("softmax", |_, x, w| x.softmax("t").dot(w, "c")),
    ("detached", |_, x, _| x * x.detached()),
    ("contract", |_, x, w| x.dot(w, "c")),
    ("contract over what one has", |_, x, w| x.dot(w, "c k t")),
    ("renamed", |_, x, _| x.dot(x.head("t", "u"), "c").softmax("u")),
    ("shifted", |_, x, _| x.tail("t", "k", 1)),
    ("convolution", |_, x, w| x.windows("t", "p", "k", 2, 1).dot(w, "c k")),
    ("transposed convolution", |_, x, w| x.head("t", "p").dot(w, "c").overlap("t", "p", "k", 2, 1)),
    ("repeated", |b, x, w| w.mean("k").dot(x.mean("t") / b.count("t"), "c")),
];

fn sizes() -> Sizes {
    // n, c, k, p, t, u: the fourth and the last are made.
    Sizes(vec![2, 4, 3, 3, 5, 5])
}

fn graph(formula: Formula) -> Graph {
    let builder = Builder::new(vec!["n", "c", "k", "p", "t", "u"]);
    let (x, w) = (builder.input("x", builder.axis_set("n c t")), builder.input("w", builder.axis_set("c k")));
    let y = formula(&builder, x, w);
    builder.output("y", y, y.axes(), Dtype::F64);
    builder.finish()
}

/// Gradients with respect to both inputs.
fn backward(forward: &Graph) -> Graph {
    let wanted = ["x", "w"].map(|input| Wanted { input: input.to_owned(), dtype: Dtype::F64 });
    gradient(forward, &["y"], &wanted)
}

/// Multiples of 2⁻¹⁰ away from ties: differences of them are exact.
fn numbers(seed: u64, count: usize) -> Vec<f64> {
    let mut numbers = Numbers(seed);
    (0..count).map(|_| (numbers.uniform(-1.5, 1.5) * 1024.0).round() / 1024.0).collect()
}

fn inputs(graph: &Graph, sizes: &Sizes) -> Vec<Vec<f64>> {
    let of = |(seed, input): (usize, &isonorm_oracles::formula::GraphInput)| {
        numbers(seed as u64 + 7, sizes.count(graph.node(input.node).axes))
    };
    graph.inputs.iter().enumerate().map(of).collect()
}

fn values(graph: &Graph, sizes: &Sizes, inputs: &[Vec<f64>]) -> Vec<Vec<Dd>> {
    let slices: Vec<&[f64]> = inputs.iter().map(Vec::as_slice).collect();
    let found = exact(graph, sizes, &slices);
    graph.outputs.iter().map(|output| found.nodes[output.node.index()].clone()).collect()
}

fn flat(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.to_kind(Kind::Double).detach().contiguous().view(-1)).expect("numbers")
}

#[test]
fn libtorch_is_within_the_bounds_forward_and_backward() {
    tch::set_num_threads(1);
    let sizes = sizes();
    for (name, formula) in FORMULAS {
        let forward = graph(formula);
        for graph in [&forward, &backward(&forward)] {
            for dtype in [Dtype::F64, Dtype::F32, Dtype::Bf16] {
                let format = isonorm_oracles::storage::Format::of(dtype);
                let inputs: Vec<Vec<f64>> = inputs(graph, &sizes)
                    .iter()
                    .map(|values| values.iter().map(|&value| format.round(value)).collect())
                    .collect();
                let slices: Vec<&[f64]> = inputs.iter().map(Vec::as_slice).collect();
                let truth = exact(graph, &sizes, &slices);
                let bounds = bound(graph, &truth, Arithmetic::by_operator(dtype));
                let tensors: Vec<Tensor> = inputs.iter().map(|values| Tensor::from_slice(values)).collect();
                let answer = torch(graph, &sizes, &tensors, dtype, Device::Cpu).expect("libtorch can");
                for ((output, answer), bound) in graph.outputs.iter().zip(&answer).zip(&bounds) {
                    let truth = &truth.nodes[output.node.index()];
                    let answer = flat(answer);
                    assert_eq!(answer.len(), truth.len(), "{name}: elements of {}", output.name);
                    for ((&got, want), &error) in answer.iter().zip(truth).zip(&bound.errors) {
                        let off = (Dd::from(got) - *want).abs().hi;
                        assert!(
                            off <= error,
                            "{name} {} {dtype}: {got} is {off:e} off {}, not {error:e}",
                            output.name,
                            want.hi
                        );
                        assert!(error < 2.0 || dtype == Dtype::Bf16, "{name} {dtype}: {error:e} says nothing");
                    }
                }
            }
        }
    }
}

#[test]
fn gradient_graphs_agree_with_autograd() {
    tch::set_num_threads(1);
    let sizes = sizes();
    for (name, formula) in FORMULAS {
        let forward = graph(formula);
        let backward = backward(&forward);
        let all = inputs(&backward, &sizes);
        let leaves: Vec<Tensor> = all[1..].iter().map(|x| Tensor::from_slice(x).set_requires_grad(true)).collect();
        let y = torch(&forward, &sizes, &leaves, Dtype::F64, Device::Cpu).expect("libtorch can").swap_remove(0);
        let root = &y * Tensor::from_slice(&all[0]).reshape(y.size());
        let found = Tensor::f_run_backward(&[root], &leaves, false, false).expect("autograd runs");
        for ((gradient, leaf), want) in found.iter().zip(&leaves).zip(values(&backward, &sizes, &all)) {
            let got = if gradient.defined() { flat(gradient) } else { vec![0.0; leaf.numel()] };
            for (got, want) in got.iter().zip(&want) {
                assert!((got - want.hi).abs() <= 1e-13 * want.hi.abs().max(1.0), "{name}: {got} for {}", want.hi);
            }
        }
    }
}

/// The step of the differences, and what the rest of the formula (4 D(h) - D(2h)) / 3 is below: h⁴ times a fifth derivative.
const STEP: f64 = 1.0 / (1u64 << 27) as f64;
const APART: f64 = 1e-20;

#[test]
fn gradient_graphs_agree_with_finite_differences() {
    let sizes = sizes();
    // A difference sees what is detached.
    for (name, formula) in FORMULAS.into_iter().filter(|(name, _)| *name != "detached") {
        let forward = graph(formula);
        let backward = backward(&forward);
        let all = inputs(&backward, &sizes);
        let gradients = values(&backward, &sizes, &all);
        for place in 0..2 {
            let direction: Vec<f64> =
                numbers(99, all[place + 1].len()).iter().map(|value| (value * 2.0).round()).collect();
            let objective = |step: f64| {
                let mut moved = all[1..].to_vec();
                moved[place].iter_mut().zip(&direction).for_each(|(value, v)| *value += v * step);
                let y = values(&forward, &sizes, &moved).swap_remove(0);
                y.iter().zip(&all[0]).fold(Dd::ZERO, |sum, (&y, &dy)| sum + y * Dd::from(dy))
            };
            let central = |step: f64| (objective(step) - objective(-step)) / Dd::from(2.0 * step);
            let differences = (central(STEP) * Dd::from(4.0) - central(2.0 * STEP)) / Dd::from(3.0);
            let derivative =
                gradients[place].iter().zip(&direction).fold(Dd::ZERO, |sum, (&g, &v)| sum + g * Dd::from(v));
            let off = (derivative - differences).abs().hi;
            assert!(off <= APART * (1.0 + derivative.hi.abs()), "{name}: {off:e} apart");
        }
    }
}

#[test]
fn a_window_that_is_off_by_one_is_seen() {
    let sizes = sizes();
    let right = graph(|_, x, w| x.windows("t", "p", "k", 2, 1).dot(w, "c k"));
    let wrong = graph(|_, x, w| x.windows("t", "p", "k", 2, 0).dot(w, "c k"));
    let all = inputs(&right, &sizes);
    assert_ne!(values(&right, &sizes, &all), values(&wrong, &sizes, &all));
}

#[test]
fn they_read_like_formulas() {
    let lines = |formula| text(&graph(formula));
    assert_eq!(
        lines(|_, x, w| x.windows("t", "p", "k", 2, 1).dot(w, "c k")),
        "y = sum[c,k](window[p of t by k, stride 2, before 1](x) · w)\n"
    );
    assert_eq!(lines(|_, x, _| x.tail("t", "k", 1)), "y = head[k of t from 1](x)\n");
    assert_eq!(lines(|_, x, _| x.softmax("t")), "t1 = exp(x - max[t](x))\ny  = t1 / sum[t](t1)\n");
}
