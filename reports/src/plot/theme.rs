//! The look of all figures, and the parts they share.
//!
//! Colours are drawn as the fixed ones of the light scheme, which any viewer shows; style sheets replace each of them by
//! a variable, so that one figure does for light and dark. They are told apart in all common kinds of colour blindness.

use std::fmt::Write;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, ValueFormatter};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::Figure;
use crate::Error;
use crate::record::Number;

/// A colour that stands for the same thing in every figure.
#[derive(Clone, Copy)]
pub(super) struct Ink {
    name: &'static str,
    pub(super) light: RGBColor,
    dark: RGBColor,
}

/// Text.
pub(super) const TEXT: Ink = ink("text", (0x22, 0x2b, 0x36), (0xe3, 0xe7, 0xec));
/// Axes, and text that matters less.
pub(super) const QUIET: Ink = ink("quiet", (0x5b, 0x67, 0x76), (0x9c, 0xa8, 0xb6));
/// Grid lines.
pub(super) const GRID: Ink = ink("grid", (0xdc, 0xe1, 0xe8), (0x33, 0x3c, 0x48));
/// The kernels.
pub(super) const KERNEL: Ink = ink("kernel", (0x0a, 0x67, 0xad), (0x62, 0xb2, 0xee));
/// libtorch.
pub(super) const LIBTORCH: Ink = ink("libtorch", (0xb8, 0x6e, 0x00), (0xe9, 0xa9, 0x45));
/// What is wrong.
pub(super) const WRONG: Ink = ink("wrong", (0xc2, 0x34, 0x1d), (0xff, 0x7d, 0x61));

const INKS: [Ink; 6] = [TEXT, QUIET, GRID, KERNEL, LIBTORCH, WRONG];

const fn ink(name: &'static str, light: (u8, u8, u8), dark: (u8, u8, u8)) -> Ink {
    Ink { name, light: RGBColor(light.0, light.1, light.2), dark: RGBColor(dark.0, dark.1, dark.2) }
}

fn hex(RGBColor(r, g, b): RGBColor) -> String {
    format!("#{r:02X}{g:02X}{b:02X}")
}

/// The variables that [`css`] uses, as declarations for the light or the dark scheme.
pub fn css_variables(dark: bool) -> String {
    let declare = |ink: &Ink| format!("--{}: {};", ink.name, hex(if dark { ink.dark } else { ink.light }));
    INKS.iter().map(declare).collect::<Vec<_>>().join(" ")
}

/// The rules that make figures follow [`css_variables`].
pub fn css() -> String {
    INKS.iter().fold(String::new(), |mut css, ink| {
        let (name, light) = (ink.name, hex(ink.light));
        for property in ["fill", "stroke"] {
            // Writing to a String cannot fail.
            let _ = writeln!(css, "svg [{property}=\"{light}\"] {{ {property}: var(--{name}); }}");
        }
        css
    })
}

/// Where something is drawn.
pub(super) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
/// What the plotting library says when it cannot draw.
pub(super) type Drawn = Result<(), Box<dyn std::error::Error>>;

/// Draws a figure of the given size.
pub(super) fn figure(
    (name, title, caption): (&str, String, String),
    size: (u32, u32),
    draw: impl FnOnce(&Area) -> Drawn,
) -> Result<Figure, Error> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        let drawn = draw(&area).and_then(|()| Ok(area.present()?));
        drawn.map_err(|e| Error::Plot { figure: name.to_owned(), reason: e.to_string() })?;
    }
    // The size is left to the page, and the figure gets a name for those who cannot see it.
    let (width, height) = size;
    let fixed = format!("<svg width=\"{width}\" height=\"{height}\" viewBox");
    let label = title.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;");
    let free = format!("<svg role=\"img\" aria-label=\"{label}\" width=\"100%\" viewBox");
    let svg = svg.replacen(&fixed, &free, 1);
    Ok(Figure { name: name.to_owned(), title, caption, operator: None, svg })
}

/// Text of the given size in pixels, anchored as told.
pub(super) fn text(ink: Ink, size: u32, h: HPos, v: VPos) -> TextStyle<'static> {
    // The SVG backend divides the size by 1.24.
    let style = ("sans-serif", f64::from(size) * 1.24).into_text_style(&(0, 0)).pos(Pos::new(h, v));
    TextStyle { color: ink.light.to_backend_color(), ..style }
}

/// An axis of a chart: its ends, what it measures, and its marks with their labels.
#[derive(Clone)]
pub(super) struct Axis {
    pub(super) ends: (f64, f64),
    pub(super) label: &'static str,
    pub(super) marks: Vec<(f64, String)>,
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let part = (value.clamp(self.ends.0, self.ends.1) - self.ends.0) / (self.ends.1 - self.ends.0);
        limit.0 + (part * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        let marks = self.marks.iter().map(|(at, _)| *at);
        if hint.bold_points() > 0 { marks.collect() } else { Vec::new() }
    }

    fn range(&self) -> std::ops::Range<f64> {
        self.ends.0..self.ends.1
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        let mark = self.marks.iter().find(|(mark, _)| mark == value);
        mark.map_or_else(String::new, |(_, label)| label.clone())
    }
}

pub(super) type Chart<'a> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<Axis, Axis>>;

/// An empty chart with labelled axes.
pub(super) fn chart<'a>(area: &Area<'a>, x: &Axis, y: &Axis) -> Result<Chart<'a>, Box<dyn std::error::Error>> {
    let mut builder = ChartBuilder::on(area);
    builder.margin_right(14).margin_top(6).x_label_area_size(44).y_label_area_size(62);
    let mut chart = builder.build_cartesian_2d(x.clone(), y.clone())?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID.light)
        .axis_style(QUIET.light)
        .label_style(text(QUIET, 11, HPos::Center, VPos::Center))
        .axis_desc_style(text(TEXT, 12, HPos::Center, VPos::Center))
        .x_desc(x.label)
        .y_desc(y.label)
        .draw()?;
    Ok(chart)
}

/// How a series is drawn.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// A line with dots.
    Dots,
    /// A thin line.
    Line,
    /// A broken line with squares.
    Squares,
    /// A filled area.
    Bars,
    /// A line without dots.
    Steps,
    /// Crosses.
    Crosses,
    /// A thin broken line.
    Dashes,
    /// Dots, and rings for their counterpart.
    Points,
    Rings,
    /// Squares, and their outlines for their counterpart.
    Blocks,
    Frames,
    /// A short upright line.
    Ticks,
}

/// Draws one mark of a series of marks, at pixels of the area; nothing for what is a line or an area itself.
pub(super) fn mark(area: &Area, at: (i32, i32), ink: Ink, look: Look) -> Drawn {
    let (line, filled, thin) = (ink.light.stroke_width(2), ink.light.filled(), ink.light.stroke_width(1));
    let at = EmptyElement::at(at);
    match look {
        Look::Crosses => area.draw(&(at + Cross::new((0, 0), 4, line)))?,
        Look::Points => area.draw(&(at + Circle::new((0, 0), 3, filled)))?,
        Look::Rings => area.draw(&(at + Circle::new((0, 0), 3, thin)))?,
        Look::Blocks => area.draw(&(at + Rectangle::new([(-3, -3), (3, 3)], filled)))?,
        Look::Frames => area.draw(&(at + Rectangle::new([(-3, -3), (3, 3)], thin)))?,
        Look::Ticks => area.draw(&(at + PathElement::new([(0, -5), (0, 5)], line)))?,
        Look::Dots | Look::Line | Look::Squares | Look::Bars | Look::Steps | Look::Dashes => {}
    }
    Ok(())
}

/// Draws a line of points in any coordinates.
pub(super) fn series(chart: &mut Chart, points: &[(f64, f64)], ink: Ink, look: Look) -> Drawn {
    let line = ink.light.stroke_width(2);
    let points = points.iter().copied();
    match look {
        Look::Dots => {
            chart.draw_series(LineSeries::new(points.clone(), line))?;
            chart.draw_series(points.map(|at| Circle::new(at, 3, ink.light.filled())))?;
        }
        Look::Line => drop(chart.draw_series(LineSeries::new(points, ink.light.stroke_width(1)))?),
        Look::Steps => drop(chart.draw_series(LineSeries::new(points, line))?),
        Look::Squares => {
            chart.draw_series(DashedLineSeries::new(points.clone(), 5, 3, line))?;
            chart.draw_series(
                points.map(|at| EmptyElement::at(at) + Rectangle::new([(-3, -3), (3, 3)], ink.light.filled())),
            )?;
        }
        Look::Bars => drop(chart.draw_series(
            points.map(|(x, y)| Rectangle::new([(x, f64::MIN), (x + 1.0, y)], ink.light.mix(0.35).filled())),
        )?),
        Look::Dashes => drop(chart.draw_series(DashedLineSeries::new(points, 6, 4, ink.light.stroke_width(1)))?),
        Look::Crosses | Look::Points | Look::Rings | Look::Blocks | Look::Frames | Look::Ticks => {
            let (area, (left, top)) = (chart.plotting_area(), chart.plotting_area().get_base_pixel());
            for point in points {
                let (x, y) = area.map_coordinate(&point);
                mark(&area.strip_coord_spec(), (x - left, y - top), ink, look)?;
            }
        }
    }
    Ok(())
}

/// Height of the strip that [`legend`] draws in.
pub(super) const LEGEND: u32 = 26;

/// A series by its look and name.
pub(super) type Entry<'a> = (Ink, Look, &'a str);

/// Names the series of a chart, in a strip above it.
pub(super) fn legend(strip: &Area, entries: &[Entry]) -> Drawn {
    let (mut x, y) = (10, 12);
    for (ink, look, name) in entries {
        let (line, filled) = (ink.light.stroke_width(2), ink.light.filled());
        match look {
            Look::Dots => {
                strip.draw(&PathElement::new([(x, y), (x + 18, y)], line))?;
                strip.draw(&Circle::new((x + 9, y), 3, filled))?;
            }
            Look::Line => strip.draw(&PathElement::new([(x, y), (x + 18, y)], ink.light.stroke_width(1)))?,
            Look::Steps => strip.draw(&PathElement::new([(x, y), (x + 18, y)], line))?,
            Look::Squares => {
                strip.draw(&PathElement::new([(x, y), (x + 5, y)], line))?;
                strip.draw(&PathElement::new([(x + 13, y), (x + 18, y)], line))?;
                strip.draw(&Rectangle::new([(x + 6, y - 3), (x + 12, y + 3)], filled))?;
            }
            Look::Bars => strip.draw(&Rectangle::new([(x, y - 5), (x + 18, y + 5)], ink.light.mix(0.35).filled()))?,
            Look::Dashes => {
                for (from, to) in [(0, 5), (7, 12), (14, 18)] {
                    strip.draw(&PathElement::new([(x + from, y), (x + to, y)], ink.light.stroke_width(1)))?;
                }
            }
            Look::Crosses | Look::Points | Look::Rings | Look::Blocks | Look::Frames | Look::Ticks => {
                mark(strip, (x + 9, y), *ink, *look)?;
            }
        }
        strip.draw_text(name, &text(TEXT, 12, HPos::Left, VPos::Center), (x + 24, y))?;
        // No font is at hand to measure with: about six pixels a character.
        x += 42 + 6 * name.chars().count() as i32;
    }
    Ok(())
}

/// Marks on an axis of powers of ten: each power, or each second, third ... where there are many, and 2 and 5 between
/// them where there are few.
pub(super) fn decades(from: f64, to: f64) -> Vec<(f64, String)> {
    let (first, last) = (from.floor() as i32, to.ceil() as i32);
    let step = (last - first) / 7 + 1;
    let digits = if last - first <= 3 { [1, 2, 5].as_slice() } else { &[1] };
    // From zero outwards, so that 1 is always marked.
    (first..=last)
        .filter(|exponent| exponent.rem_euclid(step) == 0)
        .flat_map(|exponent| digits.iter().map(move |digit| (*digit, exponent)))
        .map(|(digit, exponent)| (f64::from(digit).log10() + f64::from(exponent), format!("{digit}e{exponent}")))
        .filter(|(at, _)| (from..=to).contains(at))
        .map(|(at, label)| (at, label.parse().map_or(label, |value| Number(value).to_string())))
        .collect()
}
