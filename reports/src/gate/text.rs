//! A gate for people at a terminal.

use std::fmt::Write;

use super::{Answer, Consequence, Gate, Kind, POWER, Snapshot};
use crate::record::Number;

/// The answer: what has got worse, what could not be decided, what the run could have seen.
pub fn text(gate: &Gate) -> String {
    let mut out = String::new();
    for regression in &gate.regressions {
        let (word, because) = match &regression.consequence {
            Consequence::Fails => ("REGRESSION", String::new()),
            Consequence::Reported => ("reported", String::new()),
            Consequence::Waived(reason) => ("waived", format!("\n  waiver    {reason}")),
        };
        let _ = writeln!(out, "{word} {}: {}\n  {}{because}", regression.kind, regression.name, regression.evidence);
    }
    for undecided in &gate.undecided {
        let _ = writeln!(out, "undecided {}: {}\n  {}", undecided.kind, undecided.name, undecided.reason);
    }
    for note in &gate.notes {
        let _ = writeln!(out, "note: {note}");
    }
    for error in &gate.errors {
        let _ = writeln!(out, "error: {error}");
    }
    if !out.is_empty() {
        out.push('\n');
    }
    for kind in gate.kinds() {
        let _ = writeln!(out, "{:12} {}", kind.to_string(), compared(gate, kind));
    }
    let _ = writeln!(out, "verdict      {}", gate.verdict);
    out
}

/// How much was compared, in a line.
pub fn compared(gate: &Gate, kind: Kind) -> String {
    let regressions = gate.regressions.iter().filter(|regression| regression.kind == kind).count();
    let undecided = gate.undecided.iter().filter(|undecided| undecided.kind == kind).count();
    let what = match kind {
        Kind::Correctness => {
            let cases = gate.after.asked.as_ref().map_or(0, |asked| asked.cases);
            format!("{} kernels, {cases} cases each", gate.after.kernels.len())
        }
        Kind::Accuracy => {
            let groups = gate.after.kernels.values().flat_map(|kernel| kernel.errors.values());
            format!("{} groups of errors", groups.map(|sizes| sizes.len()).sum::<usize>())
        }
        Kind::Traffic => {
            let figures = gate.after.kernels.values().flat_map(|kernel| kernel.traffic.values());
            format!("{} figures of launches", figures.map(|figures| figures.len()).sum::<usize>())
        }
        Kind::Speed => format!("{} workloads{}", gate.speed.len(), power(gate)),
    };
    format!("{what}: {regressions} worse, {undecided} undecided")
}

/// What the comparison of times would have found, and how often it is wrong.
fn power(gate: &Gate) -> String {
    let mut finds: Vec<f64> =
        gate.speed.iter().map(|judgement| judgement.finds).filter(|finds| finds.is_finite()).collect();
    finds.sort_by(f64::total_cmp);
    let (Some(best), Some(worst)) = (finds.first(), finds.last()) else { return String::new() };
    let percent = |part: &f64| format!("{:.0} %", 100.0 * part);
    let probability = Number(100.0 * gate.false_alarms);
    format!(
        " (found with a probability of {:.0} %: slowdowns from {} to {}, by workload; false alarms: in {probability} % of runs)",
        100.0 * POWER,
        percent(best),
        percent(worst),
    )
}

/// What an update of a baseline changes, a line for each thing.
pub fn changes(before: Option<&Snapshot>, after: &Snapshot) -> String {
    let Some(before) = before else {
        let cells: usize = after.speed.iter().map(|speed| speed.cells.len()).sum();
        return format!("a new baseline: {} kernels, {cells} workloads\n", after.kernels.len());
    };
    let mut out = String::new();
    for name in before.kernels.keys().filter(|name| !after.kernels.contains_key(*name)) {
        let _ = writeln!(out, "- {name}");
    }
    for (name, now) in &after.kernels {
        let Some(then) = before.kernels.get(name) else {
            let _ = writeln!(out, "+ {name}: {}", now.verdict);
            continue;
        };
        if then.verdict != now.verdict {
            let _ = writeln!(out, "  {name}: {} -> {}", then.verdict, now.verdict);
        }
        for property in now.findings.keys().filter(|property| !then.findings.contains_key(*property)) {
            let _ = writeln!(out, "+ {name}: finding {property}");
        }
        for property in then.findings.keys().filter(|property| !now.findings.contains_key(*property)) {
            let _ = writeln!(out, "- {name}: finding {property}");
        }
        for (dtype, sizes) in &now.errors {
            for (size, now) in sizes {
                let then = then.errors.get(dtype).and_then(|sizes| sizes.get(size));
                let [was, is] = [then, Some(now)].map(|error| {
                    error.map_or_else(|| "-".to_owned(), |error| format!("{} (99.9 %: {})", error.worst, error.p999))
                });
                if was != is {
                    let _ = writeln!(out, "  {name} {dtype} {size}: worst {was} -> {is}");
                }
            }
        }
        for (dtype, figures) in &now.traffic {
            for (figure, now) in figures {
                let then = then.traffic.get(dtype).and_then(|figures| figures.get(figure));
                if then != Some(now) {
                    let then = then.map_or_else(|| "-".to_owned(), Number::to_string);
                    let _ = writeln!(out, "  {name} {dtype} {figure}: {then} -> {now}");
                }
            }
        }
    }
    for speed in &after.speed {
        let then = before.on(&speed.machine);
        for (name, now) in &speed.cells {
            match then.and_then(|then| then.cells.get(name)) {
                None => drop(writeln!(out, "+ {name}: {}", now.ratio)),
                Some(then) if then != now => drop(writeln!(out, "  {name}: {} -> {}", then.ratio, now.ratio)),
                Some(_) => {}
            }
        }
    }
    if out.is_empty() { "nothing has changed\n".to_owned() } else { out }
}

/// What is said of a workload, in a word.
pub(super) fn word(answer: Answer) -> &'static str {
    match answer {
        Answer::AsFast => "as fast",
        Answer::Slower => "slower",
        Answer::Suspect => "suspect",
        Answer::TooNoisy => "too noisy",
    }
}
