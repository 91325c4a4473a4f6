//! Instructions that the PTX manual gives an error for instead of a result.
//!
//! They are evaluated in f64 and rounded, which is the correctly rounded result but for rare ties that f64 cannot see;
//! or moved away from it within the documented error, by an amount that depends on the operands and a seed.

use crate::{
    number::{Format, Mode},
    program::Lanes,
};

/// How the approximate instructions are evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Accuracy {
    /// Correctly rounded.
    #[default]
    Exact,
    /// Anywhere within the documented error: what a kernel computes must not depend on it. The seed picks where.
    Perturbed(u64),
}

/// A function with a documented error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Function {
    Reciprocal,
    SquareRoot,
    ReciprocalSquareRoot,
    Exp2,
    Log2,
    Sine,
    Cosine,
    Tanh,
    Divide,
}

/// An instruction with a documented error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Approximate {
    pub function: Function,
    pub format: Format,
    /// 2 for packed types.
    pub count: u32,
    pub ftz: bool,
}

/// The documented error around an exact value.
enum Error {
    Relative(f64),
    Absolute(f64),
}

impl Function {
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "rcp" => Self::Reciprocal,
            "sqrt" => Self::SquareRoot,
            "rsqrt" => Self::ReciprocalSquareRoot,
            "ex2" => Self::Exp2,
            "lg2" => Self::Log2,
            "sin" => Self::Sine,
            "cos" => Self::Cosine,
            "tanh" => Self::Tanh,
            "div" => Self::Divide,
            _ => return None,
        })
    }

    fn exact(self, a: f64, b: f64) -> f64 {
        match self {
            Self::Reciprocal => 1.0 / a,
            Self::SquareRoot => a.sqrt(),
            // rsqrt(-0) is -inf.
            Self::ReciprocalSquareRoot => {
                if a == 0.0 {
                    1.0 / a
                } else {
                    1.0 / a.sqrt()
                }
            }
            Self::Exp2 => a.exp2(),
            Self::Log2 => a.log2(),
            Self::Sine => a.sin(),
            Self::Cosine => a.cos(),
            Self::Tanh => a.tanh(),
            Self::Divide => a / b,
        }
    }

    /// From the PTX manual, chapter "Instruction Set", under each instruction.
    fn error(self, format: Format, a: f64) -> Error {
        match (self, format) {
            (Self::Exp2, Format::F16) => Error::Relative(2f64.powf(-9.9)),
            (Self::Exp2, Format::Bf16) => Error::Relative(2f64.powi(-7)),
            (Self::Tanh, Format::F16) => Error::Absolute(2f64.powf(-10.987)),
            (Self::Tanh, Format::Bf16) => Error::Absolute(2f64.powi(-8)),
            (Self::Tanh, _) => Error::Relative(2f64.powi(-11)),
            (Self::Reciprocal | Self::SquareRoot, _) => Error::Relative(2f64.powi(-23)),
            (Self::ReciprocalSquareRoot, _) => Error::Relative(2f64.powf(-22.9)),
            (Self::Exp2, _) => Error::Relative(2f64.powi(-22)),
            (Self::Log2, _) if a > 0.5 && a < 2.0 => Error::Absolute(2f64.powi(-22)),
            (Self::Log2, _) => Error::Relative(2f64.powi(-22)),
            // Stated for arguments in [-pi, pi].
            (Self::Sine | Self::Cosine, _) => Error::Absolute(2f64.powf(-20.5)),
            // Two units in the last place.
            (Self::Divide, _) => Error::Relative(2f64.powi(-23)),
        }
    }
}

impl Approximate {
    pub fn run(self, a: &Lanes, b: &Lanes, accuracy: Accuracy, result: &mut Lanes) {
        for (i, r) in result.iter_mut().enumerate() {
            *r = match self.count {
                1 => self.element(a[i], b[i], accuracy),
                _ => {
                    let half =
                        |shift: u32| self.element(a[i] >> shift & 0xffff, b[i] >> shift & 0xffff, accuracy) << shift;
                    half(0) | half(16)
                }
            };
        }
    }

    pub(crate) fn element(self, a: u64, b: u64, accuracy: Accuracy) -> u64 {
        let input = |bits: u64| self.format.value(if self.ftz { self.format.flush(bits) } else { bits });
        let (x, y) = (input(a), input(b));
        let mut value = self.function.exact(x, y);
        if let Accuracy::Perturbed(seed) = accuracy
            && value.is_finite()
            && value != 0.0
        {
            // In [-1, 1), the same for the same operands. Rounding takes half a unit of its own.
            let place = (hash(a ^ hash(b ^ seed)) as i64) as f64 / 2f64.powi(63);
            let half_unit = match self.format {
                Format::F16 => 2f64.powi(-11),
                Format::Bf16 => 2f64.powi(-8),
                _ => 2f64.powi(-24),
            };
            value += place
                * match self.function.error(self.format, x) {
                    Error::Relative(e) => value.abs() * (e - half_unit).max(0.0),
                    Error::Absolute(e) => (e - half_unit * (value.abs() + e)).max(0.0),
                };
        }
        let bits = self.format.round(value, Mode::Nearest);
        if self.ftz { self.format.flush(bits) } else { bits }
    }
}

/// A number that looks random (splitmix64).
pub(crate) fn hash(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
