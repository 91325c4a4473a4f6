//! What a kernel did besides answering.

use std::fmt;

use half::{bf16, f16};
use isonorm_kernels::abi::Dtype;
use isonorm_ptx::{Finding, Kind};

/// The properties of conduct that calls of a CPU's kernels show.
pub(super) const ON_CPU: [&str; 9] = [
    "unmodified_inputs",
    "writes_inside",
    "writes_everything",
    "repeatable",
    "address_independent",
    "reads_inputs_only",
    "fresh",
    "float_environment",
    "quiescent",
];

/// The properties of conduct that a kernel on a GPU shows: all but the last two, which are about this process.
pub(super) const ON_GPU: &[&str] = ON_CPU.split_at(7).0;

/// The properties of conduct that the PTX executor shows.
pub(super) const ON_PTX: [&str; 10] = [
    "unmodified_inputs",
    "writes_everything",
    "repeatable",
    "reads_inputs_only",
    "accesses_inside",
    "aligned",
    "race_free",
    "block_independent",
    "barriers",
    "warp_masks",
];

/// Where memory was touched, relative to a tensor; distances in elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// This far before the first element, at least 1.
    Before(usize),
    /// At this element of the tensor's memory.
    Inside(usize),
    /// At this element of the tensor's memory, which no index reaches.
    Gap(usize),
    /// This far after the last element, at least 1.
    After(usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = |n: usize| if n == 1 { "" } else { "s" };
        match *self {
            Place::Before(n) => write!(f, "{n} element{} before the start", plural(n)),
            Place::Inside(element) => write!(f, "at element {element}"),
            Place::Gap(element) => write!(f, "between the rows, at element {element}"),
            Place::After(n) => write!(f, "{n} element{} after the end", plural(n)),
        }
    }
}

/// Something that a kernel did and must not, or did not and must. Elements are counted in row-major order of
/// the indices unless said otherwise.
#[derive(Clone, Debug, PartialEq)]
pub enum Conduct {
    /// An input has other contents than before.
    ModifiedInput {
        /// The input.
        tensor: String,
        /// The first element of its memory that changed.
        element: usize,
    },
    /// Memory that belongs to no element has other contents than before.
    WroteOutside {
        /// The tensor beside it.
        tensor: String,
        /// Where.
        place: Place,
    },
    /// Elements of an output were not written, or only had something added to them.
    Unwritten {
        /// The output.
        tensor: String,
        /// The first of them.
        element: usize,
        /// How many.
        count: usize,
        /// Of how many.
        of: usize,
    },
    /// Two calls with equal inputs gave different results.
    Unrepeatable(Difference),
    /// Two calls with equal inputs at different addresses gave different results, and each of them again when
    /// repeated: the order of a sum depends on the alignment, say.
    AddressDependent(Difference),
    /// Two calls with equal inputs gave different results, and each follows the pattern that outputs, gaps and
    /// the surroundings of all tensors were filled with before the call.
    ReadOutside(Difference),
    /// A call gave the result that belongs to other contents of its inputs, which it had seen at the same
    /// address before.
    Stale(Difference),
    /// Two calls with equal inputs and another order of the device's blocks gave different results, and each of them again
    /// when repeated.
    OrderDependent(Difference),
    /// What the PTX executor found.
    Executed(Box<Finding>),
    /// The call left the floating-point environment changed.
    ChangedFloatEnvironment {
        /// What changed.
        change: String,
    },
    /// Threads were still running after the call, more than it may use.
    BackgroundThreads {
        /// How many.
        threads: usize,
        /// Whether outputs changed after the call had returned.
        wrote: bool,
    },
}

/// Two results that should be equal.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// The output.
    pub tensor: String,
    /// Its element type.
    pub dtype: Dtype,
    /// The first element that differs.
    pub element: usize,
    /// How many elements differ.
    pub count: usize,
    /// The bits of the element in both calls.
    pub bits: [u64; 2],
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second] = self.bits;
        let width = 2 + 2 * self.dtype.size();
        write!(
            f,
            "{:e} ({first:#0width$x}) and {:e} ({second:#0width$x}) at element {} of `{}`",
            value(self.dtype, first),
            value(self.dtype, second),
            self.element,
            self.tensor
        )?;
        match self.count {
            0 | 1 => Ok(()),
            count => write!(f, ", {count} elements in all"),
        }
    }
}

impl Conduct {
    /// The property that a kernel of this conduct lacks, for records.
    pub fn property(&self) -> &'static str {
        match self {
            Conduct::ModifiedInput { .. } => "unmodified_inputs",
            Conduct::WroteOutside { .. } => "writes_inside",
            Conduct::Unwritten { .. } => "writes_everything",
            Conduct::Unrepeatable(_) => "repeatable",
            Conduct::AddressDependent(_) => "address_independent",
            Conduct::ReadOutside(_) => "reads_inputs_only",
            Conduct::Stale(_) => "fresh",
            Conduct::OrderDependent(_) => "block_independent",
            Conduct::Executed(finding) => executed(finding.kind),
            Conduct::ChangedFloatEnvironment { .. } => "float_environment",
            Conduct::BackgroundThreads { .. } => "quiescent",
        }
    }

    /// Whether the call did not come to its end, so that its outputs say nothing.
    pub fn is_fatal(&self) -> bool {
        matches!(self.property(), "returns" | "survives")
    }

    /// The tensor it is about.
    pub fn tensor(&self) -> Option<&str> {
        match self {
            Conduct::ModifiedInput { tensor, .. }
            | Conduct::WroteOutside { tensor, .. }
            | Conduct::Unwritten { tensor, .. } => Some(tensor),
            Conduct::ReadOutside(difference)
            | Conduct::Unrepeatable(difference)
            | Conduct::AddressDependent(difference)
            | Conduct::OrderDependent(difference)
            | Conduct::Stale(difference) => Some(&difference.tensor),
            Conduct::Executed(_) | Conduct::ChangedFloatEnvironment { .. } | Conduct::BackgroundThreads { .. } => None,
        }
    }
}

impl fmt::Display for Conduct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Conduct::ModifiedInput { tensor, element } => {
                write!(f, "modified input `{tensor}`, first at element {element} of its memory")
            }
            Conduct::WroteOutside { tensor, place } => write!(f, "wrote outside of `{tensor}`, {place}"),
            Conduct::Unwritten { tensor, element, count, of } => {
                write!(f, "left {count} of {of} elements of `{tensor}` as they were, first element {element}")
            }
            Conduct::Unrepeatable(difference) => {
                write!(f, "two calls with equal inputs gave {difference}")
            }
            Conduct::AddressDependent(difference) => {
                write!(f, "two calls with equal inputs at different addresses gave {difference}")
            }
            Conduct::OrderDependent(difference) => {
                write!(f, "two calls with equal inputs and another order of blocks and warps gave {difference}")
            }
            Conduct::Executed(finding) => finding.fmt(f),
            Conduct::ReadOutside(difference) => {
                f.write_str("read an output before writing it, or memory beside the inputs: two contents there gave ")?;
                write!(f, "{difference}")
            }
            Conduct::Stale(difference) => {
                write!(
                    f,
                    "a result kept from an earlier call at the same address was given: kept and fresh are {difference}"
                )
            }
            Conduct::ChangedFloatEnvironment { change } => {
                write!(f, "left the floating-point environment changed: {change}")
            }
            Conduct::BackgroundThreads { threads, wrote } => {
                write!(f, "left {threads} threads running in the background")?;
                f.write_str(if *wrote { ", and outputs changed after the call had returned" } else { "" })
            }
        }
    }
}

/// The property that a launch with such a finding lacks.
fn executed(kind: Kind) -> &'static str {
    match kind {
        Kind::WriteToInput => "unmodified_inputs",
        Kind::UnwrittenOutput => "writes_everything",
        // Whatever lay in a buffer, or in shared memory, before the call.
        Kind::UnwrittenRead => "reads_inputs_only",
        Kind::Misaligned => "aligned",
        Kind::Race | Kind::CopyInFlight => "race_free",
        Kind::BlocksConflict | Kind::OrderDependence => "block_independent",
        Kind::DivergentBarrier | Kind::BarrierCount | Kind::Mbarrier => "barriers",
        Kind::WrongMask => "warp_masks",
        Kind::Deadlock | Kind::InstructionLimit => "returns",
        Kind::Trap => "survives",
        // `OutOfBounds`, and kinds of mistakes that there may be one day.
        _ => "accesses_inside",
    }
}

/// The number that these bits mean.
pub(super) fn value(dtype: Dtype, bits: u64) -> f64 {
    match dtype {
        Dtype::F64 => f64::from_bits(bits),
        Dtype::F32 => f64::from(f32::from_bits(bits as u32)),
        Dtype::Bf16 => bf16::from_bits(bits as u16).to_f64(),
        Dtype::F16 => f16::from_bits(bits as u16).to_f64(),
    }
}
