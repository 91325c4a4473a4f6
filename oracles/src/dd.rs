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

    /// e raised to self.
    pub fn exp(self) -> Dd {
        let hi = self.hi.exp();
        if hi == 0.0 || !hi.is_finite() {
            return hi.into();
        }
        // self = k·ln 2 + rest, and eʳᵉˢᵗ to 1/256 by its series, which is then squared eight times.
        let k = (self.hi / LN_2.hi).round();
        let rest = self - LN_2 * Dd::from(k);
        let power = Dd::from(1.0) + rest.expm1_near_zero();
        // In two steps, so that neither scale leaves the range of f64.
        let half = (k / 2.0).trunc();
        let scaled = power * Dd::from(half.exp2()) * Dd::from((k - half).exp2());
        if scaled.hi.is_finite() { scaled } else { hi.into() }
    }

    /// eˢᵉˡᶠ - 1 without cancellation, for |self| ≤ 1.
    fn expm1_near_zero(self) -> Dd {
        const HALVINGS: i32 = 8;
        let x = self * Dd::from(f64::from(1 << HALVINGS).recip());
        let (mut term, mut sum) = (x, x);
        for n in 2..16 {
            term = term * x / Dd::from(f64::from(n));
            sum = sum + term;
        }
        // (1 + s)² - 1
        for _ in 0..HALVINGS {
            sum = sum + sum + sum * sum;
        }
        sum
    }

    /// The natural logarithm.
    pub fn ln(self) -> Dd {
        let start = self.hi.ln();
        if start == 0.0 && self.lo == 0.0 || !start.is_finite() {
            return start.into();
        }
        // Near 1 the result is a small difference: there the series of the inverse hyperbolic tangent.
        let above = self - Dd::from(1.0);
        if above.hi.abs() <= 0.125 {
            let ratio = above / (self + Dd::from(1.0));
            let (square, mut term, mut sum) = (ratio * ratio, ratio, ratio);
            for n in 1..16 {
                term = term * square;
                sum = sum + term / Dd::from(f64::from(2 * n + 1));
            }
            return sum + sum;
        }
        // Newton's step on eʸ = self doubles the digits.
        let step = |y: Dd| y + self * (-y).exp() - Dd::from(1.0);
        step(step(start.into()))
    }

    /// The hyperbolic tangent.
    pub fn tanh(self) -> Dd {
        let twice = self + self;
        if twice.hi.abs() > 80.0 || self.hi.is_nan() {
            return self.hi.tanh().into();
        }
        let grown = if twice.hi.abs() <= 1.0 { twice.expm1_near_zero() } else { twice.exp() - Dd::from(1.0) };
        grown / (grown + Dd::from(2.0))
    }

    /// The error function, by a series whose terms have one sign (Abramowitz, Stegun, 7.1.6).
    pub fn erf(self) -> Dd {
        if self.hi.is_nan() || self.hi == 0.0 {
            return self.hi.into();
        }
        // 1 - erf is below 10⁻³² there.
        if self.hi.abs() > 8.5 {
            return 1f64.copysign(self.hi).into();
        }
        let twice = self * self + self * self;
        let (mut term, mut sum) = (self, self);
        for n in 1..1000 {
            term = term * twice / Dd::from(f64::from(2 * n + 1));
            sum = sum + term;
            if term.hi.abs() < 1e-34 * sum.hi.abs() {
                break;
            }
        }
        sum * (-(self * self)).exp() * TWO_OVER_ROOT_PI
    }

    /// self ≥ other; false if either is NaN.
    #[inline(always)]
    pub fn at_least(self, other: Dd) -> bool {
        self.hi > other.hi || (self.hi == other.hi && self.lo >= other.lo)
    }
}

/// ln 2
const LN_2: Dd = Dd { hi: std::f64::consts::LN_2, lo: 2.319_046_813_846_299_6e-17 };
/// 2/√π
pub(crate) const TWO_OVER_ROOT_PI: Dd = Dd { hi: std::f64::consts::FRAC_2_SQRT_PI, lo: 1.533_545_961_316_588e-17 };

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
    fn functions_agree_with_forty_digits() {
        // From arbitrary-precision arithmetic: the argument, then the function's value as hi + lo.
        type Row = (fn(Dd) -> Dd, f64, f64, f64);
        let table: [Row; 12] = [
            (Dd::exp, -0.71875, 0.4873610767136191, -1.7066980170339887e-18),
            (Dd::exp, 30.5, 17619017951355.633, -0.001400339015239068),
            (Dd::exp, -600.25, 2.0641309109295095e-261, -2.1403995749322006e-280),
            (Dd::ln, 1.0009765625, 0.0009760859730554589, -2.8791156534096714e-20),
            (Dd::ln, 7.5, 2.0149030205422647, 8.991967888489638e-17),
            (Dd::ln, 1e-200, -460.51701859880916, 2.2080942657241066e-14),
            (Dd::tanh, 0.0078125, 0.007812341058161014, 6.570221056747088e-20),
            (Dd::tanh, -0.4375, -0.41157005567402244, -1.2258221931668309e-17),
            (Dd::tanh, 3.5, 0.9981778976111987, 2.5870171246124584e-17),
            (Dd::erf, 0.0009765625, 0.0011019324300718147, 4.309733895310834e-20),
            (Dd::erf, -1.5, -0.9661051464753108, 3.3867031441680696e-17),
            (Dd::erf, 5.25, 0.9999999999998869, 2.859354043191264e-17),
        ];
        for (place, (function, argument, hi, lo)) in table.into_iter().enumerate() {
            let (got, want) = (function(argument.into()), Dd { hi, lo });
            let off = off(got, want, hi);
            // An argument that is off in its last digit puts eˣ off by x such digits.
            assert!(off < 1e-31 * argument.abs().max(10.0), "row {place}: {got:?} is {off:e} off {want:?}");
        }
    }

    #[test]
    fn functions_keep_special_values() {
        let of = |value: f64| Dd::from(value);
        assert_eq!(of(f64::NEG_INFINITY).exp().hi, 0.0);
        assert_eq!(of(f64::INFINITY).exp().hi, f64::INFINITY);
        assert_eq!(of(0.0).exp(), 1.0.into());
        assert_eq!(of(1.0).ln(), 0.0.into());
        assert_eq!(of(0.0).ln().hi, f64::NEG_INFINITY);
        assert_eq!((of(-100.0).tanh().hi, of(f64::INFINITY).tanh().hi), (-1.0, 1.0));
        assert_eq!((of(-9.0).erf().hi, of(f64::INFINITY).erf().hi), (-1.0, 1.0));
        assert!(
            [of(f64::NAN).exp(), of(f64::NAN).ln(), of(f64::NAN).tanh(), of(f64::NAN).erf()]
                .iter()
                .all(|v| v.hi.is_nan())
        );
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
