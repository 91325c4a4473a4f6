//! The regression gate: has anything got worse since a baseline was taken?
//!
//! Like every report it is a function of records: [`Snapshot`] is how kernels stand in a set of records, a baseline is a
//! snapshot that is kept, and [`compare`] tells three kinds of regression apart, each with its evidence.

mod calibration;
mod document;
mod junit;
mod markdown;
mod policy;
mod sarif;
mod snapshot;
mod speed;
mod statement;
mod text;
mod traffic;
mod write;

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use calibration::{Calibration, Row, Said, Trial};
pub use document::{Document, document};
pub use junit::junit;
pub use markdown::markdown;
pub use policy::{AccuracyPolicy, Action, Ask, On, Policy, PolicyError, Source, SpeedPolicy, TrafficPolicy, Waiver};
pub use sarif::sarif;
pub use snapshot::{Asked, BASELINE_VERSION, Cell, Error, Known, Snapshot, Speed, Standing};
pub use speed::{Answer, Judgement, POWER, SUSPECT, holm, judge};
pub use statement::{Artifact, statement};
pub use text::{changes, compared, text};
pub use write::{Context, write_all};

use crate::record::{Finding, Machine, Number};
use crate::summary::Verdict as Certified;

/// Why nothing can be compared.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// Records cannot be read.
    #[error(transparent)]
    Read(#[from] crate::Error),
    /// Records are damaged, or some are missing.
    #[error("{0}; a gate needs all records")]
    Records(String),
    /// A campaign went on for a time.
    #[error("the records are of a campaign with --time: how many cases it asked depends on the machine; use --cases")]
    Timed,
    /// Campaigns asked different cases.
    #[error("the records are of campaigns that asked different cases: give those of one --cases and --seed")]
    SeveralCampaigns,
    /// There is no baseline.
    #[error("cannot read the baseline {}: {source}; make one with --update", path.display())]
    NoBaseline {
        /// Where it should be.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// It is something else.
    #[error("the baseline {} cannot be used: {reason}; make a new one with --update", path.display())]
    Baseline {
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The baseline is of other cases.
    #[error(
        "the baseline asked {} cases with seed {}, this run {} with seed {}: errors of different cases cannot be compared; \
         ask the same, or make a new baseline with --update",
        baseline.cases, baseline.seed, run.cases, run.seed
    )]
    OtherCases {
        /// Of the baseline.
        baseline: Asked,
        /// Of the run.
        run: Asked,
    },
}

/// A kind of regression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A case that passed fails, or a finding is new.
    Correctness,
    /// Errors have grown.
    Accuracy,
    /// A kernel has become slower, measured against a yardstick.
    Speed,
    /// Launches move more memory, or need more instructions, counted by the PTX executor.
    Traffic,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 4] = [Kind::Correctness, Kind::Accuracy, Kind::Speed, Kind::Traffic];
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(match self {
            Kind::Correctness => "correctness",
            Kind::Accuracy => "accuracy",
            Kind::Speed => "speed",
            Kind::Traffic => "traffic",
        })
    }
}

/// Something that has got worse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Regression {
    /// Which kind.
    pub kind: Kind,
    /// What: a kernel and a property, an element type and sizes, a workload and a yardstick.
    pub name: String,
    /// What shows it, in a sentence.
    pub evidence: String,
    /// The case that shows it, in its one-line form.
    pub case: Option<String>,
    /// The finding behind it.
    pub finding: Option<Box<Finding>>,
    /// What comes of it.
    pub consequence: Consequence,
}

/// What comes of a regression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Consequence {
    /// The gate fails.
    Fails,
    /// It is told only, as the policy says.
    Reported,
    /// It is let pass, for this reason.
    Waived(String),
}

/// Something that could not be decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Undecided {
    /// Which kind of question.
    pub kind: Kind,
    /// What it is about.
    pub name: String,
    /// Why, in words.
    pub reason: String,
}

/// The answer of a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Nothing has got worse.
    Pass,
    /// Something has.
    Fail,
    /// Nothing is known to have got worse, and not everything could be decided.
    Undecided,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(match self {
            Verdict::Pass => "pass",
            Verdict::Fail => "fail",
            Verdict::Undecided => "undecided",
        })
    }
}

/// What a gate found.
#[derive(Clone, Debug)]
pub struct Gate {
    /// The answer.
    pub verdict: Verdict,
    /// What has got worse, by kind and name.
    pub regressions: Vec<Regression>,
    /// What could not be decided.
    pub undecided: Vec<Undecided>,
    /// Every workload that was measured before and after.
    pub speed: Vec<Judgement>,
    /// What is worth knowing besides: what is better, what is new, what the policy says in vain.
    pub notes: Vec<String>,
    /// What is wrong with the policy: the gate is then an error, whatever else it found.
    pub errors: Vec<String>,
    /// The probability that a run raises any alarm about the speed of kernels that have not changed.
    pub false_alarms: f64,
    /// How things stood.
    pub before: Snapshot,
    /// How they stand.
    pub after: Snapshot,
}

impl Gate {
    /// The kinds of question that there are something to say about: launches are counted of kernels for a GPU only.
    pub fn kinds(&self) -> Vec<Kind> {
        let counted = |snapshot: &Snapshot| snapshot.kernels.values().any(|kernel| !kernel.traffic.is_empty());
        let any = counted(&self.before) || counted(&self.after);
        Kind::ALL.into_iter().filter(|kind| *kind != Kind::Traffic || any).collect()
    }

    /// The workloads that look slower.
    pub fn suspects(&self) -> Vec<&Judgement> {
        self.speed.iter().filter(|judgement| matches!(judgement.answer, Answer::Slower | Answer::Suspect)).collect()
    }

    /// Whether the question was not asked in full: a kernel was not judged, or the policy is wrong.
    pub fn unasked(&self) -> bool {
        !self.errors.is_empty() || self.undecided.iter().any(|undecided| undecided.kind != Kind::Speed)
    }
}

/// Compares how things stand with how they stood. `machine` is the one that the run was on; `today` a date in RFC 3339.
///
/// # Errors
/// [`GateError::OtherCases`] if the two asked different cases.
pub fn compare(
    before: &Snapshot,
    after: &Snapshot,
    policy: &Policy,
    machine: &Machine,
    today: &str,
) -> Result<Gate, GateError> {
    if let (Some(baseline), Some(run)) = (&before.asked, &after.asked)
        && baseline != run
    {
        return Err(GateError::OtherCases { baseline: baseline.clone(), run: run.clone() });
    }
    let mut gate = Gate {
        verdict: Verdict::Pass,
        regressions: Vec::new(),
        undecided: Vec::new(),
        speed: Vec::new(),
        notes: Vec::new(),
        errors: Vec::new(),
        false_alarms: policy.speed.false_alarms,
        before: before.clone(),
        after: after.clone(),
    };
    if policy.on.correctness != Action::Off {
        correctness(&mut gate);
    }
    if policy.on.accuracy != Action::Off {
        accuracy(&mut gate, &policy.accuracy);
    }
    if policy.on.speed != Action::Off {
        speed_of(&mut gate, &policy.speed, machine);
    }
    if policy.on.traffic != Action::Off {
        traffic::compare(&mut gate, &policy.traffic);
    }
    gate.regressions.sort_by(|one, other| (one.kind, &one.name).cmp(&(other.kind, &other.name)));
    decide(&mut gate, policy, today);
    Ok(gate)
}

fn correctness(gate: &mut Gate) {
    let Gate { before, after, regressions, undecided, notes, .. } = gate;
    let nothing = Standing {
        verdict: Certified::Certified,
        reasons: vec![],
        findings: Default::default(),
        errors: Default::default(),
        traffic: Default::default(),
    };
    for name in before.kernels.keys().filter(|name| !after.kernels.contains_key(*name)) {
        let reason = "the baseline has it, and this run did not judge it".to_owned();
        undecided.push(Undecided { kind: Kind::Correctness, name: name.clone(), reason });
    }
    for (name, standing) in &after.kernels {
        let known = before.kernels.get(name);
        if known.is_none() {
            notes.push(format!("{name} is new: {}", standing.verdict));
        }
        let known = known.unwrap_or(&nothing);
        for (property, now) in &standing.findings {
            let grown = match known.findings.get(property) {
                None => "new",
                Some(then) if now.cases > then.cases => "in more cases",
                Some(_) => continue,
            };
            let finding = now.finding.clone();
            let evidence = match &finding {
                Some(finding) => {
                    format!("{grown}: {} ({} of its cases); {}", finding.message, now.cases, finding.replay)
                }
                None => format!("{grown}: {} of its cases", now.cases),
            };
            regressions.push(Regression {
                kind: Kind::Correctness,
                name: format!("{name} {property}"),
                evidence,
                case: finding.as_ref().map(|finding| finding.case.clone()),
                finding,
                consequence: Consequence::Fails,
            });
        }
        match (known.verdict, standing.verdict) {
            (Certified::Failed, Certified::Certified) => notes.push(format!("{name} failed, and is certified now")),
            (Certified::Failed, Certified::Failed) => notes.push(format!("{name} fails, as in the baseline")),
            (_, Certified::Failed) if standing.findings.is_empty() => regressions.push(Regression {
                kind: Kind::Correctness,
                name: name.clone(),
                evidence: standing.reasons.join("; "),
                case: None,
                finding: None,
                consequence: Consequence::Fails,
            }),
            (_, Certified::Incomplete) => undecided.push(Undecided {
                kind: Kind::Correctness,
                name: name.clone(),
                reason: format!("not all was judged: {}", standing.reasons.join("; ")),
            }),
            _ => {}
        }
    }
}

fn accuracy(gate: &mut Gate, policy: &AccuracyPolicy) {
    let Gate { before, after, regressions, undecided, .. } = gate;
    for (kernel, then) in &before.kernels {
        let Some(now) = after.kernels.get(kernel) else { continue };
        for (dtype, then) in &then.errors {
            for (sizes, then) in then {
                let name = format!("{kernel} {dtype} {sizes}");
                let Some(now) = now.errors.get(dtype).and_then(|errors| errors.get(sizes)) else {
                    let reason = "the baseline has errors there, and this run has none".to_owned();
                    undecided.push(Undecided { kind: Kind::Accuracy, name, reason });
                    continue;
                };
                // NaN, which is above everything, is a finding and not a loss of accuracy.
                let grew = |then: Number, now: Number| now.0 > policy.growth * then.0.max(policy.floor);
                let grown: Vec<String> =
                    [("the worst", then.worst, now.worst), ("the 99.9th percentile", then.p999, now.p999)]
                        .into_iter()
                        .filter(|(_, then, now)| grew(*then, *now))
                        .map(|(what, then, now)| format!("{what} grew from {then} to {now}"))
                        .collect();
                if grown.is_empty() {
                    continue;
                }
                let evidence = format!("error as a multiple of the bound: {}; worst in {}", grown.join(", "), now.case);
                regressions.push(Regression {
                    kind: Kind::Accuracy,
                    name,
                    evidence,
                    case: Some(now.case.clone()),
                    finding: None,
                    consequence: Consequence::Fails,
                });
            }
        }
    }
}

fn speed_of(gate: &mut Gate, policy: &SpeedPolicy, machine: &Machine) {
    let mut undecide = |name: &str, reason: String| {
        gate.undecided.push(Undecided { kind: Kind::Speed, name: name.to_owned(), reason });
    };
    let mine = |cell: &&String| cell.ends_with(&format!("vs {}", policy.versus));
    let of = |snapshot: &Snapshot| {
        let cells = snapshot.on(machine).into_iter().flat_map(|speed| &speed.cells);
        cells.filter(|(name, _)| mine(name)).map(|(name, cell)| (name.clone(), cell.clone())).collect()
    };
    let (then, now): (std::collections::BTreeMap<_, _>, std::collections::BTreeMap<_, _>) =
        (of(&gate.before), of(&gate.after));
    if then.is_empty() && !now.is_empty() {
        let reason = "the baseline has nothing measured on such a machine: update it here".to_owned();
        undecide(machine.processor(), reason);
        return;
    }
    for name in then.keys().filter(|name| !now.contains_key(*name)) {
        undecide(name, "the baseline has it, and this run did not measure it".to_owned());
    }
    gate.speed = speed::judge(&then, &now, policy);
    for judgement in &gate.speed {
        let percent = |part: f64| format!("{:.1} %", 100.0 * part);
        let (low, high) = judgement.interval;
        let found = format!(
            "{} slower ({} to {}), p = {:.1e}",
            percent(judgement.slowdown),
            percent(low),
            percent(high),
            judgement.p
        );
        match judgement.answer {
            Answer::AsFast => {}
            Answer::Slower => {
                let (before, after) = (Number(judgement.before), Number(judgement.after));
                gate.regressions.push(Regression {
                    kind: Kind::Speed,
                    name: judgement.name.clone(),
                    evidence: format!("{found}: time of the yardstick over its time fell from {before} to {after}"),
                    case: None,
                    finding: None,
                    consequence: Consequence::Fails,
                });
            }
            Answer::Suspect => undecide(&judgement.name, format!("{found}: that may be chance")),
            Answer::TooNoisy => {
                let finds = if judgement.finds.is_nan() {
                    "nothing can be told from so few".to_owned()
                } else {
                    format!("only slowdowns above {} would be found", percent(judgement.finds))
                };
                undecide(&judgement.name, format!("too noisy: {finds}"));
            }
        }
    }
}

/// Applies waivers and comes to a verdict.
fn decide(gate: &mut Gate, policy: &Policy, today: &str) {
    let mut used = vec![false; policy.waiver.len()];
    for regression in &mut gate.regressions {
        let matching =
            policy.waiver.iter().enumerate().filter(|(_, waiver)| waiver.matches(regression.kind, &regression.name));
        for (place, waiver) in matching {
            used[place] = true;
            if !waiver.expired(today) {
                regression.consequence = Consequence::Waived(format!("{} (until {})", waiver.reason, waiver.expires));
            }
        }
        if regression.consequence == Consequence::Fails && policy.on.of(regression.kind) == Action::Report {
            regression.consequence = Consequence::Reported;
        }
    }
    for (waiver, used) in policy.waiver.iter().zip(used) {
        if waiver.expired(today) {
            gate.errors.push(format!(
                "the waiver for {} expired on {}: remove it, or renew it with a reason",
                waiver.name, waiver.expires
            ));
        } else if !used {
            gate.notes.push(format!("the waiver for {} matches nothing: remove it", waiver.name));
        }
    }
    gate.verdict = if gate.regressions.iter().any(|regression| regression.consequence == Consequence::Fails) {
        Verdict::Fail
    } else if !gate.undecided.is_empty() || !gate.errors.is_empty() {
        Verdict::Undecided
    } else {
        Verdict::Pass
    };
}
