//! Families that strain the parameters: weights, biases, running statistics.

use isonorm_kernels::abi::{Direction, Value};
use isonorm_oracles::Problem;
use isonorm_oracles::operators::{Operator, Role};
use isonorm_oracles::storage::Format;

use super::moments::constant;
use super::{Family, PLAIN};

pub(super) static WEIGHT_SIGNS: Family = Family {
    name: "weight_signs",
    summary: "weights 1, -1, 0, -0 and small negative numbers",
    catches: "weights taken as positive or as 1; divisions by the weight; zero gradients where the weight is 0",
    weight: |place| [1.0, -1.0, 0.0, -0.0, -0.25, -0.1][place.pick(0, 6)],
    suits: |operator, _| has_weight(operator),
    adapt: |problem, _| give_weight(problem),
    ..PLAIN
};

pub(super) static WEIGHT_LARGE: Family = Family {
    name: "weight_large",
    summary: "weights of 1e3 to 1e10 (to 1e3 for f16), on constant slices and ordinary ones",
    catches: "a rounded mean of a constant row, blown up; weights narrowed to a half type",
    data: |place| if place.slice_pick(1, 2) == 0 { constant(place) } else { place.normal(0) },
    weight: |place| {
        let largest = if Format::of(place.problem().dtypes.data).largest < 1e6 { 1 } else { 8 };
        place.sign() * [1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10][place.pick(0, largest)] * (1.0 + place.uniform(0))
    },
    suits: |operator, _| has_weight(operator),
    adapt: |problem, _| give_weight(problem),
    ..PLAIN
};

pub(super) static WEIGHT_NEAR_MINUS_ONE: Family = Family {
    name: "weight_near_minus_one",
    summary: "weights a little beside -1 and a little beside 0",
    catches: "1 + weight formed in a half type; the offset of Gemma's convention forgotten or added twice",
    weight: |place| {
        let little = place.symmetric(0) * [1e-3, 1e-2][place.pick(0, 2)];
        if place.pick(1, 2) == 0 { little - 1.0 } else { little }
    },
    suits: |operator, _| has_weight(operator),
    adapt: |problem, _| {
        give_weight(problem);
        let cast = problem.operator.attributes.iter().find(|attribute| attribute.name == "cast");
        if let Some(gemma) = cast.map(|_| Value::Text("gemma".to_owned())) {
            problem.attributes.insert("cast", gemma);
        }
    },
    ..PLAIN
};

pub(super) static RUNNING: Family = Family {
    name: "running",
    summary: "running variances from 1e-12 to beyond the largest f16, running means far from 0",
    catches: "running statistics kept in a half type, not updated, updated with the wrong variance or the other factor",
    data: |place| [0.0, 100.0, -1000.0][place.case_pick(0, 3)] + place.normal(0),
    running_mean: |place| [0.0, 100.0, -1000.0][place.case_pick(0, 3)] + place.symmetric(0),
    running_var: |place| {
        let sizes = [1e-12, 1e-6, 1e-3, 1.0, 100.0, 7e4, 1e6, 1e10];
        sizes[place.pick(0, sizes.len())] * (1.0 + place.uniform(0))
    },
    suits: |operator, direction| {
        let read = |role, in_backward| role == Role::State && (direction == Direction::Forward || in_backward);
        operator.inputs.iter().any(|input| read(input.role, input.in_backward))
    },
    adapt: |problem, _| {
        let state = problem.operator.inputs.iter().filter(|input| input.role == Role::State && input.optional);
        problem.given.extend(state.map(|input| input.name));
    },
    ..PLAIN
};

/// Whether there can be a weight.
pub(super) fn has_weight(operator: &Operator) -> bool {
    operator.inputs.iter().any(|input| input.name == "weight")
}

/// Gives the weight, and nothing else that was not given.
pub(super) fn give_weight(problem: &mut Problem) {
    problem.given.insert("weight");
}
