use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Number;

/// A property of networks: what a paper predicts, and what was measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
#[serde(deny_unknown_fields)]
pub struct Experiment {
    /// Its name.
    pub name: String,
    /// What is said.
    pub statement: String,
    /// By whom.
    pub paper: String,
    /// What it runs over.
    pub x: String,
    /// What was measured.
    pub y: String,
    /// One for each kind of network.
    #[cfg_attr(test, proptest(strategy = "super::identity::few::<Series>()"))]
    pub series: Vec<Series>,
    /// What measurement and prediction may be apart, as a factor.
    pub within: Number,
    /// Whether they are no further apart anywhere.
    pub agrees: bool,
}

/// A kind of network in an experiment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
#[serde(deny_unknown_fields)]
pub struct Series {
    /// Its name.
    pub name: String,
    /// What was measured, at which places.
    #[cfg_attr(test, proptest(strategy = "super::identity::few::<(Number, Number)>()"))]
    pub measured: Vec<(Number, Number)>,
    /// What is predicted, at the same places; empty if no number is.
    #[cfg_attr(test, proptest(strategy = "super::identity::few::<(Number, Number)>()"))]
    pub predicted: Vec<(Number, Number)>,
}
