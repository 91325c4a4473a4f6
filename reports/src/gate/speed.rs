//! Whether a kernel has become slower: two samples of log ratios, many comparisons, one rate of false alarms.
//!
//! Of each workload several processes measure the ratio of the yardstick's time to the kernel's. The two samples are the
//! logarithms of these ratios, before and after. What a run adds to all of its processes alike (another day, another
//! temperature) is the drift, a variance on top. The hypothesis is that the kernel became slower by no more than the
//! tolerance; the test is Yuen's, which is Welch's t test on trimmed means (a process that was disturbed tells nothing about
//! the kernel), one-sided, and all workloads of a run together are corrected by Holm's procedure,
//! so that the run raises a false alarm no more often than the policy says.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, StudentsT};

use super::policy::SpeedPolicy;
use super::snapshot::Cell;

/// Below this probability of so large a difference by chance, a workload is measured again.
pub const SUSPECT: f64 = 0.05;
/// With which probability the slowdown that is told as "found" is found.
pub const POWER: f64 = 0.95;
/// Degrees of freedom of the drift: it is known from few runs.
const DRIFT_FREEDOM: f64 = 10.0;

/// What came of one workload.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// Workload and yardstick.
    pub name: String,
    /// The ratio before.
    pub before: f64,
    /// The ratio after.
    pub after: f64,
    /// Time of a call before, relative to the yardstick, over time after: above 0 the kernel became slower by this part.
    pub slowdown: f64,
    /// Limits of its 95 % interval.
    pub interval: (f64, f64),
    /// Probability of so large a slowdown, or a larger one, by chance.
    pub p: f64,
    /// The smallest slowdown that is found with a probability of 95 %.
    pub finds: f64,
    /// What is said.
    pub answer: Answer,
}

/// What is said of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Nothing speaks against it.
    AsFast,
    /// It is slower.
    Slower,
    /// It looks slower, and that may be chance.
    Suspect,
    /// The measurement would miss even a large slowdown.
    TooNoisy,
}

/// Compares all workloads that were measured before and after.
pub fn judge(before: &BTreeMap<String, Cell>, after: &BTreeMap<String, Cell>, policy: &SpeedPolicy) -> Vec<Judgement> {
    let both = before.iter().filter_map(|(name, before)| Some((name, before, after.get(name)?)));
    let compared: Vec<_> = both.collect();
    // The level of the most significant of so many: the power that is told is that of a single slow workload.
    let level = policy.false_alarms / compared.len().max(1) as f64;
    let mut judgements: Vec<Judgement> =
        compared.into_iter().map(|(name, before, after)| compare(name, before, after, policy, level)).collect();
    let p: Vec<f64> = judgements.iter().map(|judgement| judgement.p).collect();
    for (judgement, slower) in judgements.iter_mut().zip(holm(&p, policy.false_alarms)) {
        judgement.answer = if slower {
            Answer::Slower
        } else if judgement.finds.is_nan() || judgement.finds > policy.resolution {
            Answer::TooNoisy
        } else if judgement.p < SUSPECT {
            Answer::Suspect
        } else {
            Answer::AsFast
        };
    }
    judgements
}

/// Which hypotheses Holm's step-down procedure rejects, so that the probability of rejecting any true one is at most `level`.
pub fn holm(p: &[f64], level: f64) -> Vec<bool> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&one, &other| p[one].total_cmp(&p[other]));
    let mut rejected = vec![false; p.len()];
    for (rank, &place) in order.iter().enumerate() {
        if p[place] * ((p.len() - rank) as f64) > level || p[place].is_nan() {
            break;
        }
        rejected[place] = true;
    }
    rejected
}

fn compare(name: &str, before: &Cell, after: &Cell, policy: &SpeedPolicy, level: f64) -> Judgement {
    let difference = before.ratio.0.ln() - after.ratio.0.ln();
    let tolerance = (1.0 + policy.tolerance).ln();
    // Each part of the variance of the difference, with its degrees of freedom.
    let sample = |cell: &Cell| (cell.error.0.powi(2), cell.freedom());
    let parts = [sample(before), sample(after), (2.0 * policy.drift.powi(2), DRIFT_FREEDOM)];
    let variance: f64 = parts.iter().map(|(variance, _)| variance).sum();
    // Welch and Satterthwaite.
    let freedom = variance.powi(2) / parts.iter().map(|(part, freedom)| part.powi(2) / freedom).sum::<f64>();
    let error = variance.sqrt();
    let mut judgement = Judgement {
        name: name.to_owned(),
        before: before.ratio.0,
        after: after.ratio.0,
        slowdown: difference.exp_m1(),
        interval: (f64::NEG_INFINITY, f64::INFINITY),
        p: 1.0,
        finds: f64::NAN,
        answer: Answer::TooNoisy,
    };
    if variance == 0.0 {
        judgement.interval = (judgement.slowdown, judgement.slowdown);
        judgement.p = if difference > tolerance { 0.0 } else { 1.0 };
        judgement.finds = policy.tolerance;
        return judgement;
    }
    // Not a number: a ratio that is none, or one process only.
    let Ok(t) = StudentsT::new(0.0, 1.0, freedom) else { return judgement };
    if !difference.is_finite() || !error.is_finite() {
        return judgement;
    }
    let reach = t.inverse_cdf(0.975) * error;
    judgement.interval = ((difference - reach).exp_m1(), (difference + reach).exp_m1());
    judgement.p = t.sf((difference - tolerance) / error);
    let quantiles = t.inverse_cdf(1.0 - level) + t.inverse_cdf(POWER);
    judgement.finds = (tolerance + quantiles * error).exp_m1();
    judgement
}
