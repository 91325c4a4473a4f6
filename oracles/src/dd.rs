//! Double-double arithmetic: an unevaluated sum of two `f64`, about 31 decimal digits.
//!
//! Algorithms: Dekker (1971), Knuth (TAOCP 2, 4.2.2); error bounds of a few 2⁻¹⁰⁴ in Joldes, Muller, Popescu (2017).
//! Results that leave the range of `f64` follow IEEE 754 in `hi`, with `lo` = 0.

use std::ops::{Add, Div, Mul, Neg, Sub};

/// `hi + lo`, with |lo| at most half an ulp of `hi`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Dd {
    /// The value rounded to `f64`.
    pub hi: f64,
    /// The rest.
    pub lo: f64,
}

impl Dd {
    /// 0
    pub const ZERO: Dd = Dd { hi: 0.0, lo: 0.0 };

    /// Absolute value.
    #[inline(always)]
    pub fn abs(self) -> Dd {
        if self.hi.is_sign_negative() { -self } else { self }
    }

    /// √self
    #[inline(always)]
    pub fn sqrt(self) -> Dd {
        let root = self.hi.sqrt();
        if root == 0.0 || !root.is_finite() {
            return root.into();
        }
        let rest = self - product(root, root);
        quick(root, rest.hi / (2.0 * root))
    }

    /// 1/√self
    #[inline(always)]
    pub fn rsqrt(self) -> Dd {
        Dd::from(1.0) / self.sqrt()
    }

    /// The larger; NaN if either is.
    #[inline(always)]
    pub fn max(self, other: Dd) -> Dd {
        if self.hi.is_nan() || other.hi.is_nan() {
            return f64::NAN.into();
        }
        if self.at_least(other) { self } else { other }
    }

    /// self ≥ other; false if either is NaN.
    #[inline(always)]
    pub fn at_least(self, other: Dd) -> bool {
        self.hi > other.hi || (self.hi == other.hi && self.lo >= other.lo)
    }
}

impl From<f64> for Dd {
    #[inline(always)]
    fn from(hi: f64) -> Dd {
        Dd { hi, lo: 0.0 }
    }
}

/// hi + lo made canonical, for |hi| ≥ |lo|; a value out of range loses its rest.
#[inline(always)]
fn quick(hi: f64, lo: f64) -> Dd {
    let sum = hi + lo;
    if sum.is_finite() { Dd { hi: sum, lo: lo - (sum - hi) } } else { sum.into() }
}

/// a · b, exactly where it does not underflow.
#[inline(always)]
fn product(a: f64, b: f64) -> Dd {
    let hi = a * b;
    if hi.is_finite() { Dd { hi, lo: a.mul_add(b, -hi) } } else { hi.into() }
}

impl Neg for Dd {
    type Output = Dd;
    #[inline(always)]
    fn neg(self) -> Dd {
        Dd { hi: -self.hi, lo: -self.lo }
    }
}

impl Add for Dd {
    type Output = Dd;
    #[inline(always)]
    fn add(self, other: Dd) -> Dd {
        let sum = self.hi + other.hi;
        if !sum.is_finite() {
            return sum.into();
        }
        let two_sum = |a: f64, b: f64, s: f64| {
            let back = s - a;
            (a - (s - back)) + (b - back)
        };
        let rest = two_sum(self.hi, other.hi, sum);
        let low = self.lo + other.lo;
        let low_rest = two_sum(self.lo, other.lo, low);
        let first = quick(sum, rest + low);
        // -0 + -0 stays -0: `quick` would add a positive rest.
        if first.hi == 0.0 && first.lo == 0.0 { sum.into() } else { quick(first.hi, first.lo + low_rest) }
    }
}

impl Sub for Dd {
    type Output = Dd;
    #[inline(always)]
    fn sub(self, other: Dd) -> Dd {
        self + -other
    }
}

impl Mul for Dd {
    type Output = Dd;
    #[inline(always)]
    fn mul(self, other: Dd) -> Dd {
        let high = product(self.hi, other.hi);
        if high.hi == 0.0 || !high.hi.is_finite() {
            return high.hi.into();
        }
        quick(high.hi, high.lo + (self.hi * other.lo + self.lo * other.hi))
    }
}

impl Div for Dd {
    type Output = Dd;
    #[inline(always)]
    fn div(self, other: Dd) -> Dd {
        let first = self.hi / other.hi;
        if first == 0.0 || !first.is_finite() || !other.hi.is_finite() {
            return first.into();
        }
        let rest = self - other * Dd::from(first);
        let second = rest.hi / other.hi;
        let rest = rest - other * Dd::from(second);
        let third = rest.hi / other.hi;
        let sum = quick(first, second);
        quick(sum.hi, sum.lo + third)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn number() -> impl Strategy<Value = f64> {
        (-1.0e3..1.0e3f64, -40i32..40).prop_map(|(mantissa, exponent)| mantissa * 2f64.powi(exponent))
    }

    /// |a - b| relative to the scale, exact in double-double up to its own rounding.
    fn off(a: Dd, b: Dd, scale: f64) -> f64 {
        ((a - b).hi / scale).abs()
    }

    proptest! {
        #[test]
        fn field_laws_hold_to_thirty_digits(a in number(), b in number(), c in number()) {
            prop_assume!(a != 0.0 && b != 0.0 && c != 0.0);
            let (a, b, c) = (Dd::from(a) / Dd::from(3.0), Dd::from(b) / Dd::from(7.0), Dd::from(c));
            let scale = (a.hi * b.hi).abs() + (a.hi * c.hi).abs();
            prop_assert!(off(a * (b + c), a * b + a * c, scale) < 1e-29);
            prop_assert!(off(a / b * b, a, a.hi) < 1e-29);
            let root = a.abs().sqrt();
            prop_assert!(off(root * root, a.abs(), a.hi) < 1e-29);
            prop_assert!(off(a.abs().rsqrt() * root, 1.0.into(), 1.0) < 1e-29);
            // The check can see the 40th bit beyond f64: a plain f64 product does not pass it.
            let plain = Dd::from(a.hi * b.hi);
            prop_assert!(plain == a * b || off(plain, a * b, a.hi * b.hi) > 1e-34);
        }

        #[test]
        fn sums_of_two_are_exact(a in number(), b in number()) {
            let sum = Dd::from(a) + Dd::from(b);
            prop_assert_eq!(sum - Dd::from(a), Dd::from(b));
        }
    }

    #[test]
    fn special_values_follow_ieee_754() {
        let inf = Dd::from(f64::INFINITY);
        assert!((inf - inf).hi.is_nan());
        assert_eq!((inf + 1.0.into()).hi, f64::INFINITY);
        assert_eq!((inf * (-2.0).into()).hi, f64::NEG_INFINITY);
        assert!((inf * 0.0.into()).hi.is_nan());
        assert_eq!((Dd::from(1.0) / inf).hi, 0.0);
        assert_eq!(inf.rsqrt().hi, 0.0);
        assert_eq!(Dd::from(0.0).rsqrt().hi, f64::INFINITY);
        assert!((Dd::from(-0.0) * 2.0.into()).hi.is_sign_negative());
        assert!((Dd::from(-0.0) + (-0.0).into()).hi.is_sign_negative());
        assert!(Dd::from(f64::NAN).max(1.0.into()).hi.is_nan());
        assert_eq!((Dd::from(1e200) * 1e200.into()).hi, f64::INFINITY);
    }
}
