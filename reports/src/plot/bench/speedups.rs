//! Speed-up on each workload of an operator, with its 95 % interval.

use super::rows::{self, Row};
use super::{Subject, logarithmic, marks};
use crate::Error;
use crate::bench::{Standing, workload};
use crate::plot::Figure;
use crate::plot::theme::{Axis, KERNEL, Look, QUIET, TEXT, WRONG};

/// The figure; none if there is nothing but copies to compare with.
pub(super) fn figure(subject: &Subject) -> Result<Option<Figure>, Error> {
    let all = subject.duels().flat_map(|c| [c.bench.ratio.value.0, c.bench.ratio.low.0, c.bench.ratio.high.0]);
    let Some(ends) = logarithmic(all.chain([1.0]), 0.05).filter(|_| subject.duels().count() > 0) else {
        return Ok(None);
    };
    let rows: Vec<_> = subject
        .duels()
        .map(|cell| {
            let b = &cell.bench;
            let standing = Standing::of(b);
            let doubt = if b.doubt.is_some() { " doubt" } else { "" };
            let (ink, word) = match standing {
                Standing::Slower | Standing::PerhapsSlower => (WRONG, format!(" {standing}")),
                Standing::PerhapsFaster | Standing::Unknown => (QUIET, " ?".to_owned()),
                Standing::Faster => (TEXT, String::new()),
            };
            let value = (ink, format!("{}×{word}{doubt}", b.ratio.value));
            Row { heading: format!("{} against {}", b.kernel, b.versus), label: workload(b), value, data: b }
        })
        .collect();
    let axis = Axis { ends, label: "time of the other / time of the kernel", marks: marks(ends) };
    let legend = [(KERNEL, Look::Bars, "faster"), (WRONG, Look::Bars, "slower"), (TEXT, Look::Line, "95 % interval")];
    let caption = "Median of the rounds' ratios with its 95 % bootstrap interval: right of the line at 1 the kernel is \
                   faster. A bar that is only an outline is in doubt; a question mark says that the interval includes 1 \
                   or that there is doubt."
        .to_owned();
    let names = (&*subject.name("speedup"), subject.title("Speed-up"), caption);
    rows::figure(names, &axis, &[0.0], &legend, &rows, |line, b| {
        let ratio = b.ratio.value.0;
        line.bar(0.0, ratio.log10(), if ratio < 1.0 { WRONG } else { KERNEL }, b.doubt.is_some())?;
        line.interval(b.ratio.low.0.log10(), b.ratio.high.0.log10(), TEXT)
    })
    .map(Some)
}
