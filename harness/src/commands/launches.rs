//! `bench --device ptx`: what the launches of kernels for a GPU do, counted by the PTX executor. No times: it has none.

use std::fmt::Write;

use isonorm_reports::certificate::Traffic;
use isonorm_reports::record::Number;
use serde::Serialize;

use super::bench::{Arguments, Task, tasks};
use super::{Answer, Error, Format, kernels, print_json, print_text};
use crate::bench::check::{self, Checked};
use crate::bench::workload;
use crate::campaign::{Examiner, Verdict};

/// What the launches of a workload did.
#[derive(Debug, Serialize)]
struct Counted {
    kernel: String,
    operator: String,
    direction: String,
    /// Of the main input, as it was asked for.
    shape: Vec<usize>,
    /// Of the main input, as it was executed: with fewer rows or samples.
    executed: Vec<usize>,
    layout: String,
    /// Why nothing was counted.
    declined: Option<String>,
    launches: Option<Traffic>,
}

pub(super) fn run(arguments: &Arguments) -> Result<Answer, Error> {
    let entries = arguments.selection.entries(1)?;
    kernels::prepare(&entries)?;
    let replay = arguments.selection.replay();
    let (mut all, mut wrong) = (Vec::new(), Vec::new());
    let tasks = tasks(arguments, &entries, &[1])?;
    for (place, Task { entry, workload, .. }) in tasks.iter().enumerate() {
        if place > 0 && place % 25 == 0 {
            eprintln!("{place} of {}: {}", tasks.len(), workload.id());
        }
        let case = workload.sample();
        let mut examiner = Examiner::new(entry.contender.info().clone(), entry.contender.open()?);
        let trial = examiner.examine(&case, false);
        // What is wrong is told, as everywhere, and not counted.
        if trial.failed()
            && let Checked::Wrong(findings) = check::sample(entry, workload, &replay)?
        {
            wrong.extend(findings.iter().map(super::certify::finding_text));
            continue;
        }
        let declined = match trial.verdict {
            Verdict::Judged => None,
            Verdict::Declined(reason) | Verdict::NotRun(reason) => Some(reason),
        };
        let problem = &case.problem;
        let main = problem.inputs().into_iter().next();
        all.push(Counted {
            kernel: entry.name.clone(),
            operator: problem.operator.name.to_owned(),
            direction: problem.direction.to_string(),
            shape: workload.shape.clone(),
            executed: main.map_or_else(Vec::new, |tensor| tensor.shape),
            layout: workload.layout.to_string(),
            declined,
            launches: trial.traffic.map(|counts| Traffic::new(&problem.dtypes.to_string(), &counts)),
        });
    }
    match arguments.format {
        Format::Json => print_json(&all)?,
        Format::Text => print_text(&told(&all))?,
    }
    if wrong.is_empty() {
        return Ok(Answer::Well);
    }
    eprint!("{}", wrong.concat());
    Ok(Answer::Findings)
}

fn told(all: &[Counted]) -> String {
    let mut out = String::new();
    let number = |value: Option<Number>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
    for Counted { kernel, shape, executed, layout, declined, launches, .. } in all {
        let layout = if layout == "contiguous" { String::new() } else { format!(" {layout}") };
        let _ = write!(out, "{kernel} {}{layout}", workload::text(shape));
        if let Some(reason) = declined {
            let _ = writeln!(out, ": declined, {reason}\n");
            continue;
        }
        let Some(launches) = launches else { continue };
        let _ = writeln!(out, " {} (executed: {})", launches.dtype, workload::text(executed));
        let _ = writeln!(out, "  {:18} {:>9} {:>9} {:>9} {:>11}", "tensor", "read", "written", "narrow", "uncoalesced");
        for tensor in &launches.tensors {
            let (read, written) = (number(tensor.read), number(tensor.written));
            let (narrow, uncoalesced) = (number(tensor.narrow), number(tensor.uncoalesced));
            let _ = writeln!(out, "  {:18} {read:>9} {written:>9} {narrow:>9} {uncoalesced:>11}", tensor.name);
        }
        let _ = writeln!(
            out,
            "  {} launches; {} instructions, {} bytes of local memory per element; {} bank conflicts per request\n",
            launches.counts.launches,
            number(launches.instructions_per_element),
            number(launches.local_bytes_per_element),
            number(launches.bank_conflicts_per_request)
        );
    }
    out.push_str(
        "(executed on the PTX executor, not on a GPU; read, written: bytes as multiples of the tensor's own; narrow: part of the \
         accesses\nthat move fewer than 16 bytes; uncoalesced: part of the warps' requests that touch more memory than they have to)\n",
    );
    out
}
