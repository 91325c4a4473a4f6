use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Elements, Histogram, Number};

/// One case that is worth a line of its own. Most cases are only counted, in a tally.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// The case's one-line form.
    pub case: String,
    /// Name of the kernel.
    pub kernel: String,
    /// Operator.
    pub operator: String,
    /// `forward` or `backward`.
    pub direction: String,
    /// dtype, as tallies name it.
    pub dtype: String,
    /// Value family of the inputs.
    pub family: String,
    /// Memory layout.
    pub layout: String,
    /// Longest reduction, in elements.
    pub length: u64,
    /// What came out.
    pub verdict: Verdict,
    /// The property that failed, if one did.
    pub property: Option<String>,
    /// Largest error as a multiple of the bound; none if nothing could be compared.
    pub ratio_to_bound: Option<Number>,
    /// libtorch's largest error as a multiple of the bound; none if libtorch was not asked.
    pub libtorch_ratio_to_bound: Option<Number>,
    /// Largest error in units in the last place of the output's dtype.
    pub ulps: Option<Number>,
    /// Elements by error in units in the last place.
    #[serde(default)]
    pub ulps_histogram: Histogram,
    /// How many elements were judged, and against what.
    pub elements: Elements,
    /// Whether every intermediate is representable, so that the answer has to match to the bit.
    pub in_exact_range: bool,
    /// The first wrong element.
    pub wrong: Option<Wrong>,
}

/// What came out of a case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every element is within the bound and every property holds.
    Pass,
    /// Some element is outside the bound, or some property does not hold.
    Fail,
    /// The kernel does not do this, for the reason given.
    Declined(String),
    /// The kernel's process died, of the signal or exit status given.
    Crashed(String),
    /// The kernel did not return within the time given.
    Hung(String),
}

/// One output element that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
#[serde(deny_unknown_fields)]
pub struct Wrong {
    /// Name of the output.
    pub output: String,
    /// Index of the element in that output, one number per axis.
    pub index: Vec<u64>,
    /// What the kernel wrote.
    pub got: Value,
    /// The true value.
    pub truth: Value,
    /// What libtorch computes, if it was asked.
    pub libtorch: Option<Value>,
    /// How far from the truth a correct kernel can be.
    pub bound: Option<Number>,
}

/// A value of an output element, in the two ways people want to see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
#[serde(deny_unknown_fields)]
pub struct Value {
    /// In decimal.
    pub decimal: String,
    /// The bits of the nearest value of the output's dtype, in hexadecimal.
    pub bits: String,
}

/// Whether one case, in its one-line form, is plainer than another: shorter, or first in alphabetical order. Of several cases
/// with the same flaw the plainest becomes the finding, whoever met it first.
pub fn plainer(case: &str, other: &str) -> bool {
    (case.len(), case) < (other.len(), other)
}

/// A property that a kernel does not have, with the smallest case that shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// Name of the kernel.
    pub kernel: String,
    /// Name of the property.
    pub property: String,
    /// dtype, as tallies name it.
    pub dtype: String,
    /// Value family of the inputs.
    pub family: String,
    /// The smallest case that shows it, in its one-line form.
    pub case: String,
    /// The case in which it was found, before shrinking.
    pub original: String,
    /// The formula, as people read it.
    pub formula: String,
    /// The operator's attributes in that case.
    pub attributes: BTreeMap<String, String>,
    /// The first wrong element, where the property is about elements.
    pub wrong: Option<Wrong>,
    /// Largest error as a multiple of the bound.
    pub ratio_to_bound: Option<Number>,
    /// libtorch's largest error on that case, as a multiple of the bound.
    pub libtorch_ratio_to_bound: Option<Number>,
    /// Largest error in units in the last place of the output's dtype.
    pub ulps: Option<Number>,
    /// What is wrong, in a sentence.
    pub message: String,
    /// Command line that shows it again.
    pub replay: String,
    /// What showed it: `exact`, `libtorch`, a relation, a second run, a guard page, ...
    pub evidence: String,
    /// How many further cases failed the same property on the same kernel.
    pub further: u64,
}
