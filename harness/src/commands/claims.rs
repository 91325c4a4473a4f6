//! `claims`: measures what papers say that is saved.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use isonorm_cuda::driver::Gpu;
use isonorm_oracles::claims::{CLAIMS, Claim};
use isonorm_reports::claims::{document, explanation, table};
use isonorm_reports::record::{self, Number, Writer};
use isonorm_reports::summary::Summary;

use super::bench::warn_if_loaded;
use super::certify::{duration, seed};
use super::{Answer, Error, Format, print_json, print_text, run};
use crate::bench::gpu::libtorch_on_gpu;
use crate::bench::memory;
use crate::claims::{Plan, measure, peak, steps};
use crate::machine;
use crate::run::Device;

/// Measure papers' claims: what is said to be faster or smaller beside what it is compared with, in turns, in one process.
///
/// Every program first has to give what its formula gives. The exit status is 0 whether claims are reproduced or not; it is 1
/// if a program is wrong.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Which ones: all unless some are named, and one that is named alone is explained.
    names: Vec<String>,
    /// How long each program is timed in each size; at least nine rounds are.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "400ms")]
    time: Duration,
    /// Where programs run: on the processor, or on a GPU with CUDA, where only those run that are libtorch's throughout.
    #[arg(long, value_enum, default_value_t)]
    device: Device,
    /// Threads, for everyone alike but plain loops, which have one.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024), default_value = "1")]
    threads: u16,
    /// Of data and parameters, of the order within rounds, and of the intervals.
    #[arg(long, value_name = "S", value_parser = seed, default_value = "1")]
    seed: u64,
    /// In a process of its own: the most bytes that one program has, by its places in the claim's lists.
    #[arg(long, hide = true, value_name = "COMPARISON,SHAPE,PROGRAM", value_delimiter = ',')]
    peak_of: Vec<usize>,
    /// The folder for records and the report.
    #[arg(long, value_name = "DIR", default_value = "isonorm-out")]
    out: PathBuf,
    /// How the answer is printed.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

pub(super) fn run(arguments: Arguments) -> Result<Answer, Error> {
    let claims = run::named(&arguments.names, &CLAIMS, |claim| claim.name, ("claim", "claims"))?;
    if let [comparison, shape, program] = arguments.peak_of[..] {
        let place = peak::Place { comparison, shape, program };
        let bytes =
            peak::here(claims[0], place, arguments.seed, usize::from(arguments.threads)).map_err(Error::Usage)?;
        return print_text(&format!("{bytes}\n")).map(|()| Answer::Well);
    }
    let (device, gpu) = match arguments.device {
        Device::Cpu => (tch::Device::Cpu, None),
        Device::Ptx => {
            return Err(Error::Usage(
                "claims are about time and memory, and the PTX executor says nothing about either: leave out --device, or give cuda \
                 where there is a GPU; `bench --device ptx` counts the bytes and instructions of single norms"
                    .to_owned(),
            ));
        }
        Device::Cuda => {
            let gpu = Gpu::open()?;
            libtorch_on_gpu().map_err(Error::Usage)?;
            (tch::Device::Cuda(0), Some(machine::gpu(&gpu)))
        }
    };
    let plan = Plan { time: arguments.time, threads: usize::from(arguments.threads), seed: arguments.seed, device };
    let file = arguments.out.join("claims.jsonl");
    let mut writer = Writer::create(&file)?;
    let on = if arguments.device == Device::Cuda { "claims --device cuda" } else { "claims" };
    let selection = std::iter::once(on).chain(arguments.names.iter().map(String::as_str));
    let budget = record::Budget::Seconds(Number(arguments.time.as_secs_f64()));
    let selection = selection.collect::<Vec<_>>().join(" ");
    writer.write(run::campaign(selection, arguments.seed, budget, plan.threads, gpu))?;
    warn_if_loaded();
    let stop = run::stop_on_interrupt("stopping after this claim: what was measured");
    memory::keep_freed_blocks();
    all(&claims, &plan, &stop, &mut writer)?;
    let interrupted = stop.load(Ordering::Relaxed);
    writer.write(run::end(&stop))?;
    drop(writer);

    let found = Summary::read(std::slice::from_ref(&file))?.claims;
    match (arguments.format, found.as_slice()) {
        (Format::Json, found) => print_json(&document(found))?,
        (Format::Text, [one]) if arguments.names.len() == 1 => print_text(&explanation(one))?,
        (Format::Text, found) => print_text(&table(found))?,
    }
    isonorm_reports::write_all(&arguments.out, &Summary::read(std::slice::from_ref(&arguments.out))?)?;
    eprintln!("report: {}", arguments.out.join("report.html").display());
    let wrong = found.iter().any(|claim| !claim.wrong.is_empty());
    if interrupted && !wrong {
        return Err(Error::Usage("stopped before its end: what was measured is in the report".to_owned()));
    }
    Ok(if wrong { Answer::Findings } else { Answer::Well })
}

/// Measures one after the other, and writes a record for each as soon as it is done.
fn all(claims: &[&'static Claim], plan: &Plan, stop: &AtomicBool, writer: &mut Writer) -> Result<(), Error> {
    let bar = ProgressBar::new(claims.iter().map(|claim| steps(claim) as u64).sum());
    if let Ok(style) = ProgressStyle::with_template("{bar:32} {pos}/{len}, {eta} left: {msg}") {
        bar.set_style(style);
    }
    let terminal = std::io::stderr().is_terminal();
    for (place, claim) in claims.iter().enumerate() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let step = |what: &str| {
            bar.set_message(what.to_owned());
            bar.inc(1);
        };
        let found = measure(claim, plan, &step)
            .map_err(|why| Error::Usage(format!("{} could not be measured: {why}", claim.name)))?;
        if !terminal {
            let place = format!("{} of {}", place + 1, claims.len());
            eprintln!("{place}: {} {} ({} s)", found.name, found.verdict, found.seconds);
        }
        writer.write(found)?;
    }
    bar.finish_and_clear();
    Ok(())
}
