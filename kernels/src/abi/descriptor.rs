//! What a kernel says of itself, and the trait every kernel has.

use std::fmt;
use std::str::FromStr;

use super::{Call, Dtype};

/// Which half of an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// Outputs from inputs.
    Forward,
    /// Gradients of the inputs from gradients of the outputs and the inputs.
    Backward,
}

impl Direction {
    /// Both.
    pub const ALL: [Direction; 2] = [Direction::Forward, Direction::Backward];

    /// `forward` or `backward`.
    pub const fn name(self) -> &'static str {
        match self {
            Direction::Forward => "forward",
            Direction::Backward => "backward",
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Direction {
    type Err = ParseDescriptorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Direction::ALL
            .into_iter()
            .find(|direction| direction.name() == text)
            .ok_or_else(|| ParseDescriptorError::new("direction", text, "forward or backward"))
    }
}

/// The element types of one call: of the data tensors and of the parameters (weights and biases).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DtypeSet {
    /// Of `x`, `y`, `dy`, `dx` and the like.
    pub data: Dtype,
    /// Of `weight`, `bias` and their gradients.
    pub param: Dtype,
}

impl DtypeSet {
    /// The same type for both.
    pub const fn uniform(dtype: Dtype) -> Self {
        DtypeSet { data: dtype, param: dtype }
    }
}

impl fmt::Display for DtypeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.data == self.param { f.pad(self.data.name()) } else { f.pad(&format!("{}:{}", self.data, self.param)) }
    }
}

impl FromStr for DtypeSet {
    type Err = ParseDescriptorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (data, param) = text.split_once(':').unwrap_or((text, text));
        let parse = |part: &str| {
            part.parse::<Dtype>().map_err(|_| {
                ParseDescriptorError::new("dtypes", text, "f32, f64, bf16 or f16, or a pair such as bf16:f32")
            })
        };
        Ok(DtypeSet { data: parse(data)?, param: parse(param)? })
    }
}

/// The layouts a kernel accepts. Dense row-major tensors are accepted by every kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layouts {
    /// Dense row-major, starting at an address that is aligned to one element only.
    pub offset: bool,
    /// Any non-negative strides, 0 (an expanded input) included.
    pub strided: bool,
    /// Batch, spatial axes, channels.
    pub channels_last: bool,
    /// An output at the address of the input of the same shape and type.
    pub in_place: bool,
}

impl Layouts {
    /// Everything.
    pub const ANY: Layouts = Layouts { offset: true, strided: true, channels_last: true, in_place: true };
}

impl fmt::Display for Layouts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("contiguous")?;
        for (name, has) in [
            ("offset", self.offset),
            ("strided", self.strided),
            ("channels_last", self.channels_last),
            ("in_place", self.in_place),
        ] {
            if has {
                write!(f, ",{name}")?;
            }
        }
        Ok(())
    }
}

impl FromStr for Layouts {
    type Err = ParseDescriptorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut layouts = Layouts::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            match part {
                "contiguous" => {}
                "offset" => layouts.offset = true,
                "strided" => layouts.strided = true,
                "channels_last" => layouts.channels_last = true,
                "in_place" => layouts.in_place = true,
                _ => {
                    return Err(ParseDescriptorError::new(
                        "layouts",
                        part,
                        "contiguous, offset, strided, channels_last, in_place",
                    ));
                }
            }
        }
        Ok(layouts)
    }
}

/// The shape of a kernel's sums: how many additions an element can pass through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reduction {
    /// In any order: up to n - 1.
    #[default]
    Any,
    /// At most this many terms in sequence, then the blocks in sequence.
    Blocked(usize),
    /// A balanced tree.
    Tree,
}

impl fmt::Display for Reduction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reduction::Any => f.write_str("any"),
            Reduction::Blocked(block) => write!(f, "blocked:{block}"),
            Reduction::Tree => f.write_str("tree"),
        }
    }
}

impl FromStr for Reduction {
    type Err = ParseDescriptorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "any" => Ok(Reduction::Any),
            "tree" => Ok(Reduction::Tree),
            _ => text
                .strip_prefix("blocked:")
                .and_then(|block| block.parse().ok())
                .filter(|&block: &usize| block > 0)
                .map(Reduction::Blocked)
                .ok_or_else(|| ParseDescriptorError::new("reduction", text, "any, blocked:B (B at least 1), tree")),
        }
    }
}

/// How a kernel computes a reciprocal square root.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rsqrt {
    /// With IEEE 754 square root and division: exact where the result is representable.
    #[default]
    Exact,
    /// From an estimate, refined to within 3 units in the last place.
    Approximate,
}

impl fmt::Display for Rsqrt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Rsqrt::Exact => "exact",
            Rsqrt::Approximate => "approximate",
        })
    }
}

impl FromStr for Rsqrt {
    type Err = ParseDescriptorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "exact" => Ok(Rsqrt::Exact),
            "approximate" => Ok(Rsqrt::Approximate),
            _ => Err(ParseDescriptorError::new("rsqrt", text, "exact or approximate")),
        }
    }
}

/// A descriptor's field that says something unknown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` says `{found}`; it can be {allowed}")]
pub struct ParseDescriptorError {
    field: &'static str,
    found: String,
    allowed: &'static str,
}

impl ParseDescriptorError {
    pub(crate) fn new(field: &'static str, found: &str, allowed: &'static str) -> Self {
        ParseDescriptorError { field, found: found.to_owned(), allowed }
    }
}

/// What a kernel says of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct KernelInfo {
    /// Unique in its library.
    pub name: String,
    /// The operator it claims to compute.
    pub operator: String,
    /// Which half of it.
    pub direction: Direction,
    /// The element types it accepts.
    pub dtypes: Vec<DtypeSet>,
    /// The layouts it accepts.
    pub layouts: Layouts,
    /// The precision of its arithmetic, [`Dtype::F32`] or [`Dtype::F64`]; `None`: [`Dtype::statistics`] of the data.
    pub precision: Option<Dtype>,
    /// The shape of its sums.
    pub reduction: Reduction,
    /// How it computes a reciprocal square root.
    pub rsqrt: Rsqrt,
    /// May be called from several threads at once.
    pub thread_safe: bool,
}

/// Why a kernel did not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It does not do that: counted and reported, never held against it.
    #[error("unsupported: {0}")]
    Unsupported(String),
    /// It should have worked and did not.
    #[error("{0}")]
    Failed(String),
}

/// One implementation of one half of one operator.
pub trait Kernel: Send + Sync {
    /// What it says of itself.
    fn info(&self) -> &KernelInfo;

    /// Computes all outputs of `call` from its inputs.
    ///
    /// # Errors
    /// [`Refusal::Unsupported`] if the kernel does not serve such a call.
    fn run(&self, call: &Call<'_>) -> Result<(), Refusal>;
}
