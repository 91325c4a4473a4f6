//! What is normalized does not see the scale of the weights before it.

use super::{
    AxisRange, Deviation, EQUAL_GRADIENTS, Identity, Kind, Optimizer, Scheme, Size, Training, Values, data, input,
    weight,
};
use super::{bias, gain};
use crate::operators::Paper;

const PAPER: Paper =
    Paper { title: "L2 Regularization versus Batch and Weight Normalization", reference: "arXiv:1706.05350" };

const AXES: &[AxisRange] = &[
    AxisRange { name: "n", meaning: "samples", size: Size::Between(3, 8) },
    AxisRange { name: "i", meaning: "inputs", size: Size::Between(2, 16) },
    AxisRange { name: "d", meaning: "outputs", size: Size::Width(3, 128) },
];

/// The factor of the weights: not a power of two, so that roundings differ.
const FACTOR: f64 = 3.0;

const TRAINING: &[Training] = &[
    Training { scheme: Scheme::ThroughMap, optimizer: Optimizer::Sgd, holds: true, why: EQUAL_GRADIENTS },
    Training {
        scheme: Scheme::Own(FACTOR * FACTOR),
        optimizer: Optimizer::Sgd,
        holds: true,
        why: "gradients shrink by c while weights grow by c: with the learning rate times c² the weights stay c times the others",
    },
    Training {
        scheme: Scheme::Own(1.0),
        optimizer: Optimizer::Sgd,
        holds: false,
        why: "with the same learning rate the larger weights turn c² times more slowly",
    },
];

pub(super) static BATCH_NORM: Identity = Identity {
    name: "batch_norm_scale_invariance",
    summary: "BatchNorm does not see the scale of each weight vector before it; the learning rate that matters is the rate over \
        its square",
    condition: "ε = 0, and no bias before the norm that is not scaled too",
    map_in_words: "the matrix times 3",
    axes: AXES,
    depth: (1, 1),
    inputs: |_| vec![data("x", "n i"), weight("w", "i d", "i"), bias("c", "d")],
    eps: 0.0,
    left: |s| {
        let product = s.get("x").dot(s.get("w"), "i");
        let z = if s.is("an activation that is not homogeneous") { product.tanh() } else { product };
        let (mean, var) = z.moments("n");
        (z - mean) * (var + if s.is("ε > 0") { 1e-2 } else { 0.0 }).rsqrt()
    },
    map: |s| vec![("w".to_owned(), s.get("w") * FACTOR)],
    right: |s| {
        let product = s.get("x").dot(s.get("w"), "i");
        let z = if s.is("an activation that is not homogeneous") { product.tanh() } else { product };
        let mean = if s.is("the mean forgotten") { s.number(0.0) } else { z.mean("n") };
        let var = (z - mean).square().mean("n");
        (z - mean) * (var + if s.is("ε > 0") { 1e-2 } else { 0.0 }).rsqrt()
    },
    deviations: &[
        Deviation::condition("ε > 0"),
        Deviation::condition("an activation that is not homogeneous"),
        Deviation::planted("the mean forgotten"),
    ],
    training: TRAINING,
    papers: &[PAPER],
};

pub(super) static LAYER_NORM: Identity = Identity {
    name: "layer_norm_scale_invariance",
    summary: "LayerNorm does not see the scale of the matrix before it, nor a vector added to all of its weight vectors",
    condition: "ε = 0, and all weight vectors are scaled alike (BatchNorm lets each have its own scale)",
    map_in_words: "the matrix times 3, and a vector added to each weight vector",
    axes: AXES,
    depth: (1, 1),
    inputs: |_| vec![data("x", "n i"), weight("w", "i d", "i"), bias("shift", "i"), gain("each", "d")],
    eps: 0.0,
    left: |s| crate::apply(s.builder(), "layer_norm", 0.0, &[("d", "d")], &[("x", s.get("x").dot(s.get("w"), "i"))]),
    map: |s| {
        let scaled =
            if s.is("a scale for each weight vector") { s.get("w") * s.get("each") } else { s.get("w") * FACTOR };
        vec![("w".to_owned(), scaled + s.get("shift"))]
    },
    right: |s| {
        let z = s.get("x").dot(s.get("w"), "i");
        let eps = if s.is("ε > 0") { 1e-3 } else { 0.0 };
        let operator = if s.is("RMSNorm, which sees the vector") { "rms_norm" } else { "layer_norm" };
        crate::apply(s.builder(), operator, eps, &[("d", "d")], &[("x", z)])
    },
    deviations: &[
        Deviation::condition("ε > 0"),
        Deviation::condition("a scale for each weight vector"),
        Deviation::planted("RMSNorm, which sees the vector"),
    ],
    training: &[
        Training { scheme: Scheme::ThroughMap, optimizer: Optimizer::Sgd, holds: true, why: EQUAL_GRADIENTS },
        Training {
            scheme: Scheme::Own(FACTOR * FACTOR),
            optimizer: Optimizer::Sgd,
            holds: true,
            why: "gradients shrink by c while weights grow by c, and the gradient has no part along what is added",
        },
        Training {
            scheme: Scheme::Own(1.0),
            optimizer: Optimizer::Sgd,
            holds: false,
            why: "with the same learning rate the larger weights turn c² times more slowly",
        },
    ],
    papers: &[Paper { title: "Layer Normalization", reference: "arXiv:1607.06450, section 5.1 and table 1" }, PAPER],
};

pub(super) static WEIGHT_NORM: Identity = Identity {
    name: "weight_norm_scale_invariance",
    summary: "Weight normalization does not see the length of its weight vectors, and makes their gradients orthogonal to them",
    condition: "each weight vector is divided by its length",
    map_in_words: "each weight vector times a parameter of its own: that its gradient is 0 says that gradients are orthogonal",
    axes: AXES,
    depth: (1, 1),
    inputs: |_| {
        vec![
            data("x", "n i"),
            weight("w", "i d", "i"),
            gain("g", "d"),
            input("scale", "d", Kind::Data, Values::Uniform(0.5, 2.0)),
        ]
    },
    eps: 0.0,
    left: |s| {
        let w = s.get("w");
        s.get("x").dot(w * (w.square().sum("i").rsqrt() * s.get("g")), "i")
    },
    map: |s| vec![("w".to_owned(), s.get("w") * s.get("scale"))],
    right: |s| {
        let w = s.get("w");
        let squares = if s.is("the length of the whole matrix") { w.square().sum("i d") } else { w.square().sum("i") };
        let squares = if s.is("ε beside the length") { squares + 1e-3 } else { squares };
        s.get("x").dot(w * (squares.rsqrt() * s.get("g")), "i")
    },
    deviations: &[Deviation::condition("ε beside the length"), Deviation::planted("the length of the whole matrix")],
    training: &[],
    papers: &[
        Paper {
            title: "Weight Normalization: A Simple Reparameterization to Accelerate Training of Deep Neural Networks",
            reference: "arXiv:1602.07868, section 2",
        },
        Paper {
            title: "AdamP: Slowing Down the Slowdown for Momentum Optimizers on Scale-invariant Weights",
            reference: "arXiv:2006.08217",
        },
    ],
};
