//! Claims: what papers say that is saved, measured.
//!
//! Every program of a comparison first gives what it must ([`gate`]), then all take turns ([`paired`]), each baseline beside a
//! twin of itself, which shows how large a difference means nothing. [`mod@verdict`] makes an answer of it.

pub mod device;
pub mod gate;
mod layers;
pub mod network;
pub mod norms;
pub mod peak;
pub mod sweeps;
pub mod verdict;

use std::time::{Duration, Instant};

use isonorm_oracles::claims::{Claim, Comparison, Pair, Program, Quantity, Shape};
use isonorm_reports::record::{self, ClaimProgram, ClaimVerdict, Interval, Measurement, Number};
use tch::{Device, Kind};

use crate::bench::caches::Caches;
use crate::bench::paired::{self, Pace, Rounds};
use crate::bench::{Timed, statistics};
use crate::generate::Random;
use network::{Network, Shared, Way};
use verdict::{Evidence, verdict};

/// How claims are measured.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How long each program is timed in each size; at least nine rounds are.
    pub time: Duration,
    /// Threads of every program.
    pub threads: usize,
    /// Of data and parameters, of the order within rounds and of intervals.
    pub seed: u64,
    /// Where programs run.
    pub device: Device,
}

/// A sample lasts at least so long.
const SAMPLE: Duration = Duration::from_micros(300);

/// Everything that was measured of a pair that decides, in one size.
struct Decisive {
    verdict: ClaimVerdict,
    ratios: Vec<f64>,
    limits: Option<Vec<f64>>,
    resolution: f64,
}

/// Measures a claim. `step` is told of every comparison before it is measured.
///
/// # Errors
/// Why a program does not run.
pub fn measure(claim: &'static Claim, plan: &Plan, step: &dyn Fn(&str)) -> Result<record::Claim, String> {
    let started = Instant::now();
    tch::set_num_threads(plan.threads as i32);
    let (mut measurements, mut wrong, mut decisive) = (Vec::new(), Vec::new(), Vec::new());
    let mut left_out = None;
    for (number, mut comparison) in claim.comparisons.iter().enumerate() {
        if plan.device != Device::Cpu {
            match device::on_gpu(comparison) {
                Ok(part) => comparison = part,
                Err(why) => {
                    left_out = Some(why);
                    continue;
                }
            }
        }
        for (size, &shape) in comparison.shapes.iter().enumerate() {
            step(&format!("{}: {}", claim.name, describe(comparison, shape)));
            let mut programs = Programs::new(comparison, shape, plan)?;
            let found = programs.gate()?;
            if !found.is_empty() {
                wrong.extend(found.iter().map(|what| format!("{}: {what}", describe(comparison, shape))));
                continue;
            }
            let rounds = match comparison.quantity {
                Quantity::Time => programs.times(plan)?,
                Quantity::PeakMemory => {
                    let place = |program| peak::Place { comparison: number, shape: size, program };
                    let all: Vec<peak::Place> = programs.places().map(place).collect();
                    peak::rounds(claim, &all, plan.seed, plan.threads)?
                }
            };
            for pair in comparison.pairs {
                let (measurement, evidence) = programs.judged(claim, pair, &rounds, plan);
                if pair.decides {
                    decisive.push(evidence);
                }
                measurements.push(measurement);
            }
        }
    }
    let (verdict, why, measured) = overall(claim, &decisive, !wrong.is_empty(), left_out, plan.seed);
    Ok(record::Claim {
        name: claim.name.to_owned(),
        sentence: claim.sentence.to_owned(),
        paper: format!("{} ({})", claim.paper.title, claim.paper.reference),
        hardware: claim.hardware.to_owned(),
        metric: claim.metric.name().to_owned(),
        stated: record::Stated {
            text: claim.stated.text.to_owned(),
            low: Number(claim.stated.low),
            high: Number(claim.stated.high),
        },
        scaling: claim.scaling.to_owned(),
        verdict,
        why,
        measured,
        measurements,
        wrong,
        seconds: Number(started.elapsed().as_secs_f64()),
    })
}

/// How many comparisons, in how many sizes.
pub fn steps(claim: &Claim) -> usize {
    claim.comparisons.iter().map(|comparison| comparison.shapes.len()).sum()
}

fn describe(comparison: &Comparison, Shape { batch, tokens, width }: Shape) -> String {
    format!("{}, {}, of {batch}x{tokens}x{width}", comparison.level.name(), comparison.pass.name())
}

/// The verdict on a claim: on the mean over all pairs that decide, in all sizes.
fn overall(
    claim: &Claim,
    decisive: &[Decisive],
    wrong: bool,
    left_out: Option<&str>,
    seed: u64,
) -> (ClaimVerdict, String, Option<Interval>) {
    if let Some(why) = claim.untestable.filter(|_| !wrong) {
        return (ClaimVerdict::NotTestable, why.to_owned(), None);
    }
    let ratios: Vec<&[f64]> = decisive.iter().map(|one| &*one.ratios).collect();
    if let Some(why) = left_out.filter(|_| ratios.is_empty() && !wrong) {
        return (ClaimVerdict::NotTestable, format!("on a GPU nothing decides: {why}"), None);
    }
    if wrong || ratios.is_empty() {
        return (ClaimVerdict::NotTestable, "a program gives what it must not: see below".to_owned(), None);
    }
    let figure = |ratios: &[&[f64]]| figure(claim, &statistics::mean_interval(ratios, seed));
    let measured = figure(&ratios);
    let limits: Option<Vec<&[f64]>> = decisive.iter().map(|one| one.limits.as_deref()).collect();
    let resolution = decisive.iter().map(|one| one.resolution).fold(0.0, f64::max);
    let evidence = Evidence { measured, limit: limits.map(|limits| figure(&limits)), resolution };
    let (answer, mut why) = verdict(&claim.stated, claim.metric, &evidence);
    let same = decisive.iter().filter(|one| one.verdict == answer).count();
    if decisive.len() > 1 {
        why += &format!("; {same} of {} sizes and pairs alone say the same", decisive.len());
    }
    (answer, why, Some(measured))
}

/// An interval of ratios as one of figures, which may run the other way.
fn figure(claim: &Claim, ratio: &Interval) -> Interval {
    let [value, one, other] = [ratio.value, ratio.low, ratio.high].map(|ratio| claim.metric.of(ratio.0));
    Interval { value: Number(value), low: Number(one.min(other)), high: Number(one.max(other)) }
}

/// The programs of a comparison in one size, ready to run.
struct Programs {
    comparison: &'static Comparison,
    shape: Shape,
    shared: Shared,
    networks: Vec<Network>,
    /// A second copy of each baseline, by its place.
    twins: Vec<(usize, Network)>,
    errors: Vec<f64>,
}

impl Programs {
    fn new(comparison: &'static Comparison, shape: Shape, plan: &Plan) -> Result<Programs, String> {
        let shared = shared(plan.seed);
        let make = |place: usize| {
            let program = &comparison.programs[place];
            let way = Way { pass: comparison.pass, kind: Kind::Float, threads: plan.threads, device: plan.device };
            Network::new((program.parts)(shape), &dimensions(shape), &shared, way)
                .map_err(|trouble| format!("{}: {trouble}", program.name))
        };
        let networks = (0..comparison.programs.len()).map(make).collect::<Result<_, String>>()?;
        let mut baselines: Vec<usize> =
            comparison.pairs.iter().filter_map(|pair| comparison.place(pair.baseline)).collect();
        baselines.sort_unstable();
        baselines.dedup();
        let twins = baselines.into_iter().map(|place| Ok((place, make(place)?))).collect::<Result<_, String>>()?;
        Ok(Programs { comparison, shape, shared, networks, twins, errors: Vec::new() })
    }

    /// Has every program answer, and says which are wrong.
    fn gate(&mut self) -> Result<Vec<String>, String> {
        let found = gate::check(self.comparison, self.shape, &self.shared, &self.networks)?;
        self.errors = found.errors;
        Ok(found.wrong)
    }

    /// The places of all of them, and then of the baselines again.
    fn places(&self) -> impl Iterator<Item = usize> {
        (0..self.networks.len()).chain(self.twins.iter().map(|(place, _)| *place))
    }

    /// Times all of them in turns.
    fn times(&mut self, plan: &Plan) -> Result<Rounds, String> {
        // The caches of a GPU are not known; one call more does no harm.
        let warm = plan.device != Device::Cpu || self.bytes() <= Caches::here().largest();
        let time = plan.time * (self.networks.len() + self.twins.len()) as u32;
        let pace = Pace { time, sample: SAMPLE, warm, threads: plan.threads, seed: plan.seed };
        let mut all: Vec<&mut dyn Timed> = Vec::new();
        all.extend(self.networks.iter_mut().map(|network| network as &mut dyn Timed));
        all.extend(self.twins.iter_mut().map(|(_, network)| network as &mut dyn Timed));
        paired::run(&mut all, &pace)
    }

    /// Bytes that are read and written at least: parameters, and data in and out.
    fn bytes(&self) -> u64 {
        let Shape { batch, tokens, width } = self.shape;
        let parameters = self.networks.iter().map(Network::parameter_bytes).max().unwrap_or(0);
        parameters + (2 * batch * tokens * width * size_of::<f32>()) as u64
    }

    /// What the rounds say about a pair.
    fn judged(&self, claim: &'static Claim, pair: &Pair, rounds: &Rounds, plan: &Plan) -> (Measurement, Decisive) {
        let comparison = self.comparison;
        let place =
            |name: &str| comparison.place(name).expect("comparisons have what their pairs name, as a test shows");
        let (contender, baseline) = (place(pair.contender), place(pair.baseline));
        let over_baseline = |place: usize| rounds.ratios(baseline, place);
        let interval = |ratios: &[f64]| statistics::median_interval(ratios, plan.seed);
        let ratios = over_baseline(contender);
        let limits = pair.limit.map(|limit| over_baseline(place(limit)));
        let twin = self.twins.iter().position(|(of, _)| *of == baseline).expect("every baseline has a twin");
        let itself = figure(claim, &interval(&over_baseline(comparison.programs.len() + twin)));
        // Its own scatter is in the interval of the pair as well.
        let resolution = itself.value.0.abs();
        let measured = figure(claim, &interval(&ratios));
        let limit = limits.as_ref().map(|limits| figure(claim, &interval(limits)));
        let (answer, why) = verdict(&claim.stated, claim.metric, &Evidence { measured, limit, resolution });
        let program = |(place, program): (usize, &Program)| ClaimProgram {
            name: program.name.to_owned(),
            error: Number(self.errors[place]),
            takes: statistics::quartiles(&rounds.seconds[place]),
            relative: interval(&over_baseline(place)),
        };
        let measurement = Measurement {
            title: pair.title.to_owned(),
            decides: pair.decides,
            level: comparison.level.name().to_owned(),
            pass: comparison.pass.name().to_owned(),
            quantity: comparison.quantity.name().to_owned(),
            batch: self.shape.batch as u64,
            tokens: self.shape.tokens as u64,
            width: self.shape.width as u64,
            threads: plan.threads as u32,
            regime: match plan.device {
                Device::Cpu => Caches::here().level(self.bytes(), plan.threads as u32),
                _ => None,
            },
            contender: pair.contender.to_owned(),
            baseline: pair.baseline.to_owned(),
            measured,
            limit,
            resolution: Number(resolution),
            verdict: answer,
            why,
            rounds: ratios.len() as u32,
            programs: comparison.programs.iter().enumerate().map(program).collect(),
        };
        (measurement, Decisive { verdict: answer, ratios, limits, resolution })
    }
}

/// The parameters of all programs.
fn shared(seed: u64) -> Shared {
    Shared::new(Random::new(seed).named("claims"))
}

fn dimensions(Shape { batch, tokens, width }: Shape) -> [i64; 3] {
    [batch as i64, tokens as i64, width as i64]
}

#[cfg(test)]
mod tests;
