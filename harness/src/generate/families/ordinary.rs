//! Families of unremarkable numbers, and of numbers of very different size.

use super::place::power_of_two;
use super::{Family, PLAIN};

pub(super) static NORMAL: Family = Family {
    name: "normal",
    summary: "bell-shaped around 0 with deviation 1, gradients and parameters too",
    catches: "wrong formulas, indices, axes and strides; parameters that are ignored or mixed up; approximate 1/√",
    ..PLAIN
};

pub(super) static UNIFORM: Family = Family {
    name: "uniform",
    summary: "even in (0, 1), gradients in (-1, 1), positive weights",
    catches: "one-pass variance on short rows; biased and unbiased variance mixed up; double rounding",
    data: |place| place.uniform(0),
    gradient: |place| place.symmetric(0),
    weight: |place| 0.5 + place.uniform(0),
    bias: |place| place.symmetric(0),
    ..PLAIN
};

pub(super) static OUTLIER: Family = Family {
    name: "outlier",
    summary: "one entry of each slice is a thousand to a million times the others",
    catches: "narrow accumulators; means and maxima that miss a lane; rows that are skipped",
    data: |place| {
        let chosen = place.slice_pick(0, place.count) == place.index;
        let size = [1e3, 1e4, 1e6][place.slice_pick(1, 3)];
        let size = if place.format().largest < 1e6 { 1e3 } else { size };
        if chosen { size * place.sign() * (1.0 + place.uniform(1)) } else { place.normal(0) }
    },
    ..PLAIN
};

pub(super) static CANCELLATION: Family = Family {
    name: "cancellation",
    summary: "neighbours of opposite sign and almost equal size; biases that nearly undo the weights",
    catches: "sums and running statistics in half precision; products rounded before they are subtracted",
    data: |place| {
        let pair = place.slice_pick(0, 97) + place.index / 2;
        let size = 100.0 + (pair * 37 % 1000) as f64;
        let sign = if place.index.is_multiple_of(2) { 1.0 } else { -1.0 };
        sign * size + place.symmetric(0)
    },
    gradient: |place| {
        let sign = if place.index.is_multiple_of(2) { 16.0 } else { -16.0 };
        sign + place.symmetric(0) / 16.0
    },
    weight: |place| 1.0 + place.symmetric(0) / 64.0,
    bias: |place| if place.element.is_multiple_of(2) { -1.0 } else { 1.0 },
    running_mean: |place| 100.0 + place.normal(0),
    ..PLAIN
};

pub(super) static SCALES: Family = Family {
    name: "scales",
    summary: "every slice and every entry at another power of two",
    catches: "statistics of a neighbouring slice; errors that only show relative to small entries; narrow accumulators",
    data: |place| {
        let reach = if place.format().largest < 1e6 { 5 } else { 20 };
        let slice = place.slice_pick(0, 2 * reach + 1) as i32 - reach as i32;
        place.normal(0) * power_of_two(slice - place.pick(0, 9) as i32)
    },
    gradient: |place| place.normal(0) * power_of_two(4 - place.pick(0, 9) as i32),
    weight: |place| place.normal(0) * power_of_two(4 - place.pick(0, 9) as i32),
    ..PLAIN
};
