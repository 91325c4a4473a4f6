//! The ratio of every round: how restless the measurement was, and whether outliers decide it.

use std::collections::BTreeSet;

use super::Subject;
use super::rows::{self, Row};
use crate::Error;
use crate::bench::workload;
use crate::plot::Figure;
use crate::plot::theme::{Axis, KERNEL, Look, QUIET, TEXT, WRONG};
use crate::record::{Bench, Number};

/// Farthest from the median that is told apart.
const FAR: f64 = 0.3;

/// The figure; none if there is nothing but copies to compare with, or no round was kept.
pub(super) fn figure(subject: &Subject) -> Result<Option<Figure>, Error> {
    let rows: Vec<_> = subject
        .duels()
        .filter(|cell| !cell.bench.ratios.is_empty())
        .map(|cell| {
            let b = &cell.bench;
            let notes = [
                (b.outliers > 0).then(|| format!("{} outlying", b.outliers)),
                b.doubt.as_ref().map(|_| "doubt".into()),
            ];
            let value = (
                if b.doubt.is_some() { WRONG } else { QUIET },
                notes.into_iter().flatten().collect::<Vec<_>>().join(", "),
            );
            Row { heading: format!("{} against {}", b.kernel, b.versus), label: workload(b), value, data: b }
        })
        .collect();
    if rows.is_empty() {
        return Ok(None);
    }
    let marks = [-0.3, -0.2, -0.1, 0.0, 0.1, 0.2, 0.3];
    let axis = Axis {
        ends: (-FAR - 0.03, FAR + 0.03),
        label: "ratio of a round beside the median, %",
        marks: marks.map(|at| (at, format!("{:+.0}", 100.0 * at))).map(|(at, s)| (at, s.replace("+0", "0"))).to_vec(),
    };
    let legend = [
        (KERNEL, Look::Points, "a round"),
        (WRONG, Look::Crosses, "an outlier"),
        (TEXT, Look::Line, "95 % interval of the median"),
    ];
    let rounds = || rows.iter().map(|row| row.data.rounds);
    let (fewest, most) = (rounds().min().unwrap_or(0), rounds().max().unwrap_or(0));
    let rounds = if fewest == most { fewest.to_string() } else { format!("{fewest} to {most}") };
    let caption = format!(
        "Every one of the {rounds} rounds of each workload; none is left out of any figure. Outliers lie more than three \
         interquartile ranges outside of the quartiles; what is more than 30 % off is drawn at the edge."
    );
    let names = (&*subject.name("rounds"), subject.title("Every round"), caption);
    rows::figure(names, &axis, &[], &legend, &rows, |line, b| {
        let (low, high) = far_fences(b);
        let beside = |ratio: Number| (ratio.0 / b.ratio.value.0 - 1.0).clamp(-FAR, FAR);
        let mut drawn = BTreeSet::new();
        for ratio in b.ratios.iter().copied().filter(|ratio| !ratio.0.is_nan()) {
            let (ink, look) =
                if (low..=high).contains(&ratio) { (KERNEL, Look::Points) } else { (WRONG, Look::Crosses) };
            // Dots on the same spot show no more than one of them.
            if drawn.insert((line.at(beside(ratio)), ink.light.0)) {
                line.mark(beside(ratio), 0, ink, look)?;
            }
        }
        line.interval(beside(b.ratio.low), beside(b.ratio.high), TEXT)
    })
    .map(Some)
}

/// Tukey's far fences of the rounds' ratios: three interquartile ranges outside of the quartiles.
fn far_fences(b: &Bench) -> (Number, Number) {
    let mut sorted = b.ratios.clone();
    sorted.sort();
    let quantile = |q: f64| {
        let place = q * (sorted.len() - 1) as f64;
        let (below, above) = (sorted[place.floor() as usize].0, sorted[place.ceil() as usize].0);
        below + (above - below) * place.fract()
    };
    let (first, third) = (quantile(0.25), quantile(0.75));
    let reach = 3.0 * (third - first);
    (Number(first - reach), Number(third + reach))
}
