//! The document that `identities --format json` prints.

use schemars::JsonSchema;
use serde::Serialize;

use crate::record::{Arithmetic, Deviation, Identity, IdentityVerdict, Number, Training};

/// What the checks of an identity gave, for other programs. Numbers that JSON has none for are the strings of [`Number`].
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Document {
    /// Its name.
    pub name: String,
    /// The answer.
    pub verdict: IdentityVerdict,
    /// Why it does not hold; empty if it does.
    pub reasons: Vec<String>,
    /// Random cases.
    pub cases: u32,
    /// The largest difference of both sides in double-double arithmetic, relative to the largest value.
    pub exact_discrepancy: Number,
    /// The same of the gradients.
    pub gradient_discrepancy: Number,
    /// The largest difference of both sides in any arithmetic, as a multiple of the sum of their bounds.
    pub worst_ratio_to_bound: Number,
    /// What was found in each element type, and through what.
    pub arithmetic: Vec<Arithmetic>,
    /// What it must not survive.
    pub deviations: Vec<Deviation>,
    /// What came of training both sides.
    pub training: Vec<Training>,
    /// Operators that built-in kernels computed.
    pub kernels: Vec<String>,
    /// How long the checks took.
    pub seconds: Number,
}

/// The document: one entry for each identity.
pub fn document(identities: &[Identity]) -> Vec<Document> {
    let entry = |identity: &Identity| {
        let worst_ratio_to_bound = identity.worst_ratio_to_bound();
        let identity = identity.clone();
        Document {
            name: identity.name,
            verdict: identity.verdict,
            reasons: identity.reasons,
            cases: identity.cases,
            exact_discrepancy: identity.exact_discrepancy,
            gradient_discrepancy: identity.gradient_discrepancy,
            worst_ratio_to_bound,
            arithmetic: identity.arithmetic,
            deviations: identity.deviations,
            training: identity.training,
            kernels: identity.kernels,
            seconds: identity.seconds,
        }
    };
    identities.iter().map(entry).collect()
}
