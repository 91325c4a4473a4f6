//! LayerNorm.
//!
//! `y = (x - mean) / √(var + eps) · weight + bias`, mean and biased variance over the last dimensions. With neither weight
//! nor bias: the form without affine part; the form without mean is [`super::rms_norm`].

use isonorm_kernels::abi::Value;

use super::shared::{EPS, FEATURES, PER_FEATURE, ROWS, ROWS_FEATURES, always};
use super::{DerivedAttribute, Operator, Paper, Relation, TensorSpec};
use crate::native::{Declined, Given};

pub(super) static OPERATOR: Operator = Operator {
    name: "layer_norm",
    summary: "every row brought to mean 0 and variance 1, then scaled and shifted entry by entry",
    axes: &[ROWS, FEATURES],
    derived_axes: &[],
    attributes: &[EPS],
    derived_attributes: &[NORMALIZED_NDIM],
    inputs: &[
        TensorSpec::data("x", ROWS_FEATURES),
        TensorSpec::param("weight", PER_FEATURE),
        TensorSpec::param("bias", PER_FEATURE),
    ],
    outputs: &[TensorSpec::data("y", ROWS_FEATURES)],
    define: |scope| {
        let x = scope.input("x");
        let (mean, var) = x.moments("d");
        let rstd = (var + scope.attribute("eps")).rsqrt().named("rstd");
        vec![("y", scope.affine((x - mean) * rstd))]
    },
    check: always,
    relations: &[Relation::Independent("r"), Relation::Permutation("d"), Relation::ScaleInvariant, Relation::Odd],
    independent: &["r"],
    special_values: "A NaN or infinity in a row makes the whole row NaN. A row of equal entries gives the bias; with \
        eps = 0 its variance 0 gives 0 · ∞ = NaN. d = 1 gives the bias. No rows: an empty output, and zero gradients of \
        weight and bias.",
    native: Some(|given| Ok(vec![layer_norm(given, given.input("x")?)?])),
    papers: &[Paper { title: "Layer Normalization", reference: "arXiv:1607.06450, eq. 3 and 4" }],
};

/// libtorch's form, of any tensor of the shape of `x`.
pub(super) fn layer_norm(given: &Given<'_>, x: &tch::Tensor) -> Result<tch::Tensor, Declined> {
    let (weight, bias) = (given.optional("weight"), given.optional("bias"));
    Ok(x.f_layer_norm(given.shape("d"), weight, bias, given.eps(), true)?)
}

/// How many of the last dimensions of `x` a row is made of.
pub(super) const NORMALIZED_NDIM: DerivedAttribute = DerivedAttribute {
    name: "normalized_ndim",
    meaning: "how many of the last dimensions of x are normalized over",
    value: |problem| Value::Integer(problem.dims["d"].len() as i64),
};
