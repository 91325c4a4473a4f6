use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Number;

#[cfg(test)]
pub(super) fn few<T: proptest::arbitrary::Arbitrary>() -> impl proptest::strategy::Strategy<Value = Vec<T>> {
    proptest::collection::vec(proptest::arbitrary::any::<T>(), 0..3)
}

/// What the checks of one identity gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Its name.
    pub name: String,
    /// One sentence.
    pub summary: String,
    /// Under which condition it holds.
    pub condition: String,
    /// Both sides and the map between their parameters, as formulas.
    pub formulas: Formulas,
    /// Where it comes from.
    #[cfg_attr(test, proptest(strategy = "few::<String>()"))]
    pub papers: Vec<String>,
    /// The answer.
    pub verdict: IdentityVerdict,
    /// Why it does not hold; empty if it does.
    #[cfg_attr(test, proptest(strategy = "few::<String>()"))]
    pub reasons: Vec<String>,
    /// Random cases: sizes, parameters and data.
    pub cases: u32,
    /// The largest difference of both sides in double-double arithmetic, relative to the largest value.
    pub exact_discrepancy: Number,
    /// The same of the gradients with respect to data and parameters.
    pub gradient_discrepancy: Number,
    /// What was found in each element type, and through what.
    #[cfg_attr(test, proptest(strategy = "few::<Arithmetic>()"))]
    pub arithmetic: Vec<Arithmetic>,
    /// The discrepancies and bounds that are drawn.
    #[cfg_attr(test, proptest(strategy = "few::<Point>()"))]
    pub points: Vec<Point>,
    /// What it must not survive.
    #[cfg_attr(test, proptest(strategy = "few::<Deviation>()"))]
    pub deviations: Vec<Deviation>,
    /// What came of training both sides.
    #[cfg_attr(test, proptest(strategy = "few::<Training>()"))]
    pub training: Vec<Training>,
    /// Operators that built-in kernels computed.
    #[cfg_attr(test, proptest(strategy = "few::<String>()"))]
    pub kernels: Vec<String>,
    /// How long the checks took.
    pub seconds: Number,
}

impl Identity {
    /// The largest difference of both sides, as a multiple of the sum of their bounds, in any arithmetic.
    pub fn worst_ratio_to_bound(&self) -> Number {
        Number(self.arithmetic.iter().map(|found| found.ratio_to_bound.0).fold(0.0, |a, b| if a >= b { a } else { b }))
    }
}

/// The formulas of an identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
#[serde(deny_unknown_fields)]
pub struct Formulas {
    /// One side.
    pub left: String,
    /// The map, in words.
    pub map_in_words: String,
    /// The parameters of the right side that are made of others; empty if there are none.
    pub map: String,
    /// The other side.
    pub right: String,
}

/// The answer about an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
#[serde(rename_all = "lowercase")]
pub enum IdentityVerdict {
    /// Some check failed.
    Fails,
    /// Every check did what it must.
    Holds,
}

impl std::fmt::Display for IdentityVerdict {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(match self {
            IdentityVerdict::Fails => "fails",
            IdentityVerdict::Holds => "holds",
        })
    }
}

/// An identity in the arithmetic of an element type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
#[serde(deny_unknown_fields)]
pub struct Arithmetic {
    /// The element type of everything that is stored.
    pub dtype: String,
    /// `libtorch`, or `kernels` where built-in kernels computed the operators that they have.
    pub through: String,
    /// `forward` or `gradient`.
    pub half: String,
    /// Cases.
    pub cases: u32,
    /// Those of them in which the bound is below the largest value, so that it can tell right from wrong.
    pub decided: u32,
    /// The largest difference of both sides, as a multiple of the sum of their bounds.
    pub ratio_to_bound: Number,
    /// The largest difference of both sides, relative to the largest value.
    pub discrepancy: Number,
}

/// One case as it is drawn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
#[serde(deny_unknown_fields)]
pub struct Point {
    /// Layers.
    pub depth: u32,
    /// The size of the axis that stands for the width.
    pub width: u32,
    /// Element type; `exact` for double-double.
    pub dtype: String,
    /// The largest difference of both sides, relative to the largest value.
    pub discrepancy: Number,
    /// The largest sum of both bounds, relative to the largest value; none for double-double.
    pub bound: Option<Number>,
}

/// Something that is wrong on purpose, and whether it was caught.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
#[serde(deny_unknown_fields)]
pub struct Deviation {
    /// What it is.
    pub name: String,
    /// `condition` if the condition does not hold, `planted` if a side or the map is wrong.
    pub kind: String,
    /// Cases.
    pub cases: u32,
    /// Those in which both sides differ in double-double arithmetic.
    pub caught: u32,
    /// Those in which they differ by more than the bounds, for each element type.
    #[cfg_attr(test, proptest(strategy = "few::<(String, u32)>()"))]
    pub caught_in: Vec<(String, u32)>,
    /// The smallest difference of both sides, relative to the largest value.
    pub least_discrepancy: Number,
}

/// Both sides after steps of an optimizer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
#[serde(deny_unknown_fields)]
pub struct Training {
    /// How the right side was trained, in words.
    pub scheme: String,
    /// The optimizer.
    pub optimizer: String,
    /// Steps.
    pub steps: u32,
    /// Whether both sides must still be the same.
    pub holds: bool,
    /// Why, in words.
    pub why: String,
    /// The largest difference of both sides afterwards in double-double arithmetic, relative to the largest value.
    pub discrepancy: Number,
    /// The same if all was computed in f64 by libtorch; nothing is judged by it.
    pub f64_discrepancy: Number,
    /// Whether it came out as it must.
    pub confirmed: bool,
}
