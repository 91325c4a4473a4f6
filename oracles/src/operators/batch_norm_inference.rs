//! BatchNorm in inference: the running statistics are constants.
//!
//! `y = (x - running_mean) / √(running_var + eps) · weight + bias`, per channel.

use super::shared::{CHANNELS, EPS, IMAGE, PER_CHANNEL, SAMPLES, SPACE, always};
use super::{Operator, Paper, Relation, TensorSpec};

pub(super) static OPERATOR: Operator = Operator {
    name: "batch_norm_inference",
    summary: "every channel shifted and scaled by its running statistics",
    axes: &[SAMPLES, CHANNELS, SPACE],
    derived_axes: &[],
    attributes: &[EPS],
    derived_attributes: &[],
    inputs: &[
        TensorSpec::data("x", IMAGE),
        TensorSpec::param("weight", PER_CHANNEL),
        TensorSpec::param("bias", PER_CHANNEL),
        TensorSpec::state("running_mean", PER_CHANNEL),
        TensorSpec::state("running_var", PER_CHANNEL),
    ],
    outputs: &[TensorSpec::data("y", IMAGE)],
    define: |scope| {
        let rstd = (scope.input("running_var") + scope.attribute("eps")).rsqrt().named("rstd");
        vec![("y", scope.affine((scope.input("x") - scope.input("running_mean")) * rstd))]
    },
    check: always,
    relations: &[Relation::Independent("n"), Relation::Independent("c"), Relation::Permutation("n")],
    independent: &["n", "c"],
    special_values: "A NaN or infinity in x stays where it is. running_var = 0 with eps = 0 gives infinities, and NaN where \
        x equals running_mean.",
    native: Some(|given| {
        let state = [given.input("running_mean")?, given.input("running_var")?].map(Some);
        let params = [given.param_like_state("weight")?, given.param_like_state("bias")?];
        let [weight, bias] = params.each_ref().map(Option::as_ref);
        let x = given.input("x")?;
        Ok(vec![x.f_batch_norm(weight, bias, state[0], state[1], false, 0.0, given.eps(), true)?])
    }),
    papers: &[Paper {
        title: "Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate Shift",
        reference: "arXiv:1502.03167, algorithm 2",
    }],
};
