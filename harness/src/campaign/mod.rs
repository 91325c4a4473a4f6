//! Campaigns: many cases, many kernels, all cores, one set of records.

pub(crate) mod findings;
pub(crate) mod large;
mod range;
mod relations;
mod stages;
#[cfg(test)]
mod tests;
mod trial;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use isonorm_oracles::operators::{self, Operator};
use isonorm_reports::record::{self, Number, Record, Tallies, TrafficCounts, size_class};
use proptest::strategy::ValueTree;

use crate::case::Case;
use crate::generate::{self, CaseTree, Offer, case_at};
use crate::run::{Contender, Device, RunError};
use findings::Findings;

pub use range::usable_range;
pub use stages::{Stage, Stages};
pub use trial::{Examiner, Flaw, Trial, Verdict, arithmetic, compare};

/// How long a campaign goes on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Budget {
    /// Until every kernel was asked so many cases.
    Cases(u64),
    /// For so long.
    Time(Duration),
}

/// What decides a campaign.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Of all cases.
    pub seed: u64,
    /// How long it goes on.
    pub budget: Budget,
    /// This part, counted from 0, of so many: case i belongs to part i modulo their number.
    pub shard: (u64, u64),
    /// Threads that judge.
    pub workers: usize,
    /// Whether to ask large cases too: more than 65,536 rows or channels, rows of 70,000 elements, and for two of the
    /// kernels, chosen by the seed, more than 2^24 elements.
    pub large: bool,
    /// Whether libtorch answers every case too.
    pub libtorch: bool,
    /// What to add to a replay line so that it finds the kernel again (`--plugin F`).
    pub replay: String,
}

/// A kernel on trial and what it is asked.
pub struct Entry {
    /// The kernel.
    pub contender: Arc<dyn Contender>,
    /// The name that records use.
    pub name: String,
    /// What it claims to compute.
    pub operator: &'static Operator,
    /// What it is asked.
    pub offer: Offer,
    /// Whether it is asked large cases, where a campaign has them.
    pub large: bool,
}

impl Entry {
    /// A kernel with all that it offers.
    ///
    /// # Errors
    /// If it claims an operator that is not known: the nearest known name.
    pub fn new(contender: Arc<dyn Contender>, threads: usize) -> Result<Entry, UnknownOperator> {
        let info = contender.info();
        let operator = operators::find(&info.operator).ok_or_else(|| UnknownOperator::new(&info.operator))?;
        // A device has no threads to be asked for, and to execute large cases takes minutes each.
        let device = contender.device();
        let threads = if device == Device::Cpu { threads } else { 1 };
        let offer = Offer { sizes: contender.sizes(), ..Offer::of(info, threads) };
        Ok(Entry { name: info.name.clone(), operator, offer, large: device != Device::Ptx, contender })
    }
}

/// A name that is not an operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no operator `{name}`; did you mean `{nearest}`? `isonorm list operators` shows all")]
pub struct UnknownOperator {
    name: String,
    nearest: &'static str,
}

impl UnknownOperator {
    /// With the known name that is nearest.
    pub fn new(name: &str) -> Self {
        let distance = |operator: &&&Operator| strsim::damerau_levenshtein(operator.name, name);
        let nearest = operators::OPERATORS.iter().min_by_key(distance).map_or("", |operator| operator.name);
        UnknownOperator { name: name.to_owned(), nearest }
    }
}

/// What can be seen of a campaign while it runs, and how it is stopped.
#[derive(Debug, Default)]
pub struct Progress {
    /// Cases judged so far.
    pub cases: AtomicU64,
    /// Cases that failed.
    pub failed: AtomicU64,
    /// Set to stop early; what was done is kept.
    pub stop: Arc<AtomicBool>,
}

/// However short a campaign was, its findings may be shrunk for so long.
const SHRINKING: Duration = Duration::from_secs(15);

/// Runs a campaign over `entries`; gives all records but the first and the last one.
///
/// # Errors
/// If a kernel cannot be made ready.
pub fn run(entries: &[Entry], plan: &Plan, progress: &Progress) -> Result<Vec<Record>, RunError> {
    let started = Instant::now();
    let tickets = AtomicU64::new(0);
    let large = if plan.large { large_cases(entries, plan) } else { Vec::new() };
    let findings = Findings::new(&plan.replay);
    let sums: Mutex<Sums> = Mutex::default();
    let failure: Mutex<Option<RunError>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..plan.workers.max(1) {
            scope.spawn(|| {
                // Each worker is one of several that share the cores.
                tch::set_num_threads(1);
                let mut worker = Worker {
                    entries,
                    plan,
                    progress,
                    findings: &findings,
                    examiners: BTreeMap::new(),
                    sums: Sums::default(),
                };
                if let Err(error) = worker.work(&tickets, &large, started) {
                    progress.stop.store(true, Ordering::Relaxed);
                    failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                }
                let own = worker.finish();
                sums.lock().unwrap_or_else(PoisonError::into_inner).merge(own);
            });
        }
    });
    if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    let mut sums = sums.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut records: Vec<Record> = ranges(entries, plan, progress)?.into_iter().map(Record::from).collect();
    // A campaign of so many cases asks the same however long it takes; one of a time has an end.
    let deadline = match plan.budget {
        _ if progress.stop.load(Ordering::Relaxed) => Some(Instant::now()),
        Budget::Cases(_) => None,
        Budget::Time(time) => Some(Instant::now() + (time / 4).max(SHRINKING)),
    };
    let (findings, shrinking) = findings.into_records(plan.workers, deadline);
    sums.stages.merge(&shrinking);
    let seconds = started.elapsed().as_secs_f64();
    let stages = sums.stages.iter().map(|(stage, seconds)| (stage.name().to_owned(), Number(seconds))).collect();
    records.extend(sums.tallies.into_iter().map(Record::from));
    records.extend(sums.properties.into_iter().map(|((kernel, property, required), (checked, failed))| {
        Record::from(record::Property { kernel, property: property.to_owned(), required, checked, failed })
    }));
    let traffic = sums.traffic.into_iter();
    records.extend(traffic.map(|((kernel, dtype), counts)| record::Traffic { kernel, dtype, counts }.into()));
    records.extend(findings.into_iter().map(Record::from));
    records.push(
        record::Throughput { cases: progress.cases.load(Ordering::Relaxed), seconds: Number(seconds), stages }.into(),
    );
    Ok(records)
}

/// The usable ranges of all kernels, unless the campaign is stopped.
///
/// # Errors
/// If a kernel cannot be made ready.
fn ranges(entries: &[Entry], plan: &Plan, progress: &Progress) -> Result<Vec<record::Range>, RunError> {
    let next = AtomicUsize::new(0);
    let found: Mutex<BTreeMap<usize, Result<Vec<record::Range>, RunError>>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..plan.workers.clamp(1, entries.len().max(1)) {
            scope.spawn(|| {
                tch::set_num_threads(1);
                while !progress.stop.load(Ordering::Relaxed) {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    let Some(entry) = entries.get(place) else { break };
                    let ranges = usable_range(entry);
                    found.lock().unwrap_or_else(PoisonError::into_inner).insert(place, ranges);
                }
            });
        }
    });
    let all = found.into_inner().unwrap_or_else(PoisonError::into_inner).into_values();
    Ok(all.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

/// The large cases of this part of a campaign: of each kernel, with one of its element types.
fn large_cases(entries: &[Entry], plan: &Plan) -> Vec<(usize, Case)> {
    const HUGE: usize = 1 << 24;
    /// How many kernels get a case of more than 2^24 elements.
    const HUGE_KERNELS: u64 = 2;
    let mut cases = Vec::new();
    for (place, entry) in entries.iter().enumerate() {
        let turn = plan.seed.wrapping_add(place as u64);
        let chosen = turn % (entries.len() as u64) < HUGE_KERNELS;
        let (directions, dtypes) = (&entry.offer.directions, &entry.offer.dtypes);
        let dtypes = dtypes[(turn % dtypes.len() as u64) as usize];
        for &direction in directions {
            let all = generate::large(entry.operator, direction, dtypes, plan.seed);
            let elements = |case: &Case| case.problem.inputs().first().map_or(0, |input| input.len());
            cases.extend(all.into_iter().filter(|case| chosen || elements(case) < HUGE).map(|case| (place, case)));
        }
    }
    // If time is up before all were asked, it is not always the same kernels that go without.
    let first = (plan.seed % cases.len().max(1) as u64) as usize;
    cases.rotate_left(first);
    let (part, parts) = plan.shard;
    let own = cases.into_iter().enumerate().filter(|(index, _)| *index as u64 % parts == part);
    own.map(|(_, case)| case).collect()
}

/// What workers count.
#[derive(Default)]
struct Sums {
    tallies: Tallies,
    /// By kernel, property and whether it is held against a kernel: checked, failed.
    properties: BTreeMap<(String, &'static str, bool), (u64, u64)>,
    /// By kernel and dtype.
    traffic: BTreeMap<(String, String), TrafficCounts>,
    stages: Stages,
}

impl Sums {
    fn merge(&mut self, other: Sums) {
        self.tallies.merge(other.tallies);
        for (key, (checked, failed)) in other.properties {
            let sum = self.properties.entry(key).or_default();
            *sum = (sum.0 + checked, sum.1 + failed);
        }
        for (key, counts) in other.traffic {
            self.traffic.entry(key).or_default().merge(&counts);
        }
        self.stages.merge(&other.stages);
    }

    fn property(&mut self, kernel: &str, property: &'static str, required: bool, holds: bool) {
        let (checked, failed) = self.properties.entry((kernel.to_owned(), property, required)).or_default();
        *checked += 1;
        *failed += u64::from(!holds);
    }
}

struct Worker<'a, 'e> {
    entries: &'e [Entry],
    plan: &'a Plan,
    progress: &'a Progress,
    findings: &'a Findings<'e>,
    /// By entry; opened when first needed.
    examiners: BTreeMap<usize, Examiner>,
    sums: Sums,
}

impl Worker<'_, '_> {
    fn work(&mut self, tickets: &AtomicU64, large: &[(usize, Case)], started: Instant) -> Result<(), RunError> {
        let (part, parts) = self.plan.shard;
        let kernels = self.entries.len() as u64;
        while kernels > 0 && !self.progress.stop.load(Ordering::Relaxed) {
            let ticket = tickets.fetch_add(1, Ordering::Relaxed);
            if let Some((entry, case)) = large.get(ticket as usize) {
                if !self.entries[*entry].large {
                    self.leave_out(&self.entries[*entry].name, case);
                    continue;
                }
                // On a slow machine they would leave no time for the many small ones, which find most.
                if !matches!(self.plan.budget, Budget::Time(time) if started.elapsed() >= time / 2) {
                    self.one(*entry, CaseTree::new(case.clone()))?;
                }
                continue;
            }
            let ticket = ticket - large.len() as u64;
            let (entry, index) = ((ticket % kernels) as usize, ticket / kernels * parts + part);
            let over = match self.plan.budget {
                Budget::Cases(cases) => index >= cases,
                Budget::Time(time) => started.elapsed() >= time,
            };
            if over {
                break;
            }
            let Entry { operator, offer, .. } = &self.entries[entry];
            let tree = self.sums.stages.time(Stage::Generate, || case_at(self.plan.seed, operator, offer, index));
            self.one(entry, tree)?;
        }
        Ok(())
    }

    fn one(&mut self, place: usize, tree: CaseTree) -> Result<(), RunError> {
        let entry = &self.entries[place];
        let examiner = match self.examiners.entry(place) {
            std::collections::btree_map::Entry::Occupied(examiner) => examiner.into_mut(),
            std::collections::btree_map::Entry::Vacant(vacant) => {
                vacant.insert(Examiner::new(entry.contender.info().clone(), entry.contender.open()?))
            }
        };
        let case = tree.current();
        let trial = examiner.examine(&case, self.plan.libtorch);
        for flaw in &trial.flaws {
            self.findings.add(entry, &trial, flaw, tree.clone());
        }
        self.count(&entry.name, &trial);
        Ok(())
    }

    /// Counts a large case that is not asked.
    fn leave_out(&mut self, kernel: &str, case: &Case) {
        let dtype = case.problem.dtypes.to_string();
        let counts = self.sums.tallies.counts(kernel, &dtype, case.family.name, size_class(0));
        counts.decline("not asked: too large for the PTX executor", 1);
    }

    fn count(&mut self, kernel: &str, trial: &Trial) {
        let case = &trial.case;
        let (dtype, family) = (case.problem.dtypes.to_string(), case.family.name);
        let counts = self.sums.tallies.counts(kernel, &dtype, family, size_class(trial.length));
        match &trial.verdict {
            Verdict::Declined(reason) => return counts.decline(reason, 1),
            Verdict::NotRun(reason) => return counts.leave_out(reason, 1),
            Verdict::Judged => {}
        }
        counts.cases += 1;
        counts.failed += u64::from(trial.failed());
        counts.in_exact_range += u64::from(trial.exact);
        let line = case.to_string();
        for (comparison, errors) in [(&trial.comparison, &mut counts.errors), (&trial.libtorch, &mut counts.libtorch)] {
            let Some(comparison) = comparison else { continue };
            errors.ratio_to_bound.merge(&comparison.ratios);
            errors.ulps.merge(&comparison.ulps);
            if let (Some(ratio), Some(ulps)) = (comparison.worst_ratio, comparison.worst_ulps) {
                errors.raise(&line, ratio, ulps);
            }
        }
        if let Some(comparison) = &trial.comparison {
            counts.elements.total += comparison.elements;
            // Of open elements nothing can be said: they are not judged.
            counts.elements.exact += comparison.elements - comparison.open;
        }
        if let Some(traffic) = &trial.traffic {
            self.sums.traffic.entry((kernel.to_owned(), dtype)).or_default().merge(traffic);
        }
        for &property in &trial.checked {
            let holds = !trial.flaws.iter().any(|flaw| flaw.property == property);
            self.sums.property(kernel, property, true, holds);
        }
        for &(property, holds) in &trial.noted {
            self.sums.property(kernel, property, false, holds);
        }
        self.progress.cases.fetch_add(1, Ordering::Relaxed);
        self.progress.failed.fetch_add(u64::from(trial.failed()), Ordering::Relaxed);
    }

    fn finish(mut self) -> Sums {
        for examiner in self.examiners.values() {
            self.sums.stages.merge(&examiner.stages);
        }
        self.sums
    }
}
