//! The corpus of planted bugs and clean kernels: every bug must be caught, no clean kernel may fail.
//!
//! `cargo test --release -p isonorm-harness --test planted -- --nocapture` prints the tables. With `ISONORM_NIGHTLY=1` in the
//! environment the clean kernels answer at least 100,000 cases, every bug is tried with more seeds, and the table of value
//! families rests on more cases.

mod corpus;
mod engine;
mod geometry;
mod memory;
mod number;
mod recipe;
mod rules;
mod sandbox;
mod tables;
mod trial;

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use isonorm_harness::case::Case;
use isonorm_harness::generate::families::FAMILIES;
use isonorm_kernels::abi::{Direction, Kernel};
use isonorm_oracles::operators::OPERATORS;

use corpus::{Bug, CLEAN, bugs};
use trial::{Accused, Finding};

/// Cases that each kernel gets; a campaign of a minute over all built-in kernels asks each of them more.
const BUDGET: u64 = 3000;

/// Cases in which a clean kernel was once rejected.
const ONCE_REJECTED: [&str; 8] = [
    // x·s + (b - mean·s) with an infinite weight, or an infinite scale, is ∞ - ∞.
    "layer_norm:forward dtype=f16:f32 r=2x2 d=8 eps=1e1 with=weight family=infinity seed=4130018344",
    "batch_norm:forward dtype=bf16 n=256 c=1 s=1 eps=0e0 momentum=1e0 with=weight family=infinity seed=2601518894",
    "batch_norm_inference:forward dtype=f64 n=2 c=1 s=2x4 eps=0e0 with=weight,bias family=infinity seed=1383529016",
    // Welford's mean of an infinity is NaN.
    "batch_norm:forward dtype=bf16 n=4 c=1 s=1x255 eps=1e-5 num_batches_tracked=0 with=weight,running_mean,running_var \
     family=infinity seed=1",
    // A sum that starts from +0 has no -0.
    "layer_norm:backward dtype=bf16:f32 r=- d=65 eps=1e-6 with=bias family=zeros seed=1",
    "rms_norm:backward dtype=f16:f32 r=- d=512 eps=3e0 cast=none with=weight family=exact seed=1",
    // The cube of 1/rms leaves the range of f64.
    "layer_norm:backward dtype=f64 r=2x7 d=2x3 eps=0e0 with=weight,bias family=tiny seed=1",
    "rms_norm:forward dtype=f32 r=3x7 d=5 eps=0e0 cast=none family=subnormal seed=1",
];

/// Whether there is time for much.
fn nightly() -> bool {
    env::var_os("ISONORM_NIGHTLY").is_some_and(|value| value == "1")
}

/// Maps on all cores, keeping the order.
fn parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(BTreeMap::new());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while let Some((index, item)) = Some(next.fetch_add(1, Ordering::Relaxed))
                    .and_then(|index| items.get(index).map(|item| (index, item)))
                {
                    let result = work(item);
                    done.lock().unwrap_or_else(PoisonError::into_inner).insert(index, result);
                }
            });
        }
    });
    done.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().collect()
}

#[test]
fn the_corpus_is_complete() {
    let mut seen = BTreeSet::new();
    for bug in bugs().chain(corpus::BLIND) {
        assert!(seen.insert(bug.id), "{} occurs twice", bug.id);
        assert!(!bug.what.is_empty() && !bug.known.is_empty(), "{} says nothing", bug.id);
    }
    assert!(bugs().count() >= 200, "{} bugs", bugs().count());
    assert!(CLEAN.len() >= 18, "{} clean kernels", CLEAN.len());
    for operator in OPERATORS {
        for direction in Direction::ALL {
            let of = format!("{}:{direction}", operator.name);
            assert!(bugs().any(|bug| bug.of == of), "no bug in {of}");
        }
    }
}

#[test]
fn every_bug_is_caught() {
    let bugs: Vec<&Bug> = bugs().collect();
    for seed in 1..=if nightly() { 5 } else { 1 } {
        let found = parallel(&bugs, |bug| Accused::of(bug.kernel()).first(seed, BUDGET));
        println!(
            "seed {seed}, at most {BUDGET} cases and the large ones for each bug\n{}",
            tables::caught(&bugs, &found)
        );
        let missed: Vec<&str> = bugs.iter().zip(&found).filter(|(_, f)| f.is_none()).map(|(bug, _)| bug.id).collect();
        assert!(missed.is_empty(), "seed {seed}: not caught: {missed:?}");
        let wronged: Vec<&Finding> = bugs
            .iter()
            .zip(&found)
            .filter_map(|(bug, found)| found.as_ref().map(|found| (bug, found)))
            .filter(|(bug, found)| {
                let plain = corpus::kernel("plain", bug.of, bug.dtypes, |_| {});
                Accused::of(plain).ask(&found.case).failed()
            })
            .map(|(_, found)| found)
            .collect();
        assert!(wronged.is_empty(), "the plain kernel fails too: {wronged:#?}");
    }
}

#[test]
fn no_clean_kernel_fails() {
    let kernels: Vec<_> = CLEAN.iter().flat_map(|clean| clean.kernels()).collect();
    let (seeds, cases) = if nightly() { (1..=3, 110) } else { (1..=1, 16) };
    for seed in seeds {
        let failures = parallel(&kernels, |kernel| {
            let mut accused = Accused::of(kernel.clone());
            let asked = (0..cases).map(|index| accused.case(seed, index)).collect::<Vec<_>>();
            let failed =
                asked.iter().filter_map(|case| accused.ask(case).flaws.into_iter().next().map(|flaw| (case, flaw)));
            failed.map(|(case, flaw)| format!("{}: {case}: {flaw:?}", kernel.info().name)).collect::<Vec<_>>()
        })
        .concat();
        let total = kernels.len() as u64 * cases;
        println!("seed {seed}: {} clean kernels of {} kinds answered {total} cases", kernels.len(), CLEAN.len());
        assert!(total >= 5000);
        assert!(failures.is_empty(), "{} false alarms: {failures:#?}", failures.len());
    }
}

#[test]
fn no_clean_kernel_fails_where_one_did() {
    for line in ONCE_REJECTED {
        let case: Case = line.parse().unwrap_or_else(|error| panic!("{line}: {error}"));
        let problem = &case.problem;
        let own = |kernel: &Arc<dyn Kernel>| {
            let info = kernel.info();
            let half = (info.operator.as_str(), info.direction);
            half == (problem.operator.name, problem.direction) && info.dtypes.contains(&problem.dtypes)
        };
        for kernel in CLEAN.iter().flat_map(|clean| clean.kernels()).filter(own) {
            // The same sizes with several values.
            for seed in 0..20 {
                let case = Case { seed: case.seed + seed, ..case.clone() };
                let trial = Accused::of(kernel.clone()).ask(&case);
                assert!(!trial.failed(), "{}: {case}: {:?}", kernel.info().name, trial.flaws);
            }
        }
    }
}

#[test]
fn what_does_not_look_at_its_input_fails_wherever_that_shows() {
    for bug in corpus::BLIND {
        let mut accused = Accused::of(bug.kernel());
        let mut counts = trial::Blindness::default();
        for index in 0..400 {
            let case = accused.case(1, index);
            counts.add(&mut accused, &case);
        }
        println!("{:<16} {counts}", bug.id);
        assert!(counts.unjustified.is_empty(), "{}: passed without reason: {:#?}", bug.id, counts.unjustified);
        assert!(counts.failed > 250, "{}: {counts}", bug.id);
    }
}

#[test]
fn families_earn_their_place() {
    let cases = if nightly() { 1000 } else { 200 };
    let bugs: Vec<&Bug> = bugs().collect();
    let by_bug = parallel(&bugs, |bug| {
        let mut accused = Accused::of(bug.kernel());
        let asked = (0..cases).map(|index| accused.case(1, index)).collect::<Vec<_>>();
        let mut failed = BTreeMap::new();
        for case in asked.iter().filter(|case| accused.ask(case).failed()) {
            *failed.entry(case.family.name).or_default() += 1;
        }
        failed
    });
    println!("{}", tables::families(&bugs, &by_bug));
    for family in FAMILIES {
        assert!(by_bug.iter().any(|caught| caught.contains_key(family.name)), "family {} catches nothing", family.name);
    }
}
