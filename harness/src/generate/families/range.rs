//! Families at the ends of the number range.

use isonorm_kernels::abi::{Dtype, Value};
use isonorm_oracles::Problem;
use isonorm_oracles::storage::Format;

use super::affine::{give_weight, has_weight};
use super::place::power_of_two;
use super::{Draws, Family, PLAIN, Place};

pub(super) static TINY: Family = Family {
    name: "tiny",
    summary: "small numbers, of another size in each slice, down to squares that underflow (near the end of the range in f16)",
    catches: "statistics that lose small squares; variances clamped from below; an eps that is not the one asked for",
    data: |place| {
        const EXPONENTS: [i32; 8] = [-20, -30, -40, -50, -60, -64, -68, -72];
        let exponent = EXPONENTS[place.slice_pick(0, 8)];
        let exponent = match place.tensor.dtype {
            Dtype::F16 => exponent / 6,
            Dtype::Bf16 | Dtype::F32 => exponent,
            Dtype::F64 => exponent * 15 / 2,
        };
        place.normal(0) * power_of_two(exponent)
    },
    running_var: |place| (0.5 + place.uniform(0)) * power_of_two(-40),
    adapt: small_eps,
    ..PLAIN
};

pub(super) static SUBNORMAL: Family = Family {
    name: "subnormal",
    summary: "subnormal inputs, in half of the slices beside ordinary ones",
    catches: "subnormal numbers read as zero",
    data: |place| {
        let ordinary = place.slice_pick(0, 2) == 0 && place.pick(0, 4) != 0;
        if ordinary { place.normal(0) } else { place.sign() * subnormal(place) }
    },
    adapt: small_eps,
    ..PLAIN
};

pub(super) static SUBNORMAL_RESULTS: Family = Family {
    name: "subnormal_results",
    summary: "ordinary activations, weights and biases so small that results are subnormal",
    catches: "subnormal numbers written as zero; double rounding of subnormal results",
    gradient: |place| place.normal(0) * power_of_two(3) * place.format().smallest_normal,
    weight: |place| place.normal(0) * smallest_of_both(place) * power_of_two(2),
    bias: |place| place.normal(0) * smallest_of_both(place),
    suits: |operator, _| has_weight(operator),
    adapt: |problem, _| give_weight(problem),
    ..PLAIN
};

pub(super) static HUGE: Family = Family {
    name: "huge",
    summary: "as large as the sum of squares allows in the arithmetic; up to the largest number in f16",
    catches: "squares or sums in f16, products of three large factors, sums of squares where a mean would do",
    data: |place| {
        let room = place.working().largest / (64.0 * place.count as f64);
        let size = room.sqrt().min(place.format().largest / 2.0);
        size * (0.25 + 0.75 * place.uniform(0)) * place.sign() * power_of_two(-(place.slice_pick(0, 4) as i32))
    },
    running_mean: |place| place.normal(0) * place.working().largest.sqrt() / 256.0,
    running_var: |place| (1.0 + place.uniform(0)) * power_of_two(place.pick(0, 100) as i32),
    ..PLAIN
};

/// A multiple of the smallest number that is not a normal one; a small multiple in half of the elements.
fn subnormal(place: &Place<'_>) -> f64 {
    let multiples = (place.format().smallest_normal / place.format().smallest).min(1e15) as usize;
    place.format().smallest * place.pick(1, if place.pick(2, 2) == 0 { multiples } else { multiples.min(100) }) as f64
}

/// The smallest normal number of the parameters' and of the results' type, whichever is larger.
fn smallest_of_both(place: &Place<'_>) -> f64 {
    let data = Format::of(place.problem().dtypes.data);
    place.format().smallest_normal.max(data.smallest_normal)
}

/// An eps that does not cover the values, mostly.
fn small_eps(problem: &mut Problem, draws: &mut Draws) {
    let eps = *draws.pick(&[0.0, 1e-12, 0.0, 1e-5]);
    problem.attributes.insert("eps", Value::Real(eps));
}
