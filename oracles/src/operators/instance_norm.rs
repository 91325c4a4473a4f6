//! InstanceNorm, with and without running statistics.
//!
//! `y = (x - mean) / √(var + eps) · weight + bias`, mean and biased variance per sample and channel over the positions.
//! The running statistics take in the mean over the samples of the means and of the unbiased variances.

use super::batch_norm::{enough, unbiased, update};
use super::shared::{CHANNELS, EPS, IMAGE, MOMENTUM, PER_CHANNEL, SAMPLES, SPACE, paired_state};
use super::{Operator, Paper, Relation, TensorSpec};

pub(super) static OPERATOR: Operator = Operator {
    name: "instance_norm",
    summary: "every channel of every sample brought to mean 0 and variance 1",
    axes: &[SAMPLES, CHANNELS, SPACE],
    derived_axes: &[],
    attributes: &[EPS, MOMENTUM],
    derived_attributes: &[],
    inputs: &[
        TensorSpec::data("x", IMAGE),
        TensorSpec::param("weight", PER_CHANNEL),
        TensorSpec::param("bias", PER_CHANNEL),
        TensorSpec::state("running_mean", PER_CHANNEL).forward_only(),
        TensorSpec::state("running_var", PER_CHANNEL).forward_only(),
    ],
    outputs: &[
        TensorSpec::data("y", IMAGE),
        TensorSpec::new_state("new_running_mean", PER_CHANNEL, "running_mean"),
        TensorSpec::new_state("new_running_var", PER_CHANNEL, "running_var"),
    ],
    define: |scope| {
        let x = scope.input("x");
        let (mean, var) = x.moments("s");
        let rstd = (var + scope.attribute("eps")).rsqrt().named("rstd");
        let mut outputs = vec![("y", scope.affine((x - mean) * rstd))];
        if let (Some(old_mean), Some(old_var)) = (scope.optional("running_mean"), scope.optional("running_var")) {
            let momentum = scope.attribute("momentum");
            let var = unbiased(scope, "s", var).mean("n");
            outputs.push(("new_running_mean", update(scope, "n s", old_mean, mean.mean("n"), momentum)));
            outputs.push(("new_running_var", update(scope, "n s", old_var, var, momentum)));
        }
        outputs
    },
    check: |problem| {
        paired_state(problem)?;
        enough(problem, problem.size("s"))
    },
    relations: &[Relation::Independent("c"), Relation::Permutation("n"), Relation::ScaleInvariant, Relation::Odd],
    independent: &["c"],
    special_values: "A NaN or infinity makes its whole instance NaN, and the running statistics of its channel, except that an \
        infinity makes new_running_mean infinite. A constant instance gives the bias; with eps = 0 it gives 0 · ∞ = NaN \
        (libtorch takes 1/√0 to be 0 and gives the bias). One position per instance gives the bias; running statistics \
        need two. No samples leave the running statistics as they are (libtorch makes them NaN). libtorch updates a copy of \
        the running statistics per sample and averages the copies, which rounds more often.",
    native: Some(|given| {
        let state = [given.copy("running_mean")?, given.copy("running_var")?];
        let [mean, var] = state.each_ref().map(Option::as_ref);
        let params = [given.param_like_state("weight")?, given.param_like_state("bias")?];
        let [weight, bias] = params.each_ref().map(Option::as_ref);
        let x = given.input("x")?;
        let y = x.f_instance_norm(weight, bias, mean, var, true, given.momentum(), given.eps(), true)?;
        Ok(std::iter::once(y).chain(state.into_iter().flatten()).collect())
    }),
    papers: &[Paper {
        title: "Instance Normalization: The Missing Ingredient for Fast Stylization",
        reference: "arXiv:1607.08022, eq. 3",
    }],
};
