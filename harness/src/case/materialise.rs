//! From a case to what a kernel gets.

use isonorm_oracles::Tensor;
use isonorm_oracles::storage;

use super::Case;
use crate::generate::families;
use crate::generate::layouts::Layout;
use crate::run::{Request, TensorArg};

/// What elements that no index reaches hold: NaN in every format.
const GAP_BYTE: u8 = 0xff;

/// Turns the seed of a case into that of the values it is called with first.
const PRELUDE: u64 = 0x5eed_0000_0000_0001;

/// A case with all its bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Materialised {
    /// The call to be made.
    pub request: Request,
    /// The values of each input, dense and row-major, exactly as the request's bytes hold them.
    pub inputs: Vec<Vec<f64>>,
}

/// Makes the tensors of a case. The same case gives the same bytes on every machine.
///
/// # Panics
/// If the case is invalid: [`Case::validate`] first.
pub fn materialise(case: &Case) -> Materialised {
    let problem = &case.problem;
    let tensors = problem.inputs();
    let setting = families::setting(problem, &tensors, case.seed);
    let mut request = outline(case);
    let mut values = Vec::with_capacity(tensors.len());
    for (tensor, arg) in tensors.iter().zip(&mut request.inputs) {
        let mut dense = case.family.fill(&setting, tensor);
        arg.data = store(arg, &dense);
        if case.layout(&tensor.name).overlaps() {
            dense = gather(arg, &arg.data);
        }
        values.push(dense);
    }
    request.prelude = case.refreshed.then(|| {
        let setting = families::setting(problem, &tensors, case.seed ^ PRELUDE);
        let fill = |(tensor, arg): (&Tensor, &TensorArg)| store(arg, &case.family.fill(&setting, tensor));
        tensors.iter().zip(&request.inputs).map(fill).collect()
    });
    Materialised { request, inputs: values }
}

/// The call of a case, without the inputs' memory.
pub fn outline(case: &Case) -> Request {
    let problem = &case.problem;
    let tensors = problem.inputs();
    let inputs = tensors.iter().map(|tensor| placed(tensor, case.layout(&tensor.name))).collect();
    let outputs = problem.outputs().into_iter().map(|tensor| {
        let input = case.in_place.get(&tensor.name);
        let alias = input.and_then(|input| tensors.iter().position(|tensor| tensor.name == *input));
        TensorArg { alias, ..placed(&tensor, case.layout(&tensor.name)) }
    });
    Request {
        operator: problem.operator.name.to_owned(),
        direction: problem.direction,
        sizes: problem.named_sizes(),
        attributes: problem.call_attributes(),
        outputs: outputs.collect(),
        inputs,
        threads: case.threads,
        prelude: None,
    }
}

/// The elements of a tensor in row-major order of its indices.
///
/// # Panics
/// If `memory` is not what the tensor spans.
pub fn dense(tensor: &TensorArg, memory: &[u8]) -> Vec<f64> {
    assert_eq!(memory.len(), tensor.bytes(), "bytes of `{}`", tensor.name);
    if tensor.is_dense() { storage::decode(tensor.dtype, memory) } else { gather(tensor, memory) }
}

fn placed(tensor: &Tensor, layout: Layout) -> TensorArg {
    let (strides, span) = layout.strides(&tensor.shape);
    let (name, dtype, shape) = (tensor.name.clone(), tensor.dtype, tensor.shape.clone());
    TensorArg { name, dtype, shape, strides, span, data: Vec::new(), alias: None }
}

fn gather(tensor: &TensorArg, memory: &[u8]) -> Vec<f64> {
    let size = tensor.dtype.size();
    let element = |offset: usize| storage::decode_one(tensor.dtype, &memory[offset * size..(offset + 1) * size]);
    tensor.offsets().map(element).collect()
}

/// The memory of a tensor with these dense values; where indices share an element, the first one counts.
fn store(tensor: &TensorArg, values: &[f64]) -> Vec<u8> {
    let mut dense = Vec::with_capacity(values.len() * tensor.dtype.size());
    values.iter().for_each(|&value| storage::encode(tensor.dtype, value, &mut dense));
    if tensor.is_dense() {
        return dense;
    }
    let size = tensor.dtype.size();
    let mut memory = vec![GAP_BYTE; tensor.bytes()];
    let mut filled = vec![false; tensor.span];
    for (offset, element) in tensor.offsets().zip(dense.chunks_exact(size)) {
        if !std::mem::replace(&mut filled[offset], true) {
            memory[offset * size..(offset + 1) * size].copy_from_slice(element);
        }
    }
    memory
}
