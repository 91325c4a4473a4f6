//! What libtorch answers to the same question.

use isonorm_oracles::Problem;
use isonorm_oracles::formula::Graph;
use isonorm_oracles::interpret::torch::{from_bytes, to_bytes, torch};
use isonorm_oracles::native::{Declined, native};
use isonorm_oracles::storage;

/// libtorch's outputs as dense row-major values, on dense inputs: by its own fused operator where it has one, else by the
/// formula in its tensors, in the precision that kernels of this type compute in.
///
/// # Errors
/// Why libtorch gives no answer.
pub fn libtorch(problem: &Problem, graph: &Graph, inputs: &[Vec<f64>]) -> Result<Vec<Vec<f64>>, String> {
    let specs = problem.inputs();
    let bytes: Vec<Vec<u8>> = specs
        .iter()
        .zip(inputs)
        .map(|(spec, values)| {
            let mut bytes = Vec::with_capacity(values.len() * spec.dtype.size());
            values.iter().for_each(|&value| storage::encode(spec.dtype, value, &mut bytes));
            bytes
        })
        .collect();
    let borrowed: Vec<&[u8]> = bytes.iter().map(Vec::as_slice).collect();
    let outputs = match native(problem, &borrowed) {
        Err(Declined::NoOperator(_) | Declined::OtherForm(_)) => by_formula(problem, graph, &borrowed)?,
        other => other.map_err(|declined| declined.to_string())?,
    };
    Ok(problem.outputs().iter().zip(&outputs).map(|(spec, bytes)| storage::decode(spec.dtype, bytes)).collect())
}

fn by_formula(problem: &Problem, graph: &Graph, inputs: &[&[u8]]) -> Result<Vec<Vec<u8>>, String> {
    let say = |error: tch::TchError| error.to_string();
    let specs = problem.inputs();
    let tensors: Result<Vec<tch::Tensor>, tch::TchError> =
        specs.iter().zip(inputs).map(|(spec, bytes)| from_bytes(spec.dtype, &spec.shape, bytes)).collect();
    let precision = problem.dtypes.data.statistics();
    let outputs = tch::no_grad(|| {
        torch(graph, &problem.sizes(), &tensors.map_err(say)?, precision, tch::Device::Cpu).map_err(|e| e.to_string())
    })?;
    problem.outputs().iter().zip(&outputs).map(|(spec, output)| to_bytes(spec.dtype, output).map_err(say)).collect()
}
