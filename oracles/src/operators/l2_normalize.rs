//! L2 normalization.
//!
//! `y = x / max(‖x‖₂, eps)`. The gradient passes through the maximum where the norm is at least eps, and the gradient of
//! the norm at 0 is 0, as in libtorch.

use super::shared::{ROWS, ROWS_FEATURES, VECTOR, always};
use super::{Attribute, Domain, Operator, Paper, Relation, TensorSpec};
use crate::native::Declined;

pub(super) static OPERATOR: Operator = Operator {
    name: "l2_normalize",
    summary: "every row divided by its Euclidean norm",
    axes: &[ROWS, VECTOR],
    derived_axes: &[],
    attributes: &[Attribute {
        name: "eps",
        meaning: "the least that a row is divided by",
        domain: Domain::Real { from: 0.0, to: 1e6, samples: &[1e-12, 1e-6, 0.0, 1e-3, 1.0] },
        optional: false,
    }],
    derived_attributes: &[],
    inputs: &[TensorSpec::data("x", ROWS_FEATURES)],
    outputs: &[TensorSpec::data("y", ROWS_FEATURES)],
    define: |scope| {
        let x = scope.input("x");
        let norm = x.square().sum("d").sqrt().named("norm");
        vec![("y", x / norm.max(scope.attribute("eps")))]
    },
    check: always,
    relations: &[Relation::Independent("r"), Relation::Permutation("d"), Relation::ScaleInvariant, Relation::Odd],
    independent: &["r"],
    special_values: "A NaN in a row makes the whole row NaN; an infinity makes itself NaN and the other entries 0. A row of \
        zeros gives zeros; with eps = 0 it gives NaN, and its gradient is not finite. In half types libtorch rounds the norm \
        before it divides; the formula does not.",
    native: Some(|given| {
        if given.is_half() {
            return Err(Declined::OtherForm("rounds the norm to the data type before it divides"));
        }
        // The lines of torch.nn.functional.normalize.
        let x = given.input("x")?;
        let norm = x.f_norm_scalaropt_dim(2, [-1].as_slice(), true)?.f_clamp_min(given.eps())?;
        Ok(vec![x.f_div(&norm.f_expand_as(x)?)?])
    }),
    papers: &[Paper { title: "torch.nn.functional.normalize", reference: "PyTorch documentation, p = 2" }],
};
