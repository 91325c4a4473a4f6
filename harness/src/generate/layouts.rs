//! How the tensors of a case lie in memory, and which outputs may lie where inputs do.
//!
//! The address of the first element is no part of a layout: every case is run with tensors at two alignments anyway.

use std::fmt;
use std::str::FromStr;

use isonorm_kernels::abi::Layouts;
use isonorm_oracles::operators::{AxisKind, Role};
use isonorm_oracles::{Problem, Tensor};

/// Elements between two rows of a tensor with gaps. Odd, so that rows lose their alignment.
const GAP: usize = 3;

/// How a tensor lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Layout {
    /// Dense, row-major.
    Contiguous,
    /// Gaps between the rows (a slice of a wider tensor).
    RowGap,
    /// Every other element along the last dimension.
    Step,
    /// Dense, the last two dimensions swapped.
    Transposed,
    /// Dense, channels after positions.
    ChannelsLast,
    /// Repeats along its first dimension: step 0. Inputs only.
    Expanded,
    /// One element for all indices: every step is 0. Inputs only.
    ExpandedFully,
}

impl Layout {
    /// Every layout, the plainest first.
    pub const ALL: [Layout; 7] = [
        Layout::Contiguous,
        Layout::RowGap,
        Layout::Step,
        Layout::Transposed,
        Layout::ChannelsLast,
        Layout::Expanded,
        Layout::ExpandedFully,
    ];

    /// Its name in cases.
    pub const fn name(self) -> &'static str {
        match self {
            Layout::Contiguous => "contiguous",
            Layout::RowGap => "row_gap",
            Layout::Step => "step",
            Layout::Transposed => "transposed",
            Layout::ChannelsLast => "channels_last",
            Layout::Expanded => "expanded",
            Layout::ExpandedFully => "expanded_fully",
        }
    }

    /// Whether several indices share an element.
    pub const fn overlaps(self) -> bool {
        matches!(self, Layout::Expanded | Layout::ExpandedFully)
    }

    /// Whether a tensor can lie so.
    ///
    /// # Errors
    /// Why not.
    pub fn check(self, problem: &Problem, tensor: &Tensor) -> Result<(), String> {
        let rank = tensor.shape.len();
        let needed = match self {
            Layout::Contiguous => 0,
            Layout::Step | Layout::Expanded | Layout::ExpandedFully => 1,
            Layout::RowGap | Layout::Transposed => 2,
            Layout::ChannelsLast => 3,
        };
        if rank < needed {
            return Err(format!("{} needs {needed} dimensions, `{}` has {rank}", self.name(), tensor.name));
        }
        if self == Layout::ChannelsLast {
            let channel = |axis: &&str| {
                problem.operator.axes.iter().any(|spec| spec.name == *axis && spec.kind == AxisKind::Channel)
            };
            if !tensor.axes[1].iter().any(channel) {
                return Err(format!("the second dimension of `{}` is not channels", tensor.name));
            }
        }
        Ok(())
    }

    /// Whether a kernel that accepts `layouts` must accept this one.
    pub fn allowed(self, layouts: &Layouts) -> bool {
        match self {
            Layout::Contiguous => true,
            Layout::ChannelsLast => layouts.channels_last || layouts.strided,
            _ => layouts.strided,
        }
    }

    /// Steps, in elements, and how many elements of memory they reach.
    pub fn strides(self, shape: &[usize]) -> (Vec<usize>, usize) {
        let rank = shape.len();
        // From the innermost dimension in memory outwards: the dimension, and the elements left free after it.
        let mut order: Vec<usize> = (0..rank).rev().collect();
        let (mut strides, mut step) = (vec![0; rank], 1);
        match self {
            Layout::Transposed => order.swap(0, 1),
            Layout::ChannelsLast => order[..rank - 1].rotate_right(1),
            Layout::Step => step = 2,
            _ => {}
        }
        for (place, &dim) in order.iter().enumerate() {
            strides[dim] = step;
            step *= shape[dim];
            if place == 0 && self == Layout::RowGap {
                step += GAP;
            }
        }
        match self {
            Layout::Expanded => strides[0] = 0,
            Layout::ExpandedFully => strides.fill(0),
            _ => {}
        }
        let reach = shape.iter().zip(&strides).map(|(&size, stride)| size.saturating_sub(1) * stride).sum::<usize>();
        (strides, if shape.contains(&0) { 0 } else { reach + 1 })
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Layout {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Layout::ALL.into_iter().find(|layout| layout.name() == text).ok_or_else(|| {
            let names = Layout::ALL.map(Layout::name).join(", ");
            format!("`{text}` is not a layout; it can be {names}")
        })
    }
}

/// Which outputs may lie where which inputs do: data over data of the same shape, running statistics over the old ones.
pub fn in_place_pairs(problem: &Problem, inputs: &[Tensor], outputs: &[Tensor]) -> Vec<(String, String)> {
    let old = |output: &Tensor| {
        problem.operator.outputs.iter().find(|spec| spec.name == output.name).and_then(|spec| spec.with)
    };
    let mut pairs = Vec::new();
    for output in outputs {
        for input in inputs {
            let same = (output.role, output.dtype) == (input.role, input.dtype) && output.shape == input.shape;
            let meant = match output.role {
                Role::Data => true,
                Role::Param => false,
                Role::State => old(output) == Some(input.name.as_str()),
            };
            if same && meant {
                pairs.push((output.name.clone(), input.name.clone()));
            }
        }
    }
    pairs
}
