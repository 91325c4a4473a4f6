//! Numbers that know the format they are computed in.

use std::ops::{Add, Div, Mul, Neg, Sub};

use isonorm_kernels::abi::Dtype;
use isonorm_oracles::storage::Format;

/// A number of a format. An operation rounds its result to the wider of its operands' formats, as C's arithmetic
/// conversions do, so that a kernel that works in another precision is this kernel with other operands.
///
/// f32 arithmetic is done in f64 and rounded: for `+ - * / √` of two f32 that is the same as doing it in f32.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Number {
    value: f64,
    format: Dtype,
}

impl Number {
    /// `value` rounded to the format.
    pub fn new(value: f64, format: Dtype) -> Self {
        Number { value: round(value, format), format }
    }

    /// Its value.
    pub fn value(self) -> f64 {
        self.value
    }

    /// The number rounded to another format, and computed with in it from now on.
    pub fn to(self, format: Dtype) -> Self {
        Number::new(self.value, format)
    }

    /// Rounded to a format without changing the format that is computed in.
    pub fn through(self, format: Dtype) -> Self {
        self.to(format).to(self.format)
    }

    /// Another number of the same format.
    pub fn like(self, value: f64) -> Self {
        Number::new(value, self.format)
    }

    /// A function of the value, rounded.
    pub fn map(self, f: impl FnOnce(f64) -> f64) -> Self {
        self.like(f(self.value))
    }

    /// √self
    pub fn sqrt(self) -> Self {
        self.map(f64::sqrt)
    }

    /// 1 / self
    pub fn recip(self) -> Self {
        self.like(1.0) / self
    }

    /// self²
    pub fn square(self) -> Self {
        self * self
    }

    /// The greater of both; NaN if one of them is.
    pub fn max(self, other: Self) -> Self {
        if self.value >= other.value || self.value.is_nan() { self } else { other }
    }

    /// self · factor + addend with one rounding.
    pub fn mul_add(self, factor: Self, addend: Self) -> Self {
        let format = wider(wider(self.format, factor.format), addend.format);
        let value = match format {
            Dtype::F32 => f64::from((self.value as f32).mul_add(factor.value as f32, addend.value as f32)),
            _ => self.value.mul_add(factor.value, addend.value),
        };
        Number::new(value, format)
    }

    fn with(self, other: Self, f: impl FnOnce(f64, f64) -> f64) -> Self {
        Number::new(f(self.value, other.value), wider(self.format, other.format))
    }
}

/// The nearest number of a format, ties to even.
pub fn round(value: f64, format: Dtype) -> f64 {
    match format {
        Dtype::F64 => value,
        Dtype::F32 => f64::from(value as f32),
        Dtype::Bf16 | Dtype::F16 => Format::of(format).round(value),
    }
}

/// The nearest number of a format that is not farther from zero.
pub fn toward_zero(value: f64, format: Dtype) -> f64 {
    let near = round(value, format);
    if near.abs() <= value.abs() || !value.is_finite() {
        return near;
    }
    let format = Format::of(format);
    if near.is_finite() { near - format.ulp(value).copysign(value) } else { format.largest.copysign(value) }
}

fn wider(a: Dtype, b: Dtype) -> Dtype {
    match (a.size(), b.size()) {
        (2, 2) if a != b => Dtype::F32,
        (of_a, of_b) if of_a >= of_b => a,
        _ => b,
    }
}

impl Add for Number {
    type Output = Number;
    fn add(self, other: Number) -> Number {
        self.with(other, |a, b| a + b)
    }
}

impl Sub for Number {
    type Output = Number;
    fn sub(self, other: Number) -> Number {
        self.with(other, |a, b| a - b)
    }
}

impl Mul for Number {
    type Output = Number;
    fn mul(self, other: Number) -> Number {
        self.with(other, |a, b| a * b)
    }
}

impl Div for Number {
    type Output = Number;
    fn div(self, other: Number) -> Number {
        self.with(other, |a, b| a / b)
    }
}

impl Neg for Number {
    type Output = Number;
    fn neg(self) -> Number {
        Number { value: -self.value, ..self }
    }
}

/// Numbers without a format of their own: sizes and constants of a formula.
macro_rules! constants {
    ($($trait:ident $method:ident),*) => {$(
        impl $trait<f64> for Number {
            type Output = Number;
            fn $method(self, other: f64) -> Number {
                self.$method(self.like(other))
            }
        }
    )*};
}
constants!(Add add, Sub sub, Mul mul, Div div);
