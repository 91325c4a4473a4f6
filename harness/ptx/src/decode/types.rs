//! The types of instructions.

use crate::number::Format;

/// What the bits of an operand mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Bits,
    Unsigned,
    Signed,
    Float(Format),
    Predicate,
}

/// A type such as `.u32` or `.f16x2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Type {
    pub kind: Kind,
    /// Bits of one element.
    pub element: u32,
    /// Elements in a register: 2 for the packed types.
    pub count: u32,
}

impl Type {
    pub const PREDICATE: Self = Self { kind: Kind::Predicate, element: 1, count: 1 };
    pub const U32: Self = Self::scalar(Kind::Unsigned, 32);
    pub const U64: Self = Self::scalar(Kind::Unsigned, 64);

    const fn scalar(kind: Kind, element: u32) -> Self {
        Self { kind, element, count: 1 }
    }

    /// Reads a type without its dot.
    pub fn parse(name: &str) -> Option<Self> {
        let float = |format: Format, count| Some(Self { kind: Kind::Float(format), element: format.bits(), count });
        match name {
            "pred" => return Some(Self::PREDICATE),
            "f16" => return float(Format::F16, 1),
            "f16x2" => return float(Format::F16, 2),
            "bf16" => return float(Format::Bf16, 1),
            "bf16x2" => return float(Format::Bf16, 2),
            "tf32" => return float(Format::Tf32, 1),
            "f32" => return float(Format::F32, 1),
            "f64" => return float(Format::F64, 1),
            _ => {}
        }
        let kind = match name.as_bytes().first()? {
            b'b' => Kind::Bits,
            b'u' => Kind::Unsigned,
            b's' => Kind::Signed,
            _ => return None,
        };
        match &name[1..] {
            "8" => Some(Self::scalar(kind, 8)),
            "16" => Some(Self::scalar(kind, 16)),
            "32" => Some(Self::scalar(kind, 32)),
            "64" => Some(Self::scalar(kind, 64)),
            _ => None,
        }
    }

    /// Bits in a register.
    pub fn bits(self) -> u32 {
        self.element * self.count
    }

    pub fn is_float(self) -> bool {
        matches!(self.kind, Kind::Float(_))
    }

    pub fn is_signed(self) -> bool {
        self.kind == Kind::Signed
    }

    pub fn format(self) -> Option<Format> {
        match self.kind {
            Kind::Float(format) => Some(format),
            _ => None,
        }
    }
}

/// Sign-extends the low `bits` of `value`.
#[inline(always)]
pub(crate) fn signed(value: u64, bits: u32) -> i64 {
    ((value << (64 - bits)) as i64) >> (64 - bits)
}

/// The low `bits` of `value`.
#[inline(always)]
pub(crate) fn low(value: u64, bits: u32) -> u64 {
    value & (u64::MAX >> (64 - bits))
}
