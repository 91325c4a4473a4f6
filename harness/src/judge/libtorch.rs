//! What libtorch answers to the same question.

use isonorm_kernels::abi::Dtype;
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
    let bytes = stored(problem, inputs);
    let borrowed: Vec<&[u8]> = bytes.iter().map(Vec::as_slice).collect();
    match native(problem, &borrowed) {
        Err(Declined::NoOperator(_) | Declined::OtherForm(_)) => {
            by_formula(problem, graph, inputs, problem.dtypes.data.statistics())
        }
        Err(declined) => Err(declined.to_string()),
        Ok(outputs) => {
            let outputs = problem.outputs().into_iter().zip(outputs);
            Ok(outputs.map(|(spec, bytes)| storage::decode(spec.dtype, &bytes)).collect())
        }
    }
}

/// The outputs of a formula over a problem's inputs as it is written, evaluated by libtorch in `precision` and rounded to the
/// types that the formula states.
///
/// # Errors
/// What libtorch says.
pub fn by_formula(
    problem: &Problem,
    graph: &Graph,
    inputs: &[Vec<f64>],
    precision: Dtype,
) -> Result<Vec<Vec<f64>>, String> {
    let say = |error: tch::TchError| error.to_string();
    let (specs, bytes) = (problem.inputs(), stored(problem, inputs));
    let tensors: Result<Vec<tch::Tensor>, tch::TchError> =
        specs.iter().zip(&bytes).map(|(spec, bytes)| from_bytes(spec.dtype, &spec.shape, bytes)).collect();
    let tensors = tensors.map_err(say)?;
    let results = tch::no_grad(|| torch(graph, &problem.sizes(), &tensors, precision, tch::Device::Cpu));
    let results = results.map_err(|error| error.to_string())?;
    let outputs = graph.outputs.iter().zip(&results);
    outputs
        .map(|(output, result)| Ok(storage::decode(output.dtype, &to_bytes(output.dtype, result).map_err(say)?)))
        .collect()
}

/// The inputs as they are stored, dense and little-endian.
fn stored(problem: &Problem, inputs: &[Vec<f64>]) -> Vec<Vec<u8>> {
    let specs = problem.inputs().into_iter().zip(inputs);
    specs
        .map(|(spec, values)| {
            let mut bytes = Vec::with_capacity(values.len() * spec.dtype.size());
            values.iter().for_each(|&value| storage::encode(spec.dtype, value, &mut bytes));
            bytes
        })
        .collect()
}
