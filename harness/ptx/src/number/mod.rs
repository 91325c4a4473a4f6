//! Floating-point numbers in the formats and rounding modes of PTX.
//!
//! Everything goes through f64: an operation is evaluated in f64 *rounded to odd* (see [`odd`]), which keeps enough of
//! the exact result that rounding it once more, in any mode, to a format of at most 24 bits is correct.

pub(crate) mod odd;

/// A binary format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    F16,
    Bf16,
    /// f32 with ten bits of fraction.
    Tf32,
    F32,
    F64,
}

/// The direction of a rounding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// To nearest, ties to even (`.rn`, `.rni`).
    Nearest,
    /// To nearest, ties away from zero (`.rna`).
    Away,
    /// Towards zero (`.rz`, `.rzi`).
    Zero,
    /// Towards minus infinity (`.rm`, `.rmi`).
    Down,
    /// Towards plus infinity (`.rp`, `.rpi`).
    Up,
}

impl Format {
    /// Bits of a value in memory.
    pub fn bits(self) -> u32 {
        match self {
            Self::F16 | Self::Bf16 => 16,
            Self::Tf32 | Self::F32 => 32,
            Self::F64 => 64,
        }
    }

    /// Bits of the significand, the hidden one included; the least and the greatest exponent of normal numbers.
    fn shape(self) -> (i32, i32, i32) {
        match self {
            Self::F16 => (11, -14, 15),
            Self::Bf16 => (8, -126, 127),
            Self::Tf32 => (11, -126, 127),
            Self::F32 => (24, -126, 127),
            Self::F64 => (53, -1022, 1023),
        }
    }

    /// The value of `bits`, exactly.
    #[inline(always)]
    pub fn value(self, bits: u64) -> f64 {
        match self {
            Self::F16 => f64::from(half::f16::from_bits(bits as u16).to_f32()),
            Self::Bf16 => f64::from(f32::from_bits((bits as u32) << 16)),
            Self::Tf32 | Self::F32 => f64::from(f32::from_bits(bits as u32)),
            Self::F64 => f64::from_bits(bits),
        }
    }

    /// The bits of the one NaN that arithmetic in this format returns.
    pub fn nan(self) -> u64 {
        match self {
            Self::F16 | Self::Bf16 => 0x7fff,
            Self::Tf32 | Self::F32 => 0x7fff_ffff,
            Self::F64 => 0x7ff8_0000_0000_0000,
        }
    }

    /// The bits of `value`, which is in this format, or a NaN.
    fn encode(self, value: f64) -> u64 {
        if value.is_nan() {
            return self.nan();
        }
        match self {
            // These conversions are exact.
            Self::F16 => half::f16::from_f32(value as f32).to_bits().into(),
            Self::Bf16 => ((value as f32).to_bits() >> 16).into(),
            Self::Tf32 | Self::F32 => (value as f32).to_bits().into(),
            Self::F64 => value.to_bits(),
        }
    }

    /// Rounds `value` to this format and returns the bits; a NaN becomes the format's NaN.
    pub fn round(self, value: f64, mode: Mode) -> u64 {
        self.encode(self.round_value(value, mode))
    }

    fn round_value(self, value: f64, mode: Mode) -> f64 {
        let (precision, least, greatest) = self.shape();
        if self == Self::F64 || value == 0.0 || !value.is_finite() {
            return value;
        }
        // The spacing of the format's numbers around `value`; subnormals have that of the least normal number.
        let exponent = exponent(value).max(least);
        let spacing = power(exponent - (precision - 1));
        // Exact: a division by a power of two, whose result is far from f64's limits.
        let rounded = integral(value / spacing, mode) * spacing;
        let limit = (2.0 - power(1 - precision)) * power(greatest);
        if rounded.abs() <= limit {
            return rounded.copysign(value);
        }
        let overflows = match mode {
            Mode::Nearest | Mode::Away => true,
            Mode::Zero => false,
            Mode::Down => value < 0.0,
            Mode::Up => value > 0.0,
        };
        (if overflows { f64::INFINITY } else { limit }).copysign(value)
    }

    /// Sets a subnormal number to zero of its sign (`.ftz`).
    pub fn flush(self, bits: u64) -> u64 {
        let (precision, ..) = self.shape();
        let (width, fraction) = match self {
            Self::Tf32 => (32, 23),
            _ => (self.bits(), precision as u32 - 1),
        };
        let magnitude = bits & !(1 << (width - 1));
        if magnitude >> fraction == 0 { bits & (1 << (width - 1)) } else { bits }
    }
}

/// `value` rounded to an integer.
#[inline(always)]
pub(crate) fn integral(value: f64, mode: Mode) -> f64 {
    match mode {
        Mode::Nearest => value.round_ties_even(),
        Mode::Away => value.round(),
        Mode::Zero => value.trunc(),
        Mode::Down => value.floor(),
        Mode::Up => value.ceil(),
    }
}

/// floor(log2(|value|)) of a finite number that is not zero.
pub(crate) fn exponent(value: f64) -> i32 {
    let biased = (value.to_bits() >> 52 & 0x7ff) as i32;
    if biased == 0 { exponent(value * power(64)) - 64 } else { biased - 1023 }
}

/// 2^n for n in -1022 ..= 1023.
pub(crate) fn power(n: i32) -> f64 {
    f64::from_bits(((n + 1023) as u64) << 52)
}
