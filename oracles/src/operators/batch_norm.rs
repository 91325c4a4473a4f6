//! BatchNorm in training: statistics of the batch, and the update of the running ones.
//!
//! `y = (x - mean) / √(var + eps) · weight + bias`, mean and biased variance per channel over samples and positions.
//! `new_running_mean = (1 - f) · running_mean + f · mean`, and `new_running_var` likewise with the unbiased variance. f is `momentum`, or
//! 1 / (num_batches_tracked + 1), the cumulative average, where that is given instead.

use super::shared::{CHANNELS, EPS, IMAGE, MOMENTUM, PER_CHANNEL, SAMPLES, SPACE, paired_state};
use super::{Attribute, Domain, Operator, Paper, Relation, TensorSpec};
use crate::formula::Expr;
use crate::problem::{Problem, Scope};

pub(super) static OPERATOR: Operator = Operator {
    name: "batch_norm",
    summary: "every channel brought to mean 0 and variance 1 over the batch; running statistics updated",
    axes: &[SAMPLES, CHANNELS, SPACE],
    derived_axes: &[],
    attributes: &[EPS, Attribute { optional: true, ..MOMENTUM }, NUM_BATCHES_TRACKED],
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
        let (mean, var) = x.moments("n s");
        let rstd = (var + scope.attribute("eps")).rsqrt().named("rstd");
        let mut outputs = vec![("y", scope.affine((x - mean) * rstd))];
        if let (Some(old_mean), Some(old_var)) = (scope.optional("running_mean"), scope.optional("running_var")) {
            let factor = factor(scope);
            outputs.push(("new_running_mean", update(scope, "n s", old_mean, mean, factor)));
            outputs.push(("new_running_var", update(scope, "n s", old_var, unbiased(scope, "n s", var), factor)));
        }
        outputs
    },
    check: |problem| {
        paired_state(problem)?;
        let given = |name: &str| problem.attributes.contains_key(name);
        if given("momentum") == given("num_batches_tracked") {
            return Err("give either momentum or num_batches_tracked".to_owned());
        }
        enough(problem, problem.size("n") * problem.size("s"))
    },
    relations: &[Relation::Independent("c"), Relation::Permutation("n"), Relation::ScaleInvariant, Relation::Odd],
    independent: &["c"],
    special_values: "A NaN in a channel makes the whole channel NaN, its running statistics too; so does an infinity, except \
        that new_running_mean is then infinite. A constant channel gives the bias; with eps = 0 it gives 0 · ∞ = NaN \
        (libtorch takes 1/√0 to be 0 and gives the bias, and zero gradients). Running statistics need two values per \
        channel (as in libtorch, whose unbiased variance divides by one less), or none: an empty batch leaves them as \
        they are.",
    native: Some(|given| {
        let state = [given.copy("running_mean")?, given.copy("running_var")?];
        let [mean, var] = state.each_ref().map(Option::as_ref);
        let params = [given.param_like_state("weight")?, given.param_like_state("bias")?];
        let [weight, bias] = params.each_ref().map(Option::as_ref);
        let x = given.input("x")?;
        let y = x.f_batch_norm(weight, bias, mean, var, true, given.momentum(), given.eps(), true)?;
        Ok(std::iter::once(y).chain(state.into_iter().flatten()).collect())
    }),
    papers: &[Paper {
        title: "Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate Shift",
        reference: "arXiv:1502.03167, algorithm 1",
    }],
};

const NUM_BATCHES_TRACKED: Attribute = Attribute {
    name: "num_batches_tracked",
    meaning: "batches before this one: running statistics become the average of all (momentum = none)",
    domain: Domain::Integer { from: 0, to: 1 << 52, samples: &[0, 1, 9, 1_000_000] },
    optional: true,
};

fn factor<'b>(scope: &Scope<'b>) -> Expr<'b> {
    match scope.problem().attributes.get("num_batches_tracked") {
        Some(isonorm_kernels::abi::Value::Integer(batches)) => {
            let seen = scope.builder().attribute("num_batches_tracked", *batches as f64);
            (scope.builder().constant(1.0) / (seen + 1.0)).named("factor")
        }
        _ => scope.attribute("momentum"),
    }
}

/// The unbiased variance: over one less than the number of values.
pub(super) fn unbiased<'b>(scope: &Scope<'b>, axes: &str, var: Expr<'b>) -> Expr<'b> {
    let count = scope.builder().count(axes);
    var * (count / (count - 1.0))
}

/// The running statistic after a batch; the old one if the batch has no values.
pub(super) fn update<'b>(scope: &Scope<'b>, axes: &str, old: Expr<'b>, batch: Expr<'b>, factor: Expr<'b>) -> Expr<'b> {
    let builder = scope.builder();
    let one = builder.constant(1.0);
    builder.select(builder.count(axes), one, old * (one - factor) + batch * factor, old)
}

/// Whether there are enough values for an unbiased variance, if one is asked for.
pub(super) fn enough(problem: &Problem, values: usize) -> Result<(), String> {
    if values == 1 && problem.has("running_var") {
        return Err("running statistics need at least two values per channel".to_owned());
    }
    Ok(())
}
