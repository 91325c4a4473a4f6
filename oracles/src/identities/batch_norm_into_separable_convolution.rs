//! BatchNorm after a time-channel separable convolution is a part of its pointwise half.

use super::{AxisRange, Deviation, Identity, Size, THROUGH_MAP, bias, data, gain, running_mean, running_var, weight};
use crate::operators::Paper;

pub(super) static IDENTITY: Identity = Identity {
    name: "batch_norm_into_separable_convolution",
    summary: "a depthwise and a pointwise convolution over time, and BatchNorm with running statistics, are the first two",
    condition: "the statistics are fixed (inference), and BatchNorm follows the pointwise half",
    map_in_words: "as for a linear layer, in the pointwise matrix; the depthwise filter stays",
    axes: &[
        AxisRange { name: "n", meaning: "samples", size: Size::Between(1, 3) },
        AxisRange { name: "o", meaning: "output channels", size: Size::Between(2, 8) },
        AxisRange { name: "d", meaning: "input channels", size: Size::Width(2, 64) },
        AxisRange { name: "t", meaning: "time", size: Size::Between(3, 12) },
        AxisRange { name: "p", meaning: "time of the output", size: Size::Follows(|of| of("t")) },
        AxisRange { name: "k", meaning: "taps of the filter", size: Size::Follows(|_| 5) },
    ],
    depth: (1, 1),
    inputs: |_| {
        vec![
            data("x", "n d t"),
            weight("filter", "d k", "k"),
            weight("w", "o d", "d"),
            gain("weight", "o"),
            bias("bias", "o"),
            running_mean("running_mean", "o"),
            running_var("running_var", "o"),
        ]
    },
    eps: 1e-3,
    left: |s| {
        let filtered = s.get("x").windows("t", "p", "k", 1, 2).dot(s.get("filter"), "k");
        if s.is("BatchNorm between the halves") {
            let [mean, var] = ["running_mean", "running_var"].map(|name| s.get(name).head("o", "d"));
            return ((filtered - mean) * (var + s.eps()).rsqrt()).dot(s.get("w"), "d") * s.get("weight")
                + s.get("bias");
        }
        s.batch_norm_inference(filtered.dot(s.get("w"), "d"), "o", "p")
    },
    map: |s| {
        let a = s.get("weight") * (s.get("running_var") + s.eps()).rsqrt();
        let c = s.get("bias") - s.get("running_mean") * if s.is("the mean not scaled") { s.number(1.0) } else { a };
        vec![("w".to_owned(), s.get("w") * a), ("c".to_owned(), c)]
    },
    right: |s| {
        let filtered = s.get("x").windows("t", "p", "k", 1, 2).dot(s.get("filter"), "k");
        filtered.dot(s.get("w"), "d") + s.get("c")
    },
    deviations: &[Deviation::condition("BatchNorm between the halves"), Deviation::planted("the mean not scaled")],
    training: THROUGH_MAP,
    papers: &[Paper {
        title: "QuartzNet: Deep Automatic Speech Recognition with 1D Time-Channel Separable Convolutions",
        reference: "arXiv:1910.10261",
    }],
};
