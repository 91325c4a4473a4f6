//! How much faster more threads are.

use super::rows::{self, Row};
use super::{Subject, opponent_speed, opponents, workloads};
use crate::Error;
use crate::bench::{Cell, shape};
use crate::plot::Figure;
use crate::plot::theme::{Axis, KERNEL, LIBTORCH, Look, TEXT};
use crate::record::Number;

/// Speed-ups over the fewest threads: of the kernel and of its opponent, for each number of threads.
type Points = Vec<(u32, f64, Option<f64>)>;

/// The figure; none if all was measured with the same number of threads.
pub(super) fn figure(subject: &Subject) -> Result<Option<Figure>, Error> {
    let mut groups = Vec::<Vec<&Cell>>::new();
    for cell in workloads(&subject.cells) {
        let place = |c: &Cell| (c.bench.kernel.clone(), c.bench.shape.clone(), c.bench.layout.clone());
        match groups.iter_mut().find(|cells| place(cells[0]) == place(cell)) {
            Some(cells) => cells.push(cell),
            None => groups.push(vec![cell]),
        }
    }
    let rows: Vec<_> = groups
        .into_iter()
        .filter_map(|mut cells| {
            cells.sort_by_key(|cell| cell.bench.threads);
            let (first, more) = cells.split_first()?;
            let points: Points = more
                .iter()
                .map(|cell| {
                    let kernel = cell.bench.bytes_per_second().0 / first.bench.bytes_per_second().0;
                    let other = opponent_speed(cell).zip(opponent_speed(first)).map(|(many, one)| many / one);
                    (cell.bench.threads / first.bench.threads.max(1), kernel, other)
                })
                .collect();
            let (_, last, _) = *points.last()?;
            let value = (TEXT, format!("{}× with {}", Number(last), more.last()?.bench.threads));
            let heading = format!("{}, over {} thread{}", first.bench.kernel, first.bench.threads, plural(first));
            Some(Row { heading, label: shape(&first.bench), value, data: points })
        })
        .collect();
    if rows.is_empty() {
        return Ok(None);
    }
    let all = rows.iter().flat_map(|row| &row.data).flat_map(|(n, kernel, other)| {
        [Some(f64::from(*n)), Some(*kernel), *other].into_iter().flatten().filter(|value| value.is_finite())
    });
    let most = all.fold(2.0, f64::max).min(1e4);
    let step = [0.5, 1.0, 2.0, 5.0, 10.0, 100.0, 1000.0].into_iter().find(|s| most / s <= 6.0).unwrap_or(1e4);
    let marks = (0..).map(|i| step * f64::from(i)).take_while(|at| *at <= most * 1.06);
    let axis = Axis {
        ends: (0.0, most * 1.06),
        label: "speed / speed with the fewest threads",
        marks: marks.map(|at| (at, Number(at).to_string())).collect(),
    };
    let opponents = opponents(&subject.cells);
    let mut legend = vec![(KERNEL, Look::Points, "kernel"), (TEXT, Look::Ticks, "as many times the threads")];
    if rows.iter().flat_map(|row| &row.data).any(|(.., other)| other.is_some()) {
        legend.insert(1, (LIBTORCH, Look::Blocks, &*opponents));
    }
    let caption = "Speed with more threads over speed with the fewest, on the same workload: a dot for each number of \
                   threads. Left of 1, more threads are slower. Out of cache, memory may allow less than the number of \
                   threads."
        .to_owned();
    let names = (&*subject.name("threads"), subject.title("Scaling with threads"), caption);
    rows::figure(names, &axis, &[1.0], &legend, &rows, |line, points| {
        for (threads, kernel, other) in points {
            line.mark(f64::from(*threads), 0, TEXT, Look::Ticks)?;
            if let Some(other) = other {
                line.mark(*other, 4, LIBTORCH, Look::Blocks)?;
            }
            line.mark(*kernel, -4, KERNEL, Look::Points)?;
        }
        Ok(())
    })
    .map(Some)
}

fn plural(cell: &Cell) -> &'static str {
    if cell.bench.threads == 1 { "" } else { "s" }
}
