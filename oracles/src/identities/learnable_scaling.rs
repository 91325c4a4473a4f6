//! Squeezeformer's learnable scaling is a part of the linear layer after it.

use super::{AxisRange, Deviation, Identity, Size, THROUGH_MAP, bias, data, gain, weight};
use crate::operators::Paper;

pub(super) static IDENTITY: Identity = Identity {
    name: "learnable_scaling_into_linear",
    summary: "a branch that scales LayerNorm's output instead of normalizing it again: the scaling is a part of the branch",
    condition: "the shortcut keeps the value that is not scaled, so that the scaling cannot go into the LayerNorm before it",
    map_in_words: "the matrix times the scale for each input, and its product with the shift in the bias",
    axes: &[
        AxisRange { name: "t", meaning: "tokens", size: Size::Between(1, 8) },
        AxisRange { name: "d", meaning: "channels", size: Size::Width(2, 128) },
        AxisRange { name: "f", meaning: "hidden units", size: Size::Follows(|of| 2 * of("d")) },
    ],
    depth: (1, 1),
    inputs: |_| {
        vec![
            data("x", "t d"),
            gain("scale", "d"),
            bias("shift", "d"),
            weight("w1", "d f", "d"),
            bias("c1", "f"),
            weight("w2", "d f", "f"),
        ]
    },
    eps: 1e-5,
    left: |s| {
        let x = s.layer_norm(s.get("x"), "d");
        let scaled = x * s.get("scale") + s.get("shift");
        let hidden = scaled.dot(s.get("w1"), "d") + s.get("c1");
        let sigmoid = s.number(1.0) / (hidden.neg().exp() + 1.0);
        s.layer_norm(
            (hidden * sigmoid).dot(s.get("w2"), "f") + if s.is("the shortcut scaled too") { scaled } else { x },
            "d",
        )
    },
    map: |s| {
        let w = s.get("w1");
        let c = if s.is("the shift forgotten") { s.get("c1") } else { s.get("c1") + w.dot(s.get("shift"), "d") };
        vec![("w1".to_owned(), w * s.get("scale")), ("c1".to_owned(), c)]
    },
    right: |s| {
        let x = s.layer_norm(s.get("x"), "d");
        let hidden = x.dot(s.get("w1"), "d") + s.get("c1");
        let sigmoid = s.number(1.0) / (hidden.neg().exp() + 1.0);
        s.layer_norm((hidden * sigmoid).dot(s.get("w2"), "f") + x, "d")
    },
    deviations: &[Deviation::condition("the shortcut scaled too"), Deviation::planted("the shift forgotten")],
    training: THROUGH_MAP,
    papers: &[Paper {
        title: "Squeezeformer: An Efficient Transformer for Automatic Speech Recognition",
        reference: "arXiv:2206.00888",
    }],
};
