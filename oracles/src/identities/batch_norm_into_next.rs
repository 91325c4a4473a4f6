//! BatchNorm in inference is a part of the linear layer or convolution after it, as far as padding allows.

use super::Scope;
use super::batch_norm_into_linear::PAPER;
use super::{
    AxisRange, Deviation, Identity, Kind, Size, THROUGH_MAP, Values, bias, data, gain, input, running_mean,
    running_var, weight,
};
use crate::formula::Expr;

/// Scale and shift that BatchNorm is in inference.
fn affine<'b>(s: &Scope<'b>) -> (Expr<'b>, Expr<'b>) {
    let a = s.get("weight") * (s.get("running_var") + s.eps()).rsqrt();
    (a, s.get("bias") - s.get("running_mean") * a)
}

pub(super) static LINEAR: Identity = Identity {
    name: "batch_norm_into_next_linear",
    summary: "BatchNorm with running statistics and the linear layer after it are one linear layer",
    condition: "the statistics are fixed (inference), and nothing lies between the two",
    map_in_words: "the matrix times weight / √(running_var + ε) for each input; its product with bias - running_mean · that \
        goes into the bias",
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
            gain("weight", "d"),
            bias("bias", "d"),
            running_mean("running_mean", "d"),
            running_var("running_var", "d"),
        ]
    },
    eps: 1e-5,
    left: |s| {
        let y = s.batch_norm_inference(s.get("x"), "d", "");
        (if s.is("a ReLU in between") { y.relu() } else { y }).dot(s.get("w"), "d") + s.get("c")
    },
    map: |s| {
        let (a, shift) = affine(s);
        let scaled = s.get("w") * a;
        let through = if s.is("the shift through the scaled matrix") { scaled } else { s.get("w") };
        vec![("w".to_owned(), scaled), ("c".to_owned(), s.get("c") + through.dot(shift, "d"))]
    },
    right: |s| s.get("x").dot(s.get("w"), "d") + s.get("c"),
    deviations: &[Deviation::condition("a ReLU in between"), Deviation::planted("the shift through the scaled matrix")],
    training: THROUGH_MAP,
    papers: &[PAPER],
};

pub(super) static CONVOLUTION: Identity = Identity {
    name: "batch_norm_into_next_convolution",
    summary: "BatchNorm with running statistics and the convolution after it are one convolution, if the padding is mapped too",
    condition: "outside of the image the folded convolution sees -shift / scale of each channel, which BatchNorm maps to the \
        0 that the convolution sees; with zeros on both sides the border differs",
    map_in_words: "as for a linear layer, and padding with running_mean - bias · √(running_var + ε) / weight",
    axes: &[
        AxisRange { name: "n", meaning: "samples", size: Size::Between(1, 3) },
        AxisRange { name: "o", meaning: "output channels", size: Size::Between(1, 6) },
        AxisRange { name: "d", meaning: "input channels", size: Size::Width(2, 64) },
        AxisRange { name: "t", meaning: "time", size: Size::Between(1, 10) },
        AxisRange { name: "p", meaning: "time of the output", size: Size::Follows(|of| of("t")) },
        AxisRange { name: "k", meaning: "taps of the filter", size: Size::Follows(|_| 3) },
    ],
    depth: (1, 1),
    inputs: |_| {
        vec![
            data("x", "n d t"),
            weight("w", "o d k", "d k"),
            bias("c", "o"),
            gain("weight", "d"),
            bias("bias", "d"),
            running_mean("running_mean", "d"),
            running_var("running_var", "d"),
            // What is inside of the image.
            input("inside", "t", Kind::Fixed, Values::Uniform(1.0, 1.0)),
        ]
    },
    eps: 1e-3,
    left: |s| {
        let y = s.batch_norm_inference(s.get("x"), "d", "t");
        y.windows("t", "p", "k", 1, 1).dot(s.get("w"), "d k") + s.get("c")
    },
    map: |s| {
        let (a, shift) = affine(s);
        let pad = if s.is("padding with the mean") { s.get("running_mean") } else { (shift / a).neg() };
        let c = s.get("c") + s.get("w").dot(shift, "d k");
        let c = if s.is("the shift of one tap") { s.get("c") + s.get("w").mean("k").dot(shift, "d") } else { c };
        vec![("w".to_owned(), s.get("w") * a), ("c".to_owned(), c), ("pad".to_owned(), pad)]
    },
    right: |s| {
        let outside = s.number(1.0) - s.get("inside").windows("t", "p", "k", 1, 1);
        let windows = s.get("x").windows("t", "p", "k", 1, 1);
        let seen = if s.is("zero padding") { windows } else { windows + outside * s.get("pad") };
        seen.dot(s.get("w"), "d k") + s.get("c")
    },
    deviations: &[
        Deviation::condition("zero padding"),
        Deviation::planted("padding with the mean"),
        Deviation::planted("the shift of one tap"),
    ],
    training: THROUGH_MAP,
    papers: &[PAPER],
};
