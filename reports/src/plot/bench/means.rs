//! Speed-ups of all kernels of one dtype: geometric mean, worst and best workload.

use super::rows::{self, Row};
use super::{View, logarithmic, marks};
use crate::Error;
use crate::bench::{COPY, Cell, Standing, geometric_mean};
use crate::plot::Figure;
use crate::plot::theme::{Axis, KERNEL, Look, QUIET, TEXT, WRONG};
use crate::record::Number;

/// The figure; none if nothing of the dtype was compared with anything but a copy.
pub(super) fn figure(view: &View, dtype: &str) -> Result<Option<Figure>, Error> {
    let mut groups = Vec::<((&str, &str), Vec<&Cell>)>::new();
    for cell in view.cells.iter().filter(|cell| cell.bench.dtype == dtype && cell.bench.versus != COPY) {
        let place = (&*cell.bench.versus, &*cell.bench.kernel);
        match groups.iter_mut().find(|(other, _)| *other == place) {
            Some((_, cells)) => cells.push(cell),
            None => groups.push((place, vec![cell])),
        }
    }
    groups.sort_by_key(|((versus, _), _)| *versus);
    let ratios = |cells: &[&Cell]| cells.iter().map(|cell| cell.bench.ratio.value.0).collect::<Vec<_>>();
    let all = groups.iter().flat_map(|(_, cells)| ratios(cells)).chain([1.0]);
    let Some(ends) = logarithmic(all, 0.05).filter(|_| !groups.is_empty()) else { return Ok(None) };
    let rows: Vec<_> = groups
        .into_iter()
        .map(|((versus, kernel), cells)| {
            let mean = geometric_mean(cells.iter().copied()).unwrap_or(Number(f64::NAN));
            let slower = cells.iter().filter(|cell| Standing::of(&cell.bench).is_slower()).count();
            let note = if slower > 0 { format!("{mean}×, {slower} slower") } else { format!("{mean}×") };
            let value = (if slower > 0 { WRONG } else { TEXT }, note);
            Row {
                heading: format!("against {versus}"),
                label: kernel.to_owned(),
                value,
                data: (mean.0, ratios(&cells)),
            }
        })
        .collect();
    let axis = Axis { ends, label: "time of the other / time of the kernel", marks: marks(ends) };
    let legend = [
        (KERNEL, Look::Bars, "geometric mean"),
        (QUIET, Look::Points, "a workload"),
        (WRONG, Look::Points, "a slower one"),
    ];
    let title = format!("Speed-ups, {dtype}{}", view.place);
    let caption =
        "Geometric mean over shapes and threads, outputs allocated before. Every dot is a workload: right of the \
                   line at 1 the kernel is faster, left of it slower."
            .to_owned();
    rows::figure(
        (&format!("speedups-{dtype}"), title, caption),
        &axis,
        &[0.0],
        &legend,
        &rows,
        |line, (mean, ratios)| {
            line.bar(0.0, mean.log10(), if *mean < 1.0 { WRONG } else { KERNEL }, false)?;
            for ratio in ratios {
                line.mark(ratio.log10(), 0, if *ratio < 1.0 { WRONG } else { QUIET }, Look::Points)?;
            }
            Ok(())
        },
    )
    .map(Some)
}
