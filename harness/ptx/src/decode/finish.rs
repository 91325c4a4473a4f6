//! How a floating-point result is finished: saturated, rounded, flushed.

use crate::number::{Format, Mode};

/// What an instruction's modifiers ask for.
#[derive(Clone, Copy)]
pub(super) struct Finish {
    /// Of the result.
    pub format: Format,
    pub mode: Mode,
    /// Subnormal operands and results of this format are zero; in conversions it concerns f32 alone.
    pub ftz: bool,
    pub sat: bool,
    pub relu: bool,
}

impl Finish {
    /// An operand of the result's format.
    #[inline(always)]
    pub fn input(self, bits: u64) -> f64 {
        self.format.value(self.flushed(bits))
    }

    #[inline(always)]
    pub fn flushed(self, bits: u64) -> u64 {
        if self.ftz { self.format.flush(bits) } else { bits }
    }

    pub fn output(self, value: f64) -> u64 {
        let value = match value {
            // Saturation turns a NaN to zero; a rectified NaN stays.
            v if self.sat && (v.is_nan() || v <= 0.0) => 0.0,
            v if self.sat => v.min(1.0),
            v if self.relu && v <= 0.0 => 0.0,
            v => v,
        };
        self.flushed(self.format.round(value, self.mode))
    }

    /// Nothing but a rounding to nearest.
    pub fn is_plain(self) -> bool {
        self.mode == Mode::Nearest && !(self.ftz || self.sat || self.relu)
    }
}
