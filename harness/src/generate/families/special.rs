//! Families of zeros, infinities and NaN.

use super::{Family, PLAIN, Place};

pub(super) static ZEROS: Family = Family {
    name: "zeros",
    summary: "slices of +0, of -0, of both, and ordinary slices with zeros of both signs; zeros among the parameters",
    catches: "lost signs of zero, 0 · ∞ and 0 / 0, Newton steps on 1/√0, dead channels",
    data: |place| match place.slice_pick(0, 4) {
        0 => 0.0,
        1 => -0.0,
        2 => signed_zero(place),
        _ => sprinkled(place),
    },
    gradient: sprinkled,
    weight: sprinkled,
    bias: sprinkled,
    running_mean: sprinkled,
    ..PLAIN
};

fn signed_zero(place: &Place<'_>) -> f64 {
    0.0 * place.sign()
}

fn sprinkled(place: &Place<'_>) -> f64 {
    if place.pick(0, 3) == 0 { signed_zero(place) } else { place.normal(0) }
}

pub(super) static NAN: Family = Family {
    name: "nan",
    summary: "one NaN: first, middle, last, in the last lanes or anywhere, in x or in another input",
    catches: "NaN swallowed by a maximum, a comparison or a masked tail; NaN that spreads to other slices",
    data: |place| marked_or(place, f64::NAN),
    gradient: |place| marked_or(place, f64::NAN),
    weight: |place| marked_or(place, f64::NAN),
    bias: |place| marked_or(place, f64::NAN),
    running_mean: |place| marked_or(place, f64::NAN),
    running_var: |place| if place.marked { f64::NAN } else { (PLAIN.running_var)(place) },
    ..PLAIN
};

pub(super) static INFINITY: Family = Family {
    name: "infinity",
    summary: "one infinity of either sign, in x or in another input; in some cases a second one in its slice",
    catches: "infinities swallowed or turned into finite numbers; infinities that spread to other slices",
    data: infinite,
    gradient: infinite,
    weight: infinite,
    bias: infinite,
    running_mean: infinite,
    running_var: |place| if place.marked { f64::INFINITY } else { (PLAIN.running_var)(place) },
    ..PLAIN
};

fn infinite(place: &Place<'_>) -> f64 {
    let infinity = if place.case_pick(0, 2) == 0 { f64::INFINITY } else { f64::NEG_INFINITY };
    // In a quarter of the cases the first element of x is infinite as well, whatever is marked.
    let second = place.case_pick(1, 4) == 0 && place.element == 0 && place.tensor.name == "x";
    if second && !place.marked { -infinity } else { marked_or(place, infinity) }
}

fn marked_or(place: &Place<'_>, value: f64) -> f64 {
    if place.marked { value } else { place.normal(0) }
}
