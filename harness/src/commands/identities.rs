//! `identities`: checks that pairs of formulas are the same function.

use std::io::IsTerminal;
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use isonorm_oracles::identities::{IDENTITIES, Identity};
use isonorm_reports::identities::{document, explanation, networks_text, table};
use isonorm_reports::record::{self, IdentityVerdict, Writer};
use isonorm_reports::summary::Summary;

use super::certify::seed;
use super::{Answer, Error, Format, print_json, print_text, run};
use crate::identities::{Plan, check};
use crate::{machine, networks};

/// Check identities: exactly, in f64, f32 and bf16 through libtorch and the kernels, without their condition, in training.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Which ones: all unless some are named, and one that is named alone is explained.
    names: Vec<String>,
    /// Of sizes, parameters and data: the same seed gives the same cases on any machine.
    #[arg(long, value_name = "S", value_parser = seed, default_value = "1")]
    seed: u64,
    /// Threads that check; all cores unless told.
    #[arg(long, value_name = "N")]
    jobs: Option<NonZero<usize>>,
    /// The folder for records and the report.
    #[arg(long, value_name = "DIR", default_value = "isonorm-out")]
    out: PathBuf,
    /// How the answer is printed.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

pub(super) fn run(arguments: Arguments) -> Result<Answer, Error> {
    let identities = run::named(&arguments.names, &IDENTITIES, |identity| identity.name, ("identity", "identities"))?;
    let workers = arguments.jobs.map_or_else(machine::cores, NonZero::get).clamp(1, identities.len());
    let file = arguments.out.join("identities.jsonl");
    let mut writer = Writer::create(&file)?;
    let selection = std::iter::once("identities").chain(arguments.names.iter().map(String::as_str));
    let budget = record::Budget::Cases(identities.len() as u64);
    writer.write(run::campaign(selection.collect::<Vec<_>>().join(" "), arguments.seed, budget, workers, None))?;
    let stop = run::stop_on_interrupt("stopping after the identities under way: what was checked");
    let writer = Mutex::new(writer);
    all(&identities, &Plan::full(arguments.seed), workers, &stop, &writer)?;
    let interrupted = stop.load(Ordering::Relaxed);
    let experiments = if arguments.names.is_empty() && !interrupted {
        let measured = networks::measure(arguments.seed);
        measured.map_err(|why| Error::Usage(format!("properties of networks could not be measured: {why}")))?
    } else {
        Vec::new()
    };
    let mut writer = writer.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    experiments.iter().try_for_each(|experiment| writer.write(experiment.clone()))?;
    writer.write(run::end(&stop))?;
    drop(writer);

    let mut found = Summary::read(std::slice::from_ref(&file))?.identities;
    let place = |name: &str| IDENTITIES.iter().position(|identity| identity.name == name);
    found.sort_by_key(|identity| place(&identity.name));
    match (arguments.format, found.as_slice()) {
        (Format::Json, found) => print_json(&document(found))?,
        (Format::Text, [one]) if arguments.names.len() == 1 => print_text(&explanation(one))?,
        (Format::Text, found) => print_text(&(table(found) + &networks_text(&experiments)))?,
    }
    isonorm_reports::write_all(&arguments.out, &Summary::read(std::slice::from_ref(&arguments.out))?)?;
    eprintln!("report: {}", arguments.out.join("report.html").display());
    if interrupted {
        return Err(Error::Usage("stopped before its end: what was checked is in the report".to_owned()));
    }
    let fails = found.iter().any(|identity| identity.verdict == IdentityVerdict::Fails)
        || experiments.iter().any(|experiment| !experiment.agrees);
    Ok(if fails { Answer::Findings } else { Answer::Well })
}

/// Checks them, several at a time, and writes a record for each as soon as it is done.
fn all(
    identities: &[&'static Identity],
    plan: &Plan,
    workers: usize,
    stop: &AtomicBool,
    writer: &Mutex<Writer>,
) -> Result<(), Error> {
    // The threads are taken by identities.
    tch::set_num_threads(1);
    let bar = ProgressBar::new(identities.len() as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:32} {pos}/{len} {elapsed}: {msg}") {
        bar.set_style(style);
    }
    let terminal = std::io::stderr().is_terminal();
    let next = AtomicUsize::new(0);
    let work = || -> Result<(), Error> {
        while !stop.load(Ordering::Relaxed) {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let Some(identity) = identities.get(place) else { break };
            bar.set_message(identity.name);
            let found = check(identity, plan).map_err(|why| {
                stop.store(true, Ordering::Relaxed);
                Error::Usage(format!("{} could not be checked: {why}", identity.name))
            })?;
            if !terminal {
                eprintln!(
                    "{} of {}: {} {} ({} s)",
                    place + 1,
                    identities.len(),
                    found.name,
                    found.verdict,
                    found.seconds
                );
            }
            writer.lock().unwrap_or_else(std::sync::PoisonError::into_inner).write(found)?;
            bar.inc(1);
        }
        Ok(())
    };
    let results: Vec<Result<(), Error>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        let panicked = || Err(Error::Usage("a thread panicked: see above".to_owned()));
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| panicked())).collect()
    });
    bar.finish_and_clear();
    results.into_iter().collect()
}
