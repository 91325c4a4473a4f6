//! Each check of a campaign, with a kernel that it must catch.

use std::sync::Arc;

use isonorm_kernels::abi::{Call, Direction, Dtype, DtypeSet, Kernel, KernelInfo, Refusal};
use isonorm_oracles::Problem;
use isonorm_oracles::interpret::bound::Arithmetic;
use isonorm_oracles::operators;
use isonorm_reports::record::Record;

use super::large::compare_large;
use super::*;
use crate::case::{materialise, refill};
use crate::judge::{Fault, Truth};
use crate::run::{InProcess, Outcome};

/// A built-in kernel with a change: what it does before it answers.
struct Changed {
    inner: Arc<dyn Kernel>,
    change: fn(&Call<'_>) -> Option<f32>,
}

impl Kernel for Changed {
    fn info(&self) -> &KernelInfo {
        self.inner.info()
    }

    fn run(&self, call: &Call<'_>) -> Result<(), Refusal> {
        self.inner.run(call)?;
        if let (Some(value), Some(y)) = ((self.change)(call), call.output("y")) {
            // SAFETY: the kernel has just written this f32 element.
            unsafe { y.data.cast::<f32>().write_unaligned(value) };
        }
        Ok(())
    }
}

fn builtin(name: &str) -> Arc<dyn Kernel> {
    let found = isonorm_kernels::builtin().into_iter().find(|kernel| kernel.info().name == name);
    found.unwrap_or_else(|| panic!("there is a kernel {name}"))
}

fn entry(change: fn(&Call<'_>) -> Option<f32>) -> Entry {
    let kernel = Changed { inner: builtin("isonorm.rms_norm.forward"), change };
    let mut entry = Entry::new(Arc::new(InProcess::new(Arc::new(kernel))), 1).expect("a known operator");
    entry.offer.dtypes = vec![DtypeSet::uniform(Dtype::F32)];
    entry
}

fn plan(cases: u64) -> Plan {
    Plan {
        seed: 3,
        budget: Budget::Cases(cases),
        shard: (0, 1),
        workers: 1,
        large: false,
        libtorch: false,
        replay: String::new(),
    }
}

fn properties_found(entry: Entry, cases: u64) -> Vec<String> {
    let records = run(&[entry], &plan(cases), &Progress::default()).expect("the kernel runs");
    let findings = records.into_iter().filter_map(|record| match record {
        Record::Finding(finding) => Some(finding.property),
        _ => None,
    });
    findings.collect()
}

/// How many rows a call has.
fn rows(call: &Call<'_>) -> i64 {
    call.input("x").map_or(0, |x| x.shape[..x.shape.len() - 1].iter().product())
}

#[test]
fn a_kernel_that_is_right_has_no_findings() {
    assert_eq!(properties_found(entry(|_| None), 400), [""; 0]);
}

#[test]
fn a_kernel_that_is_wrong_in_one_element_is_found() {
    let found = properties_found(entry(|call| (rows(call) == 3).then_some(7.5)), 400);
    assert!(found.contains(&"within_bound".to_owned()), "{found:?}");
}

#[test]
fn a_kernel_that_cheats_only_when_a_row_comes_alone_is_found_by_its_relation() {
    let problem = Problem {
        dims: [("r", vec![6]), ("d", vec![5])].into(),
        given: Default::default(),
        ..operators::find("rms_norm").and_then(|operator| operator.typical(Direction::Forward)).expect("a problem")
    };
    let examine = |change: fn(&Call<'_>) -> Option<f32>| {
        let entry = entry(change);
        let mut examiner = Examiner::new(entry.contender.info().clone(), entry.contender.open().expect("it opens"));
        examiner.examine(&crate::case::Case::plain(problem.clone(), 8), false)
    };
    let honest = examine(|_| None);
    assert!(!honest.failed() && honest.checked.contains(&"independent"), "{:?}", honest.flaws);
    let cheat = examine(|call| (rows(call) == 1).then_some(100.0));
    assert!(cheat.flaws.iter().any(|flaw| flaw.property == "independent"), "{:?}", cheat.flaws);
}

#[test]
fn the_usable_range_ends_where_the_kernel_does() {
    /// Wrong from 2^20 on.
    fn limited(call: &Call<'_>) -> Option<f32> {
        let x = call.input("x").filter(|x| !x.is_empty())?;
        // SAFETY: the input has at least one f32 element.
        let first = unsafe { x.data.cast::<f32>().read_unaligned() };
        (first.abs() >= 2f32.powi(20)).then_some(0.0)
    }
    let largest = |change| {
        let ranges = usable_range(&entry(change)).expect("the kernel runs");
        ranges[0].largest.expect("it works on ordinary inputs").0
    };
    let whole = largest(|_| None);
    let cut = largest(limited);
    assert!(cut < 2f64.powi(26) && whole > 2f64.powi(60), "{cut:e} {whole:e}");
}

#[test]
fn slices_together_judge_as_the_whole_does() {
    for (name, direction) in
        [("layer_norm", Direction::Backward), ("batch_norm", Direction::Forward), ("group_norm", Direction::Backward)]
    {
        let operator = operators::find(name).expect("an operator");
        let mut problem = operator.typical(direction).expect("a problem");
        for (axis, dims) in &mut problem.dims {
            *dims.last_mut().expect("a dimension") = if *axis == "g" { 2 } else { 7 };
        }
        let case = crate::case::Case::plain(problem.clone(), 11);
        let material = materialise(&case);
        let inputs: Vec<&[f64]> = material.inputs.iter().map(Vec::as_slice).collect();
        let truth = Truth::of(&problem, &inputs);
        let arithmetic = Arithmetic::plain(Dtype::F32);
        let tolerance = truth.tolerance(arithmetic);

        let contender = Arc::new(InProcess::new(builtin(&format!("isonorm.{name}.{direction}"))));
        let mut runner = crate::run::Contender::open(&*contender).expect("it opens");
        let request = refill(&problem, material.inputs.clone(), 1);
        let Outcome::Answered(answer) = runner.run(&request) else { panic!("an answer") };
        let outputs = request.outputs.iter().zip(&answer.outputs);
        let mut outputs: Vec<Vec<f64>> = outputs.map(|(spec, memory)| crate::case::dense(spec, memory)).collect();
        let judge = |outputs: &[Vec<f64>]| {
            let whole = compare(&truth, &tolerance, outputs);
            let (slices, length) =
                compare_large(&problem, &material.inputs, outputs, arithmetic, 64, &mut Stages::default())
                    .expect("an axis");
            assert_eq!(length, truth.longest_sum());
            assert_eq!(slices.elements, whole.elements);
            let (a, b) = (slices.worst_ratio.expect("judged"), whole.worst_ratio.expect("judged"));
            assert!((a - b).abs() <= 1e-6 * b, "{name}: {a} in slices, {b} as a whole");
            slices
        };
        assert!(judge(&outputs).faults.is_empty(), "{name}");
        // The last element of every output, the summed ones included, is looked at.
        for output in 0..outputs.len() {
            let last = outputs[output].len() - 1;
            let right = std::mem::replace(&mut outputs[output][last], 1e3);
            let faults = judge(&outputs).faults;
            assert!(
                faults.iter().any(|wrong| (wrong.fault, wrong.output, wrong.element) == (Fault::Bound, output, last)),
                "{name} {output}"
            );
            outputs[output][last] = right;
        }
    }
}
