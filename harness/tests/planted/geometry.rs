//! Which elements of a tensor belong together.

use isonorm_kernels::abi::{Call, Refusal, Tensor};

/// Which elements share statistics, and which share parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Geometry {
    /// Rows, or samples.
    pub outer: usize,
    /// Channels; 1 for rows.
    pub channels: usize,
    /// Entries of a row, or positions.
    pub inner: usize,
    /// What makes a group.
    pub grouping: Grouping,
    /// Sizes of `x`.
    pub shape: Vec<usize>,
}

/// What makes a group.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Grouping {
    /// A row; parameters differ along it.
    Row,
    /// A channel of all samples.
    Channel,
    /// So many groups of channels of each sample.
    Channels(usize),
}

/// An element of a group.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Entry {
    /// Its place in `x`.
    pub element: usize,
    /// The place of its weight and bias.
    pub param: usize,
}

impl Geometry {
    /// Of a call with this `x`.
    pub fn of(call: &Call<'_>, x: &Tensor<'_>) -> Result<Self, Refusal> {
        let shape: Vec<usize> = x.shape.iter().map(|&size| size as usize).collect();
        let image = |grouping| {
            let [outer, channels] = [0, 1].map(|axis| shape.get(axis).copied().unwrap_or(1));
            Geometry { outer, channels, inner: shape.iter().skip(2).product(), grouping, shape: shape.clone() }
        };
        Ok(match call.operator() {
            "batch_norm" | "batch_norm_inference" => image(Grouping::Channel),
            "instance_norm" => image(Grouping::Channels(shape.get(1).copied().unwrap_or(1))),
            "group_norm" => image(Grouping::Channels(call.integer("num_groups")? as usize)),
            _ => {
                let last = call.integer("normalized_ndim").unwrap_or(1) as usize;
                let (rows, entries) = shape.split_at(shape.len().saturating_sub(last));
                let (outer, inner) = (rows.iter().product(), entries.iter().product());
                Geometry { outer, channels: 1, inner, grouping: Grouping::Row, shape }
            }
        })
    }

    /// The groups, each in row-major order.
    pub fn groups(&self) -> Vec<Vec<Entry>> {
        let &Geometry { outer, channels, inner, .. } = self;
        let at = |n: usize, c: usize, s: usize| Entry { element: (n * channels + c) * inner + s, param: c };
        match self.grouping {
            Grouping::Row => (0..outer)
                .map(|row| (0..inner).map(|i| Entry { element: row * inner + i, param: i }).collect())
                .collect(),
            Grouping::Channel => {
                (0..channels).map(|c| (0..outer).flat_map(|n| (0..inner).map(move |s| at(n, c, s))).collect()).collect()
            }
            Grouping::Channels(groups) => {
                let size = channels.checked_div(groups).unwrap_or(0);
                let group = |n: usize, g: usize| {
                    (g * size..(g + 1) * size).flat_map(|c| (0..inner).map(move |s| at(n, c, s))).collect()
                };
                (0..outer).flat_map(|n| (0..groups).map(move |g| group(n, g))).collect()
            }
        }
    }
}
