//! BatchNorm in inference is a part of the transposed convolution before it.

use super::batch_norm_into_linear::PAPER;
use super::{AxisRange, Deviation, Identity, Size, THROUGH_MAP, bias, data, gain, running_mean, running_var, weight};

pub(super) static IDENTITY: Identity = Identity {
    name: "batch_norm_into_transposed_convolution",
    summary: "a transposed convolution and BatchNorm with running statistics are one transposed convolution",
    condition: "the statistics are fixed (inference), one for each output channel",
    map_in_words: "as for a linear layer, for each output channel; outputs that no window reaches get the bias alone",
    axes: &[
        AxisRange { name: "n", meaning: "samples", size: Size::Between(1, 3) },
        AxisRange { name: "o", meaning: "output channels", size: Size::Between(2, 6) },
        AxisRange { name: "d", meaning: "input channels", size: Size::Width(2, 32) },
        AxisRange { name: "t", meaning: "time of the output", size: Size::Follows(|of| 2 * of("p") + 2) },
        AxisRange { name: "p", meaning: "time of the input", size: Size::Between(1, 6) },
        AxisRange { name: "k", meaning: "taps of the filter", size: Size::Follows(|_| 3) },
    ],
    depth: (1, 1),
    inputs: |_| {
        vec![
            data("x", "n d p"),
            weight("w", "o d k", "d"),
            bias("c", "o"),
            gain("weight", "o"),
            bias("bias", "o"),
            running_mean("running_mean", "o"),
            running_var("running_var", "o"),
        ]
    },
    eps: 1e-3,
    left: |s| {
        let sums = s.get("x").dot(s.get("w"), "d").overlap("t", "p", "k", 2, 0) + s.get("c");
        if s.is("the bias added for each window") {
            let each = (s.get("x").dot(s.get("w"), "d") + s.get("c")).overlap("t", "p", "k", 2, 0);
            return s.batch_norm_inference(each, "o", "t");
        }
        s.batch_norm_inference(sums, "o", "t")
    },
    map: |s| {
        let a = s.get("weight") * (s.get("running_var") + s.eps()).rsqrt();
        // The channels of a transposed convolution's matrix lie the other way round.
        let wrong = s.is("the scale of the input channels");
        let scale = if wrong { a.head("o", "d") } else { a };
        vec![
            ("w".to_owned(), s.get("w") * scale),
            ("c".to_owned(), (s.get("c") - s.get("running_mean")) * a + s.get("bias")),
        ]
    },
    right: |s| s.get("x").dot(s.get("w"), "d").overlap("t", "p", "k", 2, 0) + s.get("c"),
    deviations: &[
        Deviation::condition("the bias added for each window"),
        Deviation::planted("the scale of the input channels"),
    ],
    training: THROUGH_MAP,
    papers: &[PAPER],
};
