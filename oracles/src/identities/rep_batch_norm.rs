//! RepBN: BatchNorm and a scaled shortcut are one BatchNorm; its progressive form ends at LayerNorm and there.

use super::{
    AxisRange, Deviation, Identity, Input, Kind, Scope, Size, THROUGH_MAP, Values, bias, data, gain, input,
    running_mean, running_var,
};
use crate::formula::Expr;
use crate::operators::Paper;

const PAPER: Paper = Paper {
    title: "SLAB: Efficient Transformers with Simplified Linear Attention and Progressive Re-parameterized Batch Normalization",
    reference: "arXiv:2405.11582",
};

const AXES: &[AxisRange] = &[
    AxisRange { name: "n", meaning: "samples", size: Size::Between(1, 4) },
    AxisRange { name: "t", meaning: "tokens", size: Size::Between(1, 6) },
    AxisRange { name: "d", meaning: "channels", size: Size::Width(2, 128) },
];

fn inputs(_: usize) -> Vec<Input> {
    vec![
        data("x", "n t d"),
        gain("weight", "d"),
        bias("bias", "d"),
        running_mean("running_mean", "d"),
        running_var("running_var", "d"),
        input("eta", "", Kind::Param, Values::Uniform(0.5, 1.5)),
    ]
}

fn rep_batch_norm<'b>(s: &Scope<'b>) -> Expr<'b> {
    s.batch_norm_inference(s.get("x"), "d", "") + s.get("eta") * s.get("x")
}

pub(super) static MERGED: Identity = Identity {
    name: "rep_batch_norm",
    summary: "progressive RepBN at its end, λ = 0, is one BatchNorm with another weight and bias",
    condition: "the statistics are fixed (inference), and λ has reached 0",
    map_in_words: "weight + η √(running_var + ε), and bias + η running_mean",
    axes: AXES,
    depth: (1, 1),
    inputs,
    eps: 1e-5,
    left: |s| {
        let lambda = s.number(if s.is("λ stopped at 0.1") { 0.1 } else { 0.0 });
        s.layer_norm(s.get("x"), "d") * lambda + rep_batch_norm(s) * (s.number(1.0) - lambda)
    },
    map: |s| {
        let (eta, var) = (s.get("eta"), s.get("running_var"));
        let deviation = if s.is("ε forgotten") { var.sqrt() } else { (var + s.eps()).sqrt() };
        let bias = s.get("bias") + if s.is("the mean forgotten") { s.number(0.0) } else { eta * s.get("running_mean") };
        vec![("weight".to_owned(), s.get("weight") + eta * deviation), ("bias".to_owned(), bias)]
    },
    right: |s| s.batch_norm_inference(s.get("x"), "d", ""),
    deviations: &[
        Deviation::condition("λ stopped at 0.1"),
        Deviation::planted("ε forgotten"),
        Deviation::planted("the mean forgotten"),
    ],
    training: THROUGH_MAP,
    papers: &[PAPER],
};

pub(super) static START: Identity = Identity {
    name: "progressive_rep_batch_norm_start",
    summary: "progressive RepBN at its start, λ = 1, is LayerNorm",
    condition: "λ = 1",
    map_in_words: "none",
    axes: AXES,
    depth: (1, 1),
    inputs,
    eps: 1e-5,
    left: |s| {
        let lambda = s.number(if s.is("λ after the first step") { 0.999 } else { 1.0 });
        s.layer_norm(s.get("x"), "d") * lambda + rep_batch_norm(s) * (s.number(1.0) - lambda)
    },
    map: |_| vec![],
    right: |s| {
        if s.is("RMSNorm") { s.rms_norm(s.get("x"), "d") } else { s.layer_norm(s.get("x"), "d") }
    },
    deviations: &[Deviation::condition("λ after the first step"), Deviation::planted("RMSNorm")],
    training: &[],
    papers: &[PAPER],
};
