//! What campaigns ask: that it is the same everywhere, that it covers, that it shrinks.

use std::collections::{BTreeMap, BTreeSet};

use isonorm_kernels::abi::{Direction, Dtype, DtypeSet, Layouts};
use isonorm_oracles::operators::{OPERATORS, Operator, find};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{TestCaseError, TestError, TestRunner};

use super::families::{FAMILIES, suitable};
use super::layouts::{Layout, in_place_pairs};
use super::shapes::SIZE_CLASSES;
use super::*;
use crate::case::{Case, dense, materialise};

pub(crate) fn everything(direction: Direction) -> Offer {
    let uniform = Dtype::ALL.map(DtypeSet::uniform);
    let mixed = [Dtype::Bf16, Dtype::F16].map(|data| DtypeSet { data, param: Dtype::F32 });
    let dtypes = uniform.into_iter().chain(mixed).collect();
    Offer { directions: vec![direction], dtypes, layouts: Layouts::ANY, threads: 4, sizes: Sizes::new() }
}

fn halves() -> impl Iterator<Item = (&'static Operator, Offer)> {
    OPERATORS.into_iter().flat_map(|operator| Direction::ALL.map(|direction| (operator, everything(direction))))
}

pub(crate) fn campaign(operator: &'static Operator, offer: &Offer, cases: u64) -> impl Iterator<Item = Case> {
    (0..cases).map(move |index| case_at(1, operator, offer, index).current())
}

#[test]
fn every_case_is_valid_and_fits_together() {
    for (operator, offer) in halves() {
        for case in campaign(operator, &offer, 600) {
            assert_eq!(case.validate(), Ok(()), "{case}");
            let made = materialise(&case);
            for (tensor, values) in made.request.inputs.iter().zip(&made.inputs) {
                let stored = dense(tensor, &tensor.data);
                assert_eq!(stored.len(), tensor.len(), "{case}");
                let same = |(a, b): (&f64, &f64)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
                assert!(stored.iter().zip(values).all(same), "{case}: `{}`", tensor.name);
            }
            assert_eq!(made.request.prelude.is_some(), case.refreshed);
            let aliased = made.request.outputs.iter().filter(|output| output.alias.is_some()).count();
            assert_eq!(aliased, case.in_place.len());
        }
    }
}

#[test]
fn a_case_is_a_function_of_seed_operator_direction_and_index() {
    for (operator, offer) in halves() {
        let [first, again] = [0, 1].map(|_| campaign(operator, &offer, 100).collect::<Vec<_>>());
        assert_eq!(first, again);
        let backwards: Vec<Case> = (0..100).rev().map(|index| case_at(1, operator, &offer, index).current()).collect();
        assert!(first.iter().eq(backwards.iter().rev()));
        let other = (0..100).filter(|&index| case_at(2, operator, &offer, index).current() == first[index as usize]);
        assert_eq!(other.count(), 0);
    }
}

#[test]
fn every_element_type_meets_every_family_and_every_size_class() {
    for (operator, offer) in halves() {
        let direction = offer.directions[0];
        let mut families = BTreeSet::new();
        let mut sizes = BTreeMap::<_, BTreeSet<usize>>::new();
        for case in campaign(operator, &offer, 2000) {
            families.insert((case.family.name, case.problem.dtypes));
            let seen = sizes.entry(case.problem.dtypes).or_default();
            seen.extend(case.problem.dims.values().map(|dims| dims.iter().product::<usize>()));
            seen.extend(case.problem.dims.values().flatten());
        }
        assert_eq!(families.len(), suitable(operator, direction).len() * offer.dtypes.len(), "{}", operator.name);
        for (dtypes, sizes) in &sizes {
            for class in &SIZE_CLASSES {
                let met = class.sizes.iter().any(|size| sizes.contains(size));
                assert!(met, "{} {direction} {dtypes}: no {} size", operator.name, class.name);
            }
        }
    }
}

#[test]
fn two_hundred_cases_see_all_families_and_the_main_edges() {
    for (operator, offer) in halves() {
        let cases: Vec<Case> = campaign(operator, &offer, 200).collect();
        let families: BTreeSet<&str> = cases.iter().map(|case| case.family.name).collect();
        assert_eq!(families.len(), suitable(operator, offer.directions[0]).len());
        let sizes: BTreeSet<usize> =
            cases.iter().flat_map(|case| case.problem.dims.values().flatten().copied()).collect();
        for edge in [0, 1, 2, 3, 7, 17] {
            assert!(sizes.contains(&edge), "{}: no size {edge}", operator.name);
        }
        assert!(sizes.iter().any(|size| (31..=33).contains(size)) && sizes.iter().any(|&size| size > 250));
        assert!(cases.iter().any(|case| !case.in_place.is_empty()) && cases.iter().any(|case| case.refreshed));
        let layouts: BTreeSet<Layout> = cases.iter().flat_map(|case| case.layouts.values().copied()).collect();
        assert!(layouts.len() >= 4, "{}: {layouts:?}", operator.name);
    }
}

#[test]
fn most_cases_are_small_and_some_are_not() {
    for (operator, offer) in halves() {
        let total = |case: &Case| case.problem.inputs().iter().map(|input| input.len()).max().unwrap_or(0);
        let mut sizes: Vec<usize> = campaign(operator, &offer, 2000).map(|case| total(&case)).collect();
        sizes.sort_unstable();
        assert!((50..=600).contains(&sizes[1000]), "{}: median {}", operator.name, sizes[1000]);
        assert!((10_000..=100_000).contains(&sizes[1999]), "{}: {}", operator.name, sizes[1999]);
    }
}

#[test]
fn only_what_is_offered_is_asked() {
    for operator in OPERATORS {
        let offer = Offer {
            directions: Direction::ALL.to_vec(),
            dtypes: vec![DtypeSet::uniform(Dtype::F16)],
            layouts: Layouts::default(),
            threads: 1,
            sizes: Sizes::new(),
        };
        for (index, case) in campaign(operator, &offer, 300).enumerate() {
            assert_eq!(case.problem.direction, Direction::ALL[index % 2]);
            assert_eq!(case.problem.dtypes, offer.dtypes[0]);
            assert!(case.layouts.is_empty() && case.in_place.is_empty() && case.threads == 1, "{case}");
        }
        let offer = Offer { layouts: Layouts { channels_last: true, ..Layouts::default() }, ..offer };
        let layouts: BTreeSet<Layout> =
            campaign(operator, &offer, 300).flat_map(|case| case.layouts.into_values()).collect();
        assert!(layouts.iter().all(|layout| *layout == Layout::ChannelsLast), "{layouts:?}");
    }
}

#[test]
fn sizes_that_a_kernel_is_compiled_for_are_the_only_ones() {
    let operator = find("rms_norm").expect("an operator of ours");
    let offer = Offer { sizes: [("d", vec![200, 4096])].into(), ..everything(Direction::Forward) };
    let mut seen = BTreeSet::new();
    for case in campaign(operator, &offer, 500) {
        assert!(offer.sizes["d"].contains(&case.problem.size("d")), "{case}");
        // Not even the largest of them makes cases that take long.
        assert!(case.problem.size("r") * case.problem.size("d") <= 1 << 16, "{case}");
        seen.insert((case.problem.size("d"), case.problem.size("r") > 1));
    }
    assert_eq!(seen.len(), 4, "{seen:?}");
}

/// Shrinks until nothing simpler fails.
fn shrink(operator: &str, fails: impl Fn(&Case) -> bool) -> Case {
    let operator = find(operator).expect("an operator of ours");
    let config = ProptestConfig { failure_persistence: None, cases: 5000, ..ProptestConfig::default() };
    let mut runner =
        TestRunner::new_with_rng(config, proptest::test_runner::TestRng::deterministic_rng(Default::default()));
    let result = runner.run(&cases(operator, &everything(Direction::Forward)), |case| {
        if fails(&case) { Err(TestCaseError::fail("planted")) } else { Ok(()) }
    });
    match result {
        Err(TestError::Fail(_, case)) => case,
        other => panic!("no case fails: {other:?}"),
    }
}

#[test]
fn shrinking_ends_at_the_smallest_and_plainest_case() {
    let bias_and_five = shrink("layer_norm", |case| case.problem.size("d") >= 5 && case.problem.has("bias"));
    let types = bias_and_five.problem.dtypes;
    let line = format!("layer_norm:forward dtype={types} r=- d=5 eps=1e-5 with=bias family=normal seed=0");
    assert_eq!(bias_and_five.to_string(), line);

    let pair = shrink("batch_norm", |case| case.problem.has("running_var") && case.problem.size("s") % 4 == 3);
    let line = "n=1 c=1 s=3 eps=1e-5 momentum=1e-1 with=running_mean,running_var family=normal seed=0";
    assert!(pair.to_string().ends_with(line), "{pair}");

    let placed = shrink("add_rms_norm", |case| case.in_place.contains_key("y") && case.layout("y") == Layout::Step);
    assert!(
        placed.to_string().contains(" in_place=y:") && placed.to_string().ends_with(":step in_place=y:x seed=0")
            || placed.to_string().ends_with(":step in_place=y:residual seed=0"),
        "{placed}"
    );
    assert!(placed.to_string().contains(" r=- d=1 "), "{placed}");

    let family = shrink("rms_norm", |case| case.family.name == "huge");
    assert!(family.to_string().contains(" r=- d=1 eps=1e-5 cast=none family=huge seed=0"), "{family}");
}

#[test]
fn large_cases_are_large() {
    for (operator, offer) in halves() {
        let cases = large(operator, offer.directions[0], offer.dtypes[0], 3);
        let size = |case: &Case| case.problem.inputs().iter().map(|input| input.len()).max().unwrap_or(0);
        assert!(cases.len() >= 3, "{}", operator.name);
        assert!(cases.iter().all(|case| size(case) > 65_536), "{cases:?}");
        assert!(cases.iter().any(|case| size(case) > 1 << 24), "{cases:?}");
        assert!(cases.iter().any(|case| case.problem.dims.values().flatten().any(|&dim| dim >= 70_000)), "{cases:?}");
    }
}

#[test]
fn outputs_in_place_are_those_that_make_sense() {
    let pairs = |text: &str| {
        let case: Case = text.parse().expect("a case");
        let problem = &case.problem;
        let pairs = in_place_pairs(problem, &problem.inputs(), &problem.outputs());
        pairs.iter().map(|(output, input)| format!("{output}:{input}")).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(pairs("layer_norm:forward r=3 d=3 with=weight,bias"), "y:x");
    assert_eq!(pairs("layer_norm:backward r=- d=3 with=weight"), "dx:dy dx:x");
    assert_eq!(
        pairs("batch_norm:forward n=2 c=3 s=- momentum=0.1 with=running_mean,running_var"),
        "y:x new_running_mean:running_mean new_running_var:running_var"
    );
    assert_eq!(pairs("add_rms_norm:forward r=2 d=3"), "y:x y:residual residual_out:x residual_out:residual");
}

#[test]
fn every_family_comes_up_in_some_half() {
    let met: BTreeSet<&str> = halves()
        .flat_map(|(operator, offer)| suitable(operator, offer.directions[0]))
        .map(|family| family.name)
        .collect();
    assert_eq!(met.len(), FAMILIES.len());
}
