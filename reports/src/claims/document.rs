//! The document that `claims --format json` prints.

use schemars::JsonSchema;
use serde::Serialize;

use crate::record::{Claim, ClaimVerdict, Measurement, Number, Stated};

/// What was measured of a claim, for other programs. Figures are fractions (0.07 for 7 %) of what `metric` says. Numbers that
/// JSON has none for are the strings of [`Number`].
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Document {
    /// Its name.
    pub name: String,
    /// By whom.
    pub paper: String,
    /// What is said.
    pub sentence: String,
    /// What the figures are.
    pub metric: String,
    /// The paper's figure.
    pub stated: Stated,
    /// The figure here, over all pairs and sizes that decide; null if nothing that decides was measured.
    pub measured: Option<Number>,
    /// The lower end of its 95 % interval.
    pub low: Option<Number>,
    /// The upper end.
    pub high: Option<Number>,
    /// The answer.
    pub verdict: ClaimVerdict,
    /// Why.
    pub why: String,
    /// On what the paper measured.
    pub hardware: String,
    /// How the workloads differ from the paper's.
    pub scaling: String,
    /// Every pair in every size.
    pub measurements: Vec<Measurement>,
    /// Programs that gave something else than they must.
    pub wrong: Vec<String>,
    /// How long it took.
    pub seconds: Number,
}

/// The document: one entry for each claim.
pub fn document(claims: &[Claim]) -> Vec<Document> {
    let entry = |claim: &Claim| {
        let claim = claim.clone();
        Document {
            name: claim.name,
            paper: claim.paper,
            sentence: claim.sentence,
            metric: claim.metric,
            stated: claim.stated,
            measured: claim.measured.map(|found| found.value),
            low: claim.measured.map(|found| found.low),
            high: claim.measured.map(|found| found.high),
            verdict: claim.verdict,
            why: claim.why,
            hardware: claim.hardware,
            scaling: claim.scaling,
            measurements: claim.measurements,
            wrong: claim.wrong,
            seconds: claim.seconds,
        }
    };
    claims.iter().map(entry).collect()
}
