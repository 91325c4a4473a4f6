//! Cases too large to be evaluated at once: slice by slice along an axis that outputs do not mix.
//!
//! Every element is judged against the exact value, as in small cases. What is summed over the axis (gradients of
//! parameters) is summed over the slices, true values and bounds alike.

use std::ops::Range;

use isonorm_oracles::dd::Dd;
use isonorm_oracles::interpret::bound::Arithmetic;
use isonorm_oracles::{Problem, Tensor};

use super::stages::{Stage, Stages};
use crate::judge::{Comparison, Expected, Truth};

/// Elements of one slice: some tens of megabytes of exact values.
pub(super) const SLICE: usize = 1 << 18;

/// From how many elements on a case is large.
pub(crate) const LARGE: usize = 1 << 20;

/// Compares the dense outputs of a large problem with the truth, `slice_elements` at a time. `None` if the problem has no axis to cut it along.
pub(super) fn compare_large(
    problem: &Problem,
    inputs: &[Vec<f64>],
    outputs: &[Vec<f64>],
    arithmetic: Arithmetic,
    slice_elements: usize,
    stages: &mut Stages,
) -> Option<(Comparison, u64)> {
    let axes = problem.operator.independent.iter();
    let axis = axes.copied().max_by_key(|axis| problem.size(axis)).filter(|axis| problem.size(axis) > 1)?;
    let (specs, results) = (problem.inputs(), problem.outputs());
    let length = problem.size(axis);
    let elements: usize = specs.first().map_or(1, Tensor::len);
    let step = (slice_elements * length / elements.max(1)).clamp(1, length);

    let mut comparison = Comparison::default();
    let mut summed: Vec<Vec<(Dd, f64)>> = results.iter().map(|result| vec![(Dd::ZERO, 0.0); result.len()]).collect();
    let mut longest = 0;
    for start in (0..length).step_by(step) {
        let range = start..(start + step).min(length);
        let mut small = problem.clone();
        small.dims.insert(axis, one_dimension(&problem.dims[axis], range.len()));
        let cut = |tensor: &Tensor, values: &[f64]| slice(tensor, axis, length, &range, values);
        let values: Vec<Vec<f64>> = specs.iter().zip(inputs).map(|(spec, values)| cut(spec, values)).collect();
        let borrowed: Vec<&[f64]> = values.iter().map(Vec::as_slice).collect();
        let truth = stages.time(Stage::Exact, || Truth::of_slice(&small, &borrowed, problem.sizes()));
        let tolerance = stages.time(Stage::Bound, || truth.tolerance(arithmetic));
        longest = longest.max(truth.longest_sum());
        stages.time(Stage::Judge, || {
            for (output, (result, got)) in results.iter().zip(outputs).enumerate() {
                if has(result, axis) {
                    let got = cut(result, got);
                    let known = comparison.faults.len();
                    comparison.add(output, truth.dtype(output), truth.expected(&tolerance, output), &got);
                    for wrong in &mut comparison.faults[known..] {
                        wrong.element = whole_element(result, axis, length, &range, wrong.element);
                    }
                } else {
                    for (sum, expected) in summed[output].iter_mut().zip(truth.expected(&tolerance, output)) {
                        *sum = (sum.0 + expected.truth, sum.1 + expected.error);
                    }
                }
            }
        });
    }
    for (output, (result, got)) in results.iter().zip(outputs).enumerate().filter(|(_, (result, _))| !has(result, axis))
    {
        let expected = summed[output].iter().map(|&(truth, error)| Expected {
            truth,
            error,
            zero_sign: false,
            any_non_finite: true,
        });
        comparison.add(output, result.dtype, expected, got);
    }
    Some((comparison, longest))
}

fn has(tensor: &Tensor, axis: &str) -> bool {
    tensor.axes.iter().flatten().any(|own| *own == axis)
}

/// The same number of dimensions with this many elements.
fn one_dimension(dims: &[usize], length: usize) -> Vec<usize> {
    let mut flat = vec![1; dims.len()];
    if let Some(last) = flat.last_mut() {
        *last = length;
    }
    flat
}

/// The elements of a dense tensor whose place along `axis`, which has `length` elements in all, is in `range`.
fn slice(tensor: &Tensor, axis: &str, length: usize, range: &Range<usize>, values: &[f64]) -> Vec<f64> {
    let Some(first) = tensor.axes.iter().position(|axes| axes.contains(&axis)) else { return values.to_vec() };
    // Behind the axis: later dimensions, and the inner part of a dimension merged of several axes.
    let outer: usize = tensor.shape[..first].iter().product();
    let inner = values.len() / (outer * length).max(1);
    let mut out = Vec::with_capacity(outer * range.len() * inner);
    for block in 0..outer {
        let start = (block * length + range.start) * inner;
        out.extend_from_slice(&values[start..start + range.len() * inner]);
    }
    out
}

/// The place in the whole tensor of an element of a slice that [`slice`] has cut.
fn whole_element(tensor: &Tensor, axis: &str, length: usize, range: &Range<usize>, element: usize) -> usize {
    let Some(first) = tensor.axes.iter().position(|axes| axes.contains(&axis)) else { return element };
    let outer: usize = tensor.shape[..first].iter().product();
    let inner = tensor.len() / (outer * length).max(1);
    let block = (range.len() * inner).max(1);
    (element / block * length + range.start) * inner + element % block
}
