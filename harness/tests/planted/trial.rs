//! Putting a kernel of the corpus on trial, as a campaign does.

use std::fmt;
use std::sync::Arc;

use isonorm_harness::campaign::{Entry, Examiner, Trial, Verdict};
use isonorm_harness::case::{Case, dense, materialise};
use isonorm_harness::generate::{case_at, large};
use isonorm_harness::judge::Truth;
use isonorm_harness::run::{Contender, InProcess, Outcome};
use isonorm_kernels::abi::Kernel;
use isonorm_oracles::storage::Format;
use proptest::strategy::ValueTree;

use crate::number::round;

/// The most threads that a case gives a kernel.
const THREADS: usize = 2;

/// What showed that a kernel is wrong.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The property that it lacks.
    pub property: &'static str,
    /// What is wrong.
    pub message: String,
    /// The case.
    pub case: Case,
    /// How many cases it took, this one included.
    pub after: u64,
}

/// A kernel, ready to be asked.
pub struct Accused {
    entry: Entry,
    examiner: Examiner,
}

impl Accused {
    /// Opens a kernel of the corpus.
    pub fn of(kernel: Arc<dyn Kernel>) -> Self {
        Accused::new(Arc::new(InProcess::new(kernel)))
    }

    /// Opens a kernel.
    pub fn new(contender: Arc<dyn Contender>) -> Self {
        let runner = contender.open().expect("kernels of the corpus open");
        let examiner = Examiner::new(contender.info().clone(), runner);
        let entry = Entry::new(contender, THREADS).expect("kernels of the corpus name operators that there are");
        Accused { entry, examiner }
    }

    /// Case `index` of the campaign with this seed.
    pub fn case(&self, seed: u64, index: u64) -> Case {
        case_at(seed, self.entry.operator, &self.entry.offer, index).current()
    }

    /// The large cases of the campaign with this seed.
    pub fn large(&self, seed: u64) -> Vec<Case> {
        let offer = &self.entry.offer;
        let mut cases = large(self.entry.operator, offer.directions[0], offer.dtypes[0], seed);
        // More elements than the plain kernel computes in a test's time.
        cases.retain(|case| case.problem.inputs().iter().all(|tensor| tensor.len() <= 1 << 20));
        cases
    }

    /// Asks one case.
    ///
    /// # Panics
    /// If the kernel declines, which none here does, or the case cannot be asked.
    pub fn ask(&mut self, case: &Case) -> Trial {
        let trial = self.examiner.examine(case, false);
        assert_eq!(trial.verdict, Verdict::Judged, "{}: {case}", self.entry.name);
        trial
    }

    /// The first finding of a campaign of `budget` cases, and the large ones after these.
    pub fn first(&mut self, seed: u64, budget: u64) -> Option<Finding> {
        let large = self.large(seed);
        (0..budget + large.len() as u64).find_map(|index| {
            let beyond = index.checked_sub(budget);
            let case = beyond.map_or_else(|| self.case(seed, index), |place| large[place as usize].clone());
            let flaw = self.ask(&case).flaws.into_iter().next()?;
            Some(Finding { property: flaw.property, message: flaw.message, case, after: index + 1 })
        })
    }
}

/// How a kernel that does not look at its inputs fares.
#[derive(Debug, Default)]
pub struct Blindness {
    /// Cases that it failed.
    pub failed: usize,
    /// Cases that it passed because its answer is right.
    right: usize,
    /// Cases that it passed because a bound is wider than the answer.
    wide: usize,
    /// Cases that it passed and should not.
    pub unjustified: Vec<String>,
}

impl Blindness {
    /// Asks one case, and if it passes looks for a reason, by other means than the judge: every element is either the
    /// rounded truth, or open, or nearer to the truth than its bound.
    pub fn add(&mut self, accused: &mut Accused, case: &Case) {
        if accused.ask(case).failed() {
            self.failed += 1;
            return;
        }
        let material = materialise(case);
        let inputs: Vec<&[f64]> = material.inputs.iter().map(Vec::as_slice).collect();
        let truth = Truth::of(&case.problem, &inputs);
        let tolerance = truth.tolerance(accused.examiner.arithmetic(&case.problem));
        let Outcome::Answered(answer) = accused.examiner.run(&material.request) else {
            return self.unjustified.push(format!("{case}: no answer"));
        };
        let (mut right, mut reasoned) = (true, true);
        for (output, (spec, memory)) in material.request.outputs.iter().zip(&answer.outputs).enumerate() {
            for (element, (&truth, got)) in truth.output(output).iter().zip(dense(spec, memory)).enumerate() {
                let error = tolerance.error(output, element);
                let rounded = round(truth.hi, spec.dtype);
                // Which of the non-finite results comes out can depend on the order of evaluation.
                let same = got == rounded || (!got.is_finite() && !rounded.is_finite());
                right &= same;
                let ulp = Format::of(spec.dtype).ulp(truth.hi);
                reasoned &= same || error == f64::INFINITY || (got - truth.hi).abs() <= error + ulp;
            }
        }
        match (right, reasoned) {
            (true, _) => self.right += 1,
            (_, true) => self.wide += 1,
            _ => self.unjustified.push(case.to_string()),
        }
    }
}

impl fmt::Display for Blindness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Blindness { failed, right, wide, unjustified } = self;
        write!(f, "failed {failed} cases, was right in {right}, within a wide bound in {wide}, ")?;
        write!(f, "passed without reason in {}", unjustified.len())
    }
}
