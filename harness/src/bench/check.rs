//! Only what is right is timed.
//!
//! A kernel answers the sample of a workload first ([`Workload::sample`]: the same sizes, types, layout and threads with
//! fewer rows or samples), and the answer is judged as in a campaign. The workload itself holds the sample's values over and
//! over, so where rows or samples do not depend on each other, what it gives must be the sample's answer over and over: a
//! kernel that goes wrong only beyond some size is found too.

use isonorm_oracles::interpret::text::text;
use isonorm_reports::record::{Finding, Number};

use super::workload::Workload;
use crate::campaign::findings::Findings;
use crate::campaign::{Entry, Examiner, Verdict, arithmetic};
use crate::case::{Materialised, dense, materialise};
use crate::generate::CaseTree;
use crate::judge::{Comparison, Truth, Wrong};
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
        findings.add(entry, &trial, flaw, CaseTree::new(case.clone()));
    }
    Ok(Checked::Wrong(findings.into_records(1, None).0))
}

/// Compares what a call has just written, the memory of its `outputs`, with the sample's answer, over and over, where rows or
/// samples do not depend on each other. Parts that are the same to the bit as the first one need no second look; the others are
/// judged as the sample was. Gives what is wrong.
pub fn whole(
    entry: &Entry,
    workload: &Workload,
    sample: &Materialised,
    outputs: &[&[u8]],
    replay: &str,
) -> Option<Finding> {
    let problem = &workload.case.problem;
    let axis = workload.batch_axis().filter(|axis| problem.operator.independent.contains(axis))?;
    let case = workload.sample();
    let mut judge = None;
    for (place, (output, spec)) in sample.request.outputs.iter().zip(case.problem.outputs()).enumerate() {
        if !spec.axes.iter().flatten().any(|own| *own == axis) {
            continue;
        }
        let written = outputs[place];
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
                let message = format!(
                    "right on fewer rows or samples, but of {} part {number} of {} elements is wrong: {}",
                    spec.name,
                    output.len(),
                    wrong.fault.meaning()
                );
                return Some(finding(entry, workload, wrong, message, replay));
            }
        }
    }
    None
}

/// What is wrong with the answer to the whole workload. It is not shrunk: it shows on many rows or samples only.
fn finding(entry: &Entry, workload: &Workload, wrong: &Wrong, message: String, replay: &str) -> Finding {
    let case = workload.case.to_string();
    let problem = &workload.case.problem;
    let attributes = problem.call_attributes().into_iter().map(|(name, value)| (name, value.to_string())).collect();
    Finding {
        kernel: entry.name.clone(),
        property: wrong.fault.property().to_owned(),
        dtype: problem.dtypes.to_string(),
        family: workload.case.family.name.to_owned(),
        original: case.clone(),
        formula: text(&problem.graph()),
        attributes,
        wrong: None,
        ratio_to_bound: Some(Number(wrong.ratio)),
        libtorch_ratio_to_bound: None,
        ulps: None,
        message,
        replay: format!("cargo isonorm replay --kernel {}{replay} '{case}'", entry.name),
        evidence: "exact".to_owned(),
        further: 0,
        case,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use isonorm_kernels::abi::{Call, Direction, Dtype, DtypeSet, Kernel, KernelInfo, Refusal};

    use super::*;
    use crate::bench::Timed;
    use crate::bench::kernel::{Callable, KernelCall};
    use crate::run::InProcess;

    /// Our kernel, with one element wrong in calls of more than so many rows.
    struct Planted {
        kernel: Arc<dyn Kernel>,
        right_up_to: i64,
    }

    impl Kernel for Planted {
        fn info(&self) -> &KernelInfo {
            self.kernel.info()
        }

        fn run(&self, call: &Call<'_>) -> Result<(), Refusal> {
            self.kernel.run(call)?;
            let y = call.required_output("y")?;
            if y.shape[0] > self.right_up_to {
                // SAFETY: the last element of a dense f32 output.
                unsafe { *y.data.cast::<f32>().add(y.len() - 1) += 1.0 };
            }
            Ok(())
        }
    }

    fn planted(right_up_to: i64) -> (Entry, Arc<dyn Kernel>) {
        let all = isonorm_kernels::builtin();
        let kernel = all.into_iter().find(|kernel| kernel.info().name == "isonorm.rms_norm.forward").expect("ours");
        let kernel: Arc<dyn Kernel> = Arc::new(Planted { kernel, right_up_to });
        (Entry::new(Arc::new(InProcess::new(Arc::clone(&kernel))), 1).expect("an operator"), kernel)
    }

    fn workload(entry: &Entry) -> Workload {
        let f32 = DtypeSet::uniform(Dtype::F32);
        // 65,536 elements are 1024 rows of 64: the workload has that, and again, and a part of it.
        Workload::new(entry.operator, Direction::Forward, f32, &[2500, 64], 32).expect("a workload")
    }

    fn whole_answer(right_up_to: i64) -> Option<Finding> {
        let (entry, kernel) = planted(right_up_to);
        let workload = workload(&entry);
        let Ok(Checked::Right(sample)) = sample(&entry, &workload, "") else { panic!("right on the sample") };
        let mut call = KernelCall::new(Callable::BuiltIn(kernel), &workload, &sample, false).expect("memory");
        call.call().expect("it answers");
        whole(&entry, &workload, &sample, &call.outputs(), "")
    }

    #[test]
    fn a_kernel_that_is_wrong_on_the_sample_is_found() {
        let (entry, _) = planted(0);
        let Ok(Checked::Wrong(findings)) = sample(&entry, &workload(&entry), "") else { panic!("it is wrong") };
        assert!(findings.iter().any(|finding| finding.property == "within_bound"), "{findings:?}");
    }

    #[test]
    fn a_kernel_that_is_wrong_beyond_the_sample_is_found() {
        let finding = whole_answer(1024).expect("the last row is wrong");
        assert_eq!(finding.property, "within_bound");
        assert!(finding.message.contains("part 2"), "{}", finding.message);
        assert!(finding.case.contains("r=2500"), "{}", finding.case);
    }

    #[test]
    fn a_right_kernel_passes() {
        assert_eq!(whole_answer(i64::MAX), None);
    }
}
