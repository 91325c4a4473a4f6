//! Time per element against the length of the last dimension.

use std::collections::BTreeMap;

use super::{Subject, logarithmic, marks, opponents, powers_of_two, workloads};
use crate::Error;
use crate::bench::COPY;
use crate::plot::Figure;
use crate::plot::theme::{self, Axis, KERNEL, LEGEND, LIBTORCH, Look};
use crate::record::Bench;

/// Lines by what has to be the same on one: kernel, layout and all dimensions but the last.
type Lines<'a> = BTreeMap<(&'a str, &'a str, &'a [u64]), Vec<(f64, f64)>>;

/// The figure; none if all was measured at the same length.
pub(super) fn figure(subject: &Subject) -> Result<Option<Figure>, Error> {
    let cells = workloads(&subject.cells);
    let Some(threads) = cells.iter().map(|cell| cell.bench.threads).min() else { return Ok(None) };
    let benches: Vec<_> = cells.iter().map(|cell| &cell.bench).filter(|b| b.threads == threads).collect();
    let place = |b: &Bench, seconds: f64| {
        let length = b.shape.last().copied().unwrap_or(1);
        let elements: f64 = b.shape.iter().map(|n| *n as f64).product();
        let at = ((length as f64).log2(), (seconds * 1e9 / elements).log10());
        Some(at).filter(|(x, y)| x.is_finite() && y.is_finite())
    };
    let lines = |seconds: fn(&Bench) -> Option<f64>, direction: bool| {
        let mut lines = Lines::new();
        for b in benches.iter().filter(|b| (b.direction == "forward") == direction) {
            let before = b.shape.split_last().map_or(&[][..], |(_, before)| before);
            if let Some(at) = seconds(b).and_then(|seconds| place(b, seconds)) {
                lines.entry((&b.kernel, &b.layout, before)).or_default().push(at);
            }
        }
        lines.values_mut().for_each(|line| line.sort_by(|a, b| a.0.total_cmp(&b.0)));
        lines
    };
    let kernel = |b: &Bench| Some(b.seconds.value.0);
    let other = |b: &Bench| (b.versus != COPY).then_some(b.versus_seconds.value.0);
    let opponents = opponents(&cells);
    let series = [
        (LIBTORCH, Look::Blocks, &*opponents, lines(other, true)),
        (LIBTORCH, Look::Frames, "backward", lines(other, false)),
        (KERNEL, Look::Points, "kernel", lines(kernel, true)),
        (KERNEL, Look::Rings, "backward", lines(kernel, false)),
    ];
    let all: Vec<_> = series.iter().flat_map(|(.., lines)| lines.values().flatten()).copied().collect();
    let ends = logarithmic(all.iter().map(|at| 10f64.powf(at.1)), 0.1);
    let lengths = logarithmic(all.iter().map(|at| 10f64.powf(at.0)), 0.3).filter(|(low, high)| high - low > 0.7);
    let Some((height, length)) = ends.zip(lengths) else { return Ok(None) };
    let x = Axis {
        ends: length,
        label: "last dimension, elements",
        marks: powers_of_two(length, |length| length.to_string()),
    };
    let y = Axis { ends: height, label: "time / element, ns", marks: marks(height) };

    let caption = format!(
        "Time of one call over the number of elements, with {threads} thread{}: lower is faster. Points at the same \
         length have different other dimensions; lines join workloads that differ in the last one only.",
        if threads == 1 { "" } else { "s" }
    );
    let draw = |area: &theme::Area| {
        let (strip, plot) = area.split_vertically(LEGEND);
        let mut chart = theme::chart(&plot, &x, &y)?;
        let mut legend = Vec::new();
        for (ink, look, name, lines) in &series {
            for line in lines.values() {
                theme::series(&mut chart, line, *ink, Look::Line)?;
                theme::series(&mut chart, line, *ink, *look)?;
            }
            if !lines.is_empty() {
                legend.push((*ink, *look, *name));
            }
        }
        theme::legend(&strip, &legend)
    };
    let names = (&*subject.name("row-length"), subject.title("Scaling with row length"), caption);
    theme::figure(names, (440, 300), draw).map(Some)
}
