//! The document that `gate --format json` prints.

use schemars::JsonSchema;
use serde::Serialize;

use super::{Answer, Consequence, Gate, Kind, Undecided, Verdict};
use crate::record::Number;

/// The answer of a gate, for other programs.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Document {
    /// The answer.
    pub verdict: Verdict,
    /// What has got worse.
    pub regressions: Vec<Regression>,
    /// What could not be decided.
    pub undecided: Vec<Undecided>,
    /// Every workload that was measured before and after.
    pub speed: Vec<Speed>,
    /// The probability that a run raises any alarm about the speed of kernels that have not changed.
    pub false_alarms: f64,
    /// What is worth knowing besides.
    pub notes: Vec<String>,
    /// What is wrong with the policy.
    pub errors: Vec<String>,
}

/// Something that has got worse.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Regression {
    /// Which kind.
    pub kind: Kind,
    /// What.
    pub name: String,
    /// What shows it.
    pub evidence: String,
    /// The case that shows it, in its one-line form.
    pub case: Option<String>,
    /// Whether the gate fails for it: it does not if the policy only wants it reported, or waives it.
    pub fails: bool,
    /// Why it is waived.
    pub waiver: Option<String>,
}

/// A workload that was measured before and after.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Speed {
    /// Workload and yardstick.
    pub name: String,
    /// Time of the yardstick over time of the kernel, before.
    pub before: Number,
    /// The same, after.
    pub after: Number,
    /// By which part of its time the kernel became slower.
    pub slowdown: Number,
    /// Lower limit of its 95 % interval.
    pub slowdown_low: Number,
    /// Upper limit of its 95 % interval.
    pub slowdown_high: Number,
    /// Probability of so large a slowdown by chance.
    pub p: Number,
    /// The smallest slowdown that is found with a probability of 95 %.
    pub finds: Number,
    /// `as_fast`, `slower`, `suspect` or `too_noisy`.
    pub answer: Answer,
}

/// The document about a gate.
pub fn document(gate: &Gate) -> Document {
    let regressions = gate.regressions.iter().map(|regression| Regression {
        kind: regression.kind,
        name: regression.name.clone(),
        evidence: regression.evidence.clone(),
        case: regression.case.clone(),
        fails: regression.consequence == Consequence::Fails,
        waiver: match &regression.consequence {
            Consequence::Waived(reason) => Some(reason.clone()),
            Consequence::Fails | Consequence::Reported => None,
        },
    });
    let speed = gate.speed.iter().map(|judgement| Speed {
        name: judgement.name.clone(),
        before: Number(judgement.before),
        after: Number(judgement.after),
        slowdown: Number(judgement.slowdown),
        slowdown_low: Number(judgement.interval.0),
        slowdown_high: Number(judgement.interval.1),
        p: Number(judgement.p),
        finds: Number(judgement.finds),
        answer: judgement.answer,
    });
    Document {
        verdict: gate.verdict,
        regressions: regressions.collect(),
        undecided: gate.undecided.clone(),
        speed: speed.collect(),
        false_alarms: gate.false_alarms,
        notes: gate.notes.clone(),
        errors: gate.errors.clone(),
    }
}
