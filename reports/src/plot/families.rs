//! Heat map: which operator comes how close to its bound on which value family.

use std::collections::{BTreeMap, BTreeSet};

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use super::Figure;
use super::theme::{self, GRID, KERNEL, QUIET, TEXT, WRONG};
use crate::Error;
use crate::record::{Counts, Number};
use crate::summary::Summary;

const CELL: (i32, i32) = (46, 24);

/// An operator, whether it is not its forward direction, and the direction.
type Row<'a> = (&'a str, bool, &'a str);

/// The figure; none if there is no case.
pub(super) fn figure(summary: &Summary) -> Result<Option<Figure>, Error> {
    let mut cells = BTreeMap::<(Row, &str), (Counts, usize)>::new();
    for kernel in &summary.kernels {
        let (operator, direction) = (kernel.kernel.operator.as_str(), kernel.kernel.direction.as_str());
        let row = (operator, direction != "forward", direction);
        for tally in &kernel.tallies {
            cells.entry((row, &tally.family)).or_default().0.merge(&tally.counts);
        }
        for finding in &kernel.findings {
            cells.entry((row, &finding.family)).or_default().1 += 1;
        }
    }
    if cells.is_empty() {
        return Ok(None);
    }
    let rows: BTreeSet<_> = cells.keys().map(|(row, _)| *row).collect();
    let columns: BTreeSet<_> = cells.keys().map(|(_, column)| *column).collect();
    // No font is at hand to measure with: about six pixels a character.
    let room = |characters: Option<usize>| 24 + 6 * characters.unwrap_or(0) as i32;
    let left = room(rows.iter().map(|(operator, _, direction)| operator.len() + 2 + direction.len()).max());
    let top = room(columns.iter().map(|column| column.len()).max());
    let size = (left + CELL.0 * columns.len() as i32 + 8, top + CELL.1 * rows.len() as i32 + 8);

    let title = "Worst error by operator and value family".to_owned();
    let caption =
        "Largest error as a multiple of the bound, over all kernels and dtypes; the stronger the colour, the closer to the \
                   bound. A cross marks findings; a dash, that no error was measured."
            .to_owned();
    let draw = |area: &theme::Area| {
        for (x, column) in columns.iter().enumerate() {
            let at = (left + CELL.0 * x as i32 + CELL.0 / 2, top - 10);
            let style = theme::text(QUIET, 11, HPos::Left, VPos::Center).transform(FontTransform::Rotate270);
            area.draw_text(column, &style, at)?;
        }
        for (y, row @ (operator, _, direction)) in rows.iter().enumerate() {
            let middle = top + CELL.1 * y as i32 + CELL.1 / 2;
            let style = theme::text(TEXT, 12, HPos::Right, VPos::Center);
            area.draw_text(&format!("{operator}, {direction}"), &style, (left - 10, middle))?;
            for (x, column) in columns.iter().enumerate() {
                let start = left + CELL.0 * x as i32;
                let corners = [(start + 1, middle - CELL.1 / 2 + 1), (start + CELL.0 - 1, middle + CELL.1 / 2 - 1)];
                let (fill, ink, label) = look(cells.get(&(*row, *column)));
                area.draw(&Rectangle::new(corners, fill.filled()))?;
                let style = theme::text(ink, 11, HPos::Center, VPos::Center);
                area.draw_text(&label, &style, (start + CELL.0 / 2, middle))?;
            }
        }
        Ok(())
    };
    theme::figure(("families", title, caption), (size.0 as u32, size.1 as u32), draw).map(Some)
}

/// Colour of a cell, and colour and text of what is written in it.
fn look(cell: Option<&(Counts, usize)>) -> (RGBAColor, theme::Ink, String) {
    let Some((counts, findings)) = cell else { return (GRID.light.mix(0.3), QUIET, "–".to_owned()) };
    let worst = counts.errors.worst_ratio_to_bound.as_ref().map(|worst| worst.value);
    if *findings > 0 || counts.failed > 0 {
        let label = worst.filter(|w| *w > Number(1.0)).map_or_else(|| "×".to_owned(), |w| format!("× {}", short(w)));
        return (WRONG.light.mix(0.3), TEXT, label);
    }
    match worst {
        None => (GRID.light.mix(0.3), QUIET, "–".to_owned()),
        // Four steps, all light enough for text; the last begins at half of the bound.
        Some(worst) => {
            let strength = [0.01, 0.1, 0.25, 0.5].iter().filter(|limit| worst >= Number(**limit)).count();
            (KERNEL.light.mix(0.06 + 0.1 * strength as f64), TEXT, short(worst))
        }
    }
}

/// Two digits.
fn short(ratio: Number) -> String {
    match ratio.0 {
        0.0 => "0".to_owned(),
        small if small < 0.01 => format!("{small:.0e}"),
        middling if middling < 9.95 => format!("{middling:.2}"),
        large if large.is_finite() => format!("{large:.0e}"),
        _ => ratio.to_string(),
    }
}
