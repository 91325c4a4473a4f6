//! `bench`: paired timings against libtorch and against a copy, and the machine's ceilings.

use std::io::IsTerminal;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use isonorm_kernels::abi::{Dtype, DtypeSet};
use isonorm_reports::record::{self, Ceiling, Number, Setting, Writer};
use isonorm_reports::summary::Summary;

use super::certify::{duration, finding_text, kernel_record, seed};
use super::kernels::Selection;
use super::{Answer, Error, Format, kernels, launches, print_json, print_text, run};
use crate::bench::check::{self, Checked};
use crate::bench::kernel::Callable;
use crate::bench::workload::{self, Shape, Workload};
use crate::bench::{self, Cell, Plan, Versus, ceilings, gpu, instructions, memory};
use crate::campaign::Entry;
use crate::generate::layouts::Layout;
use crate::machine;
use crate::run::Device;

/// Time kernels against libtorch and against a copy of as many bytes, in turns, in one process.
///
/// On a GPU (`--device cuda`) calls are timed by its own events. On the PTX executor (`--device ptx`, `--cuda`) nothing is timed:
/// what launches do to memory is counted instead.
/// Every kernel is judged on a workload before it is timed on it. Without a selection: all kernels in f32, bf16 and f16, on
/// the usual shapes of their operators.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) selection: Selection,
    /// Shapes of the main input, such as 4096x4096 or 32x64x56x56.
    #[arg(long, value_name = "S,..", value_delimiter = ',')]
    shape: Vec<Shape>,
    /// Layouts of inputs and outputs; all that the kernel takes unless told.
    #[arg(long, value_name = "L,..", value_delimiter = ',', value_parser = layout)]
    layout: Vec<Layout>,
    /// Numbers of threads, for everyone alike; 1 and all cores unless told.
    #[arg(long, value_name = "N,..", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Vec<u16>,
    /// Groups of channels, for operators that have groups.
    #[arg(long, value_name = "N", default_value_t = 32)]
    groups: usize,
    /// What kernels are compared with.
    #[arg(long, value_name = "V,..", value_delimiter = ',', default_value = "libtorch,copy")]
    versus: Vec<Versus>,
    /// How long each workload is timed; at least nine rounds are.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "400ms")]
    time: Duration,
    /// Count instructions with valgrind where it is installed.
    #[arg(long)]
    instructions: bool,
    /// Leave out the table of calls that allocate their outputs.
    #[arg(long)]
    no_as_called: bool,
    /// Leave out the machine's ceilings.
    #[arg(long)]
    no_ceilings: bool,
    /// Measure the machine's ceilings and nothing else.
    #[arg(long, conflicts_with_all = ["no_ceilings", "criterion"])]
    ceilings_only: bool,
    /// Place the tensors of each workload so often anew; each placement is a measurement of its own.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    placements: u16,
    /// Only write records, and neither a report nor figures.
    #[arg(long)]
    records_only: bool,
    /// Plant a slowdown: every call of a kernel takes longer by this part of its time.
    #[arg(long, value_name = "PART", default_value_t = 0.0, hide = true)]
    slowed: f64,
    /// Of the order within rounds and of the intervals.
    #[arg(long, value_name = "S", value_parser = seed, default_value = "1")]
    seed: u64,
    /// The folder for records and the report.
    #[arg(long, value_name = "DIR", default_value = "isonorm-out")]
    out: PathBuf,
    /// How the answer is printed.
    #[arg(long, value_enum, default_value = "text")]
    pub(super) format: Format,
    /// Run the criterion suite instead, with the arguments after `--`.
    #[arg(long)]
    criterion: bool,
    /// Arguments for criterion.
    #[arg(last = true, requires = "criterion")]
    criterion_arguments: Vec<String>,
}

/// Element types that are timed unless some are asked for.
const USUAL_DTYPES: [Dtype; 3] = [Dtype::F32, Dtype::Bf16, Dtype::F16];
/// Of the time of a workload, what its calls with allocation get.
const AS_CALLED: f64 = 0.5;
/// Processes that want a core, for each core, from which on timings suffer.
const LOADED: f64 = 0.5;

/// A cell to be measured.
pub(super) struct Task<'a> {
    pub(super) entry: &'a Entry,
    pub(super) workload: Workload,
    setting: Setting,
}

pub(super) fn run(mut arguments: Arguments) -> Result<Answer, Error> {
    if arguments.criterion {
        return Err(criterion(&arguments.criterion_arguments));
    }
    let device = arguments.selection.device();
    if device == Device::Ptx {
        return launches::run(&arguments);
    }
    let threads = if device == Device::Cuda {
        // A GPU has no threads to choose.
        vec![1]
    } else if arguments.threads.is_empty() {
        let mut threads = vec![1, machine::cores()];
        threads.dedup();
        threads
    } else {
        arguments.threads.iter().map(|&threads| usize::from(threads)).collect()
    };
    let entries = if arguments.ceilings_only { Vec::new() } else { arguments.selection.entries(threads[0])? };
    if device == Device::Cuda
        && arguments.versus.contains(&Versus::Libtorch)
        && let Err(why) = gpu::libtorch_on_gpu()
    {
        arguments.versus.retain(|versus| *versus != Versus::Libtorch);
        if arguments.versus.is_empty() {
            return Err(Error::Usage(why));
        }
        eprintln!("isonorm: nothing is compared with libtorch: {why}");
    }
    kernels::prepare(&entries)?;
    let tasks = tasks(&arguments, &entries, &threads)?;
    let file = arguments.out.join("bench.jsonl");
    let mut writer = Writer::create(&file)?;
    let budget = record::Budget::Seconds(Number(arguments.time.as_secs_f64()));
    let most = threads.iter().copied().max().unwrap_or(1);
    let header = run::campaign(arguments.selection.text("bench"), arguments.seed, budget, most, run::gpu_of(&entries));
    let libtorch = header.libtorch.clone().filter(|_| arguments.versus.contains(&Versus::Libtorch));
    writer.write(record::Campaign { libtorch, ..header })?;
    for entry in &entries {
        writer.write(kernel_record(entry))?;
    }
    warn_if_loaded();
    let stop = run::stop_on_interrupt("stopping after this workload: what was done");

    let mut measured = Measured::default();
    if !arguments.no_ceilings && device == Device::Cpu {
        eprintln!("measuring the machine's ceilings");
        let mut failed = None;
        let each = |ceiling: Ceiling| {
            failed = writer.write(ceiling).err().or(failed.take());
        };
        ceilings::measure(&threads, each).map_err(Error::Usage)?;
        failed.map_or(Ok(()), Err)?;
    }
    measure(&arguments, tasks, &stop, &mut writer, &mut measured)?;
    let interrupted = stop.load(Ordering::Relaxed);
    writer.write(run::end(&stop))?;
    drop(writer);

    // Only this run is told, and before anything else in the folder is read.
    let run = Summary::read(std::slice::from_ref(&file))?;
    match arguments.format {
        Format::Json => {
            print_json(&isonorm_reports::bench::document(&run.benches))?;
            eprint!("{}", told(&measured));
        }
        Format::Text => print_text(&format!("{}{}", isonorm_reports::bench::text(&run.benches), told(&measured)))?,
    }
    if !arguments.records_only {
        isonorm_reports::write_all(&arguments.out, &Summary::read(std::slice::from_ref(&arguments.out))?)?;
        eprintln!("report: {}", arguments.out.join("report.html").display());
    }
    if measured.wrong.is_empty() && interrupted {
        return Err(Error::Usage("stopped before its end: what was measured is in the report".to_owned()));
    }
    Ok(if measured.wrong.is_empty() { Answer::Well } else { Answer::Findings })
}

/// Everything that came of the tasks.
#[derive(Default)]
struct Measured {
    /// Of each kernel that is wrong, what is.
    wrong: Vec<String>,
    /// What was not timed, and why.
    left_out: Vec<String>,
}

/// The cells that are asked for: first all that allocate, because the allocator is then told to keep what is freed.
pub(super) fn tasks<'a>(
    arguments: &Arguments,
    entries: &'a [Entry],
    threads: &[usize],
) -> Result<Vec<Task<'a>>, Error> {
    let (mut as_called, mut warm) = (Vec::new(), Vec::new());
    for entry in entries {
        let info = entry.contender.info();
        let shapes = if arguments.shape.is_empty() {
            workload::usual_shapes(entry.operator, entry.contender.device())
        } else {
            arguments.shape.iter().map(|shape| shape.0.clone()).collect()
        };
        let layouts = workload::usual_layouts(info, entry.operator);
        let layouts = layouts.into_iter().filter(|own| arguments.layout.is_empty() || arguments.layout.contains(own));
        let layouts: Vec<Layout> = layouts.collect();
        let usual = |dtypes: &DtypeSet| USUAL_DTYPES.iter().any(|&dtype| *dtypes == DtypeSet::uniform(dtype));
        // A kernel that offers none of the usual ones is timed on what it offers.
        let all = arguments.selection.asks_for_dtypes() || !entry.offer.dtypes.iter().any(usual);
        let dtypes = entry.offer.dtypes.iter().filter(|dtypes| all || usual(dtypes));
        for (place, &dtypes) in dtypes.enumerate() {
            for shape in &shapes {
                let plain = Workload::new(entry.operator, info.direction, dtypes, shape, arguments.groups);
                let plain = plain.map_err(Error::Usage)?;
                for &layout in &layouts {
                    let Some(laid_out) = plain.clone().with_layout(layout) else { continue };
                    let of = |threads: usize, setting| Task {
                        entry,
                        workload: laid_out.clone().with_threads(threads),
                        setting,
                    };
                    let timed = entry.contender.device() != Device::Ptx;
                    if place == 0 && timed && layout == Layout::Contiguous && entry.operator.native.is_some() {
                        as_called.extend(threads.iter().max().map(|&threads| of(threads, Setting::AsCalled)));
                    }
                    warm.extend(threads.iter().map(|&threads| of(threads, Setting::Warm)));
                }
            }
        }
    }
    if !arguments.ceilings_only && warm.is_empty() {
        return Err(Error::Usage("no kernel takes such a layout with such a shape: leave out --layout".to_owned()));
    }
    if arguments.no_as_called || !arguments.versus.contains(&Versus::Libtorch) {
        as_called.clear();
    }
    as_called.append(&mut warm);
    Ok(as_called)
}

/// Judges and times task after task.
fn measure(
    arguments: &Arguments,
    tasks: Vec<Task<'_>>,
    stop: &AtomicBool,
    writer: &mut Writer,
    measured: &mut Measured,
) -> Result<(), Error> {
    let bar = ProgressBar::new(tasks.len() as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:32} {pos}/{len}, {eta} left: {msg}") {
        bar.set_style(style);
    }
    let terminal = std::io::stderr().is_terminal();
    let replay = arguments.selection.replay();
    let mut counted: Option<(String, Option<Number>)> = None;
    let mut no_count = None;
    for (place, Task { entry, workload, setting }) in tasks.iter().enumerate() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        if *setting == Setting::Warm && place.checked_sub(1).is_none_or(|before| tasks[before].setting != *setting) {
            memory::keep_freed_blocks();
        }
        let id = workload.id();
        bar.set_message(id.clone());
        if !terminal && place % 25 == 0 {
            eprintln!("{place} of {}: {id}", tasks.len());
        }
        bar.inc(1);
        let on_gpu = entry.contender.on_gpu();
        if on_gpu.is_none() && !memory::has_room_for(bench::footprint(workload)) {
            let gib = bench::footprint(workload) as f64 / f64::from(1 << 30);
            measured.left_out.push(format!("{id}: needs about {gib:.1} GiB of memory, more than there is"));
            continue;
        }
        let sample = match check::sample(entry, workload, &replay)? {
            Checked::Right(sample) => sample,
            Checked::Declined(why) => {
                measured.left_out.push(format!("{id}: {} declines: {why}", entry.name));
                continue;
            }
            Checked::Wrong(findings) => {
                for finding in findings {
                    measured.wrong.push(finding_text(&finding));
                    writer.write(finding)?;
                }
                continue;
            }
        };
        let time = if *setting == Setting::AsCalled { arguments.time.mul_f64(AS_CALLED) } else { arguments.time };
        let plan = Plan {
            versus: arguments.versus.clone(),
            time,
            seed: arguments.seed,
            replay: replay.clone(),
            slowed: arguments.slowed,
        };
        let cell = placed(arguments.placements, arguments.seed, || match on_gpu {
            Some(kernel) => gpu::cell(entry, kernel, workload, &sample, *setting, &plan),
            None => bench::cell(entry, &Callable::of(&*entry.contender)?, workload, &sample, *setting, &plan),
        });
        let mut benches = match cell {
            Ok(Cell::Timed(benches)) => benches,
            Ok(Cell::Wrong(finding)) => {
                measured.wrong.push(finding_text(&finding));
                writer.write(*finding)?;
                continue;
            }
            Err(why) => {
                measured.left_out.push(format!("{id}: {why}"));
                continue;
            }
        };
        if arguments.instructions && no_count.is_none() && on_gpu.is_none() {
            let same = format!("{} {}", entry.name, workload.clone().with_threads(1).id());
            if counted.as_ref().is_none_or(|(other, _)| *other != same) {
                let count = instructions::per_element(entry, workload);
                counted = Some((same, count.as_ref().ok().map(|&count| Number(count))));
                no_count = count.err();
            }
            let count = counted.as_ref().and_then(|(_, count)| *count);
            benches.iter_mut().for_each(|bench| bench.instructions_per_element = count);
        }
        benches.into_iter().try_for_each(|bench| writer.write(bench))?;
    }
    bar.finish_and_clear();
    if let Some(why) = no_count {
        eprintln!("isonorm: instructions were not counted: {why}");
    }
    Ok(())
}

/// Measures a cell in so many placements of its tensors, until something is wrong.
fn placed(placements: u16, seed: u64, measure: impl Fn() -> Result<Cell, String>) -> Result<Cell, String> {
    let mut all = Vec::new();
    for placement in 0..placements {
        if placements > 1 {
            memory::scatter(seed.wrapping_mul(u64::from(u16::MAX)).wrapping_add(u64::from(placement)));
        }
        match measure()? {
            Cell::Timed(benches) => all.extend(benches),
            wrong @ Cell::Wrong(_) => return Ok(wrong),
        }
    }
    Ok(Cell::Timed(all))
}

/// Says so if other programs use the processor: their share of it is in every timing.
pub(super) fn warn_if_loaded() {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = text.split_whitespace().next().and_then(|first| first.parse::<f64>().ok());
    if let Some(load) = load.filter(|&load| load > LOADED * machine::cores() as f64) {
        eprintln!(
            "isonorm: {load} processes on average wanted one of {} cores in the last minute: ratios hold better than times, \
             and intervals will be wide",
            machine::cores()
        );
    }
}

/// What the tables do not say: what was left out, what is wrong.
fn told(measured: &Measured) -> String {
    let mut out = String::new();
    if !measured.left_out.is_empty() {
        out += &format!("\nnot timed:\n{}\n", measured.left_out.join("\n"));
    }
    if !measured.wrong.is_empty() {
        out += "\nwrong, and therefore not timed:\n";
        out += &measured.wrong.concat();
    }
    out
}

/// Replaces this process by the criterion suite; returns only if that is not possible.
fn criterion(arguments: &[String]) -> Error {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    if !manifest.is_file() {
        return Error::Usage(format!(
            "{} is missing: the criterion suite is run from the folder that isonorm was built in",
            manifest.display()
        ));
    }
    let mut cargo = Command::new("cargo");
    cargo.args(["bench", "--bench", "norms", "--manifest-path"]).arg(manifest).arg("--").args(arguments);
    Error::Usage(format!("cannot start cargo: {}; put it on the path", cargo.exec()))
}

fn layout(text: &str) -> Result<Layout, String> {
    let found =
        text.parse::<Layout>().ok().filter(|layout| [Layout::Contiguous, Layout::ChannelsLast].contains(layout));
    found.ok_or_else(|| format!("`{text}` is not a layout that is timed: it can be contiguous or channels_last"))
}
