use schemars::JsonSchema;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use super::Number;

/// How many errors had which size, in buckets that every histogram shares, so that histograms merge exactly.
///
/// There are two buckets per power of two: `[2^k, 1.5 * 2^k)` has index `2 k` and `[1.5 * 2^k, 2^(k+1))` has index
/// `2 k + 1`. A quantile read from it is therefore overstated by less than a factor of 1.5, and never understated.
/// Errors below 2^-20 are counted in the bucket that begins there, errors from 2^64 on in the bucket that begins
/// there; exact results, infinities and NaN are counted apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
#[serde(deny_unknown_fields, default)]
pub struct Histogram {
    /// Errors of exactly zero.
    #[serde(skip_serializing_if = "is_zero")]
    pub zero: u64,
    /// Index of the first bucket in `counts`.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "a_bucket")]
    #[schemars(range(min = LOWEST, max = HIGHEST))]
    #[cfg_attr(test, proptest(strategy = "LOWEST..=HIGHEST"))]
    pub first: i32,
    /// Errors per bucket, from bucket `first` on; neither begins nor ends with a zero.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "no_more_than_there_are")]
    #[schemars(length(max = BUCKETS))]
    #[cfg_attr(test, proptest(strategy = "proptest::collection::vec(proptest::num::u64::ANY, 0..BUCKETS)"))]
    pub counts: Vec<u64>,
    /// Infinite errors.
    #[serde(skip_serializing_if = "is_zero")]
    pub infinite: u64,
    /// Errors that are not a number: a NaN where there should be none, or a number in place of one.
    #[serde(skip_serializing_if = "is_zero")]
    pub nan: u64,
}

fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

// Checked on reading, because a histogram spans all buckets between those it is given.
fn a_bucket<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i32, D::Error> {
    let bucket = i32::deserialize(deserializer)?;
    let known = (LOWEST..=HIGHEST).contains(&bucket);
    if known { Ok(bucket) } else { Err(D::Error::custom(format!("no histogram has a bucket {bucket}"))) }
}

fn no_more_than_there_are<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u64>, D::Error> {
    let counts = Vec::deserialize(deserializer)?;
    let known = counts.len() <= BUCKETS;
    if known { Ok(counts) } else { Err(D::Error::custom(format!("a histogram has at most {BUCKETS} buckets"))) }
}

const LOWEST: i32 = -40;
const HIGHEST: i32 = 128;
const BUCKETS: usize = (HIGHEST - LOWEST + 1) as usize;
/// Exponent and first fraction bit of 1.0.
const ONE: i32 = 1023 << 1;

impl Histogram {
    /// Counts one error; its sign does not matter.
    pub fn add(&mut self, error: f64) {
        self.add_many(error, 1);
    }

    /// Counts the same error several times.
    pub fn add_many(&mut self, error: f64, times: u64) {
        let size = error.abs();
        let slot = if times == 0 {
            return;
        } else if size.is_nan() {
            &mut self.nan
        } else if size.is_infinite() {
            &mut self.infinite
        } else if size == 0.0 {
            &mut self.zero
        } else {
            let bucket = (size.to_bits() >> 51) as i32 - ONE;
            self.slot(bucket.clamp(LOWEST, HIGHEST))
        };
        *slot = slot.saturating_add(times);
    }

    fn slot(&mut self, bucket: i32) -> &mut u64 {
        if self.counts.is_empty() {
            self.first = bucket;
        }
        if bucket < self.first {
            let missing = (self.first - bucket) as usize;
            self.counts.splice(0..0, std::iter::repeat_n(0, missing));
            self.first = bucket;
        }
        let index = (bucket - self.first) as usize;
        if index >= self.counts.len() {
            self.counts.resize(index + 1, 0);
        }
        &mut self.counts[index]
    }

    /// Adds the counts of another histogram.
    pub fn merge(&mut self, other: &Histogram) {
        self.zero = self.zero.saturating_add(other.zero);
        self.infinite = self.infinite.saturating_add(other.infinite);
        self.nan = self.nan.saturating_add(other.nan);
        for (low, _, count) in other.buckets() {
            self.add_many(low, count);
        }
    }

    /// The buckets that hold something: lower edge (included), upper edge (not included), count.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, f64, u64)> {
        (self.first..).zip(&self.counts).filter(|(_, count)| **count > 0).map(|(bucket, count)| {
            (edge(bucket), if bucket >= HIGHEST { f64::INFINITY } else { edge(bucket + 1) }, *count)
        })
    }

    /// How many errors were counted.
    pub fn total(&self) -> u64 {
        [self.zero, self.infinite, self.nan].iter().chain(&self.counts).fold(0, |sum, n| sum.saturating_add(*n))
    }

    /// The upper edge of the bucket in which the given quantile (0 to 1) lies; `None` if nothing was counted.
    pub fn quantile(&self, q: f64) -> Option<Number> {
        let total = self.total();
        let rank = ((total as f64 * q).ceil() as u64).clamp(1, total.max(1));
        let mut below = self.zero;
        if total == 0 {
            None
        } else if below >= rank {
            Some(Number(0.0))
        } else {
            for (_, high, count) in self.buckets() {
                below = below.saturating_add(count);
                if below >= rank {
                    return Some(Number(high));
                }
            }
            let infinite = below.saturating_add(self.infinite) >= rank;
            Some(Number(if infinite { f64::INFINITY } else { f64::NAN }))
        }
    }
}

/// The lower edge of a bucket. A bucket read from a file may lie outside of what is written: it is moved inside.
fn edge(bucket: i32) -> f64 {
    f64::from_bits(((bucket.clamp(LOWEST, HIGHEST + 1) + ONE) as u64) << 51)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(errors: &[f64]) -> Histogram {
        let mut histogram = Histogram::default();
        errors.iter().for_each(|e| histogram.add(*e));
        histogram
    }

    #[test]
    fn buckets_are_half_octaves() {
        let buckets: Vec<_> = of(&[1.0, 1.49, 1.5, 1.99, 2.0, -0.75]).buckets().collect();
        assert_eq!(buckets, [(0.75, 1.0, 1), (1.0, 1.5, 2), (1.5, 2.0, 2), (2.0, 3.0, 1)]);
    }

    #[test]
    fn what_is_no_size_is_counted_apart() {
        let histogram = of(&[0.0, f64::NAN, f64::INFINITY, f64::MAX, 5e-324]);
        assert_eq!((histogram.zero, histogram.nan, histogram.infinite, histogram.total()), (1, 1, 1, 5));
        assert_eq!(histogram.quantile(1.0), Some(Number(f64::NAN)));
        assert_eq!(histogram.quantile(0.8), Some(Number(f64::INFINITY)));
        assert_eq!(Histogram::default().quantile(0.5), None);
    }

    proptest! {
        #[test]
        fn a_quantile_is_overstated_by_less_than_half(
            mut errors in prop::collection::vec(1e-5..1e9f64, 1..200), q in 0.0..=1.0f64,
        ) {
            let shown = of(&errors).quantile(q).unwrap().0;
            errors.sort_by(f64::total_cmp);
            let rank = ((errors.len() as f64 * q).ceil() as usize).max(1);
            let truth = errors[rank - 1];
            prop_assert!(truth < shown && shown <= 1.5 * truth, "{truth} {shown}");
        }

        #[test]
        fn merging_is_counting_together(a: Vec<f64>, b: Vec<f64>) {
            let mut merged = of(&a);
            merged.merge(&of(&b));
            prop_assert_eq!(merged, of(&[a, b].concat()));
        }
    }
}
