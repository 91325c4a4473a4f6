//! Rounding by its definition, from exact sums.

use std::cmp::Ordering;

/// 64-bit limbs of the fixed point, whose last bit is 2^-640.
const LIMBS: usize = 18;
const SCALE: i32 = 640;

/// The sign of an exact sum of f64 terms, each a multiple of 2^-600 and less than 2^500.
pub fn sign(terms: &[f64]) -> Ordering {
    let mut sum = [0u64; LIMBS];
    for term in terms.iter().filter(|t| **t != 0.0) {
        let bits = term.to_bits();
        let (exponent, fraction) = ((bits >> 52 & 0x7ff) as i32, bits & ((1 << 52) - 1));
        assert!(exponent > 0, "a term is subnormal in f64");
        let place = exponent - 1075 + SCALE;
        assert!((0..1088).contains(&place), "a term is out of range");
        let wide = u128::from(fraction | 1 << 52) << (place % 64);
        let mut part = [0u64; LIMBS];
        part[(place / 64) as usize] = wide as u64;
        part[(place / 64) as usize + 1] = (wide >> 64) as u64;
        // Subtract by adding the complement.
        let mut carry = u128::from(*term < 0.0);
        for (s, p) in sum.iter_mut().zip(part) {
            carry += u128::from(*s) + u128::from(if *term < 0.0 { !p } else { p });
            *s = carry as u64;
            carry >>= 64;
        }
    }
    match (sum[LIMBS - 1] >> 63, sum.iter().all(|s| *s == 0)) {
        (_, true) => Ordering::Equal,
        (1, _) => Ordering::Less,
        _ => Ordering::Greater,
    }
}

/// A format by its bits alone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Format {
    pub name: &'static str,
    pub bits: u32,
    /// Bits of the stored fraction.
    pub fraction: u32,
}

pub const F16: Format = Format { name: "f16", bits: 16, fraction: 10 };
pub const BF16: Format = Format { name: "bf16", bits: 16, fraction: 7 };
pub const F32: Format = Format { name: "f32", bits: 32, fraction: 23 };

impl Format {
    fn bias(self) -> i32 {
        (1 << (self.bits - self.fraction - 2)) - 1
    }

    pub fn infinity(self) -> u64 {
        ((1 << (self.bits - 1 - self.fraction)) - 1) << self.fraction
    }

    pub fn sign_bit(self) -> u64 {
        1 << (self.bits - 1)
    }

    pub fn nan(self) -> u64 {
        self.sign_bit() - 1
    }

    pub fn is_nan(self, bits: u64) -> bool {
        bits & !self.sign_bit() > self.infinity()
    }

    pub fn is_infinite(self, bits: u64) -> bool {
        bits & !self.sign_bit() == self.infinity()
    }

    /// The value, from the definition of the format; of infinity the number that would follow the greatest.
    pub fn value(self, bits: u64) -> f64 {
        let magnitude = bits & !self.sign_bit();
        let (exponent, fraction) = ((magnitude >> self.fraction) as i32, magnitude & ((1 << self.fraction) - 1));
        let (significand, exponent) =
            if exponent == 0 { (fraction, 1) } else { (fraction | 1 << self.fraction, exponent) };
        let value = significand as f64 * 2f64.powi(exponent - self.bias() - self.fraction as i32);
        if bits & self.sign_bit() != 0 { -value } else { value }
    }

    pub fn flush(self, bits: u64) -> u64 {
        if bits & !self.sign_bit() < 1 << self.fraction { bits & self.sign_bit() } else { bits }
    }

    /// Values that have found mistakes before: zeros, subnormals, ones, limits, infinities, NaNs.
    pub fn special(self) -> Vec<u64> {
        let one = (self.bias() as u64) << self.fraction;
        let least = 1u64 << self.fraction;
        let m = [
            0,
            1,
            2,
            least / 2 + 1,
            least - 1,
            least,
            least + 1,
            one - 1,
            one,
            one + 1,
            one + least / 2,
            one + 3 * least,
            self.infinity() - 1,
            self.infinity(),
            self.infinity() + 1,
            self.nan(),
        ];
        m.iter().flat_map(|v| [*v, v | self.sign_bit()]).collect()
    }
}

/// A number that is known by comparison: with v, and twice it with the sum of two.
pub trait Exact {
    fn compare(&self, v: f64) -> Ordering;
    fn compare_twice(&self, low: f64, high: f64) -> Ordering;
}

/// a * b + c + d, products of factors of at most 26 bits.
pub struct Sum(pub f64, pub f64, pub f64, pub f64);

impl Exact for Sum {
    fn compare(&self, v: f64) -> Ordering {
        sign(&[self.0 * self.1, self.2, self.3, -v])
    }

    fn compare_twice(&self, low: f64, high: f64) -> Ordering {
        sign(&[2.0 * self.0 * self.1, 2.0 * self.2, 2.0 * self.3, -low, -high])
    }
}

/// a / b.
pub struct Quotient(pub f64, pub f64);

impl Exact for Quotient {
    fn compare(&self, v: f64) -> Ordering {
        let b = self.1.abs();
        sign(&[self.0 * self.1.signum(), -v * b])
    }

    fn compare_twice(&self, low: f64, high: f64) -> Ordering {
        let b = self.1.abs();
        sign(&[2.0 * self.0 * self.1.signum(), -low * b, -high * b])
    }
}

/// The root of a positive number.
pub struct Root(pub f64);

impl Exact for Root {
    fn compare(&self, v: f64) -> Ordering {
        if v < 0.0 { Ordering::Greater } else { sign(&[self.0, -v * v]) }
    }

    fn compare_twice(&self, low: f64, high: f64) -> Ordering {
        sign(&[4.0 * self.0, -low * low, -2.0 * low * high, -high * high])
    }
}

/// Rounds a number that is not zero: `rn`, `rz`, `rm`, `rp`, `rna`.
pub fn round(format: Format, exact: &impl Exact, mode: &str) -> u64 {
    let negative = exact.compare(0.0) == Ordering::Less;
    let value = |magnitude: u64| format.value(magnitude) * if negative { -1.0 } else { 1.0 };
    // The greatest magnitude that does not exceed the number's, by bisection.
    let within = |magnitude: u64| {
        let order = exact.compare(value(magnitude));
        order == Ordering::Equal || (order == Ordering::Less) == negative
    };
    let (mut low, mut high) = (0, format.infinity());
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if within(middle) { low = middle } else { high = middle }
    }
    // Beyond the greatest finite number, infinity stands for the number that would follow.
    let over = low == format.infinity() - 1 && within(format.infinity());
    let inexact = over || exact.compare(value(low)) != Ordering::Equal;
    let up = match mode {
        "rz" => false,
        "rm" => negative && inexact,
        "rp" => !negative && inexact,
        _ => {
            let order = exact.compare_twice(value(low), value(low + 1));
            let beyond = (order == Ordering::Less) == negative && order != Ordering::Equal;
            over || beyond || (order == Ordering::Equal && (mode == "rna" || low % 2 == 1))
        }
    };
    (low + u64::from(up)) | if negative { format.sign_bit() } else { 0 }
}
