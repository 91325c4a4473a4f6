//! BatchNorm in inference is a part of the (grouped, strided, padded) convolution before it.

use super::batch_norm_into_linear::PAPER;
use super::{AxisRange, Deviation, Identity, Size, THROUGH_MAP, bias, data, gain, running_mean, running_var, weight};

/// Places of a convolution over so many entries: window 3, stride 2, one zero before and what is needed behind.
pub(super) const fn places(entries: usize) -> usize {
    entries.div_ceil(2)
}

pub(super) static IDENTITY: Identity = Identity {
    name: "batch_norm_into_convolution",
    summary: "a two-dimensional convolution in groups and BatchNorm with running statistics are one convolution",
    condition: "the statistics are fixed (inference), one for each output channel; padding does not matter",
    map_in_words: "as for a linear layer, for each output channel of each group",
    axes: &[
        AxisRange { name: "n", meaning: "samples", size: Size::Between(1, 3) },
        AxisRange { name: "g", meaning: "groups", size: Size::Between(1, 3) },
        AxisRange { name: "o", meaning: "output channels of a group", size: Size::Between(2, 4) },
        AxisRange { name: "d", meaning: "input channels of a group", size: Size::Width(1, 32) },
        AxisRange { name: "y", meaning: "rows of the image", size: Size::Between(1, 6) },
        AxisRange { name: "x", meaning: "columns of the image", size: Size::Between(1, 6) },
        AxisRange { name: "q", meaning: "rows of the output", size: Size::Follows(|of| places(of("y"))) },
        AxisRange { name: "p", meaning: "columns of the output", size: Size::Follows(|of| places(of("x"))) },
        AxisRange { name: "k", meaning: "rows of a window", size: Size::Follows(|_| 3) },
        AxisRange { name: "l", meaning: "columns of a window", size: Size::Follows(|_| 3) },
    ],
    depth: (1, 1),
    inputs: |_| {
        vec![
            data("x", "n g d y x"),
            weight("w", "g o d k l", "d k l"),
            bias("c", "g o"),
            gain("weight", "g o"),
            bias("bias", "g o"),
            running_mean("running_mean", "g o"),
            running_var("running_var", "g o"),
        ]
    },
    eps: 1e-3,
    left: |s| {
        let windows = s.get("x").windows("y", "q", "k", 2, 1).windows("x", "p", "l", 2, 1);
        let z = windows.dot(s.get("w"), "d k l") + s.get("c");
        if s.is("statistics of the batch") {
            let (mean, var) = z.moments("n q p");
            return (z - mean) * (var + s.eps()).rsqrt() * s.get("weight") + s.get("bias");
        }
        s.batch_norm_inference(z, "g o", "q p")
    },
    map: |s| {
        let a = s.get("weight") * (s.get("running_var") + s.eps()).rsqrt();
        let a = if s.is("one scale for a whole group") { a.mean("o") } else { a };
        let mean = s.get("running_mean");
        let c = if s.is("the mean forgotten") { s.get("c") * a } else { (s.get("c") - mean) * a };
        vec![("w".to_owned(), s.get("w") * a), ("c".to_owned(), c + s.get("bias"))]
    },
    right: |s| {
        let windows = s.get("x").windows("y", "q", "k", 2, 1).windows("x", "p", "l", 2, 1);
        windows.dot(s.get("w"), "d k l") + s.get("c")
    },
    deviations: &[
        Deviation::condition("statistics of the batch"),
        Deviation::planted("the mean forgotten"),
        Deviation::planted("one scale for a whole group"),
    ],
    training: THROUGH_MAP,
    papers: &[PAPER],
};
