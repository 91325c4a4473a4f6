//! From failing cases to findings: the first of each kind is shrunk, the others are counted.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use isonorm_oracles::interpret::text::text;
use isonorm_oracles::storage::{Format, encode};
use isonorm_reports::record::{self, Number};
use proptest::strategy::ValueTree;

use super::Entry;
use super::stages::Stage;
use super::trial::{Examiner, Flaw, Trial};
use crate::case::{Case, materialise};
use crate::generate::CaseTree;
use crate::judge::{Truth, Wrong};

/// How long one finding may be shrunk, and in how many steps.
const PATIENCE: (Duration, usize) = (Duration::from_secs(10), 600);

/// By kernel and property: the first finding, none while it is being shrunk, and how many further cases there are.
type Found = BTreeMap<(String, &'static str), (Option<record::Finding>, u64)>;

/// The findings of a campaign.
pub(crate) struct Findings<'a> {
    replay: &'a str,
    found: Mutex<Found>,
}

impl<'a> Findings<'a> {
    pub(crate) fn new(replay: &'a str) -> Self {
        Findings { replay, found: Mutex::default() }
    }

    /// Takes in a flaw; shrinks it if it is the first of its kind.
    pub(crate) fn add(&self, entry: &Entry, examiner: &mut Examiner, trial: &Trial, flaw: &Flaw, tree: CaseTree) {
        let key = (entry.name.clone(), flaw.property);
        {
            let mut found = self.lock();
            if let Some((_, further)) = found.get_mut(&key) {
                *further += 1;
                return;
            }
            found.insert(key.clone(), (None, 0));
        }
        let (trial_small, flaw_small) = shrink(examiner, trial, flaw, tree);
        let finding = self.finding(entry, &trial.case, &trial_small, &flaw_small);
        if let Some((slot, _)) = self.lock().get_mut(&key) {
            *slot = Some(finding);
        }
    }

    pub(crate) fn into_records(self) -> Vec<record::Finding> {
        let found = self.found.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        let with_count =
            |(finding, further): (Option<record::Finding>, u64)| Some(record::Finding { further, ..finding? });
        found.into_values().filter_map(with_count).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn finding(&self, entry: &Entry, original: &Case, trial: &Trial, flaw: &Flaw) -> record::Finding {
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
            replay: format!("cargo isonorm replay --kernel {}{} '{case}'", entry.name, self.replay),
            evidence: flaw.evidence.to_owned(),
            further: 0,
        }
    }
}

/// The smallest case that lacks the same property.
fn shrink(examiner: &mut Examiner, trial: &Trial, flaw: &Flaw, mut tree: CaseTree) -> (Trial, Flaw) {
    let start = Instant::now();
    let mut best = (trial.clone(), flaw.clone());
    let mut more = tree.simplify();
    for _ in 0..PATIENCE.1 {
        if !more || start.elapsed() > PATIENCE.0 {
            break;
        }
        let trial = examiner.examine(&tree.current(), true);
        more = match trial.flaws.iter().find(|other| other.property == flaw.property) {
            Some(same) => {
                best = (trial.clone(), same.clone());
                tree.simplify()
            }
            None => tree.complicate(),
        };
    }
    let spent = start.elapsed();
    examiner.stages.add(Stage::Shrink, spent);
    best
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
