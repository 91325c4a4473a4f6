//! Error against length of the reduction, libtorch beside the kernels.

use std::collections::BTreeMap;

use super::Figure;
use super::theme::{self, Axis, KERNEL, LEGEND, LIBTORCH, Look, QUIET, WRONG};
use crate::Error;
use crate::record::{Counts, Number, size_class_lengths};
use crate::summary::{Summary, Verdict};

/// Errors beyond these powers of ten are drawn at the edge: how small or large they are says no more.
const LOWEST: f64 = -5.0;
const HIGHEST: f64 = 1.0;

/// The figure for one dtype; none if no error was measured in it.
pub(super) fn figure(summary: &Summary, dtype: &str) -> Result<Option<Figure>, Error> {
    let mut right = BTreeMap::<u8, Counts>::new();
    let mut wrong = Vec::new();
    for kernel in &summary.kernels {
        for tally in kernel.tallies.iter().filter(|tally| tally.dtype == dtype) {
            // A kernel that is wrong would hide how good the others are.
            match (kernel.verdict, &tally.counts.errors.worst_ratio_to_bound) {
                (Verdict::Failed, Some(worst)) if worst.value > Number(1.0) => {
                    wrong.push((f64::from(tally.size_class), height(worst.value)));
                }
                (Verdict::Failed, _) => {}
                _ => right.entry(tally.size_class).or_default().merge(&tally.counts),
            }
        }
    }
    let line = |of: &dyn Fn(&Counts) -> Option<Number>| -> Vec<_> {
        right.iter().filter_map(|(class, counts)| Some((f64::from(*class), height(of(counts)?)))).collect()
    };
    let worst = line(&|c| c.errors.worst_ratio_to_bound.as_ref().map(|worst| worst.value));
    let most = line(&|c| c.errors.ratio_quantile(0.999));
    let libtorch = line(&|c| c.libtorch.worst_ratio_to_bound.as_ref().map(|worst| worst.value));
    let all: Vec<_> = [&worst, &most, &libtorch, &wrong].into_iter().flatten().copied().collect();
    if all.is_empty() {
        return Ok(None);
    }
    let over = |of: fn(f64, f64) -> f64, start: f64, pick: fn(&(f64, f64)) -> f64| all.iter().map(pick).fold(start, of);
    let (first, last) = (over(f64::min, 1.0, |p| p.0), over(f64::max, 5.0, |p| p.0));
    let (low, high) = (over(f64::min, -1.0, |p| p.1) - 0.1, over(f64::max, 0.0, |p| p.1) + 0.15);
    let step = if last - first > 9.0 { 2 } else { 1 };
    let lengths = (first as u8..=last as u8).step_by(step);
    let x = Axis {
        ends: (first - 0.3, last + 0.3),
        label: "longest reduction, elements (from)",
        marks: lengths.map(|class| (f64::from(class), size_class_lengths(class).0.to_string())).collect(),
    };
    let y = Axis { ends: (low, high), label: "error / bound", marks: theme::decades(low, high) };

    let title = format!("Error against row length, {dtype}");
    let caption = "Largest error of all kernels without findings, as a multiple of the bound: above 1 a kernel is wrong. A point \
                   stands for all lengths up to the next power of two. Crosses are kernels with findings, cut at 10."
        .to_owned();
    let draw = |area: &theme::Area| {
        let (strip, plot) = area.split_vertically(LEGEND);
        let mut legend = vec![(KERNEL, Look::Dots, "worst"), (KERNEL, Look::Line, "99.9 %")];
        let mut chart = theme::chart(&plot, &x, &y)?;
        theme::series(&mut chart, &[(x.ends.0, 0.0), (x.ends.1, 0.0)], QUIET, Look::Line)?;
        if !libtorch.is_empty() {
            theme::series(&mut chart, &libtorch, LIBTORCH, Look::Squares)?;
            legend.push((LIBTORCH, Look::Squares, "libtorch, worst"));
        }
        theme::series(&mut chart, &most, KERNEL, Look::Line)?;
        theme::series(&mut chart, &worst, KERNEL, Look::Dots)?;
        if !wrong.is_empty() {
            theme::series(&mut chart, &wrong, WRONG, Look::Crosses)?;
            legend.push((WRONG, Look::Crosses, "with findings"));
        }
        theme::legend(&strip, &legend)
    };
    theme::figure((&format!("error-{dtype}"), title, caption), (440, 300), draw).map(Some)
}

/// Where a multiple of the bound is drawn: its power of ten.
fn height(ratio: Number) -> f64 {
    if ratio.0.is_nan() { HIGHEST } else { ratio.0.log10().clamp(LOWEST, HIGHEST) }
}
