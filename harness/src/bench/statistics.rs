//! What rounds say: medians, intervals, outliers, and when they say little.

use isonorm_reports::record::{Interval, Number};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// Resamples of the bootstrap. More would not move the limits by as much as the rounds' own scatter does.
const RESAMPLES: usize = 2000;
/// Below this many rounds a bootstrap interval of the median is little more than their extremes.
const FEW: usize = 9;
/// Interquartile range over median of the yardstick above which the machine was too restless to tell a fifth.
const NOISY: f64 = 0.2;
/// High over low limit of the ratio above which the answer is open by a third.
const WIDE: f64 = 1.35;

/// Page faults in a sample that are some percent of its time.
const FAULTS: f64 = 16.0;

/// The quantile `q` in 0..=1, interpolated between neighbours.
///
/// # Panics
/// If there are no values.
pub fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = q * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    low + (high - low) * place.fract()
}

/// Median and quartiles.
///
/// # Panics
/// If there are no values.
pub fn quartiles(values: &[f64]) -> Interval {
    interval(quantile(values, 0.5), quantile(values, 0.25), quantile(values, 0.75))
}

/// The median with its 95 % percentile interval of the bootstrap. The same seed gives the same interval.
///
/// # Panics
/// If there are no values.
pub fn median_interval(values: &[f64], seed: u64) -> Interval {
    let medians = resampled_medians(values, &mut SmallRng::seed_from_u64(seed));
    interval(quantile(values, 0.5), quantile(&medians, 0.025), quantile(&medians, 0.975))
}

/// The geometric mean of the medians of several samples, with its 95 % percentile interval of the bootstrap, in which every
/// sample is drawn anew by itself.
///
/// # Panics
/// If there are no samples, or no values in one.
pub fn mean_interval(samples: &[&[f64]], seed: u64) -> Interval {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut means = vec![0.0; RESAMPLES];
    for values in samples {
        let medians = resampled_medians(values, &mut random);
        means.iter_mut().zip(medians).for_each(|(mean, median)| *mean += median.ln() / samples.len() as f64);
    }
    let mean = samples.iter().map(|values| quantile(values, 0.5).ln()).sum::<f64>() / samples.len() as f64;
    interval(mean.exp(), quantile(&means, 0.025).exp(), quantile(&means, 0.975).exp())
}

/// Medians of the bootstrap's resamples.
fn resampled_medians(values: &[f64], random: &mut SmallRng) -> Vec<f64> {
    let mut resample = vec![0.0; values.len()];
    let medians = (0..RESAMPLES).map(|_| {
        resample.fill_with(|| values[random.random_range(0..values.len())]);
        let half = values.len() / 2;
        let (below, upper, _) = resample.select_nth_unstable_by(half, f64::total_cmp);
        let upper = *upper;
        if values.len().is_multiple_of(2) {
            let lower = below.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            (lower + upper) / 2.0
        } else {
            upper
        }
    });
    medians.collect()
}

/// How many values lie beyond Tukey's far fences: more than three interquartile ranges outside of the quartiles.
///
/// # Panics
/// If there are no values.
pub fn outliers(values: &[f64]) -> usize {
    let (low, high) = (quantile(values, 0.25), quantile(values, 0.75));
    let reach = 3.0 * (high - low);
    values.iter().filter(|&&value| value < low - reach || value > high + reach).count()
}

/// Interquartile range over median.
///
/// # Panics
/// If there are no values.
pub fn spread(values: &[f64]) -> f64 {
    (quantile(values, 0.75) - quantile(values, 0.25)) / quantile(values, 0.5)
}

/// Why a ratio means little, if it does: too few rounds, a restless machine, or an interval that leaves too much open.
/// `faults` are the page faults of each round where there should be none.
pub fn doubt(rounds: usize, noise: f64, ratio: &Interval, faults: f64) -> Option<String> {
    let mut reasons = Vec::new();
    if rounds < FEW {
        reasons.push(format!("only {rounds} rounds"));
    }
    if noise.is_nan() || noise > NOISY {
        reasons.push(format!("the middle half of the copies took times {:.0} % apart", 100.0 * noise));
    }
    let open = ratio.high.0 / ratio.low.0;
    if open.is_nan() || open > WIDE {
        reasons.push(format!("the interval spans a factor of {open:.2}"));
    }
    if faults > FAULTS {
        reasons.push(format!("memory was not reused: {faults:.0} page faults a round"));
    }
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

fn interval(value: f64, low: f64, high: f64) -> Interval {
    Interval { value: Number(value), low: Number(low), high: Number(high) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rounds around 2 with this relative scatter.
    fn rounds(count: usize, scatter: f64, seed: u64) -> Vec<f64> {
        let mut random = SmallRng::seed_from_u64(seed);
        (0..count).map(|_| 2.0 * (1.0 + scatter * (random.random::<f64>() - 0.5))).collect()
    }

    #[test]
    fn quantiles_interpolate() {
        let values = [4.0, 1.0, 3.0, 2.0];
        assert_eq!([0.0, 0.25, 0.5, 1.0].map(|q| quantile(&values, q)), [1.0, 1.75, 2.5, 4.0]);
        assert_eq!(spread(&[8.0, 10.0, 12.0]), 0.2);
    }

    #[test]
    fn the_interval_covers_the_true_median_as_often_as_it_says() {
        let trials = 400;
        let covered = (0..trials)
            .filter(|&trial| {
                let found = median_interval(&rounds(31, 0.5, trial), trial);
                found.low.0 <= 2.0 && 2.0 <= found.high.0
            })
            .count();
        // 95 %, within five standard deviations of 400 trials, and the percentile interval's own few percent.
        assert!((0.87..=0.995).contains(&(covered as f64 / trials as f64)), "{covered} of {trials}");
    }

    #[test]
    fn the_interval_depends_on_the_seed_only_and_narrows_with_rounds() {
        let values = rounds(40, 0.5, 1);
        assert_eq!(median_interval(&values, 7), median_interval(&values, 7));
        let width = |count| {
            let found = median_interval(&rounds(count, 0.5, 3), 5);
            found.high.0 - found.low.0
        };
        assert!(width(1600) < width(16) / 3.0, "{} and {}", width(1600), width(16));
    }

    #[test]
    fn far_values_are_counted_and_move_the_median_little() {
        let mut values = rounds(101, 0.1, 2);
        assert_eq!(outliers(&values), 0);
        let clean = quantile(&values, 0.5);
        values[10] = 40.0;
        values[90] = 0.01;
        assert_eq!(outliers(&values), 2);
        assert!((quantile(&values, 0.5) - clean).abs() < 0.01);
    }

    /// Each reason planted alone, and none in clean rounds.
    #[test]
    fn doubt_is_raised_for_each_reason_and_not_without() {
        let clean = rounds(51, 0.1, 4);
        let judge = |values: &[f64], noise| doubt(values.len(), noise, &median_interval(values, 1), 0.0);
        assert_eq!(judge(&clean, 0.02), None);
        let says =
            |text: Option<String>, part: &str| assert!(text.as_ref().is_some_and(|t| t.contains(part)), "{text:?}");
        says(judge(&clean[..5], 0.02), "only 5 rounds");
        says(judge(&clean, 0.5), "50 % apart");
        says(judge(&clean, f64::NAN), "apart");
        let two_speeds: Vec<f64> = (0..51).map(|round| if round % 2 == 0 { 1.0 } else { 3.0 }).collect();
        says(judge(&two_speeds, 0.02), "factor of 3");
        says(doubt(51, 0.02, &median_interval(&clean, 1), 4096.0), "4096 page faults");
    }
}
