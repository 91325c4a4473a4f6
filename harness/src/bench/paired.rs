//! Paired timing: all contenders in one process, in turns.
//!
//! A round times every contender once, in an order drawn anew, so that whatever the machine does (frequency, neighbours,
//! interrupts) meets all of them alike, and the ratio of two times within one round means more than two times taken apart.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;

use super::statistics::quantile;
use super::{Timed, What};

/// How contenders are timed.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// How long the rounds go on together.
    pub time: Duration,
    /// What a sample lasts at least: the call is repeated so often.
    pub sample: Duration,
    /// Whether each sample begins with a call that is not timed, so that everyone finds its own data in the caches.
    pub warm: bool,
    /// Threads that each contender has.
    pub threads: usize,
    /// Of the order within rounds.
    pub seed: u64,
}

/// However long a round is, there are so many.
const LEAST: usize = 9;
/// More rounds narrow the interval no further than the machine's own drift.
const MOST: usize = 400;
/// The most repetitions of a call in a sample.
const REPETITIONS: u32 = 100_000;
/// How long threads of the previous contender may take to fall asleep. libtorch's OpenMP threads wait in a loop for some
/// milliseconds after their work, on the cores that the next contender needs.
const QUIET: Duration = Duration::from_millis(30);

/// Seconds that one call took: for each contender, for each round.
#[derive(Clone, Debug, Default)]
pub struct Rounds {
    /// By contender, in the order in which they were given.
    pub seconds: Vec<Vec<f64>>,
    /// Page faults in all samples, by contender: there are none where memory is really reused.
    pub faults: Vec<u64>,
}

impl Rounds {
    /// Time of `other` over time of `one`, round by round.
    pub fn ratios(&self, one: usize, other: usize) -> Vec<f64> {
        self.seconds[other].iter().zip(&self.seconds[one]).map(|(other, one)| other / one).collect()
    }
}

/// Times contenders in turns.
///
/// # Errors
/// What a contender says that does not do its call.
pub fn run(contenders: &mut [&mut dyn Timed], pace: &Pace) -> Result<Rounds, String> {
    let mut repetitions = Vec::with_capacity(contenders.len());
    for contender in &mut *contenders {
        repetitions.push(enough(*contender, pace)?);
    }
    let mut random = SmallRng::seed_from_u64(pace.seed);
    let mut order: Vec<usize> = (0..contenders.len()).collect();
    let mut rounds = Rounds { seconds: vec![Vec::new(); contenders.len()], faults: vec![0; contenders.len()] };
    let mut surcharges: Vec<Vec<f64>> = vec![Vec::new(); contenders.len()];
    let started = Instant::now();
    for round in 0..MOST {
        if round >= LEAST && started.elapsed() >= pace.time {
            break;
        }
        order.shuffle(&mut random);
        for &place in &order {
            let sample = sample(&mut *contenders[place], repetitions[place], pace)?;
            rounds.seconds[place].push(sample.seconds);
            surcharges[place].extend(sample.surcharge);
            rounds.faults[place] += sample.faults;
        }
    }
    for (seconds, surcharges) in rounds.seconds.iter_mut().zip(&surcharges) {
        take_off(seconds, surcharges);
    }
    Ok(rounds)
}

/// Takes the median surcharge off every time: that of one round may have been disturbed. Never more than half of a time: what
/// is left must not be made of noise.
fn take_off(seconds: &mut [f64], surcharges: &[f64]) {
    if surcharges.is_empty() {
        return;
    }
    let surcharge = quantile(surcharges, 0.5);
    seconds.iter_mut().for_each(|seconds| *seconds -= surcharge.min(*seconds / 2.0));
}

/// How often a contender is called in one sample.
fn enough(contender: &mut dyn Timed, pace: &Pace) -> Result<u32, String> {
    contender.call()?;
    let mut repetitions = 1;
    loop {
        let time = contender.time(What::Call, repetitions)?;
        if time >= pace.sample.as_secs_f64() || repetitions >= REPETITIONS {
            return Ok(repetitions);
        }
        // Towards the goal, with a little more, because the first calls are the slowest.
        let factor = pace.sample.as_secs_f64() / time.max(1e-9);
        repetitions = ((f64::from(repetitions) * factor.clamp(1.5, 10.0)).ceil() as u32).min(REPETITIONS);
    }
}

/// What one sample says.
struct Sample {
    /// Of one call.
    seconds: f64,
    /// Seconds of these that are not the contender's own, if it does such work.
    surcharge: Option<f64>,
    /// Of the whole sample.
    faults: u64,
}

fn sample(contender: &mut dyn Timed, repetitions: u32, pace: &Pace) -> Result<Sample, String> {
    if pace.threads > 1 {
        wait_for_threads();
    }
    if pace.warm {
        contender.call()?;
    }
    let before = page_faults();
    let seconds = contender.time(What::Call, repetitions)? / f64::from(repetitions);
    let faults = page_faults().saturating_sub(before);
    let mut surcharge = None;
    if contender.has_surcharge() {
        surcharge = Some(contender.time(What::Surcharge, repetitions)? / f64::from(repetitions));
    }
    Ok(Sample { seconds, surcharge, faults })
}

/// Page faults of this process so far that needed no disk.
fn page_faults() -> u64 {
    getrusage(UsageWho::RUSAGE_SELF).map_or(0, |usage| usage.minor_page_faults() as u64)
}

/// Waits until no other thread of this process runs.
fn wait_for_threads() {
    let started = Instant::now();
    while running() > 1 && started.elapsed() < QUIET {
        std::hint::spin_loop();
    }
}

/// Threads of this process that run or could run; the one that asks is among them.
fn running() -> usize {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    tasks
        .filter(|task| {
            let status = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            // `pid (name) state …`, and the name may hold anything.
            status.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('R'))
        })
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Busy {
        calls: u32,
        work: u32,
    }

    impl Timed for Busy {
        fn call(&mut self) -> Result<(), String> {
            self.calls += 1;
            (0..self.work).for_each(|step| {
                std::hint::black_box(step);
            });
            Ok(())
        }
    }

    struct Refusing;

    impl Timed for Refusing {
        fn call(&mut self) -> Result<(), String> {
            Err("not today".to_owned())
        }
    }

    fn pace() -> Pace {
        let time = Duration::from_millis(1);
        Pace { time, sample: Duration::from_micros(20), warm: true, threads: 1, seed: 3 }
    }

    #[test]
    fn every_round_times_everyone_once() {
        let (mut one, mut two) = (Busy { calls: 0, work: 10 }, Busy { calls: 0, work: 2000 });
        let rounds = run(&mut [&mut one, &mut two], &pace()).expect("they answer");
        assert_eq!(rounds.seconds.len(), 2);
        assert!(rounds.seconds[0].len() >= LEAST && rounds.seconds[0].len() == rounds.seconds[1].len());
        assert_eq!(rounds.ratios(0, 1).len(), rounds.seconds[0].len());
        assert!(one.calls > two.calls, "short calls are repeated: {} and {}", one.calls, two.calls);
        assert!(rounds.seconds.iter().flatten().all(|&seconds| seconds > 0.0));
    }

    #[test]
    fn a_ratio_is_the_time_of_the_other_over_that_of_the_one() {
        let rounds = Rounds { seconds: vec![vec![1.0, 2.0], vec![3.0, 8.0]], faults: vec![0; 2] };
        assert_eq!(rounds.ratios(0, 1), [3.0, 4.0]);
    }

    #[test]
    fn a_disturbed_surcharge_takes_off_no_more_than_the_others() {
        let mut seconds = [10.0, 11.0, 3.0];
        take_off(&mut seconds, &[2.0, 50.0, 2.0]);
        assert_eq!(seconds, [8.0, 9.0, 1.5]);
        take_off(&mut seconds, &[]);
        assert_eq!(seconds, [8.0, 9.0, 1.5]);
    }

    #[test]
    fn who_does_not_answer_is_not_timed() {
        let error = run(&mut [&mut Busy { calls: 0, work: 1 }, &mut Refusing], &pace()).expect_err("it refuses");
        assert_eq!(error, "not today");
    }
}
