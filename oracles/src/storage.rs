//! Floating-point formats: their limits, their rounding, their bits.

use isonorm_kernels::abi::Dtype;

use crate::dd::Dd;

/// A binary floating-point format, as numbers that fit an `f64`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Format {
    /// Significant bits, the hidden one included.
    pub precision: i32,
    /// The smallest positive (subnormal) number.
    pub smallest: f64,
    /// The smallest positive normal number.
    pub smallest_normal: f64,
    /// The largest finite number.
    pub largest: f64,
}

impl Format {
    /// The format of an element type.
    pub const fn of(dtype: Dtype) -> Format {
        const fn power(exponent: i32) -> f64 {
            // Exponents here stay within the normal numbers of f64.
            f64::from_bits(((exponent + 1023) as u64) << 52)
        }
        match dtype {
            Dtype::F32 => {
                Format { precision: 24, smallest: power(-149), smallest_normal: power(-126), largest: f32::MAX as f64 }
            }
            Dtype::F64 => Format {
                precision: 53,
                smallest: f64::from_bits(1),
                smallest_normal: f64::MIN_POSITIVE,
                largest: f64::MAX,
            },
            Dtype::Bf16 => Format {
                precision: 8,
                smallest: power(-133),
                smallest_normal: power(-126),
                largest: 255.0 * power(120),
            },
            Dtype::F16 => Format { precision: 11, smallest: power(-24), smallest_normal: power(-14), largest: 65504.0 },
        }
    }

    /// The unit roundoff: half the distance from 1 to the next larger number.
    pub fn unit_roundoff(&self) -> f64 {
        // 2^-precision from its bits: this is asked for every element, and `powi` is a call.
        f64::from_bits(((1023 - self.precision) as u64) << 52)
    }

    /// The distance between neighbouring numbers of this format around `value`.
    pub fn ulp(&self, value: f64) -> f64 {
        let magnitude = value.abs().clamp(self.smallest_normal, self.largest);
        (power_of_two_below(magnitude) * self.unit_roundoff() * 2.0).max(self.smallest)
    }

    /// `value` rounded to this format, ties to even; NaN stays NaN, too large becomes infinite.
    pub fn round(&self, value: f64) -> f64 {
        if self.precision == 53 || !value.is_finite() || value == 0.0 {
            return value;
        }
        if self.precision == 24 {
            // The machine's own conversion, ties to even.
            return f64::from(value as f32);
        }
        let ulp = self.ulp(value);
        // Scaling by a power of two is exact. Where the quotient plus this number keeps no fraction, the sum is rounded to
        // a whole number, ties to even, without a call of libm; a quotient too large for that is out of range anyway.
        const NO_FRACTION: f64 = 1.5 * (1u64 << 52) as f64;
        let rounded = (((value / ulp) + NO_FRACTION - NO_FRACTION) * ulp).copysign(value);
        if rounded.abs() > self.largest { f64::INFINITY.copysign(value) } else { rounded }
    }

    /// A double-double rounded once to this format.
    pub fn round_dd(&self, value: Dd) -> f64 {
        if self.precision == 53 || value.lo == 0.0 || !value.hi.is_finite() {
            return self.round(value.hi);
        }
        // Round to odd first, so that the second rounding cannot meet a false tie.
        let bits = value.hi.to_bits();
        let sticky = match (bits & 1 == 0, (value.lo > 0.0) == (value.hi > 0.0)) {
            (false, _) => value.hi,
            (true, true) => f64::from_bits(bits + 1),
            (true, false) => f64::from_bits(bits - 1),
        };
        self.round(sticky)
    }

    /// Whether `value` is a finite number of this format.
    pub fn holds(&self, value: f64) -> bool {
        value.is_finite() && self.round(value) == value
    }
}

/// The largest power of two that is not above a positive normal number.
fn power_of_two_below(value: f64) -> f64 {
    f64::from_bits(value.to_bits() & 0x7ff0_0000_0000_0000)
}

/// Reads dense elements of a type; every type is exact in `f64`.
///
/// # Panics
/// If the length of `bytes` is no multiple of the element's size.
pub fn decode(dtype: Dtype, bytes: &[u8]) -> Vec<f64> {
    assert!(bytes.len().is_multiple_of(dtype.size()), "whole elements");
    bytes.chunks_exact(dtype.size()).map(|element| decode_one(dtype, element)).collect()
}

/// Reads one element.
///
/// # Panics
/// If `bytes` has another length than the element.
pub fn decode_one(dtype: Dtype, bytes: &[u8]) -> f64 {
    match dtype {
        Dtype::F32 => f32::from_le_bytes(bytes.try_into().expect("4 bytes")) as f64,
        Dtype::F64 => f64::from_le_bytes(bytes.try_into().expect("8 bytes")),
        Dtype::Bf16 => f32::from_bits((u16::from_le_bytes(bytes.try_into().expect("2 bytes")) as u32) << 16) as f64,
        Dtype::F16 => half::f16::from_le_bytes(bytes.try_into().expect("2 bytes")).to_f64(),
    }
}

/// Rounds to a type and appends the element's bytes.
pub fn encode(dtype: Dtype, value: f64, bytes: &mut Vec<u8>) {
    let value = Format::of(dtype).round(value);
    // `value` is exact in the type now, so that the conversions below do not round again.
    match dtype {
        Dtype::F32 => bytes.extend_from_slice(&(value as f32).to_le_bytes()),
        Dtype::F64 => bytes.extend_from_slice(&value.to_le_bytes()),
        Dtype::Bf16 => {
            let quiet = if value.is_nan() { 0x40 } else { 0 };
            let bits = ((value as f32).to_bits() >> 16) as u16 | quiet;
            bytes.extend_from_slice(&bits.to_le_bytes());
        }
        Dtype::F16 => bytes.extend_from_slice(&half::f16::from_f64(value).to_le_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_agrees_with_the_hardware_and_goes_to_the_nearest() {
        let mut state = 1u64;
        for _ in 0..200_000 {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            // Exponents around the ranges of all types.
            let exponent = 1023 - 160 + (state >> 40) % 300;
            let value = f64::from_bits((state << 63) | (exponent << 52) | (state >> 12 & 0xf_ffff_ffff_ffff));
            assert_eq!(Format::of(Dtype::F32).round(value), (value as f32) as f64, "{value:e}");
            for dtype in [Dtype::Bf16, Dtype::F16] {
                let (format, rounded) = (Format::of(dtype), Format::of(dtype).round(value));
                let far = value.abs() > format.largest + format.ulp(format.largest) / 2.0;
                assert_eq!(rounded.is_infinite(), far, "{value:e}");
                assert!(far || (rounded - value).abs() <= format.ulp(value) / 2.0, "{value:e}");
            }
            let mut bytes = Vec::new();
            encode(Dtype::Bf16, value, &mut bytes);
            assert_eq!(decode_one(Dtype::Bf16, &bytes), Format::of(Dtype::Bf16).round(value));
        }
    }

    #[test]
    fn every_half_value_is_a_fixed_point_and_midpoints_go_to_even() {
        for dtype in [Dtype::F16, Dtype::Bf16] {
            let format = Format::of(dtype);
            for bits in 0..0x7fffu16 {
                let (low, high) =
                    (decode_one(dtype, &bits.to_le_bytes()), decode_one(dtype, &(bits + 1).to_le_bytes()));
                if !low.is_finite() || !high.is_finite() {
                    continue;
                }
                assert_eq!(format.round(low), low);
                let even = if bits & 1 == 0 { low } else { high };
                assert_eq!(format.round((low + high) / 2.0), even);
                assert_eq!(format.round_dd(Dd { hi: (low + high) / 2.0, lo: 1e-60 }), high);
                assert_eq!(format.round_dd(Dd { hi: (low + high) / 2.0, lo: -1e-60 }), low);
                assert_eq!(format.ulp(low), high - low);
            }
        }
        assert_eq!(Format::of(Dtype::F16).round(65520.0), f64::INFINITY);
        assert_eq!(Format::of(Dtype::F16).round(65519.9), 65504.0);
    }
}
