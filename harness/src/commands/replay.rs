//! `replay`: one case again, in full.

use std::path::Path;

use clap::Args;
use isonorm_oracles::formula::{Graph, GraphOutput};
use isonorm_oracles::interpret::bound::trace;
use isonorm_oracles::interpret::text::{steps, text};
use isonorm_reports::record::{self, Record};
use serde::Serialize;

use super::kernels::Selection;
use super::{Answer, Error, Format, print_json, print_text};
use crate::campaign::large::LARGE;
use crate::campaign::{Entry, Examiner, Trial, Verdict, findings};
use crate::case::{Case, materialise};
use crate::judge::{Truth, by_formula};

/// Run one case again and show the formula step by step, the wrong elements, and what libtorch says.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    selection: Selection,
    /// The case's line, or a file: records, or a case a line.
    case: String,
    /// How the answer is printed.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

#[derive(Debug, Serialize)]
struct Replay {
    kernel: String,
    case: String,
    verdict: String,
    findings: Vec<Failure>,
    worst_ratio_to_bound: Option<record::Number>,
    libtorch_worst_ratio_to_bound: Option<record::Number>,
    steps: Vec<Step>,
}

#[derive(Debug, Serialize)]
struct Failure {
    property: String,
    message: String,
    wrong: Option<record::Wrong>,
}

/// One line of the formula, at the element that is worst.
#[derive(Debug, Serialize)]
struct Step {
    name: String,
    exact: record::Number,
    /// The same step, evaluated as written in the kernel's precision by libtorch; none if it declines.
    as_written: Option<record::Number>,
    /// The largest error that the bound allows up to here.
    bound: record::Number,
}

pub(super) fn run(arguments: Arguments) -> Result<Answer, Error> {
    let cases = cases(&arguments.case)?;
    let entries = arguments.selection.entries(crate::case::MOST_THREADS)?;
    let mut replays = Vec::new();
    for case in &cases {
        let able = |entry: &&Entry| {
            let info = entry.contender.info();
            entry.operator == case.problem.operator && info.direction == case.problem.direction
        };
        let mut any = false;
        for entry in entries.iter().filter(able) {
            any = true;
            if !entry.offer.dtypes.contains(&case.problem.dtypes) {
                eprintln!("isonorm: {} does not offer {}", entry.name, case.problem.dtypes);
                continue;
            }
            entry.contender.prepare(&[case.problem.dtypes])?;
            replays.push(replay(entry, case)?);
        }
        if !any {
            let (operator, direction) = (case.problem.operator.name, case.problem.direction);
            return Err(Error::Usage(format!(
                "none of the kernels computes {operator} {direction}: name one with --kernel or --plugin"
            )));
        }
    }
    if replays.is_empty() {
        return Err(Error::Usage("nothing was replayed".to_owned()));
    }
    match arguments.format {
        Format::Json => print_json(&replays)?,
        Format::Text => {
            for (replay, case) in replays.iter().flat_map(|replay| {
                cases.iter().filter(|case| case.to_string() == replay.case).take(1).map(move |case| (replay, case))
            }) {
                print_text(&told(replay, case))?;
            }
        }
    }
    let failed = replays.iter().any(|replay| !replay.findings.is_empty());
    Ok(if failed { Answer::Findings } else { Answer::Well })
}

/// The cases that an argument names: one line, a file of lines, or the findings of a file of records.
fn cases(text: &str) -> Result<Vec<Case>, Error> {
    let path = Path::new(text);
    if !path.exists() {
        return Ok(vec![text.parse()?]);
    }
    if path.extension().is_some_and(|extension| extension == "jsonl") {
        let records = record::read(path)?;
        let findings = records.iter().filter_map(|record| match record {
            Record::Finding(finding) => Some(finding.case.parse()),
            _ => None,
        });
        let cases: Vec<Case> = findings.collect::<Result<_, _>>()?;
        return if cases.is_empty() {
            Err(Error::Usage(format!("{text} has no findings to replay")))
        } else {
            Ok(cases)
        };
    }
    let lines = std::fs::read_to_string(path)
        .map_err(|error| Error::Usage(format!("cannot read {text}: {error}; give a case or a readable file")))?;
    let lines = lines.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(lines.map(str::parse).collect::<Result<_, _>>()?)
}

fn replay(entry: &Entry, case: &Case) -> Result<Replay, Error> {
    let mut examiner = Examiner::new(entry.contender.info().clone(), entry.contender.open()?);
    let trial = examiner.examine(case, true);
    let verdict = match &trial.verdict {
        Verdict::Declined(reason) => format!("declined: {reason}"),
        Verdict::NotRun(reason) => return Err(Error::Usage(format!("the case could not be run: {reason}"))),
        Verdict::Judged if trial.failed() => "failed".to_owned(),
        Verdict::Judged => "passed".to_owned(),
    };
    let failures = trial.flaws.iter().map(|flaw| Failure {
        property: flaw.property.to_owned(),
        message: flaw.message.clone(),
        wrong: flaw.wrong.as_ref().map(|wrong| findings::wrong_element(&trial, wrong)),
    });
    let worst = |comparison: &Option<crate::judge::Comparison>| {
        comparison.as_ref().and_then(|comparison| comparison.worst_ratio).map(record::Number)
    };
    Ok(Replay {
        kernel: entry.name.clone(),
        case: case.to_string(),
        verdict,
        findings: failures.collect(),
        worst_ratio_to_bound: worst(&trial.comparison),
        libtorch_worst_ratio_to_bound: worst(&trial.libtorch),
        steps: walk_through(entry, &trial),
    })
}

/// The formula step by step at the first wrong element, or at the first element if none is wrong.
fn walk_through(entry: &Entry, trial: &Trial) -> Vec<Step> {
    let problem = &trial.case.problem;
    let material = materialise(&trial.case);
    // All steps of a large case at once would not fit in memory.
    if material.inputs.iter().any(|values| values.len() >= LARGE) {
        return Vec::new();
    }
    let inputs: Vec<&[f64]> = material.inputs.iter().map(Vec::as_slice).collect();
    let truth = Truth::of(problem, &inputs);
    let (output, element) =
        trial.flaws.iter().find_map(|flaw| flaw.wrong.as_ref()).map_or((0, 0), |wrong| (wrong.output, wrong.element));
    let arithmetic = crate::campaign::arithmetic(entry.contender.info(), problem);
    let errors = trace(&truth.graph, truth.values(), arithmetic);
    let Some(target) = truth.graph.outputs.get(output) else { return Vec::new() };
    let named: Vec<_> = steps(&truth.graph).into_iter().chain([(target.node, target.name.clone())]).collect();
    // Every step as an output of its own.
    let precision = arithmetic.precision;
    let outputs = named.iter().map(|(node, name)| GraphOutput { name: name.clone(), node: *node, dtype: precision });
    let spelled = Graph { outputs: outputs.collect(), ..truth.graph.clone() };
    let written = by_formula(problem, &spelled, &material.inputs, precision).unwrap_or_default();
    named
        .into_iter()
        .enumerate()
        .filter_map(|(step, (node, name))| {
            let place = truth.values().sizes.project(&truth.graph, target.node, element, node);
            let value = truth.values().nodes[node.index()].get(place)?;
            let bound = errors[node.index()].get(place)?;
            let as_written = written.get(step).and_then(|values| values.get(place)).copied().map(record::Number);
            Some(Step { name, exact: record::Number(value.hi), as_written, bound: record::Number(*bound) })
        })
        .collect()
}

fn told(replay: &Replay, case: &Case) -> String {
    use std::fmt::Write;
    let mut out = format!("{} on {}\n\n", replay.kernel, replay.case);
    let _ = writeln!(out, "{}", text(&case.problem.graph()));
    for (name, value) in case.problem.call_attributes() {
        let _ = writeln!(out, "  {name} = {value}");
    }
    let _ = writeln!(out, "\n{:16} {:>24} {:>24} {:>12}", "step", "exact", "as written", "bound");
    for step in &replay.steps {
        let written = step.as_written.map_or_else(|| "-".to_owned(), |value| format!("{:e}", value.0));
        let _ = writeln!(out, "{:16} {:>24e} {written:>24} {:>12}", step.name, step.exact.0, step.bound);
    }
    for Failure { property, message, wrong } in &replay.findings {
        let _ = writeln!(out, "\nFAILED {property}: {message}");
        if let Some(wrong) = wrong {
            let at: Vec<String> = wrong.index.iter().map(u64::to_string).collect();
            let _ = writeln!(out, "  element   {}[{}]", wrong.output, at.join(", "));
            let _ = writeln!(out, "  got       {} ({})", wrong.got.decimal, wrong.got.bits);
            let _ = writeln!(out, "  true      {} ({})", wrong.truth.decimal, wrong.truth.bits);
            if let Some(libtorch) = &wrong.libtorch {
                let _ = writeln!(out, "  libtorch  {} ({})", libtorch.decimal, libtorch.bits);
            }
        }
    }
    let number = |value: Option<record::Number>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
    let _ = writeln!(
        out,
        "\n{}: worst error {} times the bound; libtorch {}",
        replay.verdict,
        number(replay.worst_ratio_to_bound),
        number(replay.libtorch_worst_ratio_to_bound)
    );
    out
}
