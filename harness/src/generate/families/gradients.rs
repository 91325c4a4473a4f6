//! Families for the backward half: gradients for which the terms of the formula cancel, or stand alone.

use isonorm_kernels::abi::Direction;

use super::{Family, PLAIN};

pub(super) static GRADIENT_PARALLEL: Family = Family {
    name: "gradient_parallel",
    summary: "gradients proportional to x, plain weights: the gradient of x all but vanishes",
    catches: "the term of the variance missing, or with the wrong factor or count",
    gradient: |place| {
        let x = place.in_tensor("x").filter(|x| x.tensor.shape == place.tensor.shape);
        2.0 * x.map_or_else(|| place.normal(0), |x| x.store(x.normal(0)))
    },
    weight: |place| [1.0, -2.0][place.case_pick(0, 2)],
    suits: |_, direction| direction == Direction::Backward,
    ..PLAIN
};

pub(super) static GRADIENT_CONSTANT: Family = Family {
    name: "gradient_constant",
    summary: "the same gradient for every element of a slice, plain weights: what is left is the rounding of the mean",
    catches: "the term of the mean missing, or summed in low precision; sums over rows in a half type",
    gradient: |place| [1.0, -0.1, 3.0, 0.7][place.slice_pick(0, 4)],
    weight: |place| [1.0, 0.3][place.case_pick(0, 2)],
    suits: |_, direction| direction == Direction::Backward,
    ..PLAIN
};

pub(super) static GRADIENT_ONE_HOT: Family = Family {
    name: "gradient_one_hot",
    summary: "one gradient of each slice is not zero",
    catches: "gradients of other rows mixed in, contributions lost at tails, terms of the mean added to the wrong element",
    gradient: |place| {
        if place.slice_pick(0, place.count) == place.index { 1.0 + place.uniform(0) } else { 0.0 }
    },
    suits: |_, direction| direction == Direction::Backward,
    ..PLAIN
};
