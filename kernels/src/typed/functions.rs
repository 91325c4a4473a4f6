//! The usual operators on dense slices.

use std::ffi::CStr;

use smallvec::SmallVec;

use super::{Operation, Scalar, View, ViewMut};
use crate::abi::{Direction, Refusal};

/// Layer normalization of the rows of `x`: `y = (x - mean) / sqrt(var + eps) * weight + bias`, on this thread.
///
/// `x` and `y`: `[rows, d]`; `weight` and `bias`: `[d]`.
///
/// # Errors
/// [`Refusal`] if the lengths do not fit or `eps` is negative; `y` is unchanged then.
pub fn layer_norm<T: Scalar>(x: &[T], weight: &[T], bias: &[T], eps: f64, y: &mut [T]) -> Result<(), Refusal> {
    by_row(c"layer_norm", &[(c"x", x)], &[(c"weight", weight), (c"bias", bias)], [(c"y", y)], eps, None)
}

/// Root-mean-square normalization of the rows of `x`: `y = x / sqrt(mean(x^2) + eps) * weight`, on this thread.
///
/// `x` and `y`: `[rows, d]`; `weight`: `[d]`.
///
/// # Errors
/// As for [`layer_norm`].
pub fn rms_norm<T: Scalar>(x: &[T], weight: &[T], eps: f64, y: &mut [T]) -> Result<(), Refusal> {
    by_row(c"rms_norm", &[(c"x", x)], &[(c"weight", weight)], [(c"y", y)], eps, Some((c"cast", c"none")))
}

/// Residual addition and layer normalization in one: `sum = x + residual`, and `y` is the [`layer_norm`] of `sum` as
/// stored, on this thread.
///
/// `x`, `residual`, `y`, `sum`: `[rows, d]`; `weight` and `bias`: `[d]`.
///
/// # Errors
/// As for [`layer_norm`].
pub fn add_layer_norm<T: Scalar>(
    x: &[T],
    residual: &[T],
    weight: &[T],
    bias: &[T],
    eps: f64,
    y: &mut [T],
    sum: &mut [T],
) -> Result<(), Refusal> {
    let (data, parameters) = ([(c"x", x), (c"residual", residual)], [(c"weight", weight), (c"bias", bias)]);
    by_row(c"add_layer_norm", &data, &parameters, [(c"y", y), (c"residual_out", sum)], eps, Some((c"sum", c"rounded")))
}

/// Residual addition and root-mean-square normalization in one: `sum = x + residual`, and `y` is the [`rms_norm`] of `sum`
/// as stored, on this thread.
///
/// `x`, `residual`, `y`, `sum`: `[rows, d]`; `weight`: `[d]`.
///
/// # Errors
/// As for [`layer_norm`].
pub fn add_rms_norm<T: Scalar>(
    x: &[T],
    residual: &[T],
    weight: &[T],
    eps: f64,
    y: &mut [T],
    sum: &mut [T],
) -> Result<(), Refusal> {
    let (data, parameters) = ([(c"x", x), (c"residual", residual)], [(c"weight", weight)]);
    by_row(c"add_rms_norm", &data, &parameters, [(c"y", y), (c"residual_out", sum)], eps, Some((c"sum", c"rounded")))
}

/// Calls an operator whose data are rows as long as its parameters.
fn by_row<T: Scalar, const M: usize>(
    operator: &CStr,
    data: &[(&CStr, &[T])],
    parameters: &[(&CStr, &[T])],
    outputs: [(&CStr, &mut [T]); M],
    eps: f64,
    word: Option<(&CStr, &CStr)>,
) -> Result<(), Refusal> {
    let of = |list: &[(&CStr, &[T])]| list.first().map_or(0, |(_, slice)| slice.len());
    let width = of(parameters);
    // Sizes that do not fit are found where a slice is viewed.
    let rows = [of(data) / width.max(1), width];
    let mut inputs: SmallVec<[_; 4]> = SmallVec::new();
    for (list, shape) in [(data, &rows[..]), (parameters, &rows[1..])] {
        for (name, slice) in list {
            inputs.push((*name, View::dense(slice, shape)?));
        }
    }
    let mut written: SmallVec<[_; 2]> = SmallVec::new();
    for (name, slice) in outputs {
        written.push((name, ViewMut::dense(slice, &rows)?));
    }
    let mut operation = Operation::new(operator, Direction::Forward).real(c"eps", eps).integer(c"normalized_ndim", 1);
    for (name, view) in &inputs {
        operation = operation.input(name, view);
    }
    for (name, view) in &mut written {
        operation = operation.output(name, view);
    }
    if let Some((name, value)) = word {
        operation = operation.text(name, value);
    }
    operation.run()
}
