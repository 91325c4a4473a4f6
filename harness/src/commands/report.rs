//! `report`: merges records and writes the report.

use std::path::PathBuf;

use clap::Args;
use isonorm_reports::summary::{Summary, Verdict};
use isonorm_reports::{claims, identities};

use super::{Answer, Error, Format, print_json, print_text};

/// Merge records of one or several runs, or shards of one, and write report and certificates.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Files of records, or folders with such files.
    #[arg(required = true)]
    records: Vec<PathBuf>,
    /// The folder to write to.
    #[arg(long, value_name = "DIR", default_value = "isonorm-out")]
    out: PathBuf,
    /// How the answer is printed.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

pub(super) fn run(arguments: Arguments) -> Result<Answer, Error> {
    let summary = Summary::read(&arguments.records)?;
    if summary.runs.is_empty() {
        return Err(Error::Usage("there are no records of a campaign in what was given".to_owned()));
    }
    isonorm_reports::write_all(&arguments.out, &summary)?;
    for problem in &summary.problems {
        eprintln!("isonorm: {problem}");
    }
    match arguments.format {
        Format::Json => print_json(&isonorm_reports::json::document(&summary))?,
        Format::Text if summary.kernels.is_empty() && !summary.benches.is_empty() => {
            print_text(&isonorm_reports::bench::text(&summary.benches))?;
        }
        Format::Text => print_text(&headlines(&summary))?,
    }
    eprintln!("report: {}", arguments.out.join("report.html").display());
    if !summary.problems.is_empty() {
        return Err(Error::Usage(
            "some records are damaged or missing: see above; the rest is in the report".to_owned(),
        ));
    }
    Ok(if summary.verdicts(Verdict::Failed) > 0 { Answer::Findings } else { Answer::Well })
}

/// A line for everything that there are records of.
fn headlines(summary: &Summary) -> String {
    let count = |verdict| summary.verdicts(verdict);
    let kernels = format!(
        "{} certified, {} failed, {} incomplete; {} cases, {} findings",
        count(Verdict::Certified),
        count(Verdict::Failed),
        count(Verdict::Incomplete),
        summary.cases(),
        summary.findings()
    );
    let others = !summary.benches.is_empty() || !summary.identities.is_empty() || !summary.claims.is_empty();
    let all = [
        (!summary.kernels.is_empty() || !others).then_some(kernels),
        (!summary.benches.is_empty()).then(|| summary.benches.headline()),
        (!summary.identities.is_empty()).then(|| identities::headline(&summary.identities)),
        (!summary.claims.is_empty()).then(|| claims::headline(&summary.claims)),
    ];
    all.into_iter().flatten().map(|line| line + "\n").collect()
}
