//! Forward and backward side by side.

use std::collections::BTreeMap;

use super::rows::{self, Row};
use super::{Subject, logarithmic, marks, opponent_speed, opponents, workloads};
use crate::Error;
use crate::bench::{Cell, workload};
use crate::plot::Figure;
use crate::plot::theme::{Axis, KERNEL, LIBTORCH, Look, TEXT};
use crate::record::Number;

/// The figure; none if no workload was measured in both directions.
pub(super) fn figure(subject: &Subject) -> Result<Option<Figure>, Error> {
    let mut sides = BTreeMap::<String, (Option<&Cell>, Option<&Cell>)>::new();
    let mut order = Vec::new();
    for cell in workloads(&subject.cells) {
        let label = workload(&cell.bench);
        if !sides.contains_key(&label) {
            order.push(label.clone());
        }
        let pair = sides.entry(label).or_default();
        let side = if cell.bench.direction == "forward" { &mut pair.0 } else { &mut pair.1 };
        // Of several kernels, the faster one.
        if side.is_none_or(|other| other.bench.seconds.value > cell.bench.seconds.value) {
            *side = Some(cell);
        }
    }
    let rows: Vec<_> = order
        .into_iter()
        .filter_map(|label| {
            let (forward, backward) = sides.get(&label).copied()?;
            let pair = (forward?, backward?);
            let speed = |cell: &Cell| Number(cell.bench.bytes_per_second().0 / 1e9);
            let value = (TEXT, format!("{} / {}", speed(pair.0), speed(pair.1)));
            Some(Row { heading: String::new(), label, value, data: pair })
        })
        .collect();
    let gigabytes = |cell: &Cell| cell.bench.bytes_per_second().0 / 1e9;
    let other = |cell: &Cell| opponent_speed(cell).map(|speed| speed / 1e9);
    let all = rows.iter().flat_map(|row| [row.data.0, row.data.1]);
    let all = all.flat_map(|cell| [Some(gigabytes(cell)), other(cell)]).flatten();
    let Some(ends) = logarithmic(all, 0.08) else { return Ok(None) };
    let axis = Axis { ends, label: "speed, GB/s of the least bytes", marks: marks(ends) };
    let opponents = opponents(&subject.cells);
    let legend = [
        (KERNEL, Look::Points, "forward"),
        (KERNEL, Look::Rings, "backward"),
        (LIBTORCH, Look::Blocks, &*opponents),
        (LIBTORCH, Look::Frames, "backward"),
    ];
    let caption =
        "Least bytes that must move over time, in each direction; the figures are those of the kernel.".to_owned();
    let names = (&*subject.name("directions"), subject.title("Forward and backward"), caption);
    rows::figure(names, &axis, &[], &legend, &rows, |line, (forward, backward)| {
        for (cell, kernels, others) in [(forward, Look::Points, Look::Blocks), (backward, Look::Rings, Look::Frames)] {
            if let Some(other) = other(cell) {
                line.mark(other.log10(), 4, LIBTORCH, others)?;
            }
            line.mark(gigabytes(cell).log10(), -4, KERNEL, kernels)?;
        }
        Ok(())
    })
    .map(Some)
}
