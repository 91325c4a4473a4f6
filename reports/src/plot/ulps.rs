//! How many elements have which error in units in the last place.

use std::collections::BTreeMap;

use super::Figure;
use super::theme::{self, Axis, KERNEL, LEGEND, LIBTORCH, Look};
use crate::Error;
use crate::record::Histogram;
use crate::summary::{Summary, Verdict};

/// Bars are one power of two wide. Below `FIRST` stand the elements without any error, and from `LAST` on everything
/// larger, infinities and NaN included.
const FIRST: i32 = -5;
const LAST: i32 = 16;
const EXACT: i32 = FIRST - 1;

/// The figure for one dtype; none if no error was measured in it.
pub(super) fn figure(summary: &Summary, dtype: &str) -> Result<Option<Figure>, Error> {
    let (mut kernels, mut libtorch) = (Histogram::default(), Histogram::default());
    let right = summary.kernels.iter().filter(|k| k.verdict != Verdict::Failed);
    for tally in right.flat_map(|k| &k.tallies).filter(|tally| tally.dtype == dtype) {
        kernels.merge(&tally.counts.errors.ulps);
        libtorch.merge(&tally.counts.libtorch.ulps);
    }
    if kernels.total() == 0 {
        return Ok(None);
    }
    let (kernels, libtorch) = (shares(&kernels), shares(&libtorch));
    let last = kernels.keys().chain(libtorch.keys()).copied().fold(2, i32::max);
    let smallest = kernels.values().chain(libtorch.values()).copied().fold(1.0, f64::min);
    let low = smallest.log10().floor().max(-9.0);
    let exponents = (EXACT..=last).filter(|k| *k == EXACT || (k % 2 == 0 && *k > EXACT + 1) || *k == LAST);
    let x = Axis {
        ends: (f64::from(EXACT), f64::from(last + 1)),
        label: "error, units in the last place (from)",
        marks: exponents.map(|k| (f64::from(k) + if k == EXACT { 0.5 } else { 0.0 }, label(k))).collect(),
    };
    let percent = theme::decades(low + 2.0, 2.0).into_iter().map(|(at, label)| (at - 2.0, label + " %"));
    let y = Axis { ends: (low, 0.0), label: "share of elements", marks: percent.collect() };
    let bars = |shares: &BTreeMap<i32, f64>| -> Vec<_> {
        shares.iter().map(|(k, share)| (f64::from(*k), share.log10().max(low))).collect()
    };

    let title = format!("Error in ulps, {dtype}");
    let caption = "Elements of all kernels without findings by size of error. The first bar holds those without any; \
                   every other bar goes up to twice where it begins."
        .to_owned();
    let draw = |area: &theme::Area| {
        let (strip, plot) = area.split_vertically(LEGEND);
        let mut legend = vec![(KERNEL, Look::Bars, "kernels")];
        let mut chart = theme::chart(&plot, &x, &y)?;
        theme::series(&mut chart, &bars(&kernels), KERNEL, Look::Bars)?;
        if !libtorch.is_empty() {
            let steps: Vec<_> = (EXACT..=libtorch.keys().copied().fold(EXACT, i32::max))
                .flat_map(|k| {
                    let top = libtorch.get(&k).map_or(low, |share| share.log10().max(low));
                    [(f64::from(k), top), (f64::from(k + 1), top)]
                })
                .collect();
            theme::series(&mut chart, &steps, LIBTORCH, Look::Steps)?;
            legend.push((LIBTORCH, Look::Steps, "libtorch"));
        }
        theme::legend(&strip, &legend)
    };
    theme::figure((&format!("ulps-{dtype}"), title, caption), (440, 280), draw).map(Some)
}

/// The part of all elements in each bar.
fn shares(histogram: &Histogram) -> BTreeMap<i32, f64> {
    let total = histogram.total() as f64;
    let mut bars = BTreeMap::new();
    let buckets = histogram.buckets().map(|(low, _, n)| ((low.log2().floor() as i32).clamp(FIRST, LAST), n));
    for (bar, n) in buckets.chain([(EXACT, histogram.zero), (LAST, histogram.infinite), (LAST, histogram.nan)]) {
        if n > 0 {
            *bars.entry(bar).or_default() += n as f64 / total;
        }
    }
    bars
}

fn label(exponent: i32) -> String {
    match exponent {
        EXACT => "0".to_owned(),
        LAST => "more".to_owned(),
        ..0 => format!("1/{}", 1 << -exponent),
        _ => (1 << exponent).to_string(),
    }
}
