//! The usable range: on which scale of inputs a kernel stays within the bound of an unlimited exponent.

use isonorm_kernels::abi::{Direction, DtypeSet, Value};
use isonorm_oracles::interpret::bound::Arithmetic;
use isonorm_oracles::operators::Role;
use isonorm_oracles::storage::Format;
use isonorm_reports::record::{self, Number};

use super::Entry;
use super::trial::{Examiner, compare};
use crate::case::{Case, dense, materialise, refill};
use crate::judge::Truth;
use crate::run::{Outcome, RunError};

/// How far the search goes, in powers of two: beyond the exponents of f32, short of where squares leave f64.
const REACH: i32 = 240;
/// The steps of the search: coarse first, then one power of two after the other.
const STRIDES: [i32; 2] = [8, 1];

/// The usable range of a kernel for each of its element types.
///
/// # Errors
/// If the kernel cannot be made ready.
pub fn usable_range(entry: &Entry) -> Result<Vec<record::Range>, RunError> {
    let mut examiner = Examiner::new(entry.contender.info().clone(), entry.contender.open()?);
    let mut ranges = Vec::new();
    for &dtypes in &entry.offer.dtypes {
        for &direction in &entry.offer.directions {
            let Some(probe) = Probe::new(entry, direction, dtypes) else { continue };
            let works = probe.holds(&mut examiner, 0);
            let mut end = |sign: i32| works.then(|| Number(2f64.powi(probe.end(&mut examiner, sign))));
            let (smallest, largest) = (end(-1), end(1));
            ranges.push(record::Range { kernel: entry.name.clone(), dtype: dtypes.to_string(), smallest, largest });
        }
    }
    Ok(ranges)
}

/// A problem whose activations are scaled.
struct Probe {
    case: Case,
    inputs: Vec<Vec<f64>>,
}

impl Probe {
    fn new(entry: &Entry, direction: Direction, dtypes: DtypeSet) -> Option<Probe> {
        let operator = entry.operator;
        let mut problem = operator.typical(direction)?;
        problem.dtypes = dtypes;
        entry.offer.resize(&mut problem.dims, |sizes| sizes[0]);
        // Running statistics have a scale of their own, and with an epsilon small inputs would test the epsilon.
        problem.given.clear();
        problem.attributes.insert("eps", Value::Real(0.0));
        problem.validate().ok()?;
        let case = Case::plain(problem, 1);
        let inputs = materialise(&case).inputs;
        Some(Probe { case, inputs })
    }

    /// The last power of two, going out from 0, on which the kernel holds.
    fn end(&self, examiner: &mut Examiner, sign: i32) -> i32 {
        let mut last = 0;
        for stride in STRIDES {
            while (last + stride).abs() <= REACH && self.holds(examiner, sign * (last + stride)) {
                last += stride;
            }
        }
        sign * last
    }

    /// Whether all outputs are within the bound of an unlimited exponent for inputs times 2^`exponent`.
    fn holds(&self, examiner: &mut Examiner, exponent: i32) -> bool {
        let problem = &self.case.problem;
        let specs = problem.inputs();
        let scale = 2f64.powi(exponent);
        let mut inputs = self.inputs.clone();
        for (spec, values) in specs.iter().zip(&mut inputs) {
            // Gradients keep their scale.
            let scaled =
                spec.role == Role::Data && !(problem.direction == Direction::Backward && spec.name.starts_with('d'));
            let format = Format::of(spec.dtype);
            for value in values.iter_mut().filter(|_| scaled) {
                *value = format.round(*value * scale);
                if value.abs() < format.smallest_normal || !value.is_finite() {
                    return false;
                }
            }
        }
        let borrowed: Vec<&[f64]> = inputs.iter().map(Vec::as_slice).collect();
        let truth = Truth::of(problem, &borrowed);
        let unlimited = Arithmetic { limited_range: false, ..examiner.arithmetic(problem) };
        let tolerance = truth.tolerance(unlimited);
        let request = refill(problem, inputs, 1);
        let Outcome::Answered(answer) = examiner.run(&request) else { return false };
        let outputs: Vec<Vec<f64>> =
            request.outputs.iter().zip(&answer.outputs).map(|(spec, memory)| dense(spec, memory)).collect();
        compare(&truth, &tolerance, &outputs).faults.is_empty()
    }
}
