//! Metamorphic relations: what transformed inputs must give.
//!
//! The outputs of the transformed call are transformed back and judged against the truth of the original one, within its
//! bound. Whether they are also equal to the bit is noted, and held against no one.

use isonorm_kernels::abi::{Direction, Value};
use isonorm_oracles::operators::{Relation, Role};
use isonorm_oracles::storage::Format;
use isonorm_oracles::{Problem, Tensor};

use crate::case::{Materialised, refill};
use crate::judge::{Comparison, Expected, Tolerance, Truth, Wrong};
use crate::run::Request;

/// A transformed call, and the way back.
pub struct Transformation {
    /// The property that is checked.
    pub property: &'static str,
    /// What it says, as half a sentence.
    pub meaning: String,
    /// The property that is noted: the relation holds to the bit.
    pub note: Option<&'static str>,
    /// The call to make.
    pub request: Request,
    /// For each output of it, the element of the original output that each of its elements stands for; none if the output
    /// says nothing.
    sources: Vec<Option<Vec<usize>>>,
    negated: bool,
}

/// What came of a transformed call.
pub struct Transformed {
    /// Elements outside of the original bound.
    pub faults: Vec<Wrong>,
    /// Whether it gave the same to the bit.
    pub bitwise: bool,
}

/// The transformations that the operator's relations allow for a problem.
pub fn transformations(problem: &Problem, material: &Materialised) -> Vec<Transformation> {
    problem.operator.relations.iter().filter_map(|relation| transformation(*relation, problem, material)).collect()
}

fn transformation(relation: Relation, problem: &Problem, material: &Materialised) -> Option<Transformation> {
    let forward = problem.direction == Direction::Forward;
    let (inputs, outputs) = (problem.inputs(), problem.outputs());
    let identity = |tensors: &[Tensor]| tensors.iter().map(|tensor| Some((0..tensor.len()).collect())).collect();
    match relation {
        Relation::Independent(axis) => {
            let dims = problem.dims.get(axis)?;
            if dims.iter().product::<usize>() < 2 {
                return None;
            }
            let middle: Vec<usize> = dims.iter().map(|dim| dim / 2).collect();
            let mut small = problem.clone();
            small.dims.insert(axis, vec![1; dims.len()]);
            small.validate().ok()?;
            let slice = |tensor: &Tensor| sliced(tensor, axis, &middle, problem.size(axis));
            let values = inputs
                .iter()
                .zip(&material.inputs)
                .map(|(tensor, values)| slice(tensor).into_iter().map(|index| values[index]).collect())
                .collect();
            // What is summed over the axis says nothing about one slice of it.
            let sources = outputs.iter().map(|tensor| has(tensor, axis).then(|| slice(tensor))).collect();
            Some(Transformation {
                property: "independent",
                meaning: format!("computed alone, a slice along `{axis}` differs from what it is beside others"),
                note: Some("batch_invariant"),
                request: refill(&small, values, material.request.threads),
                sources,
                negated: false,
            })
        }
        Relation::Permutation(axis) => {
            if problem.size(axis) < 2 {
                return None;
            }
            let reverse = |tensor: &Tensor| reversed(tensor, axis);
            let values = inputs
                .iter()
                .zip(&material.inputs)
                .map(|(tensor, values)| Some(reverse(tensor)?.into_iter().map(|index| values[index]).collect()))
                .collect::<Option<Vec<Vec<f64>>>>()?;
            Some(Transformation {
                property: "permutation",
                meaning: format!("reversing `{axis}` does not reverse the result"),
                note: Some("permutation_invariant"),
                request: refill(problem, values, material.request.threads),
                sources: outputs.iter().map(reverse).collect(),
                negated: false,
            })
        }
        Relation::Odd if forward && !problem.has("bias") => {
            let values = scaled(&inputs, material, -1.0)?;
            Some(Transformation {
                property: "odd",
                meaning: "negating the input does not negate the result".to_owned(),
                note: Some("odd_symmetric"),
                request: refill(problem, values, material.request.threads),
                sources: state_free(&outputs, identity(&outputs)),
                negated: true,
            })
        }
        Relation::ScaleInvariant if forward && problem.attributes.get("eps") == Some(&Value::Real(0.0)) => {
            let values = scaled(&inputs, material, 4.0)?;
            Some(Transformation {
                property: "scale_invariant",
                meaning: "four times the input, with eps = 0, gives another result".to_owned(),
                note: Some("scale_invariant_bitwise"),
                request: refill(problem, values, material.request.threads),
                sources: state_free(&outputs, identity(&outputs)),
                negated: false,
            })
        }
        _ => None,
    }
}

/// Activations times a power of two or -1; none if that leaves the range of their type.
fn scaled(inputs: &[Tensor], material: &Materialised, factor: f64) -> Option<Vec<Vec<f64>>> {
    inputs
        .iter()
        .zip(&material.inputs)
        .map(|(tensor, values)| {
            if tensor.role != Role::Data {
                return Some(values.clone());
            }
            let format = Format::of(tensor.dtype);
            values
                .iter()
                .map(|value| Some(value * factor).filter(|scaled| !value.is_finite() || format.holds(*scaled)))
                .collect()
        })
        .collect()
}

/// Running statistics do not take part in a relation of y.
fn state_free(outputs: &[Tensor], sources: Vec<Option<Vec<usize>>>) -> Vec<Option<Vec<usize>>> {
    let data = outputs.iter().enumerate();
    data.zip(sources)
        .map(|((place, tensor), source)| source.filter(|_| place == 0 && tensor.role == Role::Data))
        .collect()
}

fn has(tensor: &Tensor, axis: &str) -> bool {
    tensor.axes.iter().flatten().any(|own| *own == axis)
}

/// Row-major indices of a tensor in the order in which `pick` leaves them; `pick` maps the place along the dimensions of an
/// axis.
fn indices(tensor: &Tensor, keep: impl Fn(&[usize]) -> Option<usize>) -> Vec<usize> {
    let mut index = vec![0; tensor.shape.len()];
    let mut out = Vec::new();
    for _ in 0..tensor.len() {
        out.extend(keep(&index));
        for place in (0..index.len()).rev() {
            index[place] += 1;
            if index[place] < tensor.shape[place] {
                break;
            }
            index[place] = 0;
        }
    }
    out
}

fn flat(tensor: &Tensor, index: impl Iterator<Item = usize>) -> usize {
    index.zip(&tensor.shape).fold(0, |flat, (place, size)| flat * size + place)
}

/// The elements of the slice at `middle` along the dimensions of an axis of `size` elements.
fn sliced(tensor: &Tensor, axis: &str, middle: &[usize], size: usize) -> Vec<usize> {
    // A dimension merged of several axes is cut at the outermost of them: the only one that relations name.
    let along: Vec<usize> = (0..tensor.shape.len()).filter(|&place| tensor.axes[place][0] == axis).collect();
    indices(tensor, |index| {
        let inside = along.iter().zip(middle).all(|(&place, &middle)| {
            let block = if tensor.axes[place].len() > 1 { tensor.shape[place] / size } else { 1 };
            index[place] / block == middle
        });
        inside.then(|| flat(tensor, index.iter().copied()))
    })
}

/// The tensor's elements with an axis reversed; none if the axis is part of a merged dimension.
fn reversed(tensor: &Tensor, axis: &str) -> Option<Vec<usize>> {
    let merged = tensor.axes.iter().any(|axes| axes.len() > 1 && axes.contains(&axis));
    if merged {
        return None;
    }
    Some(indices(tensor, |index| {
        let mirrored = index
            .iter()
            .enumerate()
            .map(|(place, &at)| if tensor.axes[place].contains(&axis) { tensor.shape[place] - 1 - at } else { at });
        Some(flat(tensor, mirrored))
    }))
}

impl Transformation {
    /// Judges the outputs of the transformed call against the original truth; `original` is what the kernel gave there.
    pub fn judge(&self, truth: &Truth, tolerance: &Tolerance, original: &[Vec<f64>], got: &[Vec<f64>]) -> Transformed {
        let mut comparison = Comparison::default();
        let mut bitwise = true;
        for (output, (sources, got)) in self.sources.iter().zip(got).enumerate() {
            let Some(sources) = sources else { continue };
            let expected: Vec<_> = truth.expected(tolerance, output).collect();
            let wanted: Vec<_> = sources
                .iter()
                .map(|&source| {
                    // Zeros change their sign with the order of evaluation; their sign was judged in the original call.
                    Expected { zero_sign: false, ..expected[source] }
                })
                .collect();
            let back: Vec<f64> = got.iter().map(|&value| if self.negated { -value } else { value }).collect();
            bitwise &= sources.iter().zip(&back).all(|(&source, back)| {
                let original = original[output][source];
                original == *back || (original.is_nan() && back.is_nan())
            });
            comparison.add(output, truth.dtype(output), wanted.into_iter(), &back);
        }
        Transformed { faults: comparison.faults, bitwise }
    }
}
