//! The gate and the verdicts on trial. Nothing here is asserted about how long something takes: rounds are made up.

use isonorm_oracles::claims::{By, CLAIMS, Fold, Level, Metric, Norm, Part, Pass, Stated};
use isonorm_oracles::operators::Paper;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::*;

const PLAN: Plan = Plan { time: Duration::from_millis(1), threads: 1, seed: 1, device: Device::Cpu };

fn norm(norm: Norm, by: By) -> Part {
    Part::Norm { name: "norm".to_owned(), norm, by, affine: true }
}

fn linear(fold: Fold) -> Part {
    Part::Linear { name: "read".to_owned(), sizes: (8, 8), fold }
}

fn weight() -> Fold {
    Fold::Weight("norm".to_owned())
}

const COMPARISON: Comparison = Comparison {
    level: Level::Block,
    pass: Pass::Inference,
    quantity: Quantity::Time,
    shapes: &[Shape { batch: 1, tokens: 4, width: 8 }],
    programs: &[
        Program { name: "long", parts: |_| vec![norm(Norm::Rms, By::Steps), linear(Fold::None)], same_as: None },
        Program {
            name: "short",
            parts: |_| vec![Part::DeferredLinear { name: "read".to_owned(), sizes: (8, 8), norm: "norm".to_owned() }],
            same_as: Some("long"),
        },
        Program { name: "none", parts: |_| vec![linear(Fold::None)], same_as: None },
    ],
    pairs: &[Pair { title: "pair", decides: true, contender: "short", baseline: "long", limit: Some("none") }],
};

static CLAIM: Claim = Claim {
    name: "made_up",
    sentence: "",
    paper: Paper { title: "", reference: "" },
    hardware: "",
    stated: Stated { text: "", low: 0.07, high: 0.4 },
    metric: Metric::TimeSaved,
    scaling: "",
    untestable: None,
    comparisons: &[],
};

fn programs() -> Programs {
    let mut programs = Programs::new(&COMPARISON, COMPARISON.shapes[0], &PLAN).expect("it runs");
    assert_eq!(programs.gate().expect("it runs"), Vec::<String>::new());
    programs
}

/// What is wrong if `parts` are run in the place of a program.
fn wrong(place: usize, parts: Vec<Part>) -> Vec<String> {
    let mut programs = programs();
    let way = Way { pass: COMPARISON.pass, kind: Kind::Float, threads: 1, device: Device::Cpu };
    programs.networks[place] =
        Network::new(parts, &dimensions(programs.shape), &programs.shared, way).expect("it runs");
    programs.gate().expect("it runs")
}

#[test]
fn a_program_that_computes_something_else_is_not_measured() {
    let short = |fold: Fold| {
        vec![Part::Norm { name: String::new(), norm: Norm::Rms, by: By::Steps, affine: false }, linear(fold)]
    };
    assert_eq!(wrong(1, short(weight())), Vec::<String>::new(), "folded, not deferred: the same");
    for (what, parts) in [
        ("the weight not folded", short(Fold::None)),
        ("another norm", vec![norm(Norm::Layer, By::Steps), linear(Fold::None)]),
        ("no norm", vec![linear(weight())]),
        ("half of the entries", vec![norm(Norm::PartialRms(0.5), By::Kernel), linear(Fold::None)]),
        ("a mean taken away", vec![Part::Centre, norm(Norm::Rms, By::Kernel), linear(Fold::None)]),
    ] {
        let found = wrong(1, parts);
        assert!(found.iter().any(|wrong| wrong.starts_with("short is ")), "{what}: {found:?}");
    }
}

/// Two programs that are said to be the same function and are not are found in f64, whatever f32 makes of them.
#[test]
fn what_is_not_the_same_function_is_found_in_f64() {
    let mut programs = programs();
    let comparison = Box::leak(Box::new(Comparison {
        programs: &[
            Program { name: "long", parts: |_| vec![norm(Norm::Layer, By::Steps)], same_as: None },
            Program { name: "short", parts: |_| vec![norm(Norm::Rms, By::Steps)], same_as: Some("long") },
            Program { name: "none", parts: |_| vec![], same_as: None },
        ],
        level: Level::Kernel,
        ..COMPARISON
    }));
    programs.comparison = comparison;
    let found = programs.gate().expect("it runs");
    assert!(found.iter().any(|wrong| wrong.contains("short is not long")), "{found:?}");
}

/// Rounds in which the programs take these times on average, and the twin as long as the baseline.
fn rounds(long: f64, short: f64, none: f64) -> Rounds {
    let mut random = SmallRng::seed_from_u64(7);
    let mut times = |mean: f64| (0..60).map(|_| mean * (1.0 + 0.04 * (random.random::<f64>() - 0.5))).collect();
    Rounds { seconds: vec![times(long), times(short), times(none), times(long)], faults: vec![0; 4] }
}

fn verdict_of(long: f64, short: f64, none: f64) -> ClaimVerdict {
    let (measurement, decisive) = programs().judged(&CLAIM, &COMPARISON.pairs[0], &rounds(long, short, none), &PLAN);
    let (overall, _, _) = overall(&CLAIM, &[decisive], false, None, 1);
    assert_eq!(measurement.verdict, overall, "one pair in one size is all there is");
    overall
}

#[test]
fn times_make_the_verdict() {
    for (what, (long, short, none), expected) in [
        ("a fifth saved", (1.0, 0.8, 0.5), ClaimVerdict::Reproduced),
        ("three fifths saved", (1.0, 0.4, 0.3), ClaimVerdict::DirectionOnly),
        ("a little saved", (1.0, 0.96, 0.5), ClaimVerdict::DirectionOnly),
        ("the same program twice", (1.0, 1.0, 0.5), ClaimVerdict::NotReproduced),
        ("the contender slowed down by half", (1.0, 0.8 * 1.5, 0.5), ClaimVerdict::NotReproduced),
        ("the same, where norms take a hundredth", (1.0, 1.0, 0.99), ClaimVerdict::NotTestable),
    ] {
        assert_eq!(verdict_of(long, short, none), expected, "{what}");
    }
}

#[test]
fn a_wrong_program_leaves_nothing_to_judge() {
    let (verdict, why, measured) = overall(&CLAIM, &[], true, None, 1);
    assert_eq!((verdict, measured), (ClaimVerdict::NotTestable, None));
    assert!(why.contains("must not"), "{why}");
}

#[test]
fn on_a_gpu_programs_of_the_processor_are_left_out() {
    let names = |comparison: &Comparison| comparison.programs.iter().map(|program| program.name).collect::<Vec<_>>();
    let whole = device::on_gpu(&COMPARISON).expect("all of it is libtorch's");
    assert_eq!((names(whole), whole.pairs.len()), (names(&COMPARISON), 1));

    fn kernel(_: Shape) -> Vec<Part> {
        vec![Part::Residual(vec![norm(Norm::Rms, By::Kernel), linear(Fold::None)])]
    }
    static SHORT_IS_OURS: Comparison = Comparison {
        programs: &[COMPARISON.programs[0], Program { name: "short", parts: kernel, same_as: None }],
        pairs: &[Pair { title: "pair", decides: true, contender: "short", baseline: "long", limit: None }],
        ..COMPARISON
    };
    let why = device::on_gpu(&SHORT_IS_OURS).expect_err("the contender is left out, and with it the pair");
    let (verdict, said, _) = overall(&CLAIM, &[], false, Some(why), 1);
    assert_eq!(verdict, ClaimVerdict::NotTestable);
    assert!(said.contains("loops and kernels of the processor"), "{said}");

    static OF_MEMORY: Comparison = Comparison { quantity: Quantity::PeakMemory, ..COMPARISON };
    assert!(device::on_gpu(&OF_MEMORY).is_err());
    let left =
        CLAIMS.iter().flat_map(|claim| claim.comparisons).filter(|comparison| device::on_gpu(comparison).is_ok());
    assert!(left.count() > CLAIMS.len() / 2, "most claims have something to measure on a GPU");
}

#[test]
fn a_figure_tells_all_pairs_of_a_claim_apart() {
    for claim in CLAIMS {
        let pairs: usize = claim.comparisons.iter().map(|comparison| comparison.pairs.len()).sum();
        assert!(pairs <= isonorm_reports::plot::MOST_CLAIM_PAIRS, "{}: {pairs}", claim.name);
    }
}

/// Every program of every claim, on little data, in the narrowest size.
#[test]
fn every_program_gives_what_it_must() {
    tch::set_num_threads(1);
    for claim in CLAIMS {
        for comparison in claim.comparisons {
            let narrow = comparison.shapes.iter().min_by_key(|shape| shape.width).expect("a shape");
            let shape = Shape { batch: narrow.batch.min(4), tokens: narrow.tokens.min(16), ..*narrow };
            let mut programs = Programs::new(comparison, shape, &PLAN).expect("it runs");
            let found = programs.gate().unwrap_or_else(|why| panic!("{}: {why}", claim.name));
            assert_eq!(found, Vec::<String>::new(), "{}, {}", claim.name, describe(comparison, shape));
        }
    }
}
