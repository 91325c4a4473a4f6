//! Residual addition fused with LayerNorm; both results are outputs.
//!
//! `h = x + residual`, `residual_out = h` rounded to the data type, `y = layer_norm(h)`. `sum` says which h the norm reads: the
//! `rounded` one, which the next layer will see, or the `unrounded` one, which the kernel still has in its registers.

use super::layer_norm::NORMALIZED_NDIM;
use super::shared::{EPS, FEATURES, PER_FEATURE, ROWS, ROWS_FEATURES, always};
use super::{Attribute, Domain, Operator, Paper, Relation, TensorSpec};
use crate::formula::Expr;
use crate::native::{Declined, Given};
use crate::problem::Scope;

pub(super) static OPERATOR: Operator = Operator {
    name: "add_layer_norm",
    summary: "a residual added, then every row brought to mean 0 and variance 1; the sum is an output too",
    axes: &[ROWS, FEATURES],
    derived_axes: &[],
    attributes: &[EPS, SUM],
    derived_attributes: &[NORMALIZED_NDIM],
    inputs: &[
        TensorSpec::data("x", ROWS_FEATURES),
        TensorSpec::data("residual", ROWS_FEATURES),
        TensorSpec::param("weight", PER_FEATURE),
        TensorSpec::param("bias", PER_FEATURE),
    ],
    outputs: &[TensorSpec::data("y", ROWS_FEATURES), TensorSpec::data("residual_out", ROWS_FEATURES)],
    define: |scope| {
        let (h, read) = residual_sum(scope);
        let (mean, var) = read.moments("d");
        let rstd = (var + scope.attribute("eps")).rsqrt().named("rstd");
        vec![("y", scope.affine((read - mean) * rstd)), ("residual_out", h)]
    },
    check: always,
    relations: &[Relation::Independent("r"), Relation::Permutation("d"), Relation::Odd],
    independent: &["r"],
    special_values: "As layer_norm of the sum; infinities of opposite signs add up to NaN.",
    native: Some(|given| {
        let h = native_residual_sum(given)?;
        Ok(vec![super::layer_norm::layer_norm(given, &h)?, h])
    }),
    papers: &[Paper { title: "Layer Normalization", reference: "arXiv:1607.06450, eq. 3 and 4" }],
};

/// The sum, and what the norm reads of it.
pub(super) fn residual_sum<'b>(scope: &Scope<'b>) -> (Expr<'b>, Expr<'b>) {
    let h = (scope.input("x") + scope.input("residual")).named("h");
    let rounded = scope.problem().says("sum", "rounded");
    (h, if rounded { h.cast(scope.problem().dtypes.data) } else { h })
}

/// The same in libtorch.
pub(super) fn native_residual_sum(given: &Given<'_>) -> Result<tch::Tensor, Declined> {
    if given.is_half() && given.problem().says("sum", "unrounded") {
        return Err(Declined::OtherForm("rounds the sum to the data type before the norm reads it"));
    }
    Ok(given.input("x")?.f_add(given.input("residual")?)?)
}

pub(super) const SUM: Attribute = Attribute {
    name: "sum",
    meaning: "whether the norm reads the sum as it is stored (rounded) or as it is computed (unrounded)",
    domain: Domain::Choice(&["rounded", "unrounded"]),
    optional: false,
};
