//! LayerNorm is RMSNorm of what was centred before, or in the weights before.

use super::{AxisRange, Deviation, EQUAL_GRADIENTS, Identity, Optimizer, Scheme, Size, Training, bias, data, weight};
use crate::apply;
use crate::operators::Paper;

pub(super) static WEIGHTS: Identity = Identity {
    name: "layer_norm_into_weights",
    summary: "a linear layer and LayerNorm are a centred linear layer and RMSNorm",
    condition: "matrix and bias of the layer before are both centred over its outputs",
    map_in_words: "matrix and bias lose their mean over the outputs",
    axes: &[
        AxisRange { name: "n", meaning: "rows", size: Size::Between(1, 8) },
        AxisRange { name: "i", meaning: "inputs", size: Size::Between(1, 16) },
        AxisRange { name: "d", meaning: "outputs, normalized together", size: Size::Width(2, 256) },
    ],
    depth: (1, 1),
    inputs: |_| vec![data("x", "n i"), weight("w", "i d", "i"), bias("c", "d")],
    eps: 1e-5,
    left: |s| s.layer_norm(s.get("x").dot(s.get("w"), "i") + s.get("c"), "d"),
    map: |s| {
        let (w, c) = (s.get("w"), s.get("c"));
        let over = if s.is("the mean over the inputs") { "i" } else { "d" };
        let c = if s.is("the bias not centred") { c } else { c - c.mean("d") };
        vec![("w".to_owned(), w - w.mean(over)), ("c".to_owned(), c)]
    },
    right: |s| s.rms_norm(s.get("x").dot(s.get("w"), "i") + s.get("c"), "d"),
    deviations: &[Deviation::condition("the bias not centred"), Deviation::planted("the mean over the inputs")],
    training: &[
        Training { scheme: Scheme::ThroughMap, optimizer: Optimizer::Sgd, holds: true, why: EQUAL_GRADIENTS },
        Training { scheme: Scheme::ThroughMap, optimizer: Optimizer::Adam, holds: true, why: EQUAL_GRADIENTS },
        Training {
            scheme: Scheme::Projected,
            optimizer: Optimizer::Sgd,
            holds: true,
            why: "centring is linear and a step of gradient descent too: they can be exchanged",
        },
    ],
    papers: &[Paper {
        title: "Pre-RMSNorm and Pre-CRMSNorm Transformers: Equivalent and Efficient Pre-LN Transformers",
        reference: "arXiv:2305.14858",
    }],
};

const ROWS: &[AxisRange] = &[
    AxisRange { name: "n", meaning: "rows", size: Size::Between(1, 8) },
    AxisRange { name: "d", meaning: "entries of a row", size: Size::Width(2, 256) },
];

pub(super) static CENTRED: Identity = Identity {
    name: "layer_norm_is_centred_rms_norm",
    summary: "LayerNorm is RMSNorm of a row without its mean",
    condition: "the mean is taken away before; ε is the same",
    map_in_words: "none",
    axes: ROWS,
    depth: (1, 1),
    inputs: |_| vec![data("x", "n d")],
    eps: 1e-5,
    left: |s| s.layer_norm(s.get("x"), "d"),
    map: |_| vec![],
    right: |s| {
        let x = s.get("x");
        let eps = if s.is("another ε") { 2e-5 } else { 1e-5 };
        let centred = if s.is("the mean forgotten") { x } else { x - x.mean("d") };
        apply(s.builder(), "rms_norm", eps, &[("d", "d")], &[("x", centred)])
    },
    deviations: &[Deviation::condition("another ε"), Deviation::planted("the mean forgotten")],
    training: &[],
    papers: &[Paper { title: "Root Mean Square Layer Normalization", reference: "arXiv:1910.07467" }],
};

pub(super) static RESCALED: Identity = Identity {
    name: "layer_norm_rescaled",
    summary: "LayerNorm of rows that were divided by c, with ε divided by c², is LayerNorm",
    condition: "ε is scaled with the variance; the rows are scaled, not shifted apart",
    map_in_words: "none; c = 2",
    axes: ROWS,
    depth: (1, 1),
    inputs: |_| vec![data("x", "n d")],
    eps: 1e-3,
    left: |s| s.layer_norm(s.get("x"), "d"),
    map: |_| vec![],
    right: |s| {
        let eps = if s.is("ε as it was") {
            1e-3
        } else if s.is("ε divided by c") {
            1e-3 / 2.0
        } else {
            1e-3 / 4.0
        };
        apply(s.builder(), "layer_norm", eps, &[("d", "d")], &[("x", s.get("x") * 0.5)])
    },
    deviations: &[Deviation::condition("ε as it was"), Deviation::planted("ε divided by c")],
    training: &[],
    papers: &[Paper { title: "Layer Normalization", reference: "arXiv:1607.06450, section 5.1" }],
};
