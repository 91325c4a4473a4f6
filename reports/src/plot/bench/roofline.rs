//! Roofline: speed against working set, under the ceilings of the machine.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use super::{View, logarithmic, marks, opponent_speed, opponents, powers_of_two, workloads};
use crate::Error;
use crate::bench::{Cell, bytes};
use crate::plot::Figure;
use crate::plot::theme::{self, Axis, GRID, KERNEL, LEGEND, LIBTORCH, Look, QUIET};
use crate::record::Access;

/// The figure for one dtype, or for the ceilings alone, and one number of threads; none if there is nothing to show.
pub(super) fn figure(view: &View, dtype: Option<&str>, threads: u32) -> Result<Option<Figure>, Error> {
    let here = |cell: &&&Cell| Some(&*cell.bench.dtype) == dtype && cell.bench.threads == threads;
    let cells = workloads(&view.cells.iter().filter(here).copied().collect::<Vec<_>>());
    let limits: Vec<_> = view.ceilings.iter().map(|l| &l.ceiling).filter(|c| c.threads == threads).collect();
    if dtype.is_some() && cells.is_empty() {
        return Ok(None);
    }
    let at = |bytes: u64, speed: f64| ((bytes.max(1) as f64).log2(), (speed / 1e9).log10());
    let kernels = |forward: bool| -> Vec<_> {
        let side = cells.iter().filter(|cell| (cell.bench.direction == "forward") == forward);
        side.map(|cell| at(cell.bench.bytes, cell.bench.bytes_per_second().0)).collect()
    };
    let others = |forward: bool| -> Vec<_> {
        let side = cells.iter().filter(|cell| (cell.bench.direction == "forward") == forward);
        side.filter_map(|cell| Some(at(cell.bench.bytes, opponent_speed(cell)?))).collect()
    };
    let lines = [
        (Access::Read, Look::Line, "read"),
        (Access::Write, Look::Dashes, "write"),
        (Access::Copy, Look::Steps, "copy"),
    ];
    let lines = lines.map(|(access, look, name)| {
        let of = limits.iter().filter(|ceiling| ceiling.access == access);
        let points: Vec<_> = of.map(|c| at(c.working_set, c.bytes_per_second.value.0)).collect();
        (QUIET, look, name, points)
    });
    let other = opponents(&cells);
    let points = [
        (LIBTORCH, Look::Blocks, &*other, others(true)),
        (LIBTORCH, Look::Frames, "backward", others(false)),
        (KERNEL, Look::Points, "kernels", kernels(true)),
        (KERNEL, Look::Rings, "backward", kernels(false)),
    ];
    let all: Vec<_> = lines.iter().chain(&points).flat_map(|(.., points)| points).copied().collect();
    let sizes = logarithmic(all.iter().map(|at| 10f64.powf(at.0)), 0.6);
    let speeds = logarithmic(all.iter().map(|at| 10f64.powf(at.1)), 0.12);
    let Some((size, (low, high))) = sizes.zip(speeds) else { return Ok(None) };
    // Room for the names of the levels.
    let speed = (low, high + 0.08 * (high - low));
    let x = Axis { ends: size, label: "working set", marks: powers_of_two(size, bytes) };
    let y = Axis { ends: speed, label: "speed, GB/s", marks: marks(speed) };

    let of = dtype.map_or_else(String::new, |dtype| format!(", {dtype}"));
    let counted = format!("{threads} thread{}", if threads == 1 { "" } else { "s" });
    let title = format!("Roofline{of}, {counted}{}", view.place);
    let caption = "Least bytes that must move over time, against these bytes. The lines are what the machine reads, writes and \
                   copies at most, bytes read plus bytes written. A kernel that finds part of its data in a nearer cache may lie \
                   above."
        .to_owned();
    let draw = |area: &theme::Area| {
        let (first, rest) = area.split_vertically(LEGEND - 4);
        let (second, plot) = rest.split_vertically(LEGEND - 2);
        let mut chart = theme::chart(&plot, &x, &y)?;
        let levels = limits.iter().map(|c| (at(c.working_set, 1.0).0, c.level.as_deref()));
        for (from, to, level) in bands(levels.collect(), x.ends) {
            let edge = [(from, speed.0), (from, speed.1)];
            if from > x.ends.0 {
                theme::series(&mut chart, &edge, GRID, Look::Steps)?;
            }
            // A name needs about six pixels a character.
            if (to - from) / (x.ends.1 - x.ends.0) * 360.0 > 6.0 * level.len() as f64 + 4.0 {
                let style = theme::text(QUIET, 11, HPos::Center, VPos::Top);
                let middle = ((from + to) / 2.0, speed.1);
                chart.draw_series([EmptyElement::at(middle) + Text::new(level.to_owned(), (0, 3), style)])?;
            }
        }
        for (ink, look, _, points) in lines.iter().chain(&points) {
            theme::series(&mut chart, points, *ink, *look)?;
        }
        for (strip, series) in [(&first, &points[..]), (&second, &lines[..])] {
            let shown = series.iter().filter(|(.., points)| !points.is_empty());
            let entries: Vec<theme::Entry> = shown.map(|(ink, look, name, _)| (*ink, *look, *name)).collect();
            theme::legend(strip, &entries)?;
        }
        Ok(())
    };
    let name = format!("roofline{}-{threads}", dtype.map_or_else(String::new, |dtype| format!("-{dtype}")));
    theme::figure((&name, title, caption), (480, 330), draw).map(Some)
}

/// From where to where each level of memory reaches, given working sets of known level.
fn bands(mut sizes: Vec<(f64, Option<&str>)>, ends: (f64, f64)) -> Vec<(f64, f64, &str)> {
    sizes.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut bands = Vec::<(f64, f64, &str)>::new();
    let mut last = ends.0;
    for (size, level) in sizes {
        let Some(level) = level else { continue };
        match bands.last_mut() {
            Some((.., known)) if *known == level => {}
            Some((_, to, _)) => {
                let border = (last + size) / 2.0;
                *to = border;
                bands.push((border, ends.1, level));
            }
            None => bands.push((ends.0, ends.1, level)),
        }
        last = size;
    }
    bands
}
