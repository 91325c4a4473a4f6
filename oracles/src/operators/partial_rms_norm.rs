//! pRMSNorm: the root mean square estimated from the first entries.
//!
//! `y = x / √(mean(x₁² … x_k²) + eps) · weight` with k = ⌈p·d⌉ (the paper's rounding; its code rounds down).

use isonorm_kernels::abi::Value;

use super::shared::{EPS, PER_FEATURE, ROWS, ROWS_FEATURES, VECTOR, always};
use super::{Attribute, DerivedAttribute, DerivedAxis, Domain, Operator, Paper, Relation, TensorSpec};
use crate::problem::Problem;

pub(super) static OPERATOR: Operator = Operator {
    name: "partial_rms_norm",
    summary: "every row divided by the root mean square of its first entries, then scaled entry by entry",
    axes: &[ROWS, VECTOR],
    derived_axes: &[DerivedAxis { name: "k", meaning: "the first ⌈p·d⌉ entries of a row", size: head }],
    attributes: &[EPS, P],
    derived_attributes: &[DerivedAttribute {
        name: "k",
        meaning: "⌈p·d⌉, the number of entries that the mean runs over",
        value: |problem| Value::Integer(head(problem) as i64),
    }],
    inputs: &[TensorSpec::data("x", ROWS_FEATURES), TensorSpec::param("weight", PER_FEATURE)],
    outputs: &[TensorSpec::data("y", ROWS_FEATURES)],
    define: |scope| {
        let x = scope.input("x");
        let head = x.head("d", "k").named("head");
        let rrms = (head.square().mean("k") + scope.attribute("eps")).rsqrt().named("rrms");
        vec![("y", scope.affine(x * rrms))]
    },
    check: always,
    relations: &[Relation::Independent("r"), Relation::ScaleInvariant, Relation::Odd],
    independent: &["r"],
    special_values: "As rms_norm, except that a NaN or infinity behind the first k entries stays where it is.",
    native: None,
    papers: &[Paper { title: "Root Mean Square Layer Normalization", reference: "arXiv:1910.07467, section 4.2" }],
};

fn head(problem: &Problem) -> usize {
    let d = problem.size("d");
    ((problem.real("p") * d as f64).ceil() as usize).min(d)
}

const P: Attribute = Attribute {
    name: "p",
    meaning: "the share of entries that the mean square is estimated from",
    domain: Domain::Real { from: 1e-6, to: 1.0, samples: &[0.0625, 0.25, 0.5, 0.1, 1.0] },
    optional: false,
};
