//! Operators as parts of larger formulas.

use isonorm_kernels::abi::{Direction, Value};

use crate::formula::{Application, AxisSet, Builder, Expr, NodeId, Op};
use crate::operators;

/// The first output of an operator applied to `inputs`, the first of which is its main one: its formula, and the note that
/// this part is that operator.
///
/// `over` says which axes, as names separated by spaces, stand for the operator's own; its first axis, rows or samples, is
/// all others of the main input.
///
/// # Panics
/// If there is no such operator, or if an input or axis is not one of its own.
pub fn apply<'b>(
    builder: &'b Builder,
    operator: &'static str,
    eps: f64,
    over: &[(&'static str, &str)],
    inputs: &[(&'static str, Expr<'b>)],
) -> Expr<'b> {
    let found = operators::find(operator).unwrap_or_else(|| panic!("there is no operator `{operator}`"));
    let mut problem =
        found.typical(Direction::Forward).unwrap_or_else(|| panic!("`{operator}` has no typical problem"));
    problem.given.retain(|name| inputs.iter().any(|(input, _)| input == name));
    problem.attributes.insert("eps", Value::Real(eps));
    let graph = problem.forward_graph();

    let named: Vec<(&'static str, AxisSet)> = over.iter().map(|(own, axes)| (*own, builder.axis_set(axes))).collect();
    let claimed = named.iter().fold(AxisSet::NONE, |all, (_, axes)| all.union(*axes));
    let rest = inputs.first().map_or(AxisSet::NONE, |(_, x)| x.axes().without(claimed));
    let axes: Vec<(&'static str, AxisSet)> = found
        .graph_axes()
        .into_iter()
        .enumerate()
        .map(|(place, own)| {
            let set = named.iter().find(|(name, _)| *name == own).map(|(_, axes)| *axes);
            (own, set.or((place == 0).then_some(rest)).unwrap_or(AxisSet::NONE))
        })
        .collect();
    let stands_for = |own: AxisSet| own.iter().fold(AxisSet::NONE, |all, axis| all.union(axes[axis.index()].1));

    let mut moved: Vec<NodeId> = Vec::with_capacity(graph.nodes.len());
    for node in &graph.nodes {
        let expr = match node.op {
            Op::Input(index) => {
                let name = &graph.inputs[index].name;
                let given = inputs.iter().find(|(own, _)| own == name);
                given.unwrap_or_else(|| panic!("`{operator}` needs `{name}`")).1
            }
            Op::Constant(value) if node.name.is_some() => builder.attribute(node.name.as_deref().unwrap_or(""), value),
            op => builder.push(op.moved(|id| moved[id.index()], stands_for)),
        };
        moved.push(expr.id());
    }
    let output = moved[graph.outputs[0].node.index()];
    builder.record(Application {
        operator,
        attributes: vec![("eps", Value::Real(eps))],
        axes,
        inputs: inputs.iter().map(|(name, input)| (*name, input.id())).collect(),
        output,
    });
    builder.expr(output)
}
