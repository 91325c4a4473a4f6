//! `gate`: has anything got worse since a baseline was taken?

mod calibrate;
mod context;
mod measure;

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use isonorm_reports::gate::{self, Action, Gate, Policy, Snapshot, Verdict};

use super::kernels::Selection;
use super::run::now;
use super::{Answer, Error, Format, print_json, print_text};
use crate::machine;
use measure::Measure;

/// Compare kernels with a baseline: correctness, accuracy, and speed beside a yardstick that is measured in the same run.
///
/// Without --candidate the kernels are judged and timed now. Exit status: 0 nothing has got worse (what could not be decided
/// about speed is listed), 1 something has, 2 the question could not be asked.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    selection: Selection,
    /// The baseline: a JSON file that is meant to be committed.
    #[arg(long, value_name = "FILE", required_unless_present = "calibrate")]
    baseline: Option<PathBuf>,
    /// Records to compare instead of a run of now: files, or folders with such files.
    #[arg(long, value_name = "RECORDS", num_args = 1..)]
    candidate: Vec<PathBuf>,
    /// Time the kernels now, beside the candidate's records of a campaign.
    #[arg(long, requires = "candidate")]
    speed: bool,
    /// Write the baseline instead of comparing with it, and say what changes.
    #[arg(long)]
    update: bool,
    /// What to be strict about: a TOML file.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// How many cases each kernel is asked; as many as for the baseline unless told.
    #[arg(long, value_name = "N")]
    cases: Option<u64>,
    /// Of the cases; that of the baseline unless told.
    #[arg(long, value_name = "S", value_parser = super::certify::seed)]
    seed: Option<u64>,
    /// Older versions of the baseline that the report shows, from git.
    #[arg(long, value_name = "N", default_value_t = 20)]
    history: usize,
    /// Append the answer to the file that $GITHUB_STEP_SUMMARY names.
    #[arg(long)]
    job_summary: bool,
    /// Measure on this machine how often the gate is wrong about unchanged kernels, and which slowdowns it finds.
    #[arg(long, conflicts_with_all = ["candidate", "update"])]
    calibrate: bool,
    #[command(flatten)]
    calibration: calibrate::Options,
    /// The folder for records and the answer in other formats.
    #[arg(long, value_name = "DIR", default_value = "isonorm-out")]
    out: PathBuf,
    /// How the answer is printed.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

pub(super) fn run(arguments: Arguments) -> Result<Answer, Error> {
    let mut policy = arguments.policy.as_deref().map_or_else(|| Ok(Policy::default()), Policy::read)?;
    let ask = &policy.ask;
    let selection = arguments.selection.clone().or(&ask.operators, &ask.kernels, &ask.dtypes)?;
    if arguments.calibrate {
        let measure = Measure::new(&selection, &policy, arguments.out.join("calibration"))?;
        return calibrate::run(&measure, &arguments.calibration, arguments.format);
    }
    let Some(file) = arguments.baseline.as_deref() else {
        return Err(Error::Usage("give --baseline FILE".to_owned()));
    };
    let before = match Snapshot::read(file) {
        Err(gate::GateError::NoBaseline { source, .. })
            if arguments.update && source.kind() == std::io::ErrorKind::NotFound =>
        {
            None
        }
        other => Some(other?),
    };
    let asked = before.as_ref().and_then(|before| before.asked.clone());
    policy.ask.cases = arguments.cases.or(asked.as_ref().map(|asked| asked.cases)).unwrap_or(policy.ask.cases);
    policy.ask.seed = arguments.seed.or(asked.as_ref().map(|asked| asked.seed)).unwrap_or(policy.ask.seed);

    let measure = if arguments.candidate.is_empty() || arguments.speed {
        Some(Measure::new(&selection, &policy, arguments.out.join("candidate"))?)
    } else {
        None
    };
    let mut after = match &measure {
        Some(measure) => measure.everything(&arguments.candidate)?,
        None => Snapshot::of(&arguments.candidate)?,
    };
    if arguments.update {
        return update(file, before.as_ref(), after);
    }
    let Some(before) = before else {
        return Err(Error::Usage("there is no baseline".to_owned()));
    };
    let here = match (&measure, after.speed.as_slice()) {
        (None, [only]) => only.machine.clone(),
        _ => machine::describe(),
    };
    let compare = |after: &Snapshot| gate::compare(&before, after, &policy, &here, &now());
    let mut gate = compare(&after)?;
    if let Some(measure) = measure.filter(|_| policy.on.speed != Action::Off && !gate.suspects().is_empty()) {
        measure.again(&gate, &mut after, 0.0)?;
        gate = compare(&after)?;
    }
    tell(&gate, &policy, file, &arguments)
}

/// Writes a baseline and says what that changes.
fn update(file: &Path, before: Option<&Snapshot>, mut after: Snapshot) -> Result<Answer, Error> {
    if let Some(before) = before {
        after.keep_other_machines(before);
    }
    let text = after.text()?;
    // What was rounded is compared with what was rounded.
    let kept = Snapshot::parse(&text).map_err(Error::Usage)?;
    print_text(&gate::changes(before, &kept))?;
    write(file, &text)?;
    eprintln!("baseline: {}", file.display());
    Ok(Answer::Well)
}

/// Prints the answer, and writes it in every format.
fn tell(gate: &Gate, policy: &Policy, baseline: &Path, arguments: &Arguments) -> Result<Answer, Error> {
    let mut configuration = vec![context::artifact(baseline)?];
    if let Some(policy) = &arguments.policy {
        configuration.push(context::artifact(policy)?);
    }
    let context = gate::Context {
        policy,
        history: &context::history(baseline, arguments.history),
        baseline: &baseline.display().to_string(),
        tested: &context::tested(&gate.after, &arguments.candidate)?,
        configuration: &configuration,
    };
    let written = gate::write_all(&arguments.out, gate, &context)?;
    match arguments.format {
        Format::Json => print_json(&gate::document(gate))?,
        Format::Text => print_text(&gate::text(gate))?,
    }
    if arguments.job_summary {
        job_summary(&gate::markdown(gate))?;
    }
    if let Some(page) = written.first() {
        eprintln!("report: {}", page.display());
    }
    match gate.verdict {
        Verdict::Fail => Ok(Answer::Findings),
        _ if gate.unasked() => Err(Error::Usage("not everything was asked: see above".to_owned())),
        Verdict::Pass | Verdict::Undecided => Ok(Answer::Well),
    }
}

fn job_summary(text: &str) -> Result<(), Error> {
    let Some(path) = std::env::var_os("GITHUB_STEP_SUMMARY").map(PathBuf::from) else {
        return Err(Error::Usage("--job-summary needs $GITHUB_STEP_SUMMARY, which GitHub Actions sets".to_owned()));
    };
    let file = std::fs::OpenOptions::new().append(true).create(true).open(&path);
    file.and_then(|mut file| writeln!(file, "{text}"))
        .map_err(|source| isonorm_reports::Error::Write { path, source }.into())
}

/// Writes a file so that it appears complete or not at all.
fn write(path: &Path, text: &str) -> Result<(), Error> {
    isonorm_reports::write(path, text)
        .map_err(|source| isonorm_reports::Error::Write { path: path.to_owned(), source }.into())
}
