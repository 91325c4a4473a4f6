//! GroupNorm.
//!
//! `y = (x - mean) / √(var + eps) · weight + bias`, mean and biased variance per sample and group of channels, over the
//! group's channels and all positions; weight and bias per channel.

use isonorm_kernels::abi::Value;

use super::shared::{EPS, SAMPLES, SPACE, always};
use super::{AxisKind, AxisSpec, DerivedAttribute, Dim, Operator, Paper, Relation, TensorSpec};

pub(super) static OPERATOR: Operator = Operator {
    name: "group_norm",
    summary: "every group of channels of every sample brought to mean 0 and variance 1",
    axes: &[
        SAMPLES,
        AxisSpec { name: "g", meaning: "groups of channels", ranks: 1..=1, least: 1, kind: AxisKind::Channel },
        AxisSpec { name: "k", meaning: "channels of a group", ranks: 1..=1, least: 0, kind: AxisKind::Reduced },
        SPACE,
    ],
    derived_axes: &[],
    attributes: &[EPS],
    derived_attributes: &[DerivedAttribute {
        name: "num_groups",
        meaning: "the number of groups",
        value: |problem| Value::Integer(problem.size("g") as i64),
    }],
    inputs: &[
        TensorSpec::data("x", GROUPED),
        TensorSpec::param("weight", PER_GROUPED_CHANNEL),
        TensorSpec::param("bias", PER_GROUPED_CHANNEL),
    ],
    outputs: &[TensorSpec::data("y", GROUPED)],
    define: |scope| {
        let x = scope.input("x");
        let (mean, var) = x.moments("k s");
        let rstd = (var + scope.attribute("eps")).rsqrt().named("rstd");
        vec![("y", scope.affine((x - mean) * rstd))]
    },
    check: always,
    relations: &[Relation::Independent("n"), Relation::Independent("g"), Relation::ScaleInvariant, Relation::Odd],
    independent: &["n", "g"],
    special_values: "A NaN or infinity makes its whole group NaN. A constant group gives the bias; with eps = 0 it gives 0 · ∞ = \
        NaN. No positions: an empty output, and zero gradients of weight and bias (libtorch's gradient of the weight is NaN).",
    native: Some(|given| {
        let groups = given.problem().size("g") as i64;
        let (weight, bias) = (given.optional("weight"), given.optional("bias"));
        Ok(vec![given.input("x")?.f_group_norm(groups, weight, bias, given.eps(), true)?])
    }),
    papers: &[Paper { title: "Group Normalization", reference: "arXiv:1803.08494, eq. 1 to 7" }],
};

const GROUPED: &[Dim] = &[Dim::Axis("n"), Dim::Merged(&["g", "k"]), Dim::Axis("s")];
const PER_GROUPED_CHANNEL: &[Dim] = &[Dim::Merged(&["g", "k"])];
