//! Families that strain means and variances.

use isonorm_kernels::abi::Value;

use super::{Family, PLAIN, Place};

/// Mean over deviation.
const RATIOS: [f64; 4] = [1e2, 1e3, 1e4, 1e6];

pub(super) static LARGE_MEAN: Family = Family {
    name: "large_mean",
    summary: "a mean of 100 to 1,000,000 deviations, another one in each slice; gradients with a mean of 10",
    catches: "variance as E[x²] - E[x]², negative variances, sums in one pass or in low precision",
    data: |place| {
        let ratio = RATIOS[place.slice_pick(0, RATIOS.len())];
        let deviation = place.format().largest.min(1e9) * 0.5 / ratio;
        let deviation = [1.0f64, 0.01][place.slice_pick(1, 2)].min(deviation);
        let sign = if place.slice_pick(2, 2) == 0 { 1.0 } else { -1.0 };
        deviation * (sign * ratio + place.normal(0))
    },
    gradient: |place| 10.0 + place.normal(0),
    running_mean: |place| 1e3 + place.normal(0),
    ..PLAIN
};

pub(super) static ADJACENT: Family = Family {
    name: "adjacent",
    summary: "neighbouring whole numbers (40000 to 40003; 1024 to 1027 in f16, 128 to 131 in bf16)",
    catches: "E[x²] - E[x]² where the mean itself is exact; means rounded to the storage type",
    data: |place| {
        let base = match place.format().precision {
            8 => 128 + 8 * place.slice_pick(0, 15),
            11 => 1024 + 64 * place.slice_pick(0, 15),
            _ => 40_000 + 1000 * place.slice_pick(0, 25),
        };
        (base + place.pick(0, 4)) as f64
    },
    ..PLAIN
};

pub(super) static CONSTANT: Family = Family {
    name: "constant",
    summary: "all entries of a slice are alike; some values have exact multiples and some have not",
    catches: "negative variance and NaN, variance from a rounded mean, eps forgotten",
    data: constant,
    ..PLAIN
};

pub(super) fn constant(place: &Place<'_>) -> f64 {
    const VALUES: [f64; 10] = [1.0, 0.1, -3.0, 1234.0, 1.0 / 3.0, -0.7, 2048.0, 1e-3, 65.43, 6e4];
    VALUES[place.slice_pick(0, VALUES.len())]
}

pub(super) static NEAR_EPS: Family = Family {
    name: "near_eps",
    summary: "variance and mean square between a quarter of eps and four times eps; some slices with a mean",
    catches: "eps outside the root, forgotten, fixed, squared, clamped; the maximum of norm and eps mixed up with their sum",
    data: |place| {
        let l2 = place.problem().operator.name == "l2_normalize";
        // The norm of a row is compared with eps there, here its variance or mean square.
        let size = if l2 { place.eps() / (place.count as f64).sqrt() } else { place.eps().sqrt() };
        let deviation = size * [0.5, 1.0, 2.0][place.slice_pick(0, 3)];
        // A mean of one deviation keeps both statistics near eps.
        let mean = [0.0, 0.0, 1.0][place.slice_pick(1, 3)];
        deviation * (mean + place.normal(0))
    },
    running_var: |place| place.eps() * (0.25 + 3.75 * place.uniform(0)),
    adapt: |problem, draws| {
        // An eps of 0 has no neighbourhood, and one of 1e-12 is below what f16 can tell from 0.
        let eps = *draws.pick(&[1e-5, 1e-6, 1e-3, 0.1, 10.0, 1e-5]);
        problem.attributes.insert("eps", Value::Real(eps));
    },
    ..PLAIN
};
