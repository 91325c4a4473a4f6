//! Properties of networks: measurements as dots, predictions as lines.

use crate::Error;
use crate::plot::Figure;
use crate::plot::theme::{self, Axis, Ink, KERNEL, LEGEND, LIBTORCH, Look, QUIET, TEXT, WRONG};
use crate::record::{Experiment, Number};

/// Inks and looks of the kinds of networks, in order.
const KINDS: [(Ink, Look); 6] = [
    (KERNEL, Look::Points),
    (LIBTORCH, Look::Blocks),
    (WRONG, Look::Rings),
    (TEXT, Look::Frames),
    (QUIET, Look::Points),
    (TEXT, Look::Crosses),
];
/// More points than this cannot be told apart.
const DOTS: usize = 40;

/// A figure for each experiment.
///
/// # Errors
/// [`Error::Plot`] if one cannot be drawn.
pub fn figures(experiments: &[Experiment]) -> Result<Vec<Figure>, Error> {
    experiments.iter().map(figure).collect()
}

fn figure(experiment: &Experiment) -> Result<Figure, Error> {
    let power = |points: &[(Number, Number)]| -> Vec<(f64, f64)> {
        let logarithmic = points.iter().map(|(x, y)| (x.0, y.0.log10()));
        logarithmic.filter(|(x, y)| x.is_finite() && y.is_finite()).collect()
    };
    let all: Vec<(f64, f64)> = experiment
        .series
        .iter()
        .flat_map(|series| power(&series.measured).into_iter().chain(power(&series.predicted)))
        .collect();
    let range = |of: fn(&(f64, f64)) -> f64| {
        all.iter().map(of).fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), at| (low.min(at), high.max(at)))
    };
    let ((left, right), (low, high)) =
        if all.is_empty() { ((0.0, 1.0), (0.0, 1.0)) } else { (range(|p| p.0), range(|p| p.1)) };
    let step = ((right - left) / 8.0).max(1.0).ceil();
    let marks = (0..9).map(|place| left + step * f64::from(place)).filter(|at| *at <= right);
    let x = Axis {
        ends: (left - 0.5, right + 0.5),
        label: "layers",
        marks: marks.map(|at| (at, Number(at).to_string())).collect(),
    };
    let ends = (low - 0.1, high + 0.1);
    let y = Axis { ends, label: "", marks: theme::decades(ends.0, ends.1) };
    let verdict = if experiment.agrees { "They agree" } else { "They do not agree" };
    let caption = format!(
        "{}. Up: {}. Lines: predicted ({}). Marks: measured. {verdict} within a factor of {}.",
        experiment.statement, experiment.y, experiment.paper, experiment.within
    );
    let names = (&*format!("network-{}", experiment.name), experiment.name.clone(), caption);
    theme::figure(names, (660, 320), |area| {
        let (strip, plot) = area.split_vertically(LEGEND);
        let mut chart = theme::chart(&plot, &x, &y)?;
        let mut legend = Vec::new();
        for (series, (ink, look)) in experiment.series.iter().zip(KINDS) {
            let measured = power(&series.measured);
            let few: Vec<_> = measured.iter().step_by(measured.len().div_ceil(DOTS).max(1)).copied().collect();
            theme::series(&mut chart, &power(&series.predicted), ink, Look::Line)?;
            theme::series(&mut chart, &few, ink, look)?;
            legend.push((ink, look, &*series.name));
        }
        theme::legend(&strip, &legend)
    })
}
