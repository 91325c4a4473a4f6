//! Normalizing with a mix of old and new statistics: its ends, and the affine map that it is.

use super::{AxisRange, Deviation, Identity, Input, Scope, Size, bias, data, gain, running_mean, running_var};
use crate::formula::Expr;
use crate::operators::Paper;

const ALPHA: Paper =
    Paper { title: "Revisiting Batch Normalization For Practical Domain Adaptation", reference: "arXiv:1603.04779" };

const AXES: &[AxisRange] = &[
    AxisRange { name: "n", meaning: "samples", size: Size::Between(3, 12) },
    AxisRange { name: "d", meaning: "channels", size: Size::Width(1, 128) },
];

fn inputs(_: usize) -> Vec<Input> {
    vec![
        data("x", "n d"),
        gain("weight", "d"),
        bias("bias", "d"),
        running_mean("running_mean", "d"),
        running_var("running_var", "d"),
    ]
}

/// Mean and variance, `old` parts of the source's and the rest of the batch's.
fn mixed<'b>(s: &Scope<'b>, old: f64) -> (Expr<'b>, Expr<'b>) {
    let (mean, var) = s.get("x").moments("n");
    let mix = |source: Expr<'b>, batch: Expr<'b>| source * old + batch * (1.0 - old);
    (mix(s.get("running_mean"), mean), mix(s.get("running_var"), var))
}

fn normalized<'b>(s: &Scope<'b>, (mean, var): (Expr<'b>, Expr<'b>)) -> Expr<'b> {
    (s.get("x") - mean) * (var + s.eps()).rsqrt() * s.get("weight") + s.get("bias")
}

pub(super) static SOURCE_END: Identity = Identity {
    name: "alpha_batch_norm_source",
    summary: "α-BN with all weight on the source is BatchNorm in inference",
    condition: "α = 1, and α weights the source (public code has it the other way round)",
    map_in_words: "none",
    axes: AXES,
    depth: (1, 1),
    inputs,
    eps: 1e-5,
    left: |s| {
        let alpha = if s.is("α = 0.9") {
            0.9
        } else if s.is("α weights the target") {
            0.0
        } else {
            1.0
        };
        normalized(s, mixed(s, alpha))
    },
    map: |_| vec![],
    right: |s| s.batch_norm_inference(s.get("x"), "d", ""),
    deviations: &[Deviation::condition("α = 0.9"), Deviation::planted("α weights the target")],
    training: &[],
    papers: &[ALPHA],
};

pub(super) static TARGET_END: Identity = Identity {
    name: "adaptive_batch_norm_target",
    summary: "AdaBN: with statistics replaced by those of a batch of the target, inference is BatchNorm in training on that batch",
    condition: "α = 0, one batch, and the biased variance",
    map_in_words: "the running statistics are those of the batch",
    axes: AXES,
    depth: (1, 1),
    inputs,
    eps: 1e-5,
    left: |s| normalized(s, mixed(s, if s.is("α = 0.1") { 0.1 } else { 0.0 })),
    map: |s| {
        let (mean, var) = s.get("x").moments("n");
        let n = s.builder().count("n");
        let var = if s.is("the unbiased variance") { var * n / (n - 1.0) } else { var };
        vec![("running_mean".to_owned(), mean), ("running_var".to_owned(), var)]
    },
    right: |s| s.batch_norm_inference(s.get("x"), "d", ""),
    deviations: &[Deviation::condition("α = 0.1"), Deviation::planted("the unbiased variance")],
    training: &[],
    papers: &[ALPHA],
};

pub(super) static TRANSFORMED: Identity = Identity {
    name: "mixed_statistics_are_affine",
    summary: "normalizing with mixed statistics is normalizing with those of the batch and another weight and bias",
    condition: "weight and bias are computed with the statistics of the same batch",
    map_in_words: "weight · √(var + ε) / √(mixed var + ε), and λ (mean - source mean) / √(var + ε) · that + bias",
    axes: AXES,
    depth: (1, 1),
    inputs,
    eps: 1e-5,
    left: |s| normalized(s, mixed(s, 0.375)),
    map: |s| {
        let (mean, var) = s.get("x").moments("n");
        let other = if s.is("statistics of another batch") { var * 1.25 } else { var };
        let root = (other + s.eps()).sqrt();
        let weight = s.get("weight") * root / (mixed(s, 0.375).1 + s.eps()).sqrt();
        let apart = mean - s.get("running_mean");
        let shift = apart * 0.375 / root * if s.is("the old weight in the shift") { s.get("weight") } else { weight };
        vec![("weight".to_owned(), weight), ("bias".to_owned(), shift + s.get("bias"))]
    },
    right: |s| normalized(s, s.get("x").moments("n")),
    deviations: &[
        Deviation::condition("statistics of another batch"),
        Deviation::planted("the old weight in the shift"),
    ],
    training: &[],
    papers: &[Paper {
        title: "DomainAdaptor: A Novel Approach to Test-time Adaptation",
        reference: "arXiv:2308.10297",
    }],
};
