//! RMSNorm, with the three conventions in use for half precision.
//!
//! `y = x / √(mean(x²) + eps) · weight`. `cast` says where a kernel for half types rounds: `none`, once at the end;
//! `llama`, the normalized x before it is multiplied by the weight; `gemma`, once at the end, with 1 + weight formed in the
//! precision of the arithmetic.

use super::layer_norm::NORMALIZED_NDIM;
use super::shared::{EPS, FEATURES, PER_FEATURE, ROWS, ROWS_FEATURES, always};
use super::{Attribute, Domain, Operator, Paper, Relation, TensorSpec};
use crate::native::{Declined, Given};

pub(super) static OPERATOR: Operator = Operator {
    name: "rms_norm",
    summary: "every row divided by its root mean square, then scaled entry by entry",
    axes: &[ROWS, FEATURES],
    derived_axes: &[],
    attributes: &[EPS, CAST],
    derived_attributes: &[NORMALIZED_NDIM],
    inputs: &[TensorSpec::data("x", ROWS_FEATURES), TensorSpec::param("weight", PER_FEATURE)],
    outputs: &[TensorSpec::data("y", ROWS_FEATURES)],
    define: |scope| {
        let x = scope.input("x");
        let rrms = (x.square().mean("d") + scope.attribute("eps")).rsqrt().named("rrms");
        let normalized = x * rrms;
        let problem = scope.problem();
        let y = match scope.optional("weight") {
            Some(weight) if problem.says("cast", "gemma") => normalized * (weight + 1.0),
            Some(weight) if problem.says("cast", "llama") => normalized.cast(problem.dtypes.data) * weight,
            Some(weight) => normalized * weight,
            None => normalized,
        };
        vec![("y", y)]
    },
    check: always,
    relations: &[Relation::Independent("r"), Relation::Permutation("d"), Relation::ScaleInvariant, Relation::Odd],
    independent: &["r"],
    special_values: "A NaN in a row makes the whole row NaN; an infinity makes itself NaN and the other entries 0. A row \
        of zeros gives zeros of the sign that x · weight has; with eps = 0 it gives 0 · ∞ = NaN. d = 1 gives ± weight.",
    native: Some(|given| {
        let problem = given.problem();
        if problem.has("weight")
            && (problem.says("cast", "gemma") || (problem.says("cast", "llama") && given.is_half()))
        {
            return Err(Declined::OtherForm("has only the form that rounds once, at the end"));
        }
        Ok(vec![rms_norm(given, given.input("x")?)?])
    }),
    papers: &[Paper { title: "Root Mean Square Layer Normalization", reference: "arXiv:1910.07467, eq. 4" }],
};

/// libtorch's form, of any tensor of the shape of `x`.
pub(super) fn rms_norm(given: &Given<'_>, x: &tch::Tensor) -> Result<tch::Tensor, Declined> {
    Ok(x.f_rms_norm(given.shape("d"), given.optional("weight"), given.eps())?)
}

const CAST: Attribute = Attribute {
    name: "cast",
    meaning: "where half types are rounded: once at the end, after the normalization (llama), or once with 1 + weight (gemma)",
    domain: Domain::Choice(&["none", "llama", "gemma"]),
    optional: false,
};
