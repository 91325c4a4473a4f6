//! What several operators have in common.

use super::{Attribute, AxisKind, AxisSpec, Dim, Domain};
use crate::problem::Problem;

/// Rows that are normalized one by one.
pub(super) const ROWS: AxisSpec =
    AxisSpec { name: "r", meaning: "rows, normalized one by one", ranks: 0..=3, least: 0, kind: AxisKind::Batch };
/// The entries of a row; may be several dimensions.
pub(super) const FEATURES: AxisSpec = AxisSpec {
    name: "d",
    meaning: "entries of a row, normalized together",
    ranks: 1..=3,
    least: 0,
    kind: AxisKind::Reduced,
};
/// The entries of a row, one dimension.
pub(super) const VECTOR: AxisSpec = AxisSpec {
    name: "d",
    meaning: "entries of a row, normalized together",
    ranks: 1..=1,
    least: 0,
    kind: AxisKind::Reduced,
};
/// Samples of a batch.
pub(super) const SAMPLES: AxisSpec =
    AxisSpec { name: "n", meaning: "samples of the batch", ranks: 1..=1, least: 0, kind: AxisKind::Batch };
/// Channels.
pub(super) const CHANNELS: AxisSpec =
    AxisSpec { name: "c", meaning: "channels", ranks: 1..=1, least: 0, kind: AxisKind::Channel };
/// Positions in space or time.
pub(super) const SPACE: AxisSpec =
    AxisSpec { name: "s", meaning: "positions in space or time", ranks: 0..=3, least: 0, kind: AxisKind::Reduced };

/// Rows by entries.
pub(super) const ROWS_FEATURES: &[Dim] = &[Dim::Axis("r"), Dim::Axis("d")];
/// One per entry of a row.
pub(super) const PER_FEATURE: &[Dim] = &[Dim::Axis("d")];
/// Samples by channels by positions.
pub(super) const IMAGE: &[Dim] = &[Dim::Axis("n"), Dim::Axis("c"), Dim::Axis("s")];
/// One per channel.
pub(super) const PER_CHANNEL: &[Dim] = &[Dim::Axis("c")];

/// ε, added to the variance or mean square under the root. 0 and 10 are values that shipped kernels got wrong.
pub(super) const EPS: Attribute = Attribute {
    name: "eps",
    meaning: "added under the root",
    domain: Domain::Real { from: 0.0, to: 1e6, samples: &[1e-5, 1e-6, 1e-12, 0.0, 1e-3, 0.1, 10.0] },
    optional: false,
};

/// The factor of the new observation in running statistics.
pub(super) const MOMENTUM: Attribute = Attribute {
    name: "momentum",
    meaning: "weight of this batch in the running statistics",
    domain: Domain::Real { from: 0.0, to: 1.0, samples: &[0.1, 0.25, 0.01, 0.9, 1.0, 0.0] },
    optional: false,
};

/// Every problem is defined.
pub(super) fn always(_: &Problem) -> Result<(), String> {
    Ok(())
}

/// Statistics, running or not, come in pairs.
pub(super) fn paired_state(problem: &Problem) -> Result<(), String> {
    if problem.has("running_mean") == problem.has("running_var") {
        Ok(())
    } else {
        Err("running_mean and running_var are given together or not at all".to_owned())
    }
}
