use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Interval, Number};

/// What a paper says that is saved, and what was measured of it here. Figures are fractions: 0.07 for 7 %.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// Its name.
    pub name: String,
    /// What is said.
    pub sentence: String,
    /// By whom.
    pub paper: String,
    /// On what the paper measured.
    pub hardware: String,
    /// What the figures are: `time saved`, `throughput gained`, `bytes saved`, `time added`.
    pub metric: String,
    /// The paper's figure.
    pub stated: Stated,
    /// How the workloads differ from the paper's.
    pub scaling: String,
    /// The answer.
    pub verdict: ClaimVerdict,
    /// Why.
    pub why: String,
    /// The figure here: over all pairs that decide, with its 95 % interval; none if nothing that decides was measured.
    pub measured: Option<Interval>,
    /// Pairs, in all sizes.
    #[cfg_attr(test, proptest(strategy = "super::identity::few::<Measurement>()"))]
    pub measurements: Vec<Measurement>,
    /// Programs that gave something else than they must: these were not timed.
    #[cfg_attr(test, proptest(strategy = "super::identity::few::<String>()"))]
    pub wrong: Vec<String>,
    /// How long it took.
    pub seconds: Number,
}

/// The range of a paper.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
#[serde(deny_unknown_fields)]
pub struct Stated {
    /// As the paper has it.
    pub text: String,
    /// The least.
    pub low: Number,
    /// The most.
    pub high: Number,
}

/// A program compared with another in one size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
#[serde(deny_unknown_fields)]
pub struct Measurement {
    /// What is compared.
    pub title: String,
    /// Whether the verdict on the claim is about it.
    pub decides: bool,
    /// `kernel` for one operator, `block` for layers of a network.
    pub level: String,
    /// `inference`, `forward for training` or `training`.
    pub pass: String,
    /// `seconds` or `bytes of memory at the peak`.
    pub quantity: String,
    /// Sequences or images.
    pub batch: u64,
    /// Rows of each.
    pub tokens: u64,
    /// Entries of a row.
    pub width: u64,
    /// Threads that every program had.
    pub threads: u32,
    /// Which level of the memory holds what is read and written; none if that is not known.
    pub regime: Option<String>,
    /// The program that is said to be better.
    pub contender: String,
    /// The program that it is compared with.
    pub baseline: String,
    /// The figure, with its 95 % interval.
    pub measured: Interval,
    /// The most that can be gained: the figure of the program without what is made better; where nothing is said to be
    /// added, the cost that is said to go away.
    pub limit: Option<Interval>,
    /// The largest figure between the baseline and itself.
    pub resolution: Number,
    /// The answer for this size.
    pub verdict: ClaimVerdict,
    /// Why.
    pub why: String,
    /// Rounds in which all programs were measured.
    pub rounds: u32,
    /// All programs that were measured together.
    #[cfg_attr(test, proptest(strategy = "super::identity::few::<ClaimProgram>()"))]
    pub programs: Vec<ClaimProgram>,
}

/// A program of a measurement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
#[serde(deny_unknown_fields)]
pub struct ClaimProgram {
    /// Its name.
    pub name: String,
    /// The largest distance of what it gives from the truth in f64, relative to the largest value.
    pub error: Number,
    /// What it takes: median and quartiles of the rounds.
    pub takes: Interval,
    /// What it takes over what the baseline takes: median of the rounds' ratios, with its 95 % interval.
    pub relative: Interval,
}

/// The answer about a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
#[serde(rename_all = "snake_case")]
pub enum ClaimVerdict {
    /// The interval meets the paper's range, and it is no noise.
    Reproduced,
    /// Something is gained, but not as much, or more.
    DirectionOnly,
    /// Nothing is gained where it could be seen.
    NotReproduced,
    /// It could not be seen here.
    NotTestable,
}

impl std::fmt::Display for ClaimVerdict {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(match self {
            ClaimVerdict::Reproduced => "reproduced",
            ClaimVerdict::DirectionOnly => "direction only",
            ClaimVerdict::NotReproduced => "not reproduced",
            ClaimVerdict::NotTestable => "not testable here",
        })
    }
}
