//! What repeated gates of known truth say: how often the gate is wrong, and what it finds.

use std::collections::BTreeMap;
use std::fmt::Write;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use statrs::distribution::{Beta, ContinuousCDF};

use super::policy::Policy;
use super::speed::{Answer, Judgement};
use crate::record::Number;

/// A gate of which it is known how much slower the kernels were made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// By which part of their time; 0 for unchanged kernels.
    pub slowdown: f64,
    /// By workload, the ratio that was measured first, and the standard error of its logarithm.
    pub ratios: BTreeMap<String, (f64, f64)>,
    /// What the gate said of each workload.
    pub said: Vec<Said>,
}

/// What a gate said of a workload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Said {
    /// By which part of its time it became slower.
    pub slowdown: Number,
    /// The smallest slowdown that is found with a probability of 95 %.
    pub finds: Number,
    /// The answer.
    pub answer: Answer,
}

impl From<&Judgement> for Said {
    fn from(judgement: &Judgement) -> Said {
        let Judgement { slowdown, finds, answer, .. } = *judgement;
        Said { slowdown: Number(slowdown), finds: Number(finds), answer }
    }
}

/// What repeated gates say.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Calibration {
    /// The probability of a false alarm that the policy asks for.
    pub promised: f64,
    /// A row for unchanged kernels, and one for each planted slowdown.
    pub rows: Vec<Row>,
    /// Standard deviation of log ratios between runs beyond what the spread within runs explains: median of the workloads;
    /// null from fewer than three runs.
    pub drift: Option<Number>,
    /// What the policy says it is.
    pub policy_drift: f64,
}

/// What gates said of kernels that were made slower by some part of their time.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Row {
    /// By which part.
    pub slowdown: f64,
    /// Gates.
    pub gates: u64,
    /// Of these, that failed.
    pub failed: u64,
    /// 95 % limits of the probability that a gate fails (Clopper and Pearson, Biometrika 26, 1934).
    pub limits: (f64, f64),
    /// Workloads of all gates.
    pub workloads: u64,
    /// Of these, found to be slower.
    pub slower: u64,
    /// Of the others, undecided.
    pub undecided: u64,
    /// The slowdown that is measured: median of all workloads.
    pub measured: Number,
    /// The slowdown that is said to be found with a probability of 95 %: median of all workloads.
    pub finds: Number,
    /// Of the workloads of which the planted slowdown is said to be found, the part that is.
    pub kept: Option<Number>,
}

impl Calibration {
    /// What gates say under a policy.
    pub fn of(trials: &[Trial], policy: &Policy) -> Calibration {
        let mut groups = BTreeMap::<u64, Vec<&Trial>>::new();
        for trial in trials {
            groups.entry((trial.slowdown * 1e6).round() as u64).or_default().push(trial);
        }
        let unchanged: Vec<&Trial> = groups.get(&0).cloned().unwrap_or_default();
        Calibration {
            promised: policy.speed.false_alarms,
            rows: groups.values().map(|trials| row(trials)).collect(),
            drift: drift(&unchanged).map(Number),
            policy_drift: policy.speed.drift,
        }
    }

    /// As a table for people.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let percent = |part: f64| format!("{:.1} %", 100.0 * part);
        let _ = writeln!(
            out,
            "{:>8}  {:>6}  {:>6}  {:>17}  {:>9}  {:>6}  {:>9}  {:>8}  {:>8}  {:>6}",
            "slowdown",
            "gates",
            "failed",
            "95 % limits",
            "workloads",
            "slower",
            "undecided",
            "measured",
            "finds",
            "kept"
        );
        for row in &self.rows {
            let limits = format!("{} to {}", percent(row.limits.0), percent(row.limits.1));
            let kept = row.kept.map_or_else(|| "-".to_owned(), |kept| percent(kept.0));
            let _ = writeln!(
                out,
                "{:>8}  {:>6}  {:>6}  {limits:>17}  {:>9}  {:>6}  {:>9}  {:>8}  {:>8}  {kept:>6}",
                percent(row.slowdown),
                row.gates,
                row.failed,
                row.workloads,
                row.slower,
                row.undecided,
                percent(row.measured.0),
                percent(row.finds.0)
            );
        }
        let _ = writeln!(
            out,
            "(finds: the slowdown that is said to be found with a probability of 95 %; kept: of the workloads"
        );
        let _ = writeln!(out, "of which that is said of this slowdown, the part that was found)");
        if let Some(row) = self.rows.first().filter(|row| row.slowdown == 0.0) {
            let _ = writeln!(
                out,
                "false alarms: {} of {} gates of unchanged kernels; promised: {}",
                row.failed,
                row.gates,
                percent(self.promised)
            );
        }
        match self.drift {
            Some(drift) => {
                let _ =
                    writeln!(out, "drift between runs: {drift}; the policy says {} (speed.drift)", self.policy_drift);
            }
            None => drop(writeln!(out, "drift between runs: not known from fewer than three")),
        }
        out
    }
}

fn row(trials: &[&Trial]) -> Row {
    let all: Vec<&Said> = trials.iter().flat_map(|trial| &trial.said).collect();
    let slowdown = trials.first().map_or(0.0, |trial| trial.slowdown);
    let slower = |judgement: &&&Said| judgement.answer == Answer::Slower;
    let fails = |trial: &&&Trial| trial.said.iter().any(|judgement| judgement.answer == Answer::Slower);
    let (gates, failed) = (trials.len() as u64, trials.iter().filter(fails).count() as u64);
    let count = |answers: &[Answer]| all.iter().filter(|judgement| answers.contains(&judgement.answer)).count() as u64;
    let said: Vec<&&Said> = all.iter().filter(|judgement| slowdown > 0.0 && judgement.finds.0 <= slowdown).collect();
    let found = said.iter().filter(|judgement| slower(judgement)).count();
    Row {
        slowdown,
        gates,
        failed,
        limits: limits(failed, gates),
        workloads: all.len() as u64,
        slower: count(&[Answer::Slower]),
        undecided: count(&[Answer::Suspect, Answer::TooNoisy]),
        measured: Number(median(all.iter().map(|judgement| judgement.slowdown.0).collect())),
        finds: Number(median(all.iter().map(|judgement| judgement.finds.0).collect())),
        kept: (!said.is_empty()).then(|| Number(found as f64 / said.len() as f64)),
    }
}

/// 95 % limits of a probability of which `count` of `all` trials came true.
fn limits(count: u64, all: u64) -> (f64, f64) {
    let quantile = |a: u64, b: u64, q: f64| Beta::new(a as f64, b as f64).ok().map(|beta| beta.inverse_cdf(q));
    let low = if count == 0 { None } else { quantile(count, all - count + 1, 0.025) };
    let high = if count == all { None } else { quantile(count + 1, all - count, 0.975) };
    (low.unwrap_or(0.0), high.unwrap_or(1.0))
}

/// What varies between runs beyond the errors within them: the median of the workloads.
fn drift(trials: &[&Trial]) -> Option<f64> {
    let mut cells = BTreeMap::<&str, Vec<(f64, f64)>>::new();
    for (name, (ratio, error)) in trials.iter().flat_map(|trial| &trial.ratios) {
        cells.entry(name).or_default().push((ratio.ln(), *error));
    }
    let known = cells.into_values().filter(|runs| runs.len() >= 3);
    let excess = known.map(|runs| {
        let count = runs.len() as f64;
        let mean = runs.iter().map(|(log, _)| log).sum::<f64>() / count;
        let between = runs.iter().map(|(log, _)| (log - mean).powi(2)).sum::<f64>() / (count - 1.0);
        let within = runs.iter().map(|(_, error)| error.powi(2)).sum::<f64>() / count;
        between - within
    });
    let excess: Vec<f64> = excess.collect();
    (!excess.is_empty()).then(|| median(excess).max(0.0).sqrt())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
