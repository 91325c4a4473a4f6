//! Gradient graphs against libtorch's autograd and against finite differences.

mod common;

use common::{Numbers, Truth, Values, plain, problems};
use isonorm_kernels::abi::{Direction, Dtype, DtypeSet};
use isonorm_oracles::Problem;
use isonorm_oracles::dd::Dd;
use isonorm_oracles::formula::{AxisSet, Graph, Op};
use isonorm_oracles::interpret::bound::Arithmetic;
use isonorm_oracles::interpret::exact::exact;
use isonorm_oracles::interpret::torch::{kind, to_bytes, torch};
use isonorm_oracles::operators::OPERATORS;
use isonorm_oracles::storage::decode;
use tch::{Device, Kind, Tensor};

/// The inputs of the forward graph and the gradients of its differentiable outputs, out of the inputs of the backward half.
/// What the backward half does not get is 0.
fn split(problem: &Problem, forward: &Graph, inputs: &Values) -> (Values, Values) {
    let gradients = problem.operator.outputs.iter().filter(|output| output.differentiable).count();
    let tensors = problem.inputs();
    let sizes = problem.sizes();
    let found = forward.inputs.iter().map(|input| {
        let place = tensors.iter().position(|tensor| tensor.name == input.name);
        place.map_or_else(|| vec![0.0; sizes.count(forward.node(input.node).axes)], |place| inputs[place].clone())
    });
    (found.collect(), inputs[..gradients].to_vec())
}

/// The gradients that libtorch's autograd takes through the forward graph, in f64.
fn autograd(problem: &Problem, inputs: &Values) -> Values {
    let (forward, sizes) = (problem.forward_graph(), problem.sizes());
    let (values, gradients) = split(problem, &forward, inputs);
    let tensors: Vec<Tensor> =
        values.iter().map(|values| Tensor::from_slice(values).to_kind(Kind::Double).set_requires_grad(true)).collect();
    let outputs = torch(&forward, &sizes, &tensors, Dtype::F64, Device::Cpu).expect("libtorch can");
    let differentiable = problem.operator.outputs.iter().filter(|output| output.differentiable);
    let roots: Vec<Tensor> = differentiable
        .zip(&gradients)
        .map(|(output, gradient)| {
            let place = forward.outputs.iter().position(|found| found.name == output.name).expect("an output");
            &outputs[place] * Tensor::from_slice(gradient).to_kind(Kind::Double).reshape(outputs[place].size())
        })
        .collect();
    let wanted: Vec<&Tensor> = problem
        .outputs()
        .iter()
        .map(|output| {
            let place = forward.inputs.iter().position(|input| output.name.strip_prefix('d') == Some(&input.name));
            &tensors[place.expect("the gradient of an input")]
        })
        .collect();
    let found = Tensor::f_run_backward(&roots, &wanted, false, false).expect("autograd runs");
    found
        .iter()
        .zip(&wanted)
        .map(|(gradient, input)| {
            let gradient = if gradient.defined() { gradient.shallow_clone() } else { input.zeros_like() };
            decode(Dtype::F64, &to_bytes(Dtype::F64, &gradient.detach()).expect("libtorch copies"))
        })
        .collect()
}

#[test]
fn gradient_graphs_are_within_the_f64_bound_of_autograd() {
    tch::set_num_threads(1);
    assert_eq!(kind(Dtype::F64), Kind::Double);
    // bf16 has casts that f64 lacks; their gradient is the identity in both.
    for dtypes in [Dtype::F64, Dtype::Bf16].map(DtypeSet::uniform) {
        for operator in OPERATORS {
            let mut worst = 0.0f64;
            for (seed, problem) in problems(operator, Direction::Backward, dtypes).iter().enumerate() {
                let truth = Truth::new(problem, plain(problem, seed as u64), Arithmetic::plain(Dtype::F64));
                let found = truth.judge(&autograd(problem, &truth.inputs), false);
                worst = worst.max(found.unwrap_or_else(|message| panic!("{message}")));
            }
            println!("{} {dtypes}: {worst:.3} of the bound", operator.name);
            assert!(worst > 0.0, "{}: nothing was rounded", operator.name);
        }
    }
}

/// The graph without the roundings that it states: what is left can be differentiated numerically.
fn without_casts(mut graph: Graph) -> Graph {
    for node in &mut graph.nodes {
        if let Op::Cast(a, _) = node.op {
            node.op = Op::Repeat(a, AxisSet::NONE);
        }
    }
    graph
}

/// The step of the differences: inputs are 24-bit numbers below 4, so that inputs ± 2 · 2 steps are numbers of f64.
const STEP: f64 = 1.0 / (1u64 << 27) as f64;

/// The largest disagreement of gradient graphs with differences, relative to the magnitudes of what is added up.
///
/// Along a direction v, (4 D(h) - D(2h)) / 3 with the central differences D is off by about h⁴ · f⁽⁵⁾ / 30 = 10⁻³⁴ · f⁽⁵⁾; the
/// 31 digits of double-double, over h, leave 10⁻²³ of Σ|dy · y|.
fn disagreement(problem: &Problem, gradient: &Graph, inputs: &Values, numbers: &mut Numbers) -> f64 {
    let (forward, sizes) = (without_casts(problem.forward_graph()), problem.sizes());
    let (values, gradients) = split(problem, &forward, inputs);
    let evaluate = |graph: &Graph, inputs: &[Vec<f64>]| {
        let slices: Vec<&[f64]> = inputs.iter().map(Vec::as_slice).collect();
        exact(graph, &sizes, &slices)
    };
    // Σ dy · y, and the sum of the magnitudes.
    let objective = |values: &[Vec<f64>]| {
        let found = evaluate(&forward, values);
        let (mut sum, mut magnitude) = (Dd::ZERO, 0.0);
        let differentiable = problem.operator.outputs.iter().filter(|output| output.differentiable);
        for (output, gradient) in differentiable.zip(&gradients) {
            let output = forward.outputs.iter().find(|found| found.name == output.name).expect("an output");
            for (&y, &dy) in found.nodes[output.node.index()].iter().zip(gradient) {
                sum = sum + y * Dd::from(dy);
                magnitude += (y.hi * dy).abs();
            }
        }
        (sum, magnitude)
    };
    let truth = evaluate(gradient, inputs);
    let (_, scale) = objective(&values);
    let mut worst = 0.0f64;
    for output in &gradient.outputs {
        let place = forward.inputs.iter().position(|input| output.name.strip_prefix('d') == Some(&input.name));
        let place = place.expect("the gradient of an input");
        for _ in 0..2 {
            let direction: Vec<f64> = values[place].iter().map(|_| (numbers.bits() % 5) as f64 - 2.0).collect();
            let at = |step: f64| {
                let mut moved = values.clone();
                moved[place].iter_mut().zip(&direction).for_each(|(value, v)| *value += v * step);
                objective(&moved).0
            };
            let difference = |step: f64| (at(step) - at(-step)) / Dd::from(2.0 * step);
            let differences = (difference(STEP) * Dd::from(4.0) - difference(2.0 * STEP)) / Dd::from(3.0);
            let (mut derivative, mut magnitude) = (Dd::ZERO, scale);
            for (&gradient, &v) in truth.nodes[output.node.index()].iter().zip(&direction) {
                derivative = derivative + gradient * Dd::from(v);
                magnitude += (gradient.hi * v).abs();
            }
            if magnitude > 0.0 {
                let off = (derivative - differences).abs().hi / magnitude;
                worst = if off.is_nan() { f64::INFINITY } else { worst.max(off) };
            }
        }
    }
    worst
}

/// Problems whose values are smooth: neither 0 under a root nor a NaN.
fn smooth() -> impl Iterator<Item = (Problem, Values)> {
    let dtypes = DtypeSet::uniform(Dtype::F64);
    let all = OPERATORS.into_iter().flat_map(move |operator| problems(operator, Direction::Backward, dtypes));
    all.enumerate().filter_map(|(seed, problem)| {
        let inputs: Values =
            plain(&problem, seed as u64).into_iter().map(|x| x.iter().map(|&x| x as f32 as f64).collect()).collect();
        let slices: Vec<&[f64]> = inputs.iter().map(Vec::as_slice).collect();
        let graph = problem.graph();
        let values = exact(&graph, &problem.sizes(), &slices);
        let finite =
            graph.outputs.iter().all(|output| values.nodes[output.node.index()].iter().all(|v| v.hi.is_finite()));
        finite.then_some((problem, inputs))
    })
}

/// What differences and gradients may be apart: far more than the 10⁻²³ expected, far less than any term of a gradient.
const APART: f64 = 1e-20;

#[test]
fn gradient_graphs_agree_with_finite_differences() {
    let (mut numbers, mut worst, mut count) = (Numbers(5), (0.0f64, String::new()), 0);
    for (problem, inputs) in smooth() {
        let off = disagreement(&problem, &without_casts(problem.graph()), &inputs, &mut numbers);
        if off > worst.0 {
            worst = (
                off,
                format!("{} {:?} {:?} {:?}", problem.operator.name, problem.dims, problem.attributes, problem.given),
            );
        }
        count += 1;
    }
    println!("{count} problems, apart by at most {:e}: {}", worst.0, worst.1);
    assert!(worst.0 < APART, "{} {:e}", worst.1, worst.0);
}
