//! A chart of rows, each with a name at the left, something along a common axis and a figure at the right.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use crate::Error;
use crate::plot::Figure;
use crate::plot::theme::{self, Area, Axis, Drawn, GRID, Ink, LEGEND, Look, QUIET, TEXT};

/// A row of the chart.
pub(in crate::plot) struct Row<T> {
    /// What several rows in a row have in common: their heading.
    pub(in crate::plot) heading: String,
    /// What this one is about.
    pub(in crate::plot) label: String,
    /// The figure at its right.
    pub(in crate::plot) value: (Ink, String),
    /// What is drawn.
    pub(in crate::plot) data: T,
}

const HEIGHT: i32 = 20;
const WIDTH: i32 = 250;
const FOOT: i32 = 44;

/// Where a row is drawn: its middle, and where on it a value lies.
pub(in crate::plot) struct Line<'a, 'b> {
    pub(in crate::plot) area: &'a Area<'b>,
    pub(in crate::plot) middle: i32,
    left: i32,
    axis: &'a Axis,
}

impl Line<'_, '_> {
    /// Pixels from the left at which the axis has a value.
    pub(in crate::plot) fn at(&self, value: f64) -> i32 {
        self.axis.map(&value, (self.left, self.left + WIDTH))
    }

    /// Draws a mark, so many pixels below the middle.
    pub(in crate::plot) fn mark(&self, value: f64, below: i32, ink: Ink, look: Look) -> Drawn {
        theme::mark(self.area, (self.at(value), self.middle + below), ink, look)
    }

    /// Draws a line between two values with a stop at each end.
    pub(in crate::plot) fn interval(&self, low: f64, high: f64, ink: Ink) -> Drawn {
        let (low, high) = (self.at(low), self.at(high));
        let line = ink.light.stroke_width(1);
        self.area.draw(&PathElement::new([(low, self.middle), (high, self.middle)], line))?;
        for end in [low, high] {
            self.area.draw(&PathElement::new([(end, self.middle - 3), (end, self.middle + 3)], line))?;
        }
        Ok(())
    }

    /// Draws a bar between two values, only its outline if it is hollow.
    pub(in crate::plot) fn bar(&self, from: f64, to: f64, ink: Ink, hollow: bool) -> Drawn {
        let (a, b) = (self.at(from), self.at(to));
        let corners = [(a.min(b), self.middle - 6), (a.max(b), self.middle + 6)];
        let style = if hollow { ink.light.stroke_width(1) } else { ink.light.mix(0.6).filled() };
        self.area.draw(&Rectangle::new(corners, style))?;
        Ok(())
    }
}

/// Draws the chart; `bold` are values that get a stronger line, such as 1 on an axis of ratios.
pub(in crate::plot) fn figure<T>(
    (name, title, caption): (&str, String, String),
    axis: &Axis,
    bold: &[f64],
    legend: &[(Ink, Look, &str)],
    rows: &[Row<T>],
    draw: impl Fn(&Line, &T) -> Drawn,
) -> Result<Figure, Error> {
    // No font is at hand to measure with: about six pixels a character.
    let longest = |of: fn(&Row<T>) -> &str| rows.iter().map(|row| of(row).chars().count()).max().unwrap_or(0) as i32;
    let left = (26 + 6 * longest(|row| &row.label)).max(6 * longest(|row| &row.heading) + 10 - WIDTH).max(120);
    let right = 18 + 6 * longest(|row| &row.value.1);
    let new_heading = |i: usize| i == 0 || rows[i - 1].heading != rows[i].heading;
    let headings = (0..rows.len()).filter(|i| new_heading(*i) && !rows[*i].heading.is_empty()).count();
    let top = LEGEND as i32 + 4;
    let bottom = top + HEIGHT * (rows.len() + headings) as i32;
    let size = ((left + WIDTH + right) as u32, (bottom + FOOT) as u32);
    theme::figure((name, title, caption), size, |area| {
        theme::legend(area, legend)?;
        let column = |value: f64| axis.map(&value, (left, left + WIDTH));
        for (at, text) in &axis.marks {
            area.draw_text(text, &theme::text(QUIET, 11, HPos::Center, VPos::Top), (column(*at), bottom + 6))?;
        }
        let ends = [(left, bottom), (left + WIDTH, bottom)];
        area.draw(&PathElement::new(ends, QUIET.light.stroke_width(1)))?;
        let style = theme::text(TEXT, 12, HPos::Center, VPos::Top);
        area.draw_text(axis.label, &style, (left + WIDTH / 2, bottom + 24))?;
        let mut y = top + HEIGHT / 2;
        for (i, row) in rows.iter().enumerate() {
            if new_heading(i) && !row.heading.is_empty() {
                area.draw_text(&row.heading, &theme::text(TEXT, 12, HPos::Left, VPos::Center), (10, y))?;
                y += HEIGHT;
            }
            area.draw_text(&row.label, &theme::text(QUIET, 11, HPos::Right, VPos::Center), (left - 10, y))?;
            // Row by row, so that no line crosses a heading.
            let upright = |value: f64, ink: Ink| {
                let ends = [(column(value), y - HEIGHT / 2), (column(value), y + HEIGHT / 2)];
                area.draw(&PathElement::new(ends, ink.light.stroke_width(1)))
            };
            axis.marks.iter().try_for_each(|(at, _)| upright(*at, GRID))?;
            draw(&Line { area, middle: y, left, axis }, &row.data)?;
            bold.iter().try_for_each(|value| upright(*value, TEXT))?;
            let (ink, text) = &row.value;
            area.draw_text(text, &theme::text(*ink, 11, HPos::Left, VPos::Center), (left + WIDTH + 8, y))?;
            y += HEIGHT;
        }
        Ok(())
    })
}
