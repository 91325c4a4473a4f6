//! RMSNorm and pRMSNorm against LayerNorm.

use super::blocks::{norm, post_norm};
use super::{
    By, Claim, Comparison, Level, Metric, Norm, Pair, Part, Pass, Program, Quantity, Shape, Stated, beside, decides,
    program, same, shape,
};
use crate::operators::Paper;

const PAPER: Paper = Paper { title: "Root Mean Square Layer Normalization", reference: "arXiv:1910.07467" };
const HARDWARE: &str = "GPUs (V100, RTX 2080 Ti and others), TensorFlow, Theano and PyTorch: whole training steps";
const SCALING: &str = "training steps of one layer each, norms step by step as in the paper's frameworks: a GRU with six norms in a \
                       step (batch 64, 16 steps, widths 64 and 240), and a Post-LN layer of Transformer base (width 512, 8 heads, 4 \
                       sequences of 32 tokens)";

/// Rows of the batches of recurrent networks.
const ROWS: &[Shape] = &[shape(1, 64, 240), shape(1, 64, 512), shape(1, 64, 1024), shape(1, 64, 2048)];
const LARGE: &[Shape] = &[shape(64, 1024, 512)];
const BASE: &[Shape] = &[shape(4, 32, 512)];
const SEQUENCES: &[Shape] = &[shape(64, 16, 64), shape(64, 16, 240)];

pub(super) static FULL: Claim = Claim {
    name: "rms_norm",
    sentence: "RMSNorm in place of LayerNorm makes training steps 7 to 41 % shorter",
    paper: PAPER,
    hardware: HARDWARE,
    stated: Stated { text: "6.9 % to 40.8 %", low: 0.069, high: 0.408 },
    metric: Metric::TimeSaved,
    scaling: SCALING,
    untestable: None,
    comparisons: &[
        recurrent(&[
            decides("a GRU, step by step", "rms steps", "layer steps").limited_by("no norm"),
            beside("a GRU, against libtorch's LayerNorm", "rms steps", "layer libtorch").limited_by("no norm"),
        ]),
        training(&[
            decides("a layer, step by step", "rms steps", "layer steps").limited_by("no norm"),
            beside("a layer, against libtorch's LayerNorm", "rms steps", "layer libtorch").limited_by("no norm"),
        ]),
        inference(&[beside("a layer, built-in kernels", "rms kernel", "layer kernel").limited_by("no norm")]),
    ],
};

pub(super) static PARTIAL: Claim = Claim {
    name: "partial_rms_norm",
    sentence: "pRMSNorm, which takes the root mean square of the first 6.25 % of a row, makes training steps 9 to 64 % shorter than with \
               LayerNorm",
    paper: PAPER,
    hardware: HARDWARE,
    stated: Stated { text: "9.3 % to 63.9 %", low: 0.093, high: 0.639 },
    metric: Metric::TimeSaved,
    scaling: SCALING,
    untestable: None,
    comparisons: &[
        recurrent(&[decides("a GRU, step by step", "partial steps", "layer steps").limited_by("no norm")]),
        training(&[decides("a layer, step by step", "partial steps", "layer steps").limited_by("no norm")]),
    ],
};

pub(super) static ITSELF: Claim = Claim {
    name: "rms_norm_itself",
    sentence: "RMSNorm alone takes 20 to 60 % less time than LayerNorm alone",
    paper: Paper {
        title: "Pre-RMSNorm and Pre-CRMSNorm Transformers: Equivalent and Efficient Pre-LN Transformers",
        reference: "arXiv:2305.14858",
    },
    hardware: "A100, fused kernels on both sides",
    stated: Stated { text: "20 % to 60 %", low: 0.2, high: 0.6 },
    metric: Metric::TimeSaved,
    scaling: "rows in cache (64 rows of 240 to 2048) and in memory (65,536 rows of 512); the verdict is about our kernels in cache, which \
              measure a row in one sweep for either norm",
    untestable: None,
    comparisons: &[
        kernel(&[
            decides("built-in kernels", "rms kernel", "layer kernel"),
            beside("step by step", "rms steps", "layer steps"),
            beside("against three sweeps", "rms loop", "layer 3 sweeps"),
            beside("against two sweeps", "rms loop", "layer 2 sweeps"),
            beside("libtorch", "rms libtorch", "layer libtorch"),
            beside("CRMSNorm, built-in kernels", "crms kernel", "layer kernel"),
            beside("pRMSNorm, built-in kernels", "partial kernel", "layer kernel"),
            beside("pRMSNorm, against three sweeps", "partial loop", "layer 3 sweeps"),
        ]),
        Comparison {
            shapes: LARGE,
            programs: STREAMED,
            ..kernel(&[
                beside("in memory, against three sweeps", "rms loop", "layer 3 sweeps"),
                beside("in memory, built-in kernels", "rms kernel", "layer kernel"),
            ])
        },
    ],
};

const PARTIAL_RMS: Norm = Norm::PartialRms(0.0625);

/// Every way of every norm.
const NORMS: &[Program] = &[
    program("layer steps", |_| one(Norm::Layer, By::Steps)),
    same("layer 3 sweeps", "layer steps", |_| one(Norm::Layer, By::ThreeSweeps)),
    same("layer 2 sweeps", "layer steps", |_| one(Norm::Layer, By::TwoSweeps)),
    same("layer libtorch", "layer steps", |_| one(Norm::Layer, By::Libtorch)),
    same("layer kernel", "layer steps", |_| one(Norm::Layer, By::Kernel)),
    program("rms steps", |_| one(Norm::Rms, By::Steps)),
    same("rms loop", "rms steps", |_| one(Norm::Rms, By::TwoSweeps)),
    same("rms libtorch", "rms steps", |_| one(Norm::Rms, By::Libtorch)),
    same("rms kernel", "rms steps", |_| one(Norm::Rms, By::Kernel)),
    program("partial loop", |_| one(PARTIAL_RMS, By::TwoSweeps)),
    same("partial kernel", "partial loop", |_| one(PARTIAL_RMS, By::Kernel)),
    program("crms kernel", |_| one(Norm::CompressedRms, By::Kernel)),
    program("affine loop", |_| one(Norm::Affine, By::TwoSweeps)),
    same("affine kernel", "affine loop", |_| one(Norm::Affine, By::Kernel)),
];

const STREAMED: &[Program] = &[
    program("layer 3 sweeps", |_| one(Norm::Layer, By::ThreeSweeps)),
    same("layer kernel", "layer 3 sweeps", |_| one(Norm::Layer, By::Kernel)),
    program("rms loop", |_| one(Norm::Rms, By::TwoSweeps)),
    same("rms kernel", "rms loop", |_| one(Norm::Rms, By::Kernel)),
    program("affine loop", |_| one(Norm::Affine, By::TwoSweeps)),
];

const LAYERS: &[Program] = &[
    program("layer steps", |s| layer(s, Some((Norm::Layer, By::Steps)))),
    same("layer libtorch", "layer steps", |s| layer(s, Some((Norm::Layer, By::Libtorch)))),
    program("rms steps", |s| layer(s, Some((Norm::Rms, By::Steps)))),
    program("partial steps", |s| layer(s, Some((PARTIAL_RMS, By::Steps)))),
    program("no norm", |s| layer(s, None)),
];

const RECURRENT: &[Program] = &[
    program("layer steps", |_| gru(Some((Norm::Layer, By::Steps)))),
    same("layer libtorch", "layer steps", |_| gru(Some((Norm::Layer, By::Libtorch)))),
    program("rms steps", |_| gru(Some((Norm::Rms, By::Steps)))),
    program("partial steps", |_| gru(Some((PARTIAL_RMS, By::Steps)))),
    program("no norm", |_| gru(None)),
];

const FORWARD_LAYERS: &[Program] = &[
    program("layer kernel", |s| layer(s, Some((Norm::Layer, By::Kernel)))),
    same("layer libtorch", "layer kernel", |s| layer(s, Some((Norm::Layer, By::Libtorch)))),
    program("rms kernel", |s| layer(s, Some((Norm::Rms, By::Kernel)))),
    program("no norm", |s| layer(s, None)),
];

fn one(which: Norm, by: By) -> Vec<Part> {
    vec![norm("norm", 0, which, by, true)]
}

fn gru(norm: Option<(Norm, By)>) -> Vec<Part> {
    vec![Part::Recurrent { name: "gru".to_owned(), norm }]
}

fn layer(shape: Shape, which: Option<(Norm, By)>) -> Vec<Part> {
    post_norm(0, shape.width, 8, |name| which.map(|(which, by)| norm(name, 0, which, by, true)))
}

const fn kernel(pairs: &'static [Pair]) -> Comparison {
    let (level, pass, quantity) = (Level::Kernel, Pass::Inference, Quantity::Time);
    Comparison { level, pass, quantity, shapes: ROWS, programs: NORMS, pairs }
}

const fn recurrent(pairs: &'static [Pair]) -> Comparison {
    let (level, pass, quantity) = (Level::Block, Pass::Training, Quantity::Time);
    Comparison { level, pass, quantity, shapes: SEQUENCES, programs: RECURRENT, pairs }
}

const fn training(pairs: &'static [Pair]) -> Comparison {
    let (level, pass, quantity) = (Level::Block, Pass::Training, Quantity::Time);
    Comparison { level, pass, quantity, shapes: BASE, programs: LAYERS, pairs }
}

const fn inference(pairs: &'static [Pair]) -> Comparison {
    let (level, pass, quantity) = (Level::Block, Pass::Inference, Quantity::Time);
    Comparison { level, pass, quantity, shapes: BASE, programs: FORWARD_LAYERS, pairs }
}
