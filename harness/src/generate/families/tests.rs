//! That families do what they say.

use std::collections::BTreeMap;

use isonorm_kernels::abi::{Direction, Dtype};
use isonorm_oracles::interpret::bound::{Arithmetic, bound};
use isonorm_oracles::interpret::exact::exact;
use isonorm_oracles::operators::OPERATORS;
use isonorm_oracles::storage::Format;

use crate::case::{Case, materialise};
use crate::generate::tests::{campaign, everything};

/// The values of an input.
fn input(line: &str, name: &str) -> Vec<f64> {
    let case: Case = line.parse().expect("a case");
    let place = case.problem.inputs().iter().position(|input| input.name == name).expect("an input of the case");
    materialise(&case).inputs.swap_remove(place)
}

fn moments(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    (mean, values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / n)
}

#[test]
fn normal_and_uniform_have_their_moments() {
    let (mean, var) = moments(&input("rms_norm r=- d=100000 dtype=f64", "x"));
    assert!(mean.abs() < 0.02 && (var - 1.0).abs() < 0.02, "{mean} {var}");
    let (mean, var) = moments(&input("rms_norm r=- d=100000 dtype=f64 family=uniform", "x"));
    assert!((mean - 0.5).abs() < 0.01 && (var - 1.0 / 12.0).abs() < 0.01, "{mean} {var}");
    // Every bit of the significand is in use.
    let odd = input("rms_norm r=- d=1000", "x").iter().filter(|x| (**x as f32).to_bits() & 1 == 1).count();
    assert!((400..600).contains(&odd), "{odd}");
}

#[test]
fn ratios_and_neighbours() {
    let rows = input("rms_norm r=64 d=100 family=large_mean", "x");
    let mut ratios: Vec<u32> = rows
        .chunks(100)
        .map(|row| {
            let (mean, var) = moments(row);
            (mean.abs() / var.sqrt()).log10().round() as u32
        })
        .collect();
    ratios.sort_unstable();
    ratios.dedup();
    assert_eq!(ratios, [2, 3, 4, 6]);
    for (dtype, range) in [("f32", 40_000.0..68_000.0), ("f16", 1024.0..2048.0), ("bf16", 128.0..256.0)] {
        let values = input(&format!("rms_norm r=8 d=16 dtype={dtype} family=adjacent"), "x");
        for row in values.chunks(16) {
            let (low, high) = row.iter().fold((f64::MAX, f64::MIN), |(low, high), &x| (low.min(x), high.max(x)));
            assert!(range.contains(&low) && range.contains(&high) && (1.0..=3.0).contains(&(high - low)), "{row:?}");
        }
    }
}

#[test]
fn slices_are_what_a_statistic_runs_over() {
    let alike = |values: &[f64]| values.iter().all(|value| *value == values[0]);
    assert!(input("layer_norm r=9 d=2x3 family=constant", "x").chunks(6).all(alike));
    assert!(input("group_norm n=3 g=2 k=2 s=5 family=constant", "x").chunks(10).all(alike));
    assert!(input("instance_norm n=3 c=4 s=2x2 family=constant", "x").chunks(4).all(alike));
    let values = input("batch_norm n=3 c=4 s=5 momentum=0.1 family=constant", "x");
    for channel in 0..4 {
        let slice: Vec<f64> =
            (0..3).flat_map(|n| (0..5).map(move |s| (n, s))).map(|(n, s)| values[(n * 4 + channel) * 5 + s]).collect();
        assert!(alike(&slice));
    }
    let rows = input("layer_norm r=40 d=2 family=constant", "x");
    assert!(rows.chunks(2).any(|row| row[0] == f64::from(0.1f32)) && rows.chunks(2).any(|row| row[0] == 1234.0));
}

#[test]
fn statistics_are_near_eps() {
    for eps in ["1e-5", "1e-12", "10"] {
        let near = |statistic: f64| (1.0 / 8.0..10.0).contains(&(statistic / eps.parse::<f64>().expect("a number")));
        let rows = input(&format!("layer_norm r=20 d=200 eps={eps} family=near_eps"), "x");
        assert!(rows.chunks(200).all(|row| near(moments(row).1)));
        let rows = input(&format!("l2_normalize r=20 d=200 eps={eps} family=near_eps"), "x");
        assert!(rows.chunks(200).all(|row| near(row.iter().map(|x| x * x).sum::<f64>().sqrt())));
    }
}

#[test]
fn the_ends_of_the_range() {
    for dtype in Dtype::ALL {
        let of = |family: &str| input(&format!("rms_norm r=32 d=16 dtype={dtype} family={family}"), "x");
        let (format, working) = (Format::of(dtype), Format::of(dtype.statistics()));
        let huge = of("huge");
        assert!(huge.iter().all(|x| x.is_finite()));
        for row in huge.chunks(16) {
            assert!(row.iter().map(|x| x * x).sum::<f64>() <= working.largest / 8.0, "{dtype}");
        }
        assert!(huge.iter().any(|x| x.abs() > if dtype == Dtype::F16 { 2e4 } else { working.largest.sqrt() / 128.0 }));
        let tiny = of("tiny");
        assert!(tiny.iter().any(|x| x.abs() >= format.smallest_normal));
        if dtype != Dtype::F16 {
            assert!(tiny.iter().filter(|x| **x * **x < working.smallest_normal).count() > 32, "{dtype}");
        }
        let subnormal = of("subnormal").into_iter().filter(|x| *x != 0.0 && x.abs() < format.smallest_normal).count();
        assert!(subnormal > 200, "{dtype}: {subnormal}");
        let weights = input(&format!("rms_norm r=1 d=64 dtype={dtype} with=weight family=subnormal_results"), "weight");
        assert!(weights.iter().all(|weight| weight.abs() <= 16.0 * format.smallest_normal));
    }
}

#[test]
fn zeros_have_both_signs_and_specials_stand_alone() {
    let rows = input("rms_norm r=40 d=8 family=zeros", "x");
    let zeros = |row: &[f64], negative: bool| row.iter().all(|x| *x == 0.0 && x.is_sign_negative() == negative);
    assert!(rows.chunks(8).any(|row| zeros(row, false)) && rows.chunks(8).any(|row| zeros(row, true)));
    let (mut places, mut tensors) = ([0; 8], BTreeMap::<String, usize>::new());
    for seed in 0..300 {
        let case: Case =
            format!("layer_norm:backward r=3 d=8 with=weight,bias family=nan seed={seed}").parse().expect("a case");
        let made = materialise(&case);
        let found: Vec<(usize, usize)> = made
            .inputs
            .iter()
            .enumerate()
            .flat_map(|(tensor, values)| {
                (0..values.len()).filter(|&at| values[at].is_nan()).map(move |at| (tensor, at))
            })
            .collect();
        let [(tensor, at)] = found[..] else { panic!("{} NaN", found.len()) };
        places[at % 8] += 1;
        *tensors.entry(made.request.inputs[tensor].name.clone()).or_default() += 1;
    }
    assert!(places[0] > 30 && places[4] > 30 && places[7] > 30 && places.iter().all(|&count| count > 0), "{places:?}");
    assert!(tensors.len() == 4 && tensors["x"] > 100, "{tensors:?}");
    let infinite = (0..100).map(|seed| input(&format!("rms_norm r=3 d=8 family=infinity seed={seed}"), "x"));
    let counts: Vec<usize> = infinite.map(|x| x.iter().filter(|x| x.is_infinite()).count()).collect();
    assert!(counts.contains(&1) && counts.contains(&2) && counts.iter().all(|&count| (1..=2).contains(&count)));
}

/// Shares of cases of the family `exact` for which every output must be right to the bit.
#[test]
fn exact_cases_are_exact() {
    for operator in OPERATORS {
        for direction in Direction::ALL {
            let (mut exact_cases, mut all, mut ties) = (0, 0, 0);
            for case in campaign(operator, &everything(direction), 3000).filter(|case| case.family.name == "exact") {
                let made = materialise(&case);
                let (graph, inputs) = (case.problem.graph(), made.inputs.iter().map(Vec::as_slice).collect::<Vec<_>>());
                let values = exact(&graph, &case.problem.sizes(), &inputs);
                let arithmetic = Arithmetic::plain(case.problem.dtypes.data.statistics());
                let bounds = bound(&graph, &values, arithmetic);
                if bounds.iter().all(|bound| bound.errors.is_empty()) {
                    continue;
                }
                all += 1;
                exact_cases += usize::from(bounds.iter().all(|bound| bound.errors.iter().all(|&error| error == 0.0)));
                let y = &graph.outputs[0];
                let half = Format::of(y.dtype);
                let tie = |value: f64| (value.abs() / half.ulp(value)).fract() == 0.5;
                ties += usize::from(values.nodes[y.node.index()].iter().any(|value| tie(value.hi)));
            }
            // Where a running mean has more than two terms, the bound allows for its roundings.
            assert!(3 * exact_cases >= all && all > 100, "{} {direction}: {exact_cases} of {all}", operator.name);
            // Forward, the norm of l2_normalize leaves no room for ties.
            assert!(ties > 10 || operator.name == "l2_normalize", "{} {direction}: {ties} ties", operator.name);
        }
    }
}
