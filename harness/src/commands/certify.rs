//! `certify`: the differential campaign.

use std::io::IsTerminal;
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use isonorm_oracles::interpret::text::text;
use isonorm_reports::record::{self, Number, Writer};
use isonorm_reports::summary::{KernelSummary, Summary, Verdict};

use super::kernels::{self, Selection};
use super::shard::{self, Shard};
use super::{Answer, Error, Format, print_json, print_text, run};
use crate::campaign::{self, Budget, Entry, Plan, Progress};
use crate::machine;
use crate::run::{Device, Origin};

/// Judge kernels: every element against the exact value, within the derived bound.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    selection: Selection,
    /// How many cases each kernel is asked.
    #[arg(long, value_name = "N", conflicts_with = "time")]
    cases: Option<u64>,
    /// How long the campaign goes on: 90, 90s, 10m.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "60s")]
    time: Duration,
    /// Of all cases: the same seed gives the same cases on any machine.
    #[arg(long, value_name = "S", value_parser = seed, default_value = "1")]
    seed: u64,
    /// Part I of N: the parts together are the whole campaign. `auto` asks the environment (Slurm arrays, Kubernetes indexed
    /// jobs, CI systems), `auto/N` where that knows only which part this is. Needs --cases.
    #[arg(long, value_name = "I/N", value_parser = shard::parse, default_value = "1/1")]
    shard: Shard,
    /// Threads that judge; all cores unless told.
    #[arg(long, value_name = "N")]
    jobs: Option<NonZero<usize>>,
    /// Do not ask libtorch.
    #[arg(long)]
    no_libtorch: bool,
    /// The folder for records, certificates and the report.
    #[arg(long, value_name = "DIR", default_value = "isonorm-out")]
    out: PathBuf,
    /// How the answer is printed.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

/// The most threads that a case gives a kernel.
const KERNEL_THREADS: usize = 3;

pub(super) fn run(arguments: Arguments) -> Result<Answer, Error> {
    let entries = arguments.selection.entries(KERNEL_THREADS)?;
    kernels::prepare(&entries)?;
    let workers = arguments.jobs.map_or_else(machine::cores, NonZero::get);
    let variable = |name: &str| std::env::var(name).ok();
    let (index, of, said_by) = shard::resolve(arguments.shard, variable).map_err(Error::Usage)?;
    if of > 1 && arguments.cases.is_none() {
        return Err(Error::Usage(
            "a shard needs --cases: how much is asked in a time depends on the machine, and shards would not be parts of one \
             campaign"
                .to_owned(),
        ));
    }
    if let Some(variable) = said_by {
        eprintln!("shard {index} of {of}, as {variable} says");
    }
    let mut writer = match of {
        1 => Writer::create(&arguments.out.join("records.jsonl"))?,
        _ => Writer::create_beside(&arguments.out.join(format!("records-{index}-of-{of}.jsonl")))?,
    };
    let budget = arguments.cases.map_or(Budget::Time(arguments.time), Budget::Cases);
    let asked = match budget {
        Budget::Cases(cases) => record::Budget::Cases(cases),
        Budget::Time(time) => record::Budget::Seconds(Number(time.as_secs_f64())),
    };
    let header =
        run::campaign(arguments.selection.text("certify"), arguments.seed, asked, workers, run::gpu_of(&entries));
    let libtorch = header.libtorch.clone().filter(|_| !arguments.no_libtorch);
    let header = record::Campaign { shard: record::Shard { index, of }, libtorch, ..header };
    writer.write(header.clone())?;
    for entry in &entries {
        writer.write(kernel_record(entry))?;
    }
    let plan = Plan {
        seed: arguments.seed,
        budget,
        shard: (u64::from(index - 1), u64::from(of)),
        workers,
        large: long_enough(budget),
        libtorch: !arguments.no_libtorch,
        replay: arguments.selection.replay(),
    };
    let stop = run::stop_on_interrupt("stopping: what was done");
    let progress = Arc::new(Progress { stop, ..Progress::default() });
    let records = watched(&plan, &progress, entries.len(), || campaign::run(&entries, &plan, &progress))?;
    for record in records {
        writer.write(record)?;
    }
    let interrupted = progress.stop.load(Ordering::Relaxed);
    writer.write(run::end(&progress.stop))?;
    let written = writer.path().to_owned();
    drop(writer);

    // Other shards may be writing into the same folder: each tells of itself, and `report` of all of them.
    let told_of = if of == 1 { arguments.out.clone() } else { written };
    let summary = Summary::read(&[told_of])?;
    match arguments.format {
        Format::Json => print_json(&isonorm_reports::json::document(&summary))?,
        Format::Text => print_text(&told(&summary))?,
    }
    if of == 1 {
        isonorm_reports::write_all(&arguments.out, &summary)?;
        eprintln!("report: {}", arguments.out.join("report.html").display());
    } else {
        let out = arguments.out.display();
        eprintln!("shard {index} of {of} is done; when all are: cargo isonorm report {out}");
    }
    let answer = verdict(&summary, of == 1 && !interrupted)?;
    match answer {
        Answer::Well if interrupted => Err(Error::Usage(
            "stopped before its end: what was judged is in the report, and nothing is certified".to_owned(),
        )),
        _ => Ok(answer),
    }
}

/// Large cases take seconds: they are part of campaigns that last.
fn long_enough(budget: Budget) -> bool {
    match budget {
        Budget::Cases(cases) => cases >= 1000,
        Budget::Time(time) => time >= Duration::from_secs(30),
    }
}

/// Findings are findings; a kernel that was never judged is a question that was not asked.
fn verdict(summary: &Summary, whole: bool) -> Result<Answer, Error> {
    if summary.verdicts(Verdict::Failed) > 0 {
        return Ok(Answer::Findings);
    }
    let incomplete: Vec<String> = summary
        .kernels
        .iter()
        .filter(|kernel| kernel.verdict == Verdict::Incomplete)
        .map(|kernel| format!("{} ({})", kernel.kernel.name, kernel.reasons.join("; ")))
        .collect();
    if whole && !incomplete.is_empty() {
        return Err(Error::Usage(format!("not certified, because not all was judged: {}", incomplete.join(", "))));
    }
    Ok(Answer::Well)
}

pub(super) fn kernel_record(entry: &Entry) -> record::Kernel {
    let info = entry.contender.info();
    let (version, library) = match entry.contender.origin() {
        Origin::BuiltIn => (Some(env!("CARGO_PKG_VERSION").to_owned()), None),
        Origin::File { path, sha256, version, .. } => {
            let file = path.display().to_string();
            (Some(version.clone()), Some(record::Library { file, sha256: sha256.clone() }))
        }
        Origin::Manifest { path, sha256 } => {
            (None, Some(record::Library { file: path.display().to_string(), sha256: sha256.clone() }))
        }
    };
    record::Kernel {
        name: entry.name.clone(),
        operator: entry.operator.name.to_owned(),
        direction: info.direction.to_string(),
        device: entry.contender.device().to_string(),
        dtypes: entry.offer.dtypes.iter().map(|dtypes| dtypes.to_string()).collect(),
        layouts: info.layouts.to_string().split(',').map(str::to_owned).collect(),
        working_precision: info.precision.map_or_else(|| "f32 (f64 for f64)".to_owned(), |dtype| dtype.to_string()),
        reduction: info.reduction.to_string(),
        formula: entry.operator.typical(info.direction).map_or_else(String::new, |problem| text(&problem.graph())),
        version,
        library,
    }
}

/// Runs a campaign and shows how far it is.
fn watched<T>(plan: &Plan, progress: &Progress, kernels: usize, work: impl FnOnce() -> T + Send) -> T
where
    T: Send,
{
    let started = Instant::now();
    let bar = match plan.budget {
        Budget::Cases(cases) => ProgressBar::new(cases.div_ceil(plan.shard.1) * kernels as u64),
        Budget::Time(time) => ProgressBar::new(time.as_millis() as u64),
    };
    if let Ok(style) = ProgressStyle::with_template("{bar:32} {msg} {elapsed}") {
        bar.set_style(style);
    }
    let terminal = std::io::stderr().is_terminal();
    let show = |quiet: &mut Duration| {
        let (cases, failed) = (progress.cases.load(Ordering::Relaxed), progress.failed.load(Ordering::Relaxed));
        let elapsed = started.elapsed();
        let message =
            format!("{cases} cases, {failed} failed, {:.0} cases/s", cases as f64 / elapsed.as_secs_f64().max(1e-9));
        match plan.budget {
            Budget::Cases(_) => bar.set_position(cases),
            Budget::Time(_) => bar.set_position(elapsed.as_millis() as u64),
        }
        bar.set_message(message.clone());
        // Where there is no terminal, a line now and then shows that it goes on.
        if !terminal && elapsed >= *quiet {
            eprintln!("{message}");
            *quiet += Duration::from_secs(15);
        }
    };
    std::thread::scope(|scope| {
        let worker = scope.spawn(work);
        let mut quiet = Duration::from_secs(15);
        while !worker.is_finished() {
            std::thread::sleep(Duration::from_millis(100));
            show(&mut quiet);
        }
        bar.finish_and_clear();
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The answer for people: a line for each kernel, then each finding in full.
fn told(summary: &Summary) -> String {
    use std::fmt::Write;
    let mut out = String::new();
    let width = summary.kernels.iter().map(|kernel| kernel.kernel.name.len()).max().unwrap_or(0).max(6);
    let ratio = |errors: &record::Errors| {
        errors.worst_ratio_to_bound.as_ref().map_or_else(|| "-".to_owned(), |worst| worst.value.to_string())
    };
    let _ = writeln!(out, "{:width$}  {:>8}  {:>9}  {:>9}  verdict", "kernel", "cases", "worst", "libtorch");
    for kernel in &summary.kernels {
        let KernelSummary { kernel: said, verdict, total, reasons, .. } = kernel;
        let (worst, libtorch) = (ratio(&total.errors), ratio(&total.libtorch));
        let because = if reasons.is_empty() { String::new() } else { format!(": {}", reasons.join("; ")) };
        let _ =
            writeln!(out, "{:width$}  {:>8}  {worst:>9}  {libtorch:>9}  {verdict}{because}", said.name, total.cases);
    }
    let _ = writeln!(out, "(worst: the largest error as a multiple of the bound; libtorch: the same of libtorch)");
    if summary.kernels.iter().any(|kernel| kernel.kernel.device == Device::Ptx.to_string()) {
        let _ = writeln!(out, "(executed on the PTX executor, not on a GPU)");
    }
    for kernel in &summary.kernels {
        for finding in &kernel.findings {
            let _ = write!(out, "\n{}", finding_text(finding));
        }
    }
    let speed = summary.cases_per_second().map_or_else(String::new, |speed| format!(", {speed} cases/s"));
    let _ = writeln!(out, "\n{} cases{speed}, {} findings", summary.cases(), summary.findings());
    out
}

/// A finding for people: what was asked, what came out, and how to see it again.
pub(super) fn finding_text(finding: &record::Finding) -> String {
    use std::fmt::Write;
    let mut out = String::new();
    let _ = writeln!(out, "FAILED {}: {}", finding.kernel, finding.property);
    let _ = writeln!(out, "  {}", finding.message);
    let _ = writeln!(out, "  case      {}", finding.case);
    for line in finding.formula.lines() {
        let _ = writeln!(out, "  formula   {line}");
    }
    if let Some(wrong) = &finding.wrong {
        let at: Vec<String> = wrong.index.iter().map(u64::to_string).collect();
        let _ = writeln!(out, "  element   {}[{}]", wrong.output, at.join(", "));
        let mut value = |name: &str, value: &record::Value| {
            let _ = writeln!(out, "  {name:9} {} ({})", value.decimal, value.bits);
        };
        value("got", &wrong.got);
        value("true", &wrong.truth);
        if let Some(libtorch) = &wrong.libtorch {
            value("libtorch", libtorch);
        }
    }
    let number = |value: Option<Number>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
    if finding.wrong.is_some() {
        let (ratio, ulps) = (number(finding.ratio_to_bound), number(finding.ulps));
        let libtorch = number(finding.libtorch_ratio_to_bound);
        let _ = writeln!(out, "  error     {ratio} times the bound, {ulps} ulp; libtorch {libtorch} times the bound");
    }
    if finding.further > 0 {
        let _ = writeln!(out, "  further   {} cases", finding.further);
    }
    let _ = writeln!(out, "  replay    {}", finding.replay);
    out
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let parsed = match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string()),
        Err(_) => humantime::parse_duration(text).map_err(|error| error.to_string()),
    };
    match parsed {
        Ok(time) if time.is_zero() => Err("give a time above 0, such as 60s or 10m".to_owned()),
        Ok(time) => Ok(time),
        Err(error) => Err(format!("{error}; give a time such as 60s or 10m")),
    }
}

pub(super) fn seed(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| format!("a seed is a whole number from 0 to {}, or hexadecimal such as 0x2a", u64::MAX))
}
