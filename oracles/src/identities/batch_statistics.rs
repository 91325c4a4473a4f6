//! Statistics of parts of a batch, put together, are those of the batch.

use super::{AxisRange, Deviation, Identity, Input, Scope, Size, THROUGH_MAP, bias, data, gain};
use crate::formula::Expr;
use crate::operators::Paper;

const AXES: &[AxisRange] = &[
    AxisRange { name: "m", meaning: "parts of the batch", size: Size::Between(2, 6) },
    AxisRange { name: "n", meaning: "samples of a part", size: Size::Between(2, 6) },
    AxisRange { name: "d", meaning: "channels", size: Size::Width(1, 128) },
];

fn inputs(_: usize) -> Vec<Input> {
    vec![data("x", "m n d"), gain("weight", "d"), bias("bias", "d")]
}

fn batch_norm<'b>(s: &Scope<'b>, mean: Expr<'b>, var: Expr<'b>) -> Expr<'b> {
    (s.get("x") - mean) * (var + s.eps()).rsqrt() * s.get("weight") + s.get("bias")
}

pub(super) static SYNCHRONISED: Identity = Identity {
    name: "synchronised_batch_norm",
    summary: "BatchNorm with means and variances of the parts of a batch, merged, is BatchNorm over the batch; gradients too",
    condition: "the variance of the means is added to the mean of the variances, and gradients flow through all parts",
    map_in_words: "none",
    axes: AXES,
    depth: (1, 1),
    inputs,
    eps: 1e-5,
    left: |s| {
        let (mean, var) = s.get("x").moments("m n");
        batch_norm(s, mean, var)
    },
    map: |_| vec![],
    right: |s| {
        let (means, vars) = s.get("x").moments("n");
        let mean = means.mean("m");
        let spread = (means - mean).square().mean("m");
        if s.is("each part by itself") {
            return batch_norm(s, means, vars);
        }
        batch_norm(
            s,
            mean,
            if s.is("the spread of the means forgotten") { vars.mean("m") } else { vars.mean("m") + spread },
        )
    },
    deviations: &[Deviation::condition("each part by itself"), Deviation::planted("the spread of the means forgotten")],
    training: THROUGH_MAP,
    papers: &[Paper {
        title: "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances",
        reference: "Chan, Golub, LeVeque 1979",
    }],
};

pub(super) static CROSS_MINI_BATCH: Identity = Identity {
    name: "cross_mini_batch_norm",
    summary: "CmBN at the last of its mini-batches normalizes with the statistics of the whole batch",
    condition: "the second moment is over n (Darknet's code has n - 1 there), weights did not change in between, and the \
        mini-batch is the last",
    map_in_words: "none",
    axes: AXES,
    depth: (1, 1),
    inputs,
    eps: 1e-5,
    left: |s| {
        let (mean, var) = s.get("x").moments("m n");
        batch_norm(s, mean, var)
    },
    map: |_| vec![],
    right: |s| {
        let x = s.get("x");
        let (first, second) = (x.mean("n"), x.square().mean("n"));
        let n = s.builder().count("n");
        let second = if s.is("n - 1 in the second moment") { second * n / (n - 1.0) } else { second };
        let mean = first.mean("m");
        let var = if s.is("variances averaged") {
            (second - first.square()).mean("m")
        } else {
            second.mean("m") - mean.square()
        };
        batch_norm(s, mean, var)
    },
    deviations: &[Deviation::condition("n - 1 in the second moment"), Deviation::planted("variances averaged")],
    training: THROUGH_MAP,
    papers: &[Paper { title: "YOLOv4: Optimal Speed and Accuracy of Object Detection", reference: "arXiv:2004.10934" }],
};
