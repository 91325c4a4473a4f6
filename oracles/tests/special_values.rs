//! NaN, infinities, zeros and constant rows: what the formula makes of them, and what libtorch does.

mod common;

use common::{DIFFERENCES, Truth, Values, bytes, plain, problems, read, torch_answer};
use isonorm_kernels::abi::{Direction, Dtype, DtypeSet, Value};
use isonorm_oracles::Problem;
use isonorm_oracles::interpret::bound::Arithmetic;
use isonorm_oracles::native::native;
use isonorm_oracles::operators::OPERATORS;

/// What is done to the data.
type Special = (&'static str, fn(&mut [f64]));
const SPECIALS: [Special; 9] = [
    ("a NaN", |x| set(x, &[(1, f64::NAN)])),
    ("an infinity", |x| set(x, &[(1, f64::INFINITY)])),
    ("a negative infinity", |x| set(x, &[(1, f64::NEG_INFINITY)])),
    ("two equal infinities", |x| set(x, &[(0, f64::INFINITY), (1, f64::INFINITY)])),
    ("two opposite infinities", |x| set(x, &[(0, f64::INFINITY), (1, f64::NEG_INFINITY)])),
    ("the last NaN", |x| {
        if let Some(last) = x.last_mut() {
            *last = f64::NAN
        }
    }),
    ("equal values", |x| x.fill(0.7f32.into())),
    ("zeros", |x| x.fill(0.0)),
    ("negative zeros", |x| x.fill(-0.0)),
];

fn set(x: &mut [f64], values: &[(usize, f64)]) {
    for &(place, value) in values {
        if let Some(x) = x.get_mut(place) {
            *x = value;
        }
    }
}

fn special(problem: &Problem, (_, change): Special, seed: u64) -> Values {
    let mut inputs = plain(problem, seed);
    let tensors = problem.inputs();
    let x = tensors.iter().position(|tensor| tensor.name == "x").expect("every operator has x");
    change(&mut inputs[x]);
    inputs
}

/// Every problem that all or none of the optional inputs are given to, with everything special.
fn cases() -> impl Iterator<Item = (&'static str, Truth)> {
    let both = [Direction::Forward, Direction::Backward];
    let halves = OPERATORS.into_iter().flat_map(move |operator| both.map(|direction| (operator, direction)));
    let all = halves.flat_map(|(operator, direction)| {
        let all = problems(operator, direction, DtypeSet::uniform(Dtype::F32));
        let most = all.iter().map(|problem| problem.given.len()).max().unwrap_or_default();
        all.into_iter().filter(move |problem| [0, most].contains(&problem.given.len()))
    });
    all.enumerate().flat_map(|(seed, problem)| {
        SPECIALS.map(|case| {
            let inputs = special(&problem, case, seed as u64);
            (case.0, Truth::new(&problem, inputs, Arithmetic::plain(Dtype::F32)))
        })
    })
}

#[test]
fn formulas_in_libtorch_give_the_same_classes_and_zeros() {
    tch::set_num_threads(1);
    let mut count = 0;
    for (case, truth) in cases() {
        let answer = torch_answer(&truth.problem, &truth.graph, &truth.inputs, Dtype::F32);
        truth.judge(&answer, true).unwrap_or_else(|message| panic!("{case}: {message}"));
        count += 1;
    }
    println!("{count} cases");
}

/// The gradient at a zero row without ε is not finite; which infinity or NaN it is, is left to the order of evaluation.
fn undefined(truth: &Truth) -> bool {
    let Problem { operator, direction, attributes, .. } = &truth.problem;
    let zero = truth.inputs.iter().any(|values| !values.is_empty() && values.iter().all(|&value| value == 0.0));
    operator.name == "l2_normalize"
        && *direction == Direction::Backward
        && zero
        && attributes["eps"] == Value::Real(0.0)
}

#[test]
fn native_operators_give_the_same_classes_and_zeros() {
    tch::set_num_threads(1);
    let (mut answered, mut failures) = (0, Vec::new());
    for (case, truth) in cases() {
        let given = bytes(&truth.problem, &truth.inputs);
        let Ok(answer) = native(&truth.problem, &given.iter().map(Vec::as_slice).collect::<Vec<_>>()) else { continue };
        answered += 1;
        let known = undefined(&truth) || DIFFERENCES.iter().any(|(_, covers)| covers(&truth));
        match truth.judge(&read(&truth.problem, &answer), true) {
            Err(message) if !known => failures.push(format!("{case}: {message}")),
            _ => {}
        }
    }
    println!("{answered} answers");
    assert!(answered > 1000, "only {answered} answers");
    assert!(
        failures.is_empty(),
        "{} failures, such as {}",
        failures.len(),
        failures[..failures.len().min(5)].join("\n")
    );
}

#[test]
fn swallowed_special_values_are_caught() {
    let (mut nan, mut infinite, mut zeros) = (0, 0, 0);
    for (case, truth) in cases() {
        let mut answer = torch_answer(&truth.problem, &truth.graph, &truth.inputs, Dtype::F32);
        let mut refused = |index: usize, element: usize, value: f64| {
            let before = std::mem::replace(&mut answer[index][element], value);
            let verdict = truth.judge(&answer, true);
            answer[index][element] = before;
            assert!(verdict.is_err(), "{case}: {value:?} is accepted\n{}", truth.describe());
        };
        for (index, bound) in truth.bounds.iter().enumerate() {
            for (element, (want, &error)) in truth.output(index).iter().zip(&bound.errors).enumerate() {
                match want.hi {
                    _ if error == f64::INFINITY => {}
                    want if want.is_nan() => {
                        nan += 1;
                        refused(index, element, 0.0);
                        refused(index, element, f64::INFINITY);
                    }
                    want if want.is_infinite() => {
                        infinite += 1;
                        refused(index, element, -want);
                        refused(index, element, f64::MAX);
                    }
                    want if want == 0.0 && error == 0.0 && bound.zero_sign => {
                        zeros += 1;
                        refused(index, element, -want);
                    }
                    _ => {
                        refused(index, element, f64::NAN);
                        refused(index, element, f64::NEG_INFINITY);
                    }
                }
            }
        }
    }
    println!("{nan} NaN, {infinite} infinities, {zeros} zeros with a sign");
    assert!(nan > 1000 && infinite > 100 && zeros > 100);
}
