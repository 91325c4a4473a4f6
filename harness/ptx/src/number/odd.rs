//! f64 operations rounded to odd: where the result is inexact, the neighbour with an odd last bit.
//!
//! A value rounded to odd with at least two more bits than a format has lies on the same side of every number and every
//! midpoint of the format as the exact result does, so the second rounding is correct (Boldo and Melquiond, "Emulation
//! of FMA and correctly rounded sums", 2008).

/// `value` is the exact result rounded to nearest, and `error` has the sign of exact minus `value` (or is zero).
fn to_odd(value: f64, error: f64) -> f64 {
    if error == 0.0 || !error.is_finite() || !value.is_finite() || value.to_bits() & 1 == 1 {
        return value;
    }
    // Even and inexact: its odd neighbour on the side of the exact result.
    if value == 0.0 {
        return error.signum() * f64::from_bits(1);
    }
    let away = (error > 0.0) == (value > 0.0);
    f64::from_bits(if away { value.to_bits() + 1 } else { value.to_bits() - 1 })
}

/// a + b.
#[inline]
pub(crate) fn add(a: f64, b: f64) -> f64 {
    let sum = a + b;
    // Knuth's two-sum: the error, exactly.
    let part = sum - a;
    to_odd(sum, (a - (sum - part)) + (b - part))
}

/// a * b + c for a and b of at most 26 bits, whose product f64 holds exactly.
#[inline]
pub(crate) fn fma(a: f64, b: f64, c: f64) -> f64 {
    add(a * b, c)
}

/// a / b.
pub(crate) fn div(a: f64, b: f64) -> f64 {
    let quotient = a / b;
    if !quotient.is_finite() || b.is_infinite() {
        return quotient;
    }
    // a - quotient * b, whose sign relative to b's is that of the error.
    let rest = (-quotient).mul_add(b, a);
    to_odd(quotient, if b < 0.0 { -rest } else { rest })
}

/// The square root of a.
pub(crate) fn sqrt(a: f64) -> f64 {
    let root = a.sqrt();
    to_odd(root, (-root).mul_add(root, a))
}
