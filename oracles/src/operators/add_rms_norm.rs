//! Residual addition fused with RMSNorm; both results are outputs.
//!
//! `h = x + residual`, `residual_out = h` rounded to the data type, `y = h / √(mean(h²) + eps) · weight`; `sum` as in
//! [`super::add_layer_norm`].

use super::add_layer_norm::{SUM, native_residual_sum, residual_sum};
use super::layer_norm::NORMALIZED_NDIM;
use super::shared::{EPS, FEATURES, PER_FEATURE, ROWS, ROWS_FEATURES, always};
use super::{Operator, Paper, Relation, TensorSpec};

pub(super) static OPERATOR: Operator = Operator {
    name: "add_rms_norm",
    summary: "a residual added, then every row divided by its root mean square; the sum is an output too",
    axes: &[ROWS, FEATURES],
    derived_axes: &[],
    attributes: &[EPS, SUM],
    derived_attributes: &[NORMALIZED_NDIM],
    inputs: &[
        TensorSpec::data("x", ROWS_FEATURES),
        TensorSpec::data("residual", ROWS_FEATURES),
        TensorSpec::param("weight", PER_FEATURE),
    ],
    outputs: &[TensorSpec::data("y", ROWS_FEATURES), TensorSpec::data("residual_out", ROWS_FEATURES)],
    define: |scope| {
        let (h, read) = residual_sum(scope);
        let rrms = (read.square().mean("d") + scope.attribute("eps")).rsqrt().named("rrms");
        vec![("y", scope.affine(read * rrms)), ("residual_out", h)]
    },
    check: always,
    relations: &[Relation::Independent("r"), Relation::Permutation("d"), Relation::Odd],
    independent: &["r"],
    special_values: "As rms_norm of the sum; infinities of opposite signs add up to NaN.",
    native: Some(|given| {
        let h = native_residual_sum(given)?;
        Ok(vec![super::rms_norm::rms_norm(given, &h)?, h])
    }),
    papers: &[Paper { title: "Root Mean Square Layer Normalization", reference: "arXiv:1910.07467, eq. 4" }],
};
