//! The same question with other values.

use isonorm_oracles::{Problem, storage};

use crate::run::{Request, TensorArg};

/// A request with these dense values, every tensor contiguous.
///
/// # Panics
/// If the values do not have the sizes of [`Problem::inputs`].
pub fn refill(problem: &Problem, values: Vec<Vec<f64>>, threads: usize) -> Request {
    let contiguous = |tensor: isonorm_oracles::Tensor| {
        let mut strides = vec![1; tensor.shape.len()];
        for place in (1..strides.len()).rev() {
            strides[place - 1] = strides[place] * tensor.shape[place].max(1);
        }
        let span = tensor.len();
        let (name, dtype, shape) = (tensor.name, tensor.dtype, tensor.shape);
        TensorArg { name, dtype, shape, strides, span, data: Vec::new(), alias: None }
    };
    let inputs = problem.inputs().into_iter().zip(values).map(|(tensor, values)| {
        let mut arg = contiguous(tensor);
        assert_eq!(arg.span, values.len(), "elements of `{}`", arg.name);
        values.iter().for_each(|&value| storage::encode(arg.dtype, value, &mut arg.data));
        arg
    });
    Request {
        operator: problem.operator.name.to_owned(),
        direction: problem.direction,
        sizes: problem.named_sizes(),
        attributes: problem.call_attributes(),
        inputs: inputs.collect(),
        outputs: problem.outputs().into_iter().map(contiguous).collect(),
        threads,
        prelude: None,
    }
}
