//! Wrong formulas are caught by the checks that right ones pass: wrong definitions by name, and every change of a single
//! node of every graph.

mod common;

use std::collections::BTreeMap;

use common::{Truth, Values, plain, problems, torch_answer};
use isonorm_kernels::abi::{Direction, Dtype, DtypeSet};
use isonorm_oracles::formula::{AxisSet, Binary, Expr, Graph, NodeId, Op, Reduce, Unary};
use isonorm_oracles::interpret::bound::Arithmetic;
use isonorm_oracles::interpret::exact::exact;
use isonorm_oracles::operators::{OPERATORS, Operator, find};
use isonorm_oracles::storage::Format;
use isonorm_oracles::{Problem, Scope};

/// The answer of a graph that is evaluated exactly and rounded once.
fn answer(problem: &Problem, graph: &Graph, inputs: &Values) -> Values {
    let slices: Vec<&[f64]> = inputs.iter().map(Vec::as_slice).collect();
    let values = exact(graph, &problem.sizes(), &slices);
    let outputs = graph.outputs.iter().map(|output| {
        let format = Format::of(output.dtype);
        values.nodes[output.node.index()].iter().map(|&value| format.round_dd(value)).collect()
    });
    outputs.collect()
}

/// A wrong definition: of which operator, what is wrong, and the formula.
type Wrong = (&'static str, &'static str, for<'b> fn(&Scope<'b>) -> Vec<(&'static str, Expr<'b>)>);

const WRONG: [Wrong; 8] = [
    ("layer_norm", "unbiased variance", |scope| {
        let x = scope.input("x");
        let (mean, var) = x.moments("d");
        let count = scope.builder().count("d");
        let rstd = (var * (count / (count - 1.0)) + scope.attribute("eps")).rsqrt();
        vec![("y", scope.affine((x - mean) * rstd))]
    }),
    ("layer_norm", "eps outside of the root", |scope| {
        let x = scope.input("x");
        let (mean, var) = x.moments("d");
        vec![("y", scope.affine((x - mean) / (var.sqrt() + scope.attribute("eps"))))]
    }),
    ("rms_norm", "the weight before the norm", |scope| {
        let x = scope.affine(scope.input("x"));
        let rrms = (x.square().mean("d") + scope.attribute("eps")).rsqrt();
        vec![("y", x * rrms)]
    }),
    ("partial_rms_norm", "the mean over all entries", |scope| {
        let x = scope.input("x");
        vec![("y", scope.affine(x * (x.square().mean("d") + scope.attribute("eps")).rsqrt()))]
    }),
    ("crms_norm", "the mean over the stored entries", |scope| {
        let x = scope.input("x");
        let squares = x.square().sum("d") + x.sum("d").square();
        let mean = squares / scope.builder().count("d");
        vec![("y", scope.affine(x * (mean + scope.attribute("eps")).rsqrt()))]
    }),
    ("group_norm", "statistics of each channel", |scope| {
        let x = scope.input("x");
        let (mean, var) = x.moments("s");
        vec![("y", scope.affine((x - mean) * (var + scope.attribute("eps")).rsqrt()))]
    }),
    ("l2_normalize", "eps added to the squares", |scope| {
        let x = scope.input("x");
        let norm = (x.square().sum("d") + scope.attribute("eps").square()).sqrt();
        vec![("y", x / norm)]
    }),
    ("add_rms_norm", "the norm of x instead of the sum", |scope| {
        let x = scope.input("x");
        let rrms = (x.square().mean("d") + scope.attribute("eps")).rsqrt();
        vec![("y", scope.affine(x * rrms)), ("residual_out", x + scope.input("residual"))]
    }),
];

#[test]
fn wrong_definitions_are_caught_forward_and_backward() {
    tch::set_num_threads(1);
    for (name, what, define) in WRONG {
        let right = find(name).expect("an operator");
        let wrong: &'static Operator = Box::leak(Box::new(Operator { define, ..*right }));
        for direction in [Direction::Forward, Direction::Backward] {
            let all = problems(right, direction, DtypeSet::uniform(Dtype::F32));
            let (mut caught, mut asked) = (0, 0);
            for (seed, problem) in all.iter().enumerate() {
                let truth = Truth::new(problem, plain(problem, seed as u64), Arithmetic::plain(Dtype::F32));
                let graph = Problem { operator: wrong, ..problem.clone() }.graph();
                let answer = torch_answer(problem, &graph, &truth.inputs, Dtype::F32);
                asked += 1;
                caught += usize::from(truth.judge(&answer, true).is_err());
            }
            println!("{name} {}: {what}: caught by {caught} of {asked}", direction.name());
            assert!(caught > 0, "{name} {}: {what} is not caught", direction.name());
        }
    }
}

/// Every way to change this node and no other.
fn changes(graph: &Graph, index: usize) -> Vec<(String, Op)> {
    let node = &graph.nodes[index];
    // The operand alone, with the axes of the node.
    let only = |a: NodeId| Op::Repeat(a, node.axes.without(graph.node(a).axes));
    let changed: Vec<Op> = match node.op {
        Op::Binary(binary, a, b) => {
            let other = match binary {
                Binary::Add => Binary::Sub,
                Binary::Sub | Binary::Max => Binary::Add,
                Binary::Mul => Binary::Div,
                Binary::Div => Binary::Mul,
            };
            vec![only(a), only(b), Op::Binary(other, a, b)]
        }
        Op::Constant(value) => vec![Op::Constant(value * 2.0 + f64::from(value == 0.0))],
        Op::Count(axes) => {
            let fewer = axes.iter().map(|axis| axes.without(AxisSet::of(axis)));
            fewer.map(Op::Count).collect()
        }
        Op::Reduce(Reduce::Sum, a, axes) => vec![Op::Reduce(Reduce::Mean, a, axes)],
        Op::Reduce(Reduce::Mean | Reduce::Moment | Reduce::Max, a, axes) => vec![Op::Reduce(Reduce::Sum, a, axes)],
        Op::Unary(Unary::Sqrt, a) => vec![only(a), Op::Unary(Unary::Rsqrt, a)],
        Op::Unary(Unary::Rsqrt, a) => vec![only(a), Op::Unary(Unary::Sqrt, a)],
        Op::Unary(_, a) => vec![only(a)],
        Op::Select { left, right, then, otherwise } => {
            let swapped = Op::Select { left, right, then: otherwise, otherwise: then };
            vec![only(then), only(otherwise), swapped]
        }
        Op::Cast(a, _) => vec![only(a)],
        Op::Input(_) | Op::Window(..) | Op::Overlap(..) | Op::Repeat(..) | Op::Contract(..) | Op::Detach(_) => vec![],
    };
    let name = node.name.as_deref().unwrap_or("");
    changed.into_iter().map(|op| (format!("node {index} {name}: {:?} became {op:?}", node.op), op)).collect()
}

/// What a graph computes, attributes' values aside.
fn outline(graph: &Graph) -> String {
    let ops = graph.nodes.iter().map(|node| match node.op {
        Op::Constant(_) if node.name.is_some() => format!("{:?};", node.name),
        op => format!("{op:?};"),
    });
    ops.collect()
}

/// Changes that no values can show, and why.
const EQUIVALENT: [(&str, &str); 1] = [(
    "l2_normalize backward f32: node 17 : Constant(2.0) became Constant(4.0)",
    "the 2 in the derivative of the squares is the one in the derivative of the root, and they cancel",
)];

#[test]
fn every_change_of_a_single_node_is_caught() {
    let (mut made, mut missed) = (0, Vec::new());
    for operator in OPERATORS {
        for direction in [Direction::Forward, Direction::Backward] {
            // bf16 shows the casts, f32 all the rest.
            for dtype in [Dtype::F32, Dtype::Bf16] {
                let all = problems(operator, direction, DtypeSet::uniform(dtype));
                let most = all.iter().map(|problem| problem.given.len()).max();
                // By graph: the problems that have it.
                let mut graphs: BTreeMap<String, (Graph, Vec<Truth>)> = BTreeMap::new();
                for problem in all.iter().filter(|problem| Some(problem.given.len()) == most) {
                    let graph = problem.graph();
                    let found = graphs.entry(outline(&graph)).or_insert_with(|| (graph, Vec::new()));
                    found.1.extend(SCALES.iter().map(|&scale| sensitive(problem, scale)));
                }
                for (graph, truths) in graphs.values() {
                    for index in (0..graph.nodes.len()).filter(|&index| graph.live()[index]) {
                        let cast = matches!(graph.nodes[index].op, Op::Cast(..));
                        let count = if cast == (dtype == Dtype::Bf16) { changes(graph, index).len() } else { 0 };
                        for change in 0..count {
                            made += 1;
                            let caught = |truth: &Truth| {
                                let mut changed = truth.graph.clone();
                                changed.nodes[index].op = changes(&truth.graph, index).swap_remove(change).1;
                                truth.judge(&answer(&truth.problem, &changed, &truth.inputs), true).is_err()
                            };
                            if !truths.iter().any(caught) {
                                let what = &changes(graph, index)[change].0;
                                missed.push(format!("{} {} {dtype}: {what}", operator.name, direction.name()));
                            }
                        }
                    }
                }
            }
        }
    }
    println!("{made} changes");
    let equivalent: Vec<&str> = EQUIVALENT.iter().map(|(change, _)| *change).collect();
    assert_eq!(missed, equivalent, "missed, and known to be equivalent, of {made}");
    assert!(made > 1000, "only {made} changes were made");
}

/// Factors of the data: plain, and as small as ε needs to be seen beside it; and none.
const SCALES: [f64; 4] = [1.0, 1.0 / 256.0, 2.5e-13, 0.0];

fn sensitive(problem: &Problem, scale: f64) -> Truth {
    let mut inputs = plain(problem, 1);
    for (tensor, values) in problem.inputs().iter().zip(&mut inputs) {
        if ["x", "residual"].contains(&tensor.name.as_str()) {
            values.iter_mut().for_each(|value| *value = Format::of(tensor.dtype).round(*value * scale));
        }
    }
    Truth::new(problem, inputs, Arithmetic::plain(Dtype::F32))
}
