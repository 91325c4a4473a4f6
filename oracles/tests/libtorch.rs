//! Formulas, their libtorch form and libtorch's own operators say the same, on everything the operators span.

mod common;

use std::collections::BTreeMap;

use common::{DIFFERENCES, Truth, bytes, plain, problems, read, torch_answer};
use isonorm_kernels::abi::{Direction, Dtype, DtypeSet};
use isonorm_oracles::interpret::bound::Arithmetic;
use isonorm_oracles::native::{Declined, native};
use isonorm_oracles::operators::{OPERATORS, Operator, find};

/// Every operator, forward and backward.
fn halves() -> impl Iterator<Item = (&'static Operator, Direction)> {
    let both = [Direction::Forward, Direction::Backward];
    OPERATORS.into_iter().flat_map(move |operator| both.map(|direction| (operator, direction)))
}

/// Every dtype set in use.
fn sets() -> impl Iterator<Item = DtypeSet> {
    ["f64", "f32", "bf16", "f16", "bf16:f32", "f16:f32"].into_iter().map(|set| set.parse().expect("a dtype set"))
}

#[test]
fn graphs_in_libtorch_are_within_the_f64_bound_of_exact() {
    tch::set_num_threads(1);
    // bf16 has casts that f64 lacks.
    for dtypes in [Dtype::F64, Dtype::Bf16].map(DtypeSet::uniform) {
        for (operator, direction) in halves() {
            let mut worst = 0.0f64;
            for (seed, problem) in problems(operator, direction, dtypes).iter().enumerate() {
                let truth = Truth::new(problem, plain(problem, seed as u64), Arithmetic::plain(Dtype::F64));
                let answer = torch_answer(problem, &truth.graph, &truth.inputs, Dtype::F64);
                worst = worst.max(truth.judge(&answer, false).unwrap_or_else(|message| panic!("{message}")));
            }
            assert!(worst > 0.0, "{}: nothing was rounded", operator.name);
            println!("{} {} {dtypes}: {worst:.3} of the bound", operator.name, direction.name());
        }
    }
}

#[test]
fn graphs_in_libtorch_are_within_the_bound_in_working_precision() {
    tch::set_num_threads(1);
    for dtypes in sets() {
        let precision = dtypes.data.statistics();
        for (operator, direction) in halves() {
            let mut worst = 0.0f64;
            for (seed, problem) in problems(operator, direction, dtypes).iter().enumerate() {
                let truth = Truth::new(problem, plain(problem, seed as u64), Arithmetic::plain(precision));
                let answer = torch_answer(problem, &truth.graph, &truth.inputs, precision);
                worst = worst.max(truth.judge(&answer, true).unwrap_or_else(|message| panic!("{message}")));
            }
            println!("{} {} {dtypes}: {worst:.3} of the bound", operator.name, direction.name());
        }
    }
}

/// Runs libtorch's own operators on plain data and judges them: failures, and how many answers and declines there were.
fn judge_native(
    operator: &'static Operator,
    direction: Direction,
    dtypes: DtypeSet,
    mut failed: impl FnMut(&Truth, String),
) -> (usize, BTreeMap<String, usize>) {
    let (mut answered, mut declined) = (0, BTreeMap::new());
    for (seed, problem) in problems(operator, direction, dtypes).iter().enumerate() {
        let inputs = plain(problem, seed as u64);
        let given = bytes(problem, &inputs);
        match native(problem, &given.iter().map(Vec::as_slice).collect::<Vec<_>>()) {
            Ok(answer) => {
                answered += 1;
                let truth = Truth::new(problem, inputs, Arithmetic::plain(Dtype::F32));
                if let Err(message) = truth.judge(&read(problem, &answer), true) {
                    failed(&truth, message);
                }
            }
            Err(reason) => *declined.entry(reason.to_string()).or_default() += 1,
        }
    }
    (answered, declined)
}

#[test]
fn native_operators_are_within_the_f32_bound() {
    tch::set_num_threads(1);
    let (mut failures, mut met) = (Vec::new(), [false; DIFFERENCES.len()]);
    for dtypes in [Dtype::F64, Dtype::F32].map(DtypeSet::uniform) {
        for (operator, direction) in halves() {
            let (answered, declined) = judge_native(operator, direction, dtypes, |truth, message| {
                match DIFFERENCES.iter().position(|(_, covers)| covers(truth)) {
                    Some(known) => met[known] = true,
                    None => failures.push(message),
                }
            });
            assert_eq!(answered == 0, operator.native.is_none(), "{}: {declined:?}", operator.name);
            println!("{} {} {dtypes}: {answered} answered, declined: {declined:?}", operator.name, direction.name());
        }
    }
    assert!(
        failures.is_empty(),
        "{} failures, such as {}",
        failures.len(),
        failures[..failures.len().min(5)].join("\n")
    );
    for ((difference, _), met) in DIFFERENCES.iter().zip(met) {
        assert!(met, "libtorch agrees now: {difference}");
    }
}

/// libtorch's kernels for half types that stay within the bound of f32 arithmetic; the others keep statistics or
/// intermediates in the half type. Each of the latter must still be found wrong.
#[test]
fn half_types_are_within_the_f32_bound_where_libtorch_computes_in_f32() {
    tch::set_num_threads(1);
    let within = [
        ("layer_norm", Direction::Forward),
        ("rms_norm", Direction::Forward),
        ("rms_norm", Direction::Backward),
        ("batch_norm_inference", Direction::Forward),
        ("batch_norm_inference", Direction::Backward),
        ("group_norm", Direction::Forward),
        ("add_layer_norm", Direction::Forward),
        ("add_rms_norm", Direction::Forward),
    ];
    for dtypes in ["bf16", "f16", "bf16:f32", "f16:f32"].map(|set| set.parse().expect("a dtype set")) {
        for (operator, direction) in halves() {
            let mut failures = Vec::new();
            let (answered, _) = judge_native(operator, direction, dtypes, |_, message| failures.push(message));
            println!("{} {} {dtypes}: {} of {answered} outside", operator.name, direction.name(), failures.len());
            let expected = answered == 0 || within.contains(&(operator.name, direction));
            assert_eq!(
                failures.is_empty(),
                expected,
                "{} {} {dtypes}: {failures:.1?}",
                operator.name,
                direction.name()
            );
        }
    }
}

#[test]
fn libtorch_may_be_asked_from_several_threads() {
    tch::set_num_threads(1);
    let problem = &problems(OPERATORS[0], Direction::Backward, DtypeSet::uniform(Dtype::F32))[0];
    let given = bytes(problem, &plain(problem, 1));
    let given: Vec<&[u8]> = given.iter().map(Vec::as_slice).collect();
    let ask = || native(problem, &given).expect("libtorch has it");
    let alone = ask();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| (0..200).all(|_| ask() == alone))).collect();
        assert!(threads.into_iter().all(|thread| thread.join().expect("no panic")));
    });
}

#[test]
fn wrong_input_is_declined_with_a_reason() {
    let problem = &problems(OPERATORS[0], Direction::Forward, DtypeSet::uniform(Dtype::F32))[0];
    let message = |given: &[&[u8]]| native(problem, given).expect_err("not an answer").to_string();
    assert!(message(&[]).contains("0 inputs instead of 1"), "{}", message(&[]));
    assert!(message(&[&[0; 3]]).contains("3 bytes for"), "{}", message(&[&[0; 3]]));
    let crms = problems(find("crms_norm").expect("an operator"), Direction::Forward, DtypeSet::uniform(Dtype::F32));
    assert!(matches!(native(&crms[0], &[&[]]), Err(Declined::Refused(_) | Declined::NoOperator("crms_norm"))));
}
