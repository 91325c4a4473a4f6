//! Unified Normalization in inference is a part of the linear layer after it.

use super::{AxisRange, Deviation, Identity, Size, THROUGH_MAP, bias, data, gain, running_var, weight};
use crate::operators::Paper;

pub(super) static IDENTITY: Identity = Identity {
    name: "unified_norm_into_linear",
    summary: "Unified Normalization with its running mean square and the linear layer after it are one linear layer",
    condition: "the statistics are fixed (inference), and nothing lies between the two",
    map_in_words: "the matrix times weight / √(running + ε) for each input; its product with the norm's bias goes into the bias",
    axes: &[
        AxisRange { name: "t", meaning: "tokens", size: Size::Between(2, 8) },
        AxisRange { name: "d", meaning: "channels", size: Size::Width(2, 256) },
        AxisRange { name: "o", meaning: "outputs", size: Size::Between(1, 16) },
    ],
    depth: (1, 1),
    inputs: |_| {
        vec![
            data("x", "t d"),
            gain("g", "d"),
            bias("b", "d"),
            running_var("running", "d"),
            weight("w", "d o", "d"),
            bias("c", "o"),
        ]
    },
    eps: 1e-5,
    left: |s| {
        let x = s.get("x");
        let square = if s.is("statistics of the batch") { x.square().mean("t") } else { s.get("running") };
        (x * (square + s.eps()).rsqrt() * s.get("g") + s.get("b")).dot(s.get("w"), "d") + s.get("c")
    },
    map: |s| {
        let scaled = s.get("w") * (s.get("g") * (s.get("running") + s.eps()).rsqrt());
        let c = if s.is("the bias not folded") { s.get("c") } else { s.get("c") + s.get("w").dot(s.get("b"), "d") };
        vec![("w".to_owned(), scaled), ("c".to_owned(), c)]
    },
    right: |s| s.get("x").dot(s.get("w"), "d") + s.get("c"),
    deviations: &[Deviation::condition("statistics of the batch"), Deviation::planted("the bias not folded")],
    training: THROUGH_MAP,
    papers: &[Paper {
        title: "Unified Normalization for Accelerating and Stabilizing Transformers",
        reference: "arXiv:2208.01313",
    }],
};
