//! Figures about identities: how far both sides are apart, and how far they may be.

mod networks;

pub use networks::figures as network_figures;

use super::Figure;
use super::theme::{self, Axis, Drawn, Ink, KERNEL, LEGEND, LIBTORCH, Look, QUIET, TEXT};
use crate::Error;
use crate::record::{Identity, Number, Point};

/// Inks of the arithmetics, and their looks.
const SERIES: [(&str, Ink, Look); 4] = [
    ("bf16", TEXT, Look::Blocks),
    ("f32", LIBTORCH, Look::Dots),
    ("f64", KERNEL, Look::Dots),
    ("exact", QUIET, Look::Crosses),
];
/// Bounds beyond this say nothing, and discrepancies below that are 0.
const ENDS: (f64, f64) = (-33.5, 3.0);

/// A figure for each identity.
///
/// # Errors
/// [`Error::Plot`] if one cannot be drawn.
pub fn figures(identities: &[Identity]) -> Result<Vec<Figure>, Error> {
    identities.iter().map(figure).collect()
}

/// What a panel runs over.
#[derive(Clone, Copy, PartialEq)]
enum Over {
    Width,
    Depth,
}

fn figure(identity: &Identity) -> Result<Figure, Error> {
    let points = &identity.points;
    let several = |of: fn(&Point) -> u32| points.iter().any(|point| of(point) != of(&points[0]));
    let panels: Vec<Over> = [(Over::Width, several(|point| point.width)), (Over::Depth, several(|point| point.depth))]
        .into_iter()
        .filter_map(|(over, several)| several.then_some(over))
        .collect();
    let panels = if panels.is_empty() { vec![Over::Width] } else { panels };
    let caption = "Largest difference of both sides, relative to the largest value: crosses in double-double arithmetic, \
                   dots and squares through libtorch. Broken lines: the sum of both sides' derived bounds, below which they must \
                   stay; above 1 it says nothing. Differences of 0 are not drawn."
        .to_owned();
    let names = (&*format!("identity-{}", identity.name), identity.name.clone(), caption);
    let width = 420 * panels.len() as u32 + 20;
    let mut figure = theme::figure(names, (width, 320), |area| {
        let (strip, plots) = area.split_vertically(LEGEND);
        for (plot, over) in plots.split_evenly((1, panels.len())).iter().zip(&panels) {
            panel(plot, points, *over)?;
        }
        let mut legend: Vec<_> = SERIES.iter().map(|(name, ink, look)| (*ink, *look, *name)).collect();
        legend.push((QUIET, Look::Dashes, "bound"));
        theme::legend(&strip, &legend)
    })?;
    figure.operator = Some(identity.name.clone());
    Ok(figure)
}

/// Over the width at the least depth, or over the depth at the largest width.
fn panel(area: &theme::Area, points: &[Point], over: Over) -> Drawn {
    let (shallow, wide) = (points.iter().map(|p| p.depth).min(), points.iter().map(|p| p.width).max());
    let at = |point: &Point| if over == Over::Width { f64::from(point.width).log2() } else { f64::from(point.depth) };
    let shown: Vec<&Point> = points
        .iter()
        .filter(|point| if over == Over::Width { Some(point.depth) == shallow } else { Some(point.width) == wide })
        .collect();
    let (low, high) =
        shown.iter().map(|point| at(point)).fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), x| (l.min(x), h.max(x)));
    let mut marks: Vec<(f64, String)> = Vec::new();
    for point in &shown {
        let text = if over == Over::Width { point.width } else { point.depth }.to_string();
        if marks.iter().all(|(_, known)| *known != text) {
            marks.push((at(point), text));
        }
    }
    let label = if over == Over::Width { "width, at the least depth" } else { "layers, at the largest width" };
    let x = Axis { ends: (low - 0.3, high + 0.3), label, marks };
    let y = Axis {
        ends: ENDS,
        label: "apart, relative to the largest value",
        marks: (-32..=0).step_by(4).map(|power| (f64::from(power), format!("1e{power}"))).collect(),
    };
    let mut chart = theme::chart(area, &x, &y)?;
    for (dtype, ink, look) in SERIES {
        let line = |value: &dyn Fn(&Point) -> Option<Number>| -> Vec<(f64, f64)> {
            let mut line: Vec<(f64, f64)> = shown
                .iter()
                .filter(|point| point.dtype == dtype)
                .filter_map(|point| Some((at(point), value(point)?.0.log10())))
                .filter(|(_, power)| *power > ENDS.0)
                .map(|(x, power)| (x, power.min(ENDS.1)))
                .collect();
            line.sort_by(|a, b| a.0.total_cmp(&b.0));
            line
        };
        theme::series(&mut chart, &line(&|point| point.bound), ink, Look::Dashes)?;
        theme::series(&mut chart, &line(&|point| Some(point.discrepancy)), ink, look)?;
    }
    Ok(())
}
