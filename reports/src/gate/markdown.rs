//! A gate as Markdown: a comment on a change, or a job's summary.

use std::fmt::Write;

use super::text::{compared, word};
use super::{Answer, Consequence, Gate, Verdict};
use crate::record::Number;
use crate::render::{markdown as md, markdown_code as code};

/// The answer in a comment: regressions in full, the rest folded.
pub fn markdown(gate: &Gate) -> String {
    let mut out = String::new();
    let head = match gate.verdict {
        Verdict::Pass => "nothing has got worse",
        Verdict::Fail => "something has got worse",
        Verdict::Undecided => "nothing is known to have got worse, and not everything could be decided",
    };
    let _ = writeln!(out, "### isonorm gate: {head}\n");
    let _ = writeln!(out, "| | compared |\n|---|---|");
    for kind in gate.kinds() {
        let _ = writeln!(out, "| {kind} | {} |", md(&compared(gate, kind)));
    }
    for error in &gate.errors {
        let _ = writeln!(out, "\n**Error in the policy**: {}", md(error));
    }
    if !gate.regressions.is_empty() {
        let _ = writeln!(out, "\n| kind | what | evidence | |\n|---|---|---|---|");
    }
    for regression in &gate.regressions {
        let consequence = match &regression.consequence {
            Consequence::Fails => "**fails**".to_owned(),
            Consequence::Reported => "reported".to_owned(),
            Consequence::Waived(reason) => format!("waived: {}", md(reason)),
        };
        let (name, evidence) = (code(&regression.name), md(&regression.evidence));
        let _ = writeln!(out, "| {} | {name} | {evidence} | {consequence} |", regression.kind);
    }
    folded(&mut out, "could not be decided", gate.undecided.len(), |out| {
        for undecided in &gate.undecided {
            let _ = writeln!(out, "- {} {}: {}", undecided.kind, code(&undecided.name), md(&undecided.reason));
        }
    });
    folded(&mut out, "workloads were timed", gate.speed.len(), |out| {
        let _ = writeln!(out, "| workload | ratio before | after | slower by | 95 % interval | would find | |");
        let _ = writeln!(out, "|---|--:|--:|--:|--:|--:|---|");
        let percent = |part: f64| format!("{:.1} %", 100.0 * part);
        for judgement in &gate.speed {
            let (low, high) = judgement.interval;
            let _ = writeln!(
                out,
                "| {} | {} | {} | {} | {} to {} | {} | {} |",
                code(&judgement.name),
                Number(judgement.before),
                Number(judgement.after),
                percent(judgement.slowdown),
                percent(low),
                percent(high),
                percent(judgement.finds),
                if judgement.answer == Answer::AsFast { "" } else { word(judgement.answer) }
            );
        }
    });
    folded(&mut out, "notes", gate.notes.len(), |out| {
        for note in &gate.notes {
            let _ = writeln!(out, "- {}", md(note));
        }
    });
    out
}

fn folded(out: &mut String, what: &str, count: usize, write: impl FnOnce(&mut String)) {
    if count > 0 {
        let _ = writeln!(out, "\n<details><summary>{count} {what}</summary>\n");
        write(out);
        out.push_str("\n</details>\n");
    }
}
