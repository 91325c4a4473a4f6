//! BatchNorm in inference is a part of the linear layer before it.

use super::{AxisRange, Deviation, Identity, Size, THROUGH_MAP, bias, data, gain, running_mean, running_var, weight};
use crate::operators::Paper;

pub(super) static IDENTITY: Identity = Identity {
    name: "batch_norm_into_linear",
    summary: "a linear layer and BatchNorm with running statistics are one linear layer",
    condition: "the statistics are fixed (inference), and nothing lies between the two",
    map_in_words: "a = weight / √(running_var + ε); the matrix times a for each output, the bias (c - running_mean) · a + bias",
    axes: &[
        AxisRange { name: "n", meaning: "samples", size: Size::Between(2, 8) },
        AxisRange { name: "d", meaning: "inputs", size: Size::Width(2, 256) },
        AxisRange { name: "o", meaning: "outputs", size: Size::Between(1, 16) },
    ],
    depth: (1, 1),
    inputs: |_| {
        vec![
            data("x", "n d"),
            weight("w", "d o", "d"),
            bias("c", "o"),
            gain("weight", "o"),
            bias("bias", "o"),
            running_mean("running_mean", "o"),
            running_var("running_var", "o"),
        ]
    },
    eps: 1e-5,
    left: |s| {
        let z = s.get("x").dot(s.get("w"), "d") + s.get("c");
        if s.is("statistics of the batch") {
            let (mean, var) = z.moments("n");
            return (z - mean) * (var + s.eps()).rsqrt() * s.get("weight") + s.get("bias");
        }
        s.batch_norm_inference(if s.is("a ReLU in between") { z.relu() } else { z }, "o", "")
    },
    map: |s| {
        let outside = s.is("ε outside of the root");
        let var = s.get("running_var");
        let deviation = if outside { var.sqrt() + s.eps() } else { (var + s.eps()).sqrt() };
        let a = s.get("weight") / deviation;
        let c = if s.is("the bias not scaled") {
            s.get("c") - s.get("running_mean") * a
        } else {
            (s.get("c") - s.get("running_mean")) * a
        };
        vec![("w".to_owned(), s.get("w") * a), ("c".to_owned(), c + s.get("bias"))]
    },
    right: |s| s.get("x").dot(s.get("w"), "d") + s.get("c"),
    deviations: &[
        Deviation::condition("a ReLU in between"),
        Deviation::condition("statistics of the batch"),
        Deviation::planted("the bias not scaled"),
        Deviation::planted("ε outside of the root"),
    ],
    training: THROUGH_MAP,
    papers: &[PAPER],
};

pub(super) const PAPER: Paper = Paper {
    title: "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
    reference: "arXiv:1712.05877, section 3.2, eq. 14",
};
