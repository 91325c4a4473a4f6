//! Values for which every order of evaluation is exact: the answer must be right to the bit.
//!
//! Activations are small whole numbers times a power of two, chosen so that the mean square (or the variance, or the
//! norm) plus eps is a power of 4; weights are odd numbers of one bit more than the results hold, so that many results
//! lie half way between two numbers.

use isonorm_kernels::abi::Value;
use isonorm_oracles::Problem;
use isonorm_oracles::formula::Reduce;
use isonorm_oracles::operators::AxisKind;
use isonorm_oracles::storage::Format;

use super::place::{Statistic, power_of_two};
use super::{Draws, Family, PLAIN, Place};

pub(super) static EXACT: Family = Family {
    name: "exact",
    summary: "small whole numbers whose statistics are powers of two: no order of evaluation rounds before the result",
    catches: "truncation, ties rounded the wrong way, double rounding, any inaccuracy at all",
    data,
    gradient: |place| [1.0, -1.0, 2.0, -3.0, 0.0][place.pick(0, 5)],
    weight: |place| {
        let bits = Format::of(place.problem().dtypes.data).precision.min(11);
        let odd = 2 * place.pick(0, 1 << bits) + 1;
        place.sign() * odd as f64 * power_of_two(-bits)
    },
    bias: |place| [1.0, -1.0, 2.0, 0.0, 0.5][place.pick(0, 5)],
    running_mean: |place| place.pick(0, 9) as f64 - 4.0,
    running_var: |place| if place.eps() == 3.0 { 1.0 } else { power_of_two(2 * place.slice_pick(0, 5) as i32 - 4) },
    adapt,
    ..PLAIN
};

fn data(place: &Place<'_>) -> f64 {
    // Where two activations are added first, their sum has the values that matter.
    let h = value(place);
    let other = |place: &Place<'_>| place.slice_pick(3, 3) as f64 + (place.index % 2) as f64;
    match place.tensor.name.as_str() {
        "residual" => other(place),
        _ if place.in_tensor("residual").is_some() => h - other(place),
        _ => h,
    }
}

fn value(place: &Place<'_>) -> f64 {
    let sign = if (place.slice_pick(0, 64) >> (place.index % 5)) & 1 == 0 { 1.0 } else { -1.0 };
    // With eps = 3 the other addend under the root must be 1.
    let scale = if place.eps() == 0.0 { power_of_two(place.slice_pick(1, 5) as i32 - 2) } else { 1.0 };
    let operator = place.problem().operator;
    let whole = match Statistic::of(operator).reduce {
        // Running statistics, or a maximum, which is exact: any numbers will do.
        None | Some(Reduce::Max) => place.pick(0, 17) as f64 - 8.0,
        Some(Reduce::Moment) if place.count == 2 => {
            place.slice_pick(2, 9) as f64 - 4.0 + if place.index == 0 { 1.0 } else { -1.0 }
        }
        Some(Reduce::Moment) => place.slice_pick(2, 9) as f64 - 4.0,
        Some(Reduce::Mean) => sign * mean_square(place),
        Some(Reduce::Sum) if operator.name == "crms_norm" => {
            // Alternating: the sum of an odd number of them is ±1.
            if (place.index + place.slice_pick(0, 2)).is_multiple_of(2) { 1.0 } else { -1.0 }
        }
        Some(Reduce::Sum) => sign * norm(place),
    };
    whole * scale
}

/// Magnitudes whose squares have the mean 4, or 1 if eps is not 0, over the entries that count.
fn mean_square(place: &Place<'_>) -> f64 {
    let head = place.problem().operator.derived_axes.first().map(|axis| (axis.size)(place.problem()));
    let count = head.unwrap_or(place.count);
    if place.index >= count {
        return place.pick(0, 9) as f64;
    }
    if place.eps() != 0.0 {
        return 1.0;
    }
    let total: usize = 4 * count;
    let root = total.isqrt();
    let first = if total - (root - 1).pow(2) < count { root - 1 } else { root };
    one_and_ones(place, count, first, total - first.pow(2))
}

/// Magnitudes whose squares add up to a power of 4.
fn norm(place: &Place<'_>) -> f64 {
    let mut root = 1;
    while 4 * root <= place.count {
        root *= 2;
    }
    let (first, ones) = if 2 * root <= place.count { (root - 1, 2 * root - 1) } else { (root, 0) };
    one_and_ones(place, place.count, first, ones)
}

/// The magnitude `first` somewhere, then `ones` ones, then zeros.
fn one_and_ones(place: &Place<'_>, count: usize, first: usize, ones: usize) -> f64 {
    match (place.index + place.slice_pick(2, count)) % count {
        0 => first as f64,
        rank if rank <= ones => 1.0,
        _ => 0.0,
    }
}

/// Sizes, eps and the like for which the statistics can be exact.
fn adapt(problem: &mut Problem, draws: &mut Draws) {
    let operator = problem.operator;
    let statistic = Statistic::of(operator);
    let mut eps = *draws.pick(&[0.0, 3.0]);
    match statistic.reduce {
        Some(Reduce::Moment) => {
            if draws.chance(2, 3) {
                // Two values: the only moments that no running form rounds.
                let reduced: Vec<&str> = operator.axes.iter().map(|axis| axis.name).collect();
                let mut last = None;
                for name in reduced.into_iter().filter(|name| statistic.axes.contains(name)) {
                    let dims = problem.dims.get_mut(name).expect("every axis has sizes");
                    dims.fill(1);
                    last = if dims.is_empty() || (last.is_some() && draws.chance(1, 2)) { last } else { Some(name) };
                }
                if let Some(dim) = last.and_then(|name| problem.dims.get_mut(name)).and_then(|dims| dims.last_mut()) {
                    *dim = 2;
                }
            }
            if statistic.axes.iter().map(|axis| problem.size(axis)).product::<usize>() != 2 {
                // Constant slices: the variance is 0.
                eps = *draws.pick(&[0.25, 1.0, 4.0]);
            }
        }
        Some(_) => {
            for axis in operator.axes.iter().filter(|axis| axis.kind == AxisKind::Reduced) {
                let dims = problem.dims.get_mut(axis.name).expect("every axis has sizes");
                // CRMSNorm divides by one more than it has stored.
                let more = usize::from(operator.name == "crms_norm");
                dims.iter_mut().for_each(|dim| *dim = previous_power_of_two(*dim + more) - more);
            }
            if problem.attributes.contains_key("p") {
                problem.attributes.insert("p", Value::Real(*draws.pick(&[0.25, 0.5, 1.0])));
            }
        }
        None => {}
    }
    if operator.name == "l2_normalize" {
        // Rows are compared with eps there: it adds nothing.
        eps = 0.0;
    }
    problem.attributes.insert("eps", Value::Real(eps));
}

fn previous_power_of_two(n: usize) -> usize {
    if n == 0 { 0 } else { 1 << n.ilog2() }
}
