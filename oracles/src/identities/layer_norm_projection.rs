//! LayerNorm is a projection and a division by the length.

use super::{AxisRange, Deviation, Identity, Size, data};
use crate::operators::Paper;

pub(super) static IDENTITY: Identity = Identity {
    name: "layer_norm_is_projection",
    summary: "LayerNorm projects a row orthogonally to the vector of ones and scales it to the length √d",
    condition: "ε = 0, no gain and bias",
    map_in_words: "none",
    axes: &[
        AxisRange { name: "n", meaning: "rows", size: Size::Between(1, 8) },
        AxisRange { name: "d", meaning: "entries of a row", size: Size::Width(2, 256) },
    ],
    depth: (1, 1),
    inputs: |_| vec![data("x", "n d")],
    eps: 0.0,
    left: |s| {
        let eps = if s.is("ε > 0") { 1e-3 } else { 0.0 };
        crate::apply(s.builder(), "layer_norm", eps, &[("d", "d")], &[("x", s.get("x"))])
    },
    map: |_| vec![],
    right: |s| {
        let (x, d) = (s.get("x"), s.builder().count("d"));
        let ones = s.number(1.0);
        let along_ones = if s.is("no projection") { s.number(0.0) } else { ones * (x.sum("d") / d) };
        let projected = x - along_ones;
        let length = projected.square().sum("d").sqrt();
        projected / length * (if s.is("length d") { d } else { d.sqrt() })
    },
    deviations: &[Deviation::condition("ε > 0"), Deviation::planted("no projection"), Deviation::planted("length d")],
    training: &[],
    papers: &[Paper {
        title: "On the Expressivity Role of LayerNorm in Transformers' Attention",
        reference: "arXiv:2305.02582",
    }],
};
