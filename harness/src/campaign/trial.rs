//! One case, one kernel: everything that is asked of it.

use isonorm_kernels::abi::KernelInfo;
use isonorm_oracles::Problem;
use isonorm_oracles::interpret::bound::Arithmetic;
use isonorm_reports::record::{BufferTraffic, Extreme, Number, TrafficCounts};

use super::large::{LARGE, SLICE, compare_large};
use super::relations::{Transformed, transformations};
use super::stages::{Stage, Stages};
use crate::case::{Case, Materialised, dense, materialise};
use crate::judge::{Comparison, Tolerance, Truth, Wrong, libtorch};
use crate::run::{Conduct, Outcome, Request, Runner, Work};

/// A kernel on trial, ready to run.
pub struct Examiner {
    info: KernelInfo,
    runner: Box<dyn Runner>,
    /// Seconds spent so far.
    pub stages: Stages,
}

/// What came of one case.
#[derive(Clone, Debug)]
pub struct Trial {
    /// The case.
    pub case: Case,
    /// What the kernel did with it.
    pub verdict: Verdict,
    /// Properties that were checked, failed ones included.
    pub checked: Vec<&'static str>,
    /// The element-wise comparison; none if the kernel gave no answer.
    pub comparison: Option<Comparison>,
    /// libtorch's own comparison with the same truth and bound; none if it was not asked or declined.
    pub libtorch: Option<Comparison>,
    /// libtorch's outputs.
    pub libtorch_outputs: Option<Vec<Vec<f64>>>,
    /// Whether the answer had to match to the bit.
    pub exact: bool,
    /// The longest sum in the formula.
    pub length: u64,
    /// What the launches did, where an executor counted it; none for a call in place, whose tensors are two in one.
    pub traffic: Option<TrafficCounts>,
    /// What is wrong, worst first.
    pub flaws: Vec<Flaw>,
    /// Properties that are reported and never held against a kernel: whether each held.
    pub noted: Vec<(&'static str, bool)>,
}

/// What a kernel did with a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It answered, or ended without an answer: judged.
    Judged,
    /// It does not do this.
    Declined(String),
    /// The question could not be put: the kernel is not certified.
    NotRun(String),
}

/// A property that a kernel does not have.
#[derive(Clone, Debug)]
pub struct Flaw {
    /// The property.
    pub property: &'static str,
    /// What showed it.
    pub evidence: &'static str,
    /// What is wrong, in a sentence.
    pub message: String,
    /// The wrong element, for a property of elements.
    pub wrong: Option<Wrong>,
}

impl Examiner {
    /// Examines a kernel that says this of itself.
    pub fn new(info: KernelInfo, runner: Box<dyn Runner>) -> Self {
        Examiner { info, runner, stages: Stages::default() }
    }

    /// The arithmetic that the kernel is held to on a problem.
    pub fn arithmetic(&self, problem: &Problem) -> Arithmetic {
        arithmetic(&self.info, problem)
    }

    /// Runs a request as it is.
    pub fn run(&mut self, request: &Request) -> Outcome {
        self.stages.time(Stage::Kernel, || self.runner.run(request))
    }

    /// Asks one case and judges the answer. `libtorch` says whether libtorch is asked too.
    pub fn examine(&mut self, case: &Case, libtorch: bool) -> Trial {
        let material = self.stages.time(Stage::Generate, || materialise(case));
        if material.inputs.iter().map(Vec::len).max().unwrap_or(0) >= LARGE {
            return self.examine_large(case, &material);
        }
        let inputs: Vec<&[f64]> = material.inputs.iter().map(Vec::as_slice).collect();
        let truth = self.stages.time(Stage::Exact, || Truth::of(&case.problem, &inputs));
        let arithmetic = self.arithmetic(&case.problem);
        let tolerance = self.stages.time(Stage::Bound, || truth.tolerance(arithmetic));
        let mut trial = Trial { exact: tolerance.is_exact(), length: truth.longest_sum(), ..Trial::new(case) };
        let outcome = self.run(&material.request);
        let Some(outputs) = trial.take(outcome, &material.request, self.runner.shows()) else { return trial };
        let comparison = self.stages.time(Stage::Judge, || compare(&truth, &tolerance, &outputs));
        trial.add_elements(&comparison);
        trial.comparison = Some(comparison);
        if libtorch {
            self.ask_libtorch(&mut trial, &material, &truth, &tolerance);
        }
        // Transformed inputs cost another call: every eighth case, chosen by the case itself.
        if trial.flaws.is_empty() && case.seed.is_multiple_of(8) {
            self.check_relations(&mut trial, &material, &truth, &tolerance, &outputs);
        }
        trial
    }

    /// Judges a case that is too large to be evaluated at once. libtorch and relations are for the small ones.
    fn examine_large(&mut self, case: &Case, material: &Materialised) -> Trial {
        let mut trial = Trial::new(case);
        let outcome = self.run(&material.request);
        let Some(outputs) = trial.take(outcome, &material.request, self.runner.shows()) else { return trial };
        let arithmetic = self.arithmetic(&case.problem);
        match compare_large(&case.problem, &material.inputs, &outputs, arithmetic, SLICE, &mut self.stages) {
            Some((comparison, length)) => {
                trial.length = length;
                trial.add_elements(&comparison);
                trial.comparison = Some(comparison);
            }
            // Nothing of it is judged, and that is not the kernel's doing.
            None => trial.verdict = Verdict::Declined("not judged: too large to be evaluated at once".to_owned()),
        }
        trial
    }

    fn ask_libtorch(&mut self, trial: &mut Trial, material: &Materialised, truth: &Truth, tolerance: &Tolerance) {
        self.stages.time(Stage::Torch, || {
            if let Ok(outputs) = libtorch(&trial.case.problem, &truth.graph, &material.inputs) {
                trial.libtorch = Some(compare(truth, tolerance, &outputs));
                trial.libtorch_outputs = Some(outputs);
            }
        });
    }

    fn check_relations(
        &mut self,
        trial: &mut Trial,
        material: &Materialised,
        truth: &Truth,
        tolerance: &Tolerance,
        outputs: &[Vec<f64>],
    ) {
        for transformation in transformations(&trial.case.problem, material) {
            let Outcome::Answered(answer) = self.run(&transformation.request) else { continue };
            let got: Vec<Vec<f64>> = gathered(&transformation.request, &answer.outputs);
            self.stages.time(Stage::Relations, || {
                let Transformed { faults, bitwise } = transformation.judge(truth, tolerance, outputs, &got);
                trial.checked.push(transformation.property);
                if let Some(wrong) = faults.into_iter().next() {
                    let message = format!("{}: {}", transformation.meaning, wrong.fault.meaning());
                    let (property, evidence) = (transformation.property, "a transformed input");
                    trial.flaws.push(Flaw { property, evidence, message, wrong: Some(wrong) });
                } else if let Some(note) = transformation.note {
                    trial.noted.push((note, bitwise));
                }
            });
        }
    }
}

/// The arithmetic that a kernel is held to on a problem.
pub fn arithmetic(info: &KernelInfo, problem: &Problem) -> Arithmetic {
    let precision = info.precision.unwrap_or(problem.dtypes.data.statistics());
    Arithmetic { reduction: info.reduction, rsqrt: info.rsqrt, ..Arithmetic::plain(precision) }
}

/// Compares dense outputs with the truth.
pub fn compare(truth: &Truth, tolerance: &Tolerance, outputs: &[Vec<f64>]) -> Comparison {
    let mut comparison = Comparison::default();
    for (output, got) in outputs.iter().enumerate() {
        comparison.add(output, truth.dtype(output), truth.expected(tolerance, output), got);
    }
    comparison
}

/// What the launches of a case did, for records.
fn traffic(case: &Case, request: &Request, work: &Work) -> TrafficCounts {
    let counters = &work.counters;
    let tensors =
        request.inputs.iter().chain(&request.outputs).map(|tensor| (tensor.name.clone(), tensor.bytes() as u64));
    let buffers = tensors.chain(work.scratch.iter().cloned()).map(|(name, bytes)| {
        let counted = counters.buffer(&name);
        let most = Number(counted.bytes_read as f64 / bytes as f64);
        let buffer = BufferTraffic {
            bytes,
            read: counted.bytes_read,
            written: counted.bytes_written,
            accesses: counted.accesses,
            narrow: counted.narrow_accesses,
            requests: counted.requests,
            uncoalesced: counted.uncoalesced_requests,
            atomics: counted.atomics,
            most_read: (counted.bytes_read > 0).then(|| Extreme { value: most, case: case.to_string() }),
        };
        (name, buffer)
    });
    TrafficCounts {
        cases: 1,
        elements: request.inputs.first().map_or(0, |tensor| tensor.len() as u64),
        launches: work.launches,
        instructions: counters.instructions,
        local_bytes: counters.local_bytes,
        shared_requests: counters.shared.requests,
        bank_conflicts: counters.shared.conflicts,
        buffers: buffers.collect(),
    }
}

fn gathered(request: &Request, outputs: &[Vec<u8>]) -> Vec<Vec<f64>> {
    request.outputs.iter().zip(outputs).map(|(spec, memory)| dense(spec, memory)).collect()
}

impl Trial {
    fn new(case: &Case) -> Trial {
        Trial {
            case: case.clone(),
            verdict: Verdict::Judged,
            checked: Vec::new(),
            comparison: None,
            libtorch: None,
            libtorch_outputs: None,
            exact: false,
            length: 0,
            traffic: None,
            flaws: Vec::new(),
            noted: Vec::new(),
        }
    }

    /// Whether some property failed.
    pub fn failed(&self) -> bool {
        !self.flaws.is_empty()
    }

    /// Takes in what came of a request; gives the outputs if there are any to judge.
    fn take(&mut self, outcome: Outcome, request: &Request, shows: &[&'static str]) -> Option<Vec<Vec<f64>>> {
        let mut flaw = |property: &'static str, evidence: &'static str, message: String| {
            self.checked.push(property);
            self.flaws.push(Flaw { property, evidence, message, wrong: None });
        };
        match outcome {
            Outcome::Declined(reason) => self.verdict = Verdict::Declined(reason),
            Outcome::NotRun(reason) => self.verdict = Verdict::NotRun(reason),
            Outcome::Failed(reason) => {
                flaw("answers", "the kernel's own status", format!("a call that it offers to serve failed: {reason}"));
            }
            Outcome::Crashed(crash) => flaw("survives", "the process", crash.to_string()),
            Outcome::Hung(limit) => {
                let seconds = limit.as_secs_f64();
                flaw("returns", "the clock", format!("did not return within {seconds} s"));
            }
            Outcome::Answered(answer) => {
                self.checked.extend(["answers", "survives", "returns"]);
                // The order of a sum may depend on where the data lie: worth knowing, not wrong.
                let noted = "address_independent";
                self.checked.extend(shows.iter().filter(|property| **property != noted));
                let mut address_independent = true;
                for conduct in &answer.conduct {
                    if matches!(conduct, Conduct::AddressDependent(_)) {
                        address_independent = false;
                        continue;
                    }
                    let (property, message) = (conduct.property(), conduct.to_string());
                    let executed = matches!(conduct, Conduct::Executed(_));
                    let evidence = if executed { "the PTX executor" } else { "a second call" };
                    self.flaws.push(Flaw { property, evidence, message, wrong: None });
                }
                let plain = request.outputs.iter().all(|output| output.alias.is_none());
                self.traffic = answer.work.as_ref().filter(|_| plain).map(|work| traffic(&self.case, request, work));
                if shows.contains(&noted) {
                    self.noted.push((noted, address_independent));
                }
                if answer.conduct.iter().any(Conduct::is_fatal) {
                    return None;
                }
                return Some(gathered(request, &answer.outputs));
            }
        }
        None
    }

    fn add_elements(&mut self, comparison: &Comparison) {
        self.checked.extend(["within_bound", "special_values", "exact_rounding", "sign_of_zero"]);
        let mut faults: Vec<&Wrong> = comparison.faults.iter().collect();
        faults.sort_by_key(|wrong| wrong.fault);
        self.flaws.extend(faults.into_iter().map(|wrong| Flaw {
            property: wrong.fault.property(),
            evidence: "exact",
            message: format!("{} ({} of {} elements)", wrong.fault.meaning(), wrong.count, comparison.elements),
            wrong: Some(wrong.clone()),
        }));
    }
}
