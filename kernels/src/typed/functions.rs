//! The usual operators on dense slices.

use super::{Operation, Scalar, View, ViewMut};
use crate::abi::{Direction, Refusal};

/// Layer normalization of the rows of `x`: `y = (x - mean) / sqrt(var + eps) * weight + bias`, on this thread.
///
/// `x` and `y`: `[rows, d]`; `weight` and `bias`: `[d]`.
///
/// # Errors
/// [`Refusal`] if the lengths do not fit or `eps` is negative; `y` is unchanged then.
pub fn layer_norm<T: Scalar>(x: &[T], weight: &[T], bias: &[T], eps: f64, y: &mut [T]) -> Result<(), Refusal> {
    let (rows, row) = (&rows(x, weight), &[weight.len()]);
    Operation::new(c"layer_norm", Direction::Forward)
        .input(c"x", &View::dense(x, rows)?)
        .input(c"weight", &View::dense(weight, row)?)
        .input(c"bias", &View::dense(bias, row)?)
        .output(c"y", &mut ViewMut::dense(y, rows)?)
        .real(c"eps", eps)
        .integer(c"normalized_ndim", 1)
        .run()
}

/// Root-mean-square normalization of the rows of `x`: `y = x / sqrt(mean(x^2) + eps) * weight`, on this thread.
///
/// `x` and `y`: `[rows, d]`; `weight`: `[d]`.
///
/// # Errors
/// As for [`layer_norm`].
pub fn rms_norm<T: Scalar>(x: &[T], weight: &[T], eps: f64, y: &mut [T]) -> Result<(), Refusal> {
    let rows = &rows(x, weight);
    Operation::new(c"rms_norm", Direction::Forward)
        .input(c"x", &View::dense(x, rows)?)
        .input(c"weight", &View::dense(weight, &[weight.len()])?)
        .output(c"y", &mut ViewMut::dense(y, rows)?)
        .real(c"eps", eps)
        .integer(c"normalized_ndim", 1)
        .text(c"cast", c"none")
        .run()
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
    let (rows, row) = (&rows(x, weight), &[weight.len()]);
    Operation::new(c"add_layer_norm", Direction::Forward)
        .input(c"x", &View::dense(x, rows)?)
        .input(c"residual", &View::dense(residual, rows)?)
        .input(c"weight", &View::dense(weight, row)?)
        .input(c"bias", &View::dense(bias, row)?)
        .output(c"y", &mut ViewMut::dense(y, rows)?)
        .output(c"residual_out", &mut ViewMut::dense(sum, rows)?)
        .real(c"eps", eps)
        .integer(c"normalized_ndim", 1)
        .text(c"sum", c"rounded")
        .run()
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
    let rows = &rows(x, weight);
    Operation::new(c"add_rms_norm", Direction::Forward)
        .input(c"x", &View::dense(x, rows)?)
        .input(c"residual", &View::dense(residual, rows)?)
        .input(c"weight", &View::dense(weight, &[weight.len()])?)
        .output(c"y", &mut ViewMut::dense(y, rows)?)
        .output(c"residual_out", &mut ViewMut::dense(sum, rows)?)
        .real(c"eps", eps)
        .integer(c"normalized_ndim", 1)
        .text(c"sum", c"rounded")
        .run()
}

/// Sizes of `x` as rows of the weight's length; sizes that do not fit are found where `x` is viewed.
fn rows<T>(x: &[T], weight: &[T]) -> [usize; 2] {
    [x.len() / weight.len().max(1), weight.len()]
}
