//! Before and after: what a gate compared.

use std::collections::BTreeMap;

use super::Figure;
use super::bench::rows::{self, Row};
use super::bench::{logarithmic, marks};
use super::theme::{self, Axis, KERNEL, LEGEND, Look, QUIET, TEXT, WRONG};
use crate::Error;
use crate::gate::{Answer, Gate, Judgement, Snapshot};
use crate::record::Number;

/// The figures that there is data for. `history` are older baselines, the oldest first.
///
/// # Errors
/// [`Error::Plot`] if one cannot be drawn.
pub fn figures(gate: &Gate, history: &[Snapshot]) -> Result<Vec<Figure>, Error> {
    let all = [speed(&gate.speed)?, accuracy(gate)?, over_time(gate, history)?];
    Ok(all.into_iter().flatten().collect())
}

fn speed(judgements: &[Judgement]) -> Result<Option<Figure>, Error> {
    let limits = |judgement: &Judgement| {
        let [low, high] = [judgement.interval.0, judgement.interval.1].map(|end| 1.0 + end);
        [low, high, 1.0 + judgement.finds]
    };
    let Some(ends) = logarithmic(judgements.iter().flat_map(limits).chain([1.0]).filter(|v| *v > 0.0), 0.01) else {
        return Ok(None);
    };
    if judgements.is_empty() {
        return Ok(None);
    }
    let rows: Vec<_> = judgements
        .iter()
        .map(|judgement| {
            let (kernel, workload) = judgement.name.split_once(' ').unwrap_or((&judgement.name, ""));
            let ink = match judgement.answer {
                Answer::Slower => WRONG,
                Answer::AsFast => TEXT,
                Answer::Suspect | Answer::TooNoisy => QUIET,
            };
            let value = format!("{} → {}", Number(judgement.before), Number(judgement.after));
            Row { heading: kernel.to_owned(), label: workload.to_owned(), value: (ink, value), data: (judgement, ink) }
        })
        .collect();
    let axis = Axis { ends, label: "time after / time before, beside the yardstick", marks: marks(ends) };
    let legend = [
        (KERNEL, Look::Points, "measured"),
        (TEXT, Look::Line, "95 % interval"),
        (QUIET, Look::Crosses, "found from here on"),
    ];
    let caption = "How much more of the yardstick's time each workload takes than before: right of the line at 1 it is slower. A \
                   cross is the smallest slowdown that is found with a probability of 95 %. At the right the ratios before and \
                   after."
        .to_owned();
    let names = ("gate-speed", "Speed, before and after".to_owned(), caption);
    rows::figure(names, &axis, &[0.0], &legend, &rows, |line, (judgement, ink)| {
        let [low, high, finds] = limits(judgement).map(f64::log10);
        if low.is_finite() && high.is_finite() {
            line.interval(low, high, *ink)?;
        }
        if finds.is_finite() {
            line.mark(finds, 0, QUIET, Look::Crosses)?;
        }
        let ink = if judgement.answer == Answer::Slower { WRONG } else { KERNEL };
        line.mark(judgement.slowdown.ln_1p() / std::f64::consts::LN_10, 0, ink, Look::Points)
    })
    .map(Some)
}

fn accuracy(gate: &Gate) -> Result<Option<Figure>, Error> {
    // Errors below are as good as none.
    const LEAST: f64 = -4.0;
    let height = |number: Number| number.0.log10().clamp(LEAST, 2.0);
    let worse: Vec<&str> = gate.regressions.iter().map(|regression| regression.name.as_str()).collect();
    let (mut same, mut grown) = (Vec::new(), Vec::new());
    for (kernel, then) in &gate.before.kernels {
        for (dtype, sizes) in &then.errors {
            for (size, then) in sizes {
                let now = gate.after.kernels.get(kernel).and_then(|now| now.errors.get(dtype)?.get(size));
                let Some(now) = now.filter(|now| !now.worst.0.is_nan() && !then.worst.0.is_nan()) else { continue };
                let points = [(height(then.worst), height(now.worst)), (height(then.p999), height(now.p999))];
                let bad = worse.contains(&format!("{kernel} {dtype} {size}").as_str());
                (if bad { &mut grown } else { &mut same }).extend(points);
            }
        }
    }
    if same.is_empty() && grown.is_empty() {
        return Ok(None);
    }
    let ends = (LEAST - 0.2, same.iter().chain(&grown).map(|(x, y)| x.max(*y)).fold(0.0, f64::max) + 0.2);
    let axis = |label| Axis { ends, label, marks: theme::decades(ends.0, ends.1) };
    let (x, y) = (axis("error / bound, before"), axis("error / bound, after"));
    let caption =
        "Largest error and 99.9th percentile of every kernel, element type and size, as multiples of the bound: above \
                   the line it has grown."
            .to_owned();
    let draw = |area: &theme::Area| {
        let (strip, plot) = area.split_vertically(LEGEND);
        let mut chart = theme::chart(&plot, &x, &y)?;
        theme::series(&mut chart, &[(ends.0, ends.0), (ends.1, ends.1)], QUIET, Look::Line)?;
        theme::series(&mut chart, &same, KERNEL, Look::Points)?;
        theme::series(&mut chart, &grown, WRONG, Look::Crosses)?;
        theme::legend(&strip, &[(KERNEL, Look::Points, "no more than allowed"), (WRONG, Look::Crosses, "grown")])
    };
    let names = ("gate-accuracy", "Errors, before and after".to_owned(), caption);
    theme::figure(names, (440, 360), draw).map(Some)
}

/// The ratios of each workload over the baselines, beside the first.
fn over_time(gate: &Gate, history: &[Snapshot]) -> Result<Option<Figure>, Error> {
    let machine = gate.after.speed.first().map(|speed| &speed.machine);
    let Some(machine) = machine.filter(|_| !history.is_empty()) else { return Ok(None) };
    let mut lines = BTreeMap::<&str, Vec<(f64, f64)>>::new();
    let all: Vec<&Snapshot> = history.iter().chain([&gate.before, &gate.after]).collect();
    for (place, snapshot) in all.iter().enumerate() {
        for (name, cell) in snapshot.on(machine).into_iter().flat_map(|speed| &speed.cells) {
            lines.entry(name).or_default().push((place as f64, cell.ratio.0.log10()));
        }
    }
    // Time beside the first baseline that has the workload: up is slower.
    for line in lines.values_mut() {
        let first = line[0].1;
        line.iter_mut().for_each(|(_, height)| *height = first - *height);
    }
    let heights = lines.values().flatten().map(|(_, height)| *height).filter(|height| height.is_finite());
    let (low, high) = heights.fold((0.0, 0.0), |(low, high): (f64, f64), at| (low.min(at), high.max(at)));
    let last = all.len() - 1;
    let label = |place: usize| match last - place {
        0 => "now".to_owned(),
        1 => "baseline".to_owned(),
        _ => all[place].taken.get(..10).unwrap_or_default().to_owned(),
    };
    let step = all.len().div_ceil(6);
    let x = Axis {
        ends: (-0.3, last as f64 + 0.3),
        label: "baselines",
        marks: (0..=last).rev().step_by(step).map(|place| (place as f64, label(place))).collect(),
    };
    let ends = (low - 0.02, high + 0.02);
    let y = Axis { ends, label: "time / first", marks: marks(ends) };
    let slower =
        |name: &str| gate.speed.iter().any(|judgement| judgement.name == name && judgement.answer == Answer::Slower);
    let caption =
        "Time of every workload beside the yardstick, relative to the first baseline that has it: up is slower."
            .to_owned();
    let names = ("gate-history", "Speed over the baselines".to_owned(), caption);
    theme::figure(names, (660, 320), |area| {
        let (strip, plot) = area.split_vertically(LEGEND);
        let mut chart = theme::chart(&plot, &x, &y)?;
        for (name, line) in &lines {
            let (ink, look) = if slower(name) { (WRONG, Look::Dots) } else { (KERNEL, Look::Line) };
            theme::series(&mut chart, line, ink, look)?;
        }
        theme::legend(&strip, &[(KERNEL, Look::Line, "as fast as its baseline"), (WRONG, Look::Dots, "slower")])
    })
    .map(Some)
}
