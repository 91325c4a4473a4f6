//! Where the time of a campaign goes.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use super::Figure;
use super::theme::{self, GRID, KERNEL, QUIET, TEXT};
use crate::Error;
use crate::summary::Summary;

const ROW: i32 = 30;
const LEFT: i32 = 80;
const BARS: i32 = 226;

/// The figure; none if no times were recorded.
pub(super) fn figure(summary: &Summary) -> Result<Option<Figure>, Error> {
    let mut stages: Vec<_> = summary.throughput.stages.iter().map(|(stage, seconds)| (stage, seconds.0)).collect();
    stages.sort_by(|a, b| b.1.total_cmp(&a.1));
    let total: f64 = stages.iter().map(|(_, seconds)| seconds).sum();
    let Some(longest) = stages.first().map(|(_, seconds)| *seconds).filter(|longest| *longest > 0.0) else {
        return Ok(None);
    };

    let title = "Where the time goes".to_owned();
    let rate = summary.cases_per_second().map_or_else(String::new, |rate| format!(", {:.0} cases per second", rate.0));
    let caption = format!(
        "Time in each stage, summed over threads: {total:.0} s in {:.0} s of wall-clock time{rate}.",
        summary.throughput.seconds.0
    );
    let draw = |area: &theme::Area| {
        for (row, (stage, seconds)) in stages.iter().enumerate() {
            let middle = ROW * row as i32 + ROW / 2 + 4;
            let length = (seconds / longest * f64::from(BARS)).round() as i32;
            let bar = |length| [(LEFT, middle - 9), (LEFT + length, middle + 9)];
            area.draw_text(stage, &theme::text(TEXT, 12, HPos::Right, VPos::Center), (LEFT - 10, middle))?;
            area.draw(&Rectangle::new(bar(BARS), GRID.light.mix(0.5).filled()))?;
            area.draw(&Rectangle::new(bar(length), KERNEL.light.mix(0.75).filled()))?;
            let figures = [(52, format!("{:.0} %", 100.0 * seconds / total)), (118, format!("{seconds:.1} s"))];
            for (right, figure) in figures {
                let at = (LEFT + BARS + right, middle);
                area.draw_text(&figure, &theme::text(QUIET, 12, HPos::Right, VPos::Center), at)?;
            }
        }
        Ok(())
    };
    theme::figure(("throughput", title, caption), (440, (ROW * stages.len() as i32 + 8) as u32), draw).map(Some)
}
