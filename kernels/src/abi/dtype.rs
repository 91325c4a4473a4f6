//! Element types.

use std::fmt;
use std::str::FromStr;

use super::raw::DLDataType;

/// The element type of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dtype {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary64.
    F64,
    /// bfloat16: binary32 with the lower 16 bits rounded away.
    Bf16,
    /// IEEE 754 binary16.
    F16,
}

impl Dtype {
    /// Every element type, in the order reports show them.
    pub const ALL: [Dtype; 4] = [Dtype::F32, Dtype::F64, Dtype::Bf16, Dtype::F16];

    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::F64 => 8,
            Dtype::Bf16 | Dtype::F16 => 2,
        }
    }

    /// The name used everywhere: in cases, options, records.
    pub const fn name(self) -> &'static str {
        match self {
            Dtype::F32 => "f32",
            Dtype::F64 => "f64",
            Dtype::Bf16 => "bf16",
            Dtype::F16 => "f16",
        }
    }

    /// The type that statistics of tensors of this type are computed and kept in: `f64` for `f64`, else `f32`.
    pub const fn statistics(self) -> Dtype {
        match self {
            Dtype::F64 => Dtype::F64,
            _ => Dtype::F32,
        }
    }

    /// The DLPack code of this type.
    pub const fn to_dlpack(self) -> DLDataType {
        let (code, bits) = match self {
            Dtype::F32 => (2, 32),
            Dtype::F64 => (2, 64),
            Dtype::F16 => (2, 16),
            Dtype::Bf16 => (4, 16),
        };
        DLDataType { code, bits, lanes: 1 }
    }

    /// The type with this DLPack code, if it is one of ours.
    pub fn from_dlpack(code: DLDataType) -> Option<Dtype> {
        Dtype::ALL.into_iter().find(|dtype| dtype.to_dlpack() == code)
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that is not an element type.
#[derive(Debug, thiserror::Error)]
#[error("unknown dtype `{0}`: use f32, f64, bf16 or f16")]
pub struct UnknownDtype(pub String);

impl FromStr for Dtype {
    type Err = UnknownDtype;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Dtype::ALL.into_iter().find(|dtype| dtype.name() == text).ok_or_else(|| UnknownDtype(text.to_owned()))
    }
}
