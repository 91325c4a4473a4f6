//! From failing cases to findings: of each kind one is shrunk, the others are counted.
//!
//! It is the plainest of them, whichever worker met it first, so that the shards of a campaign together make the findings
//! that the whole makes.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use isonorm_oracles::interpret::text::text;
use isonorm_oracles::storage::{Format, encode};
use isonorm_reports::record::{self, Number};
use proptest::strategy::ValueTree;

use super::Entry;
use super::stages::{Stage, Stages};
use super::trial::{Examiner, Flaw, Trial};
use crate::case::{Case, materialise};
use crate::generate::CaseTree;
use crate::judge::{Truth, Wrong};

/// How long one finding may be shrunk, and in how many steps.
const PATIENCE: (Duration, usize) = (Duration::from_secs(10), 600);

/// By kernel and property.
type Found<'a> = BTreeMap<(String, &'static str), Kept<'a>>;

/// The plainest of the cases that lack a property.
struct Kept<'a> {
    entry: &'a Entry,
    trial: Trial,
    flaw: Flaw,
    tree: CaseTree,
    /// How many further cases there are.
    further: u64,
}

/// The findings of a campaign.
pub(crate) struct Findings<'a> {
    replay: &'a str,
    found: Mutex<Found<'a>>,
}

impl<'a> Findings<'a> {
    pub(crate) fn new(replay: &'a str) -> Self {
        Findings { replay, found: Mutex::default() }
    }

    /// Takes in a flaw.
    pub(crate) fn add(&self, entry: &'a Entry, trial: &Trial, flaw: &Flaw, tree: CaseTree) {
        let mut found = self.lock();
        let key = (entry.name.clone(), flaw.property);
        let further = match found.get_mut(&key) {
            Some(kept) => {
                kept.further += 1;
                if !record::plainer(&trial.case.to_string(), &kept.trial.case.to_string()) {
                    return;
                }
                kept.further
            }
            None => 0,
        };
        found.insert(key, Kept { entry, trial: trial.clone(), flaw: flaw.clone(), tree, further });
    }

    /// Shrinks what was found, by so many workers, until `deadline` if there is one. What is not shrunk by then is a finding as
    /// it is.
    pub(crate) fn into_records(self, workers: usize, deadline: Option<Instant>) -> (Vec<record::Finding>, Stages) {
        let replay = self.replay;
        let found = self.found.into_inner().unwrap_or_else(PoisonError::into_inner);
        let queue = Mutex::new(found.into_iter());
        let done = Mutex::new((BTreeMap::new(), Stages::default()));
        std::thread::scope(|scope| {
            for _ in 0..workers.max(1) {
                scope.spawn(|| {
                    // Each worker is one of several that share the cores.
                    tch::set_num_threads(1);
                    loop {
                        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                        let Some((key, kept)) = next else { break };
                        let started = Instant::now();
                        let finding = kept.finding(replay, deadline);
                        let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                        done.0.insert(key, finding);
                        done.1.add(Stage::Shrink, started.elapsed());
                    }
                });
            }
        });
        let (findings, stages) = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        (findings.into_values().collect(), stages)
    }

    fn lock(&self) -> MutexGuard<'_, Found<'a>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept<'_> {
    /// The finding, with the smallest case that lacks the same property.
    fn finding(self, replay: &str, deadline: Option<Instant>) -> record::Finding {
        let Kept { entry, trial: original, flaw, tree, further } = self;
        let mut small = (original.clone(), flaw);
        // A kernel that cannot be opened again is told as it was found.
        if let Ok(runner) = entry.contender.open() {
            let mut examiner = Examiner::new(entry.contender.info().clone(), runner);
            let patience = Instant::now() + PATIENCE.0;
            shrink(&mut examiner, &mut small, tree, deadline.map_or(patience, |deadline| deadline.min(patience)));
        }
        let (trial, flaw) = &small;
        record::Finding { further, ..finding(entry, &original.case, trial, flaw, replay) }
    }
}

fn finding(entry: &Entry, original: &Case, trial: &Trial, flaw: &Flaw, replay: &str) -> record::Finding {
    let case = &trial.case;
    let problem = &case.problem;
    let attributes = problem.call_attributes().into_iter().map(|(name, value)| (name, value.to_string())).collect();
    let numbers = |value: Option<f64>| value.map(Number);
    record::Finding {
        kernel: entry.name.clone(),
        property: flaw.property.to_owned(),
        dtype: problem.dtypes.to_string(),
        family: case.family.name.to_owned(),
        case: case.to_string(),
        original: original.to_string(),
        formula: text(&problem.graph()),
        attributes,
        wrong: flaw.wrong.as_ref().map(|wrong| wrong_element(trial, wrong)),
        ratio_to_bound: numbers(flaw.wrong.as_ref().map(|wrong| wrong.ratio)),
        libtorch_ratio_to_bound: numbers(trial.libtorch.as_ref().and_then(|libtorch| libtorch.worst_ratio)),
        ulps: numbers(trial.comparison.as_ref().and_then(|comparison| comparison.worst_ulps)),
        message: flaw.message.clone(),
        replay: format!("cargo isonorm replay --kernel {}{} '{case}'", entry.name, replay),
        evidence: flaw.evidence.to_owned(),
        further: 0,
    }
}

/// Goes to the smallest case that lacks the same property.
fn shrink(examiner: &mut Examiner, best: &mut (Trial, Flaw), mut tree: CaseTree, deadline: Instant) {
    let property = best.1.property;
    let mut more = tree.simplify();
    for _ in 0..PATIENCE.1 {
        if !more || Instant::now() > deadline {
            break;
        }
        let trial = examiner.examine(&tree.current(), true);
        more = match trial.flaws.iter().find(|other| other.property == property) {
            Some(same) => {
                *best = (trial.clone(), same.clone());
                tree.simplify()
            }
            None => tree.complicate(),
        };
    }
}

/// The wrong element as records show it.
pub(crate) fn wrong_element(trial: &Trial, wrong: &Wrong) -> record::Wrong {
    let problem = &trial.case.problem;
    let material = materialise(&trial.case);
    let inputs: Vec<&[f64]> = material.inputs.iter().map(Vec::as_slice).collect();
    let truth = Truth::of(problem, &inputs);
    let spec = &problem.outputs()[wrong.output];
    let show = |value: f64| {
        let mut bytes = Vec::new();
        encode(spec.dtype, value, &mut bytes);
        let bits: String = bytes.iter().rev().map(|byte| format!("{byte:02x}")).collect();
        record::Value { decimal: format!("{value:e}"), bits: format!("0x{bits}") }
    };
    let exact = truth.output(wrong.output)[wrong.element];
    let mut index = Vec::new();
    let mut rest = wrong.element;
    for &size in spec.shape.iter().rev() {
        index.push((rest % size.max(1)) as u64);
        rest /= size.max(1);
    }
    index.reverse();
    record::Wrong {
        output: spec.name.clone(),
        index,
        got: show(wrong.got),
        truth: record::Value {
            decimal: format!("{:e}", exact.hi),
            bits: show(Format::of(spec.dtype).round_dd(exact)).bits,
        },
        libtorch: trial.libtorch_outputs.as_ref().map(|outputs| show(outputs[wrong.output][wrong.element])),
        bound: Some(Number(wrong.bound)),
    }
}
