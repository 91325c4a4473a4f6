//! How often the gate is wrong on this machine, and which slowdowns it finds: measured, by comparing the same build with
//! itself and with planted slowdowns.
//!
//! Each round measures the unchanged kernels and compares them with the round before; then, for each planted slowdown,
//! measures the slowed kernels and compares them with the unchanged ones. Suspects are measured again, as in any gate. What
//! came of each gate is appended to a file, so that rounds add up over several calls.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;

use clap::Args;
use isonorm_reports::gate::{self, Calibration, Said, Snapshot, Trial};

use super::super::run::now;
use super::super::{Answer, Error, Format, print_json, print_text};
use super::measure::Measure;
use crate::machine;

/// How long and with what the gate is calibrated.
#[derive(Clone, Debug, Args)]
pub(super) struct Options {
    /// Rounds: gates of unchanged kernels, and gates for each planted slowdown.
    #[arg(long, value_name = "N", default_value_t = 10, requires = "calibrate")]
    rounds: u32,
    /// The slowdowns that are planted, as parts of the time; `0` for none but the unchanged kernels.
    #[arg(long, value_name = "P,..", value_delimiter = ',', default_value = "0.05,0.1,0.3", requires = "calibrate")]
    slowdowns: Vec<f64>,
}

pub(super) fn run(measure: &Measure<'_>, options: &Options, format: Format) -> Result<Answer, Error> {
    if let Some(wrong) = options.slowdowns.iter().find(|slowdown| !(0.0..=10.0).contains(*slowdown)) {
        return Err(Error::Usage(format!("--slowdowns has {wrong}: give parts of the time, such as 0.05 for 5 %")));
    }
    let file = measure.folder().join("gates.jsonl");
    let mut before = one(measure, "before", 0.0)?;
    for round in 1..=options.rounds {
        eprintln!("gate: calibration, round {round} of {}", options.rounds);
        let unchanged = one(measure, "unchanged", 0.0)?;
        keep(&file, &compared(measure, &before, unchanged.clone(), 0.0)?)?;
        for &slowdown in options.slowdowns.iter().filter(|slowdown| **slowdown > 0.0) {
            let slowed = one(measure, "slowed", slowdown)?;
            keep(&file, &compared(measure, &unchanged, slowed, slowdown)?)?;
        }
        before = unchanged;
    }
    let calibration = Calibration::of(&read(&file)?, measure.policy());
    match format {
        Format::Json => print_json(&calibration)?,
        Format::Text => print_text(&calibration.text())?,
    }
    eprintln!("gates: {}", file.display());
    Ok(Answer::Well)
}

/// Measures all workloads as a gate does.
fn one(measure: &Measure<'_>, name: &str, slowdown: f64) -> Result<Snapshot, Error> {
    let folder = measure.folder().join(name);
    measure.all_times(&folder, slowdown)?;
    Ok(Snapshot::of(&[folder])?)
}

/// A gate.
fn compared(measure: &Measure<'_>, before: &Snapshot, mut after: Snapshot, slowdown: f64) -> Result<Trial, Error> {
    let compare = |after: &Snapshot| gate::compare(before, after, measure.policy(), &machine::describe(), &now());
    let mut gate = compare(&after)?;
    let ratios = |snapshot: &Snapshot| -> BTreeMap<String, (f64, f64)> {
        let cells = snapshot.speed.iter().flat_map(|speed| &speed.cells);
        cells.map(|(name, cell)| (name.clone(), (cell.ratio.0, cell.error.0))).collect()
    };
    let measured = ratios(&after);
    if !gate.suspects().is_empty() {
        measure.again(&gate, &mut after, slowdown)?;
        gate = compare(&after)?;
    }
    Ok(Trial { slowdown, ratios: measured, said: gate.speed.iter().map(Said::from).collect() })
}

fn keep(file: &Path, trial: &Trial) -> Result<(), Error> {
    let line = serde_json::to_string(trial)? + "\n";
    let opened = OpenOptions::new().create(true).append(true).open(file);
    opened
        .and_then(|mut opened| opened.write_all(line.as_bytes()))
        .map_err(|source| isonorm_reports::Error::Write { path: file.to_owned(), source }.into())
}

/// The gates of this call and of those before. A line that was cut off is none.
fn read(file: &Path) -> Result<Vec<Trial>, Error> {
    let error = |source| isonorm_reports::Error::Read { path: file.to_owned(), source };
    let lines = BufReader::new(std::fs::File::open(file).map_err(error)?).lines();
    let lines: Vec<String> = lines.collect::<Result<_, _>>().map_err(error)?;
    Ok(lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect())
}
