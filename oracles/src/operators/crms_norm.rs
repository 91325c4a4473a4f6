//! CRMSNorm: RMSNorm of zero-mean vectors that are stored without their last entry.
//!
//! `s = sum(x)`, the negative of the entry left out; `y = x / √((sum(x²) + s²) / d + eps) · weight`, where d is the number
//! of stored entries plus one. The paper has no weight (it is folded into the next layer); one may be given.

use super::shared::{EPS, PER_FEATURE, ROWS, ROWS_FEATURES, VECTOR, always};
use super::{Operator, Paper, Relation, TensorSpec};

pub(super) static OPERATOR: Operator = Operator {
    name: "crms_norm",
    summary: "root-mean-square normalization of zero-mean rows stored without their last entry",
    axes: &[ROWS, VECTOR],
    derived_axes: &[],
    attributes: &[EPS],
    derived_attributes: &[],
    inputs: &[TensorSpec::data("x", ROWS_FEATURES), TensorSpec::param("weight", PER_FEATURE)],
    outputs: &[TensorSpec::data("y", ROWS_FEATURES)],
    define: |scope| {
        let x = scope.input("x");
        let squares = x.square().sum("d") + x.sum("d").square();
        let mean_square = squares / (scope.builder().count("d") + 1.0);
        let rrms = (mean_square + scope.attribute("eps")).rsqrt().named("rrms");
        vec![("y", scope.affine(x * rrms))]
    },
    check: always,
    relations: &[Relation::Independent("r"), Relation::Permutation("d"), Relation::ScaleInvariant, Relation::Odd],
    independent: &["r"],
    special_values: "A NaN in a row makes the whole row NaN; one infinity makes itself NaN and the other entries 0, two of \
        opposite signs make the row NaN. A row of zeros gives zeros; with eps = 0 it gives NaN.",
    native: None,
    papers: &[Paper {
        title: "Pre-RMSNorm and Pre-CRMSNorm Transformers: Equivalent and Efficient Pre-LN Transformers",
        reference: "arXiv:2305.14858, eq. 5",
    }],
};
