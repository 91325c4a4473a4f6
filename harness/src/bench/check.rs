//! Only what is right is timed.
//!
//! A kernel answers the sample of a workload first ([`Workload::sample`]: the same sizes, types, layout and threads with
//! fewer rows or samples), and the answer is judged as in a campaign. The workload itself holds the sample's values over and
//! over, so where rows or samples do not depend on each other, what it gives must be the sample's answer over and over: a
//! kernel that goes wrong only beyond some size is found too.

use isonorm_reports::record::Finding;

use super::kernel::KernelCall;
use super::workload::Workload;
use crate::campaign::findings::Findings;
use crate::campaign::{Entry, Examiner, Verdict, arithmetic};
use crate::case::{Materialised, dense, materialise};
use crate::generate::CaseTree;
use crate::judge::{Comparison, Truth};
use crate::run::RunError;

/// What came of the check.
pub enum Checked {
    /// It may be timed, on these values.
    Right(Box<Materialised>),
    /// It does not do that, and says why.
    Declined(String),
    /// It is wrong: the smallest cases that show it.
    Wrong(Vec<Finding>),
}

/// Has a kernel answer the sample of a workload.
///
/// # Errors
/// If it cannot be made ready.
pub fn sample(entry: &Entry, workload: &Workload, replay: &str) -> Result<Checked, RunError> {
    let mut examiner = Examiner::new(entry.contender.info().clone(), entry.contender.open()?);
    let case = workload.sample();
    let trial = examiner.examine(&case, false);
    if let Verdict::Declined(why) | Verdict::NotRun(why) = &trial.verdict {
        return Ok(Checked::Declined(why.clone()));
    }
    if !trial.failed() {
        return Ok(Checked::Right(Box::new(materialise(&case))));
    }
    let findings = Findings::new(replay);
    for flaw in &trial.flaws {
        findings.add(entry, &mut examiner, &trial, flaw, CaseTree::new(case.clone()));
    }
    Ok(Checked::Wrong(findings.into_records()))
}

/// Compares what a call has just written with the sample's answer, over and over, where rows or samples do not depend on each
/// other. Parts that are the same to the bit as the first one need no second look; the others are judged as the sample was.
/// Gives what is wrong, in a sentence.
pub fn whole(entry: &Entry, workload: &Workload, sample: &Materialised, call: &KernelCall) -> Option<String> {
    let problem = &workload.case.problem;
    let axis = workload.batch_axis().filter(|axis| problem.operator.independent.contains(axis))?;
    let case = workload.sample();
    let mut judge = None;
    for (place, (output, spec)) in sample.request.outputs.iter().zip(case.problem.outputs()).enumerate() {
        if !spec.axes.iter().flatten().any(|own| *own == axis) {
            continue;
        }
        let written = call.outputs()[place];
        let first = &written[..output.bytes()];
        for (number, part) in written.chunks(first.len()).enumerate() {
            // The last part may be shorter: what it lacks is taken from the first.
            let whole = [part, &first[part.len()..]].concat();
            if number > 0 && whole == first {
                continue;
            }
            let (truth, tolerance) = judge.get_or_insert_with(|| {
                let inputs: Vec<&[f64]> = sample.inputs.iter().map(Vec::as_slice).collect();
                let truth = Truth::of(&case.problem, &inputs);
                let tolerance = truth.tolerance(arithmetic(entry.contender.info(), &case.problem));
                (truth, tolerance)
            });
            let mut comparison = Comparison::default();
            comparison.add(place, spec.dtype, truth.expected(tolerance, place), &dense(output, &whole));
            if let Some(wrong) = comparison.faults.first() {
                return Some(format!(
                    "right on fewer rows or samples, but of {} part {number} of {} elements is wrong: {}",
                    spec.name,
                    output.len(),
                    wrong.fault.meaning()
                ));
            }
        }
    }
    None
}
