//! Figures about claims: the paper's range as a band, ours as points with intervals, over the width.

use plotters::prelude::*;

use super::Figure;
use super::theme::{self, Axis, Drawn, Ink, KERNEL, LEGEND, LIBTORCH, Look, QUIET, TEXT, WRONG};
use crate::Error;
use crate::record::{Claim, Measurement, Number};

/// So many pairs of a claim can be told apart in its figure.
pub const MOST_PAIRS: usize = 10;
/// Inks and looks of pairs, in order: those that decide are filled.
const PAIRS: [(Ink, Look, Look); MOST_PAIRS] = [
    (KERNEL, Look::Points, Look::Rings),
    (LIBTORCH, Look::Blocks, Look::Frames),
    (WRONG, Look::Points, Look::Rings),
    (TEXT, Look::Blocks, Look::Frames),
    (QUIET, Look::Points, Look::Rings),
    (KERNEL, Look::Blocks, Look::Frames),
    (LIBTORCH, Look::Points, Look::Rings),
    (WRONG, Look::Blocks, Look::Frames),
    (TEXT, Look::Points, Look::Rings),
    (QUIET, Look::Blocks, Look::Frames),
];
/// Pixels of a line of the legend.
const LINE: u32 = 20;

/// A figure for each claim.
///
/// # Errors
/// [`Error::Plot`] if one cannot be drawn.
pub fn figures(claims: &[Claim]) -> Result<Vec<Figure>, Error> {
    claims.iter().map(figure).collect()
}

/// The pairs of a claim by their titles, in order.
fn titles(claim: &Claim) -> Vec<&str> {
    let mut titles: Vec<&str> = Vec::new();
    for measurement in &claim.measurements {
        if !titles.contains(&&*measurement.title) {
            titles.push(&measurement.title);
        }
    }
    titles
}

fn figure(claim: &Claim) -> Result<Figure, Error> {
    let titles = titles(claim);
    let caption = format!(
        "Band: {} in the paper. Marks: {} here, with 95 % intervals, filled where the verdict is about them; a little apart where \
         widths are the same. Short lines: the most that can be had without what is made better.",
        claim.stated.text, claim.metric
    );
    let names = (&*format!("claim-{}", claim.name), claim.name.clone(), caption);
    let lines = (titles.len() as u32 + 1).div_ceil(2);
    let mut figure = theme::figure(names, (760, 340 + LINE * lines), |area| {
        let (strip, plot) = area.split_vertically(LEGEND + LINE * lines.saturating_sub(1));
        draw(&plot, claim, &titles)?;
        let mut entries = vec![(QUIET, Look::Bars, "stated")];
        for (place, title) in titles.iter().enumerate() {
            let decides = claim.measurements.iter().any(|m| m.title == *title && m.decides);
            let (ink, filled, hollow) = PAIRS[place % PAIRS.len()];
            entries.push((ink, if decides { filled } else { hollow }, *title));
        }
        for (line, entries) in strip.split_evenly((lines as usize, 1)).iter().zip(entries.chunks(2)) {
            theme::legend(line, entries)?;
        }
        Ok(())
    })?;
    figure.operator = Some(claim.name.clone());
    Ok(figure)
}

fn draw(area: &theme::Area, claim: &Claim, titles: &[&str]) -> Drawn {
    let stated = (claim.stated.low.0, claim.stated.high.0);
    let shown = || claim.measurements.iter().filter(|m| m.measured.low.0.is_finite() && m.measured.high.0.is_finite());
    let (mut low, mut high) = (stated.0.min(0.0), stated.1.max(0.0));
    for m in shown() {
        // Whatever is far outside is cut off.
        low = low.min(m.measured.low.0.max(-1.0));
        high = high.max(m.measured.high.0.min(4.0));
    }
    let margin = 0.06 * (high - low).max(0.02);
    let step = nice((high - low + 2.0 * margin) / 6.0);
    let marks = ((low / step).floor() as i32..=(high / step).ceil() as i32).map(|place| f64::from(place) * step);
    let ends = (low - margin, high + margin);
    let y = Axis {
        ends,
        label: "",
        marks: marks
            .filter(|at| (ends.0..=ends.1).contains(at))
            .map(|at| (at, format!("{} %", Number(100.0 * round(at)))))
            .collect(),
    };
    let mut widths: Vec<u64> = claim.measurements.iter().map(|m| m.width).collect();
    widths.sort_unstable();
    widths.dedup();
    let at = |width: u64| (width as f64).log2();
    let (left, right) = (widths.first().map_or(0.0, |&w| at(w)), widths.last().map_or(1.0, |&w| at(w)));
    let x = Axis {
        ends: (left - 0.5, right + 0.5),
        label: "width",
        marks: widths.iter().map(|&width| (at(width), width.to_string())).collect(),
    };
    let mut chart = theme::chart(area, &x, &y)?;
    let band = [(x.ends.0, stated.0), (x.ends.1, if stated.0 == stated.1 { stated.1 + 0.002 } else { stated.1 })];
    chart.draw_series([Rectangle::new(band, QUIET.light.mix(0.25).filled())])?;
    theme::series(&mut chart, &[(x.ends.0, 0.0), (x.ends.1, 0.0)], QUIET, Look::Line)?;
    let apart = (right - left + 1.0) / 60.0;
    for m in shown() {
        let place = titles.iter().position(|title| *title == m.title).unwrap_or(0);
        let (ink, filled, hollow) = PAIRS[place % PAIRS.len()];
        let x = at(m.width) + apart * (place as f64 - (titles.len() as f64 - 1.0) / 2.0);
        one(&mut chart, m, x, apart, (ink, if m.decides { filled } else { hollow }))?;
    }
    Ok(())
}

/// A measurement at a place.
fn one(chart: &mut theme::Chart, m: &Measurement, x: f64, apart: f64, (ink, look): (Ink, Look)) -> Drawn {
    theme::series(chart, &[(x, m.measured.low.0), (x, m.measured.high.0)], ink, Look::Steps)?;
    if let Some(limit) = m.limit {
        let ends = [(x - 0.4 * apart, limit.value.0), (x + 0.4 * apart, limit.value.0)];
        theme::series(chart, &ends, ink, Look::Line)?;
    }
    theme::series(chart, &[(x, m.measured.value.0)], ink, look)
}

/// A round number not below another.
fn nice(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|digit| digit * power).into_iter().find(|step| *step >= least).unwrap_or(power)
}

/// Without what binary fractions add.
fn round(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}
