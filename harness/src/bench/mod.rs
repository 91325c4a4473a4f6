//! Benchmarks: how fast a kernel is beside libtorch and beside a copy of as many bytes.
//!
//! [`cell`] measures one workload in the paired mode ([`paired`]), after its kernel was judged on it ([`check`]). The criterion
//! suite in `benches/` times the same contenders. To add a contender, implement [`Timed`] next to [`copy`].

pub mod caches;
pub mod ceilings;
pub mod check;
pub mod copy;
pub mod gpu;
pub mod instructions;
pub mod kernel;
pub mod libtorch;
pub mod memory;
pub mod paired;
pub mod slowed;
pub mod statistics;
pub mod workload;

use std::time::{Duration, Instant};

use isonorm_oracles::interpret::cost::cost;
use isonorm_reports::record::{Bench, Finding, Number, Setting};

use crate::campaign::Entry;
use crate::case::Materialised;
use caches::Caches;
use copy::Copy;
use kernel::{Callable, KernelCall};
use libtorch::Libtorch;
use paired::{Pace, Rounds};
use slowed::Slowed;
use workload::Workload;

/// Something whose calls are timed.
pub trait Timed {
    /// One call.
    ///
    /// # Errors
    /// Why it is not done.
    fn call(&mut self) -> Result<(), String>;

    /// Whether calls do work that is not the contender's own.
    fn has_surcharge(&self) -> bool {
        false
    }

    /// The work of one call that is not the contender's own: timed apart, and taken off its time.
    ///
    /// # Errors
    /// Why it is not done.
    fn surcharge(&mut self) -> Result<(), String> {
        Ok(())
    }

    /// Seconds that so many calls take together, or so many surcharges.
    ///
    /// # Errors
    /// Why they are not done.
    fn time(&mut self, what: What, times: u32) -> Result<f64, String> {
        let started = Instant::now();
        (0..times).try_for_each(|_| match what {
            What::Call => self.call(),
            What::Surcharge => self.surcharge(),
        })?;
        Ok(started.elapsed().as_secs_f64())
    }
}

/// What is timed of a contender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// [`Timed::call`].
    Call,
    /// [`Timed::surcharge`].
    Surcharge,
}

/// What a kernel is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Versus {
    /// libtorch's own operator.
    Libtorch,
    /// A copy of as many bytes as must move at least.
    Copy,
}

impl Versus {
    /// As records name it.
    pub const fn name(self) -> &'static str {
        match self {
            Versus::Libtorch => "libtorch",
            Versus::Copy => "copy",
        }
    }
}

/// How cells are measured.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What a kernel is compared with.
    pub versus: Vec<Versus>,
    /// Time of a cell's rounds.
    pub time: Duration,
    /// Of the order within rounds, and of the bootstrap.
    pub seed: u64,
    /// What to add to a replay line so that it finds the kernel again (`--plugin F`).
    pub replay: String,
    /// By which part of its time a call of the kernel is made to take longer: a planted slowdown, 0 for none.
    pub slowed: f64,
}

/// A sample lasts at least so long: a thousand times what reading the clock takes.
const SAMPLE: Duration = Duration::from_micros(150);

/// What libtorch makes anew for each call, as a multiple of all inputs and outputs: chains of operators make several.
const RESERVE: u64 = 5;

/// What came of a cell.
pub enum Cell {
    /// One record for each comparison that was possible.
    Timed(Vec<Bench>),
    /// The kernel's answer is wrong in the whole, though right in the sample.
    Wrong(Box<Finding>),
}

/// Bytes that a call must move at least: every input read once, every output written once.
fn bytes(workload: &Workload) -> u64 {
    let cost = cost(&workload.case.problem);
    cost.bytes_read + cost.bytes_written
}

/// Bytes of memory that the contenders of a workload need together, about.
pub fn footprint(workload: &Workload) -> u64 {
    // The kernel's tensors, libtorch's, the copy's, and what libtorch makes anew for each call.
    (3 + RESERVE) * bytes(workload)
}

/// Leaves free memory behind, all pages there, for what libtorch allocates in calls that move so many bytes at least.
///
/// # Errors
/// If there is not enough memory.
pub fn reserve(bytes: u64) -> Result<(), String> {
    if memory::reserve((RESERVE * bytes) as usize) { Ok(()) } else { Err(kernel::no_room()) }
}

/// Measures a workload whose sample was judged.
///
/// # Errors
/// Why it could not be measured.
pub fn cell(
    entry: &Entry,
    kernel: &Callable,
    workload: &Workload,
    sample: &Materialised,
    setting: Setting,
    plan: &Plan,
) -> Result<Cell, String> {
    let threads = workload.case.threads;
    let bytes = bytes(workload);
    tch::set_num_threads(threads as i32);
    let mut ours = KernelCall::new(kernel.clone(), workload, sample, setting == Setting::AsCalled)?;
    ours.call()?;
    if setting == Setting::Warm
        && let Some(wrong) = check::whole(entry, workload, sample, &ours.outputs(), &plan.replay)
    {
        return Ok(Cell::Wrong(Box::new(wrong)));
    }
    let mut copy = Copy::new(bytes, threads)?;
    let wanted = plan.versus.contains(&Versus::Libtorch);
    let mut libtorch = if wanted { Libtorch::new(workload, sample, tch::Device::Cpu)? } else { None };
    if setting == Setting::Warm && libtorch.is_some() {
        reserve(bytes)?;
    }
    let mut slowed;
    let ours: &mut dyn Timed = if plan.slowed > 0.0 {
        slowed = Slowed::new(ours, plan.slowed);
        &mut slowed
    } else {
        &mut ours
    };
    let mut contenders: Vec<&mut dyn Timed> = vec![ours, &mut copy];
    contenders.extend(libtorch.as_mut().map(|libtorch| libtorch as &mut dyn Timed));
    let warm = bytes <= Caches::here().largest();
    let rounds =
        paired::run(&mut contenders, &Pace { time: plan.time, sample: SAMPLE, warm, threads, seed: plan.seed })?;
    Ok(Cell::Timed(records(entry, workload, setting, plan, &rounds)))
}

/// What the rounds of a cell say. The first contender is the kernel, the second a copy, and libtorch is the third if it is there.
fn records(entry: &Entry, workload: &Workload, setting: Setting, plan: &Plan, rounds: &Rounds) -> Vec<Bench> {
    let problem = &workload.case.problem;
    // For the number of operations the formula is walked through; bytes are those of the tensors.
    let cost = cost(problem);
    let noise = statistics::spread(&rounds.seconds[1]);
    let mut records = Vec::new();
    for (place, versus) in [(2, Versus::Libtorch), (1, Versus::Copy)] {
        // A copy has no outputs to allocate: it says nothing about calls that have.
        let apart = setting == Setting::AsCalled && versus == Versus::Copy;
        if !plan.versus.contains(&versus) || place >= rounds.seconds.len() || apart {
            continue;
        }
        let ratios = rounds.ratios(0, place);
        let ratio = statistics::median_interval(&ratios, plan.seed);
        let faults = (rounds.faults[0] + rounds.faults[place]) as f64 / ratios.len() as f64;
        let unwanted = if setting == Setting::Warm { faults } else { 0.0 };
        records.push(Bench {
            kernel: entry.name.clone(),
            operator: problem.operator.name.to_owned(),
            direction: problem.direction.to_string(),
            dtype: problem.dtypes.to_string(),
            layout: workload.layout.to_string(),
            shape: workload.shape.iter().map(|&size| size as u64).collect(),
            threads: workload.case.threads as u32,
            versus: versus.name().to_owned(),
            setting,
            ratio,
            seconds: statistics::quartiles(&rounds.seconds[0]),
            versus_seconds: statistics::quartiles(&rounds.seconds[place]),
            bytes: cost.bytes_read + cost.bytes_written,
            operations: cost.operations,
            rounds: ratios.len() as u32,
            outliers: statistics::outliers(&ratios) as u32,
            noise: Number(noise),
            doubt: statistics::doubt(ratios.len(), noise, &ratio, unwanted),
            instructions_per_element: None,
            ratios: ratios.into_iter().map(Number).collect(),
        });
    }
    records
}
