//! What a formula costs at least: the roofline of a benchmark.

use crate::Problem;
use crate::formula::Op;

/// The least that any kernel must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Bytes of all inputs, each read once.
    pub bytes_read: u64,
    /// Bytes of all outputs, each written once.
    pub bytes_written: u64,
    /// Arithmetic operations of the formula as it is written, one for each element of each node.
    pub operations: u64,
}

/// The cost of a problem.
pub fn cost(problem: &Problem) -> Cost {
    let bytes = |tensors: Vec<crate::Tensor>| -> u64 {
        tensors.iter().map(|tensor| (tensor.len() * tensor.dtype.size()) as u64).sum()
    };
    let (graph, sizes) = (problem.graph(), problem.sizes());
    let operations = graph
        .nodes
        .iter()
        .zip(graph.live())
        .filter(|(_, live)| *live)
        .map(|(node, _)| match node.op {
            Op::Input(_) | Op::Constant(_) | Op::Count(_) | Op::Repeat(..) | Op::Window(..) | Op::Detach(_) => 0,
            Op::Reduce(_, a, _) | Op::Overlap(a, _) => sizes.count(graph.node(a).axes) as u64,
            Op::Contract(_, _, summed) => 2 * sizes.count(node.axes.union(summed)) as u64,
            Op::Unary(..) | Op::Binary(..) | Op::Select { .. } | Op::Cast(..) => sizes.count(node.axes) as u64,
        })
        .sum();
    Cost { bytes_read: bytes(problem.inputs()), bytes_written: bytes(problem.outputs()), operations }
}
