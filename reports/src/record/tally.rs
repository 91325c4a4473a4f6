use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Histogram, Number};

/// What a kernel did on all cases of one dtype, value family and size class.
///
/// A campaign judges far too many cases to keep a line for each. Tallies with the same first four fields merge into
/// one, exactly and in any order, so that the tallies of all shards together are those of the whole campaign.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
#[serde(deny_unknown_fields)]
pub struct Tally {
    /// Name of the kernel.
    pub kernel: String,
    /// One of the kernel's dtypes.
    pub dtype: String,
    /// Value family of the inputs.
    pub family: String,
    /// Bit length of the longest reduction: 0 for none, and class k > 0 for lengths from 2^(k-1) to 2^k - 1.
    pub size_class: u8,
    /// What was counted.
    pub counts: Counts,
}

/// The size class of a reduction over `length` elements: the bit length of that number.
pub fn size_class(length: u64) -> u8 {
    (u64::BITS - length.leading_zeros()) as u8
}

/// The shortest and longest reduction in a size class.
pub fn size_class_lengths(class: u8) -> (u64, u64) {
    match class {
        0 => (0, 0),
        1..64 => (1 << (class - 1), (1 << class) - 1),
        64.. => (1 << 63, u64::MAX),
    }
}

/// What is counted over a set of cases.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Cases that were judged, whatever came out. Declined cases are not among them.
    pub cases: u64,
    /// Judged cases that failed, crashed or hung.
    pub failed: u64,
    /// Cases that the kernel declined, by reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub declined: BTreeMap<String, u64>,
    /// Cases that the kernel offers to answer and that could not be put to it, by reason. A kernel that has some is not certified.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub not_run: BTreeMap<String, u64>,
    /// Judged cases in which every intermediate is representable, so that the answer had to match to the bit.
    pub in_exact_range: u64,
    /// Output elements.
    pub elements: Elements,
    /// The kernel's errors. An element that no kernel can be held to, because an intermediate overflows in the working
    /// precision, is not among them; one that differs in class (NaN, infinity, number) has an error of NaN or infinity.
    pub errors: Errors,
    /// libtorch's errors on the same elements; empty where libtorch does not compute the operator.
    pub libtorch: Errors,
}

impl Counts {
    /// Adds what another set of cases counted.
    pub fn merge(&mut self, other: &Counts) {
        self.cases = self.cases.saturating_add(other.cases);
        self.failed = self.failed.saturating_add(other.failed);
        for (reason, count) in &other.declined {
            self.decline(reason, *count);
        }
        for (reason, count) in &other.not_run {
            self.leave_out(reason, *count);
        }
        self.in_exact_range = self.in_exact_range.saturating_add(other.in_exact_range);
        self.elements.merge(&other.elements);
        self.errors.merge(&other.errors);
        self.libtorch.merge(&other.libtorch);
    }

    /// Counts cases declined for a reason.
    pub fn decline(&mut self, reason: &str, cases: u64) {
        let count = self.declined.entry(reason.to_owned()).or_default();
        *count = count.saturating_add(cases);
    }

    /// Counts cases that could not be run for a reason.
    pub fn leave_out(&mut self, reason: &str, cases: u64) {
        let count = self.not_run.entry(reason.to_owned()).or_default();
        *count = count.saturating_add(cases);
    }

    /// How many cases were declined.
    pub fn declined_cases(&self) -> u64 {
        self.declined.values().fold(0, |sum, n| sum.saturating_add(*n))
    }
}

/// How many output elements were judged, and against what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
#[serde(deny_unknown_fields)]
pub struct Elements {
    /// Output elements of the cases.
    pub total: u64,
    /// Of these, judged against the exact value.
    pub exact: u64,
    /// Of these, judged against libtorch only, within both bounds.
    pub libtorch: u64,
}

impl Elements {
    /// Adds other elements.
    pub fn merge(&mut self, other: &Elements) {
        self.total = self.total.saturating_add(other.total);
        self.exact = self.exact.saturating_add(other.exact);
        self.libtorch = self.libtorch.saturating_add(other.libtorch);
    }
}

/// The errors of many output elements.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
#[serde(deny_unknown_fields)]
pub struct Errors {
    /// The largest error as a multiple of the bound, and a case that has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worst_ratio_to_bound: Option<Extreme>,
    /// The largest error in units in the last place of the output's dtype, and a case that has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worst_ulps: Option<Extreme>,
    /// Elements by error as a multiple of the bound.
    #[serde(default)]
    pub ratio_to_bound: Histogram,
    /// Elements by error in units in the last place.
    #[serde(default)]
    pub ulps: Histogram,
}

impl Errors {
    /// Adds the errors of other elements.
    pub fn merge(&mut self, other: &Errors) {
        for (mine, theirs) in
            [(&mut self.worst_ratio_to_bound, &other.worst_ratio_to_bound), (&mut self.worst_ulps, &other.worst_ulps)]
        {
            if let Some(theirs) = theirs {
                Extreme::raise(mine, theirs.value, &theirs.case);
            }
        }
        self.ratio_to_bound.merge(&other.ratio_to_bound);
        self.ulps.merge(&other.ulps);
    }

    /// Notes the worst errors of one case.
    pub fn raise(&mut self, case: &str, ratio_to_bound: f64, ulps: f64) {
        Extreme::raise(&mut self.worst_ratio_to_bound, Number(ratio_to_bound), case);
        Extreme::raise(&mut self.worst_ulps, Number(ulps), case);
    }

    /// The error, as a multiple of the bound, that the given part (0 to 1) of the elements does not exceed;
    /// overstated by less than a factor of 1.5 (see [`Histogram`]).
    pub fn ratio_quantile(&self, q: f64) -> Option<Number> {
        capped(&self.ratio_to_bound, q, &self.worst_ratio_to_bound)
    }

    /// The error, in units in the last place, that the given part (0 to 1) of the elements does not exceed;
    /// overstated by less than a factor of 1.5 (see [`Histogram`]).
    pub fn ulps_quantile(&self, q: f64) -> Option<Number> {
        capped(&self.ulps, q, &self.worst_ulps)
    }
}

fn capped(histogram: &Histogram, q: f64, worst: &Option<Extreme>) -> Option<Number> {
    let quantile = histogram.quantile(q)?;
    Some(worst.as_ref().map_or(quantile, |worst| quantile.min(worst.value)))
}

/// The largest of many values, and the case it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
#[serde(deny_unknown_fields)]
pub struct Extreme {
    /// The value.
    pub value: Number,
    /// The case's one-line form; of several cases with the same value, the first in alphabetical order.
    pub case: String,
}

impl Extreme {
    /// Replaces the extreme if the value is larger; NaN is larger than everything.
    pub fn raise(extreme: &mut Option<Extreme>, value: Number, case: &str) {
        let beaten = match extreme {
            None => true,
            // The tie-break makes merging independent of the order.
            Some(old) => (value, old.case.as_str()) > (old.value, case),
        };
        if beaten {
            *extreme = Some(Extreme { value, case: case.to_owned() });
        }
    }
}

/// Tallies by their first four fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tallies(BTreeMap<(String, String, String, u8), Counts>);

impl Tallies {
    /// The counts for a kernel, dtype, value family and size class.
    pub fn counts(&mut self, kernel: &str, dtype: &str, family: &str, size_class: u8) -> &mut Counts {
        self.0.entry((kernel.to_owned(), dtype.to_owned(), family.to_owned(), size_class)).or_default()
    }

    /// Adds a tally.
    pub fn add(&mut self, tally: &Tally) {
        self.counts(&tally.kernel, &tally.dtype, &tally.family, tally.size_class).merge(&tally.counts);
    }

    /// Adds other tallies.
    pub fn merge(&mut self, other: Tallies) {
        other.into_iter().for_each(|tally| self.add(&tally));
    }
}

impl IntoIterator for Tallies {
    type Item = Tally;
    type IntoIter = Box<dyn Iterator<Item = Tally> + Send>;

    fn into_iter(self) -> Self::IntoIter {
        Box::new(self.0.into_iter().map(|((kernel, dtype, family, size_class), counts)| Tally {
            kernel,
            dtype,
            family,
            size_class,
            counts,
        }))
    }
}
