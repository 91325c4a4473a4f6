//! Normalizations of weights leave nothing to do in inference: they are materialised.

use super::{AxisRange, Deviation, Identity, Kind, Scope, Size, THROUGH_MAP, Values, bias, data, gain, input, weight};
use crate::formula::Expr;
use crate::operators::Paper;

const AXES: &[AxisRange] = &[
    AxisRange { name: "n", meaning: "samples", size: Size::Between(1, 6) },
    AxisRange { name: "d", meaning: "inputs", size: Size::Width(2, 128) },
    AxisRange { name: "o", meaning: "outputs", size: Size::Between(2, 16) },
];

pub(super) static STANDARDIZED: Identity = Identity {
    name: "weight_standardization",
    summary: "scaled weight standardization, applied to products and sums of the data, is a linear layer",
    condition: "mean and variance of each weight vector are over its inputs, biased",
    map_in_words: "w' = (w - mean) · gain / √(d · var + ε), for each output",
    axes: AXES,
    depth: (1, 1),
    inputs: |_| vec![data("x", "n d"), weight("w", "d o", "d"), gain("gain", "o"), bias("c", "o")],
    eps: 1e-4,
    left: |s| {
        let (x, w) = (s.get("x"), s.get("w"));
        let over = if s.is("statistics of the whole matrix") { "d o" } else { "d" };
        let (mean, var) = w.moments(over);
        let scale = s.get("gain") * (var * s.builder().count("d") + s.eps()).rsqrt();
        (x.dot(w, "d") - x.sum("d") * mean) * scale + s.get("c")
    },
    map: |s| {
        let w = s.get("w");
        let (mean, var) = w.moments("d");
        let count = s.builder().count("d");
        let scaled = if s.is("the fan-in forgotten") { var } else { var * count };
        let centred = if s.is("the mean forgotten") { w } else { w - mean };
        vec![("w".to_owned(), centred * (s.get("gain") * (scaled + s.eps()).rsqrt()))]
    },
    right: |s| s.get("x").dot(s.get("w"), "d") + s.get("c"),
    deviations: &[
        Deviation::condition("statistics of the whole matrix"),
        Deviation::planted("the fan-in forgotten"),
        Deviation::planted("the mean forgotten"),
    ],
    training: THROUGH_MAP,
    papers: &[
        Paper {
            title: "Micro-Batch Training with Batch-Channel Normalization and Weight Standardization",
            reference: "arXiv:1903.10520",
        },
        Paper {
            title: "Characterizing Signal Propagation to Close the Performance Gap in Unnormalized ResNets",
            reference: "arXiv:2101.08692",
        },
    ],
};

/// Unit vectors after one step of the power iteration.
fn power_iteration<'b>(s: &Scope<'b>) -> (Expr<'b>, Expr<'b>) {
    let w = s.get("w");
    let u = w.dot(s.get("start"), "d");
    let u = u * u.square().sum("o").rsqrt();
    let v = w.dot(u, "o");
    (u, v * v.square().sum("d").rsqrt())
}

pub(super) static SPECTRAL: Identity = Identity {
    name: "spectral_normalization",
    summary: "dividing a product by an estimate of the largest singular value (σReparam: and scaling it) is a linear layer",
    condition: "the vectors of the power iteration are kept; the bias is not divided",
    map_in_words: "w' = γ w / (uᵀ w v), for unit vectors u and v after one step of the power iteration",
    axes: AXES,
    depth: (1, 1),
    inputs: |_| {
        vec![
            data("x", "n d"),
            weight("w", "d o", "d"),
            input("gamma", "", Kind::Param, Values::Uniform(0.5, 2.0)),
            bias("c", "o"),
            input("start", "d", Kind::Fixed, Values::Uniform(0.5, 2.0)),
        ]
    },
    eps: 0.0,
    left: |s| {
        let w = s.get("w");
        let (u, v) = power_iteration(s);
        let sigma = w.dot(v, "d").dot(u, "o");
        let product = s.get("x").dot(w, "d");
        let scale = s.get("gamma") / sigma;
        if s.is("the bias divided too") { (product + s.get("c")) * scale } else { product * scale + s.get("c") }
    },
    map: |s| {
        let w = s.get("w");
        let (u, v) = power_iteration(s);
        let sigma = if s.is("the Frobenius norm") { w.square().sum("d o").sqrt() } else { w.dot(v, "d").dot(u, "o") };
        vec![("w".to_owned(), w * (s.get("gamma") / sigma))]
    },
    right: |s| s.get("x").dot(s.get("w"), "d") + s.get("c"),
    deviations: &[Deviation::condition("the bias divided too"), Deviation::planted("the Frobenius norm")],
    training: THROUGH_MAP,
    papers: &[
        Paper {
            title: "Spectral Normalization for Generative Adversarial Networks",
            reference: "arXiv:1802.05957, algorithm 1",
        },
        Paper {
            title: "Stabilizing Transformer Training by Preventing Attention Entropy Collapse",
            reference: "arXiv:2303.06296",
        },
    ],
};
