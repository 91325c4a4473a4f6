//! RMSNorm and pRMSNorm against LayerNorm.

use super::blocks::{norm, post_norm};
use super::{
    By, Claim, Comparison, Level, Metric, Norm, Pair, Part, Pass, Program, Quantity, Shape, Stated, beside, decides, program, same,
    shape,
};
use crate::operators::Paper;

const PAPER: Paper = Paper { title: "Root Mean Square Layer Normalization", reference: "arXiv:1910.07467" };
const HARDWARE: &str = "GPUs (V100, RTX 2080 Ti and others), TensorFlow, Theano and PyTorch: whole training steps";
const SCALING: &str = "the paper times whole training steps of recurrent networks and Transformers; here: one norm on rows in \
                       cache, where a recurrent network's are, one in memory, and a Post-LN layer of Transformer base (width 512, \
                       8 heads) with 4 sequences of 32 tokens";

/// Rows of the batches of recurrent networks.
const ROWS: &[Shape] = &[shape(1, 64, 240), shape(1, 64, 512), shape(1, 64, 1024), shape(1, 64, 2048)];
const LARGE: &[Shape] = &[shape(64, 1024, 512)];
const BASE: &[Shape] = &[shape(4, 32, 512)];

pub(super) static FULL: Claim = Claim {
    name: "rms_norm",
    sentence: "RMSNorm in place of LayerNorm saves 7 to 41 % of the time",
    paper: PAPER,
    hardware: HARDWARE,
    stated: Stated { text: "6.9 % to 40.8 % of a training step", low: 0.069, high: 0.408 },
    metric: Metric::TimeSaved,
    scaling: SCALING,
    comparisons: &[
        kernel(&[
                decides("one norm, step by step", "rms steps", "layer steps"),
                beside("one norm, against three sweeps", "rms loop", "layer 3 sweeps"),
                beside("one norm, against two sweeps", "rms loop", "layer 2 sweeps"),
                beside("one norm, libtorch's", "rms libtorch", "layer libtorch"),
                beside("one norm, built-in kernels", "rms kernel", "layer kernel"),
        ]),
        Comparison {
            shapes: LARGE,
            programs: STREAMED,
            ..kernel(&[
                beside("one norm in memory, against three sweeps", "rms loop", "layer 3 sweeps"),
                beside("one norm in memory, built-in kernels", "rms kernel", "layer kernel"),
            ])
        },
        training(&[
            decides("a layer, step by step", "rms steps", "layer steps").limited_by("no norm"),
            beside("a layer, against libtorch's LayerNorm", "rms steps", "layer libtorch").limited_by("no norm"),
        ]),
        inference(&[beside("a layer, built-in kernels", "rms kernel", "layer kernel").limited_by("no norm")]),
    ],
};

pub(super) static PARTIAL: Claim = Claim {
    name: "partial_rms_norm",
    sentence: "pRMSNorm, which takes the root mean square of the first 6.25 % of a row, saves 9 to 64 % of LayerNorm's time",
    paper: PAPER,
    hardware: HARDWARE,
    stated: Stated { text: "9.3 % to 63.9 % of a training step", low: 0.093, high: 0.639 },
    metric: Metric::TimeSaved,
    scaling: SCALING,
    comparisons: &[
        kernel(&[
                decides("one norm, step by step", "partial steps", "layer steps"),
                beside("one norm, against three sweeps", "partial loop", "layer 3 sweeps"),
                beside("one norm, built-in kernels", "partial kernel", "layer kernel"),
        ]),
        training(&[decides("a layer, step by step", "partial steps", "layer steps").limited_by("no norm")]),
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
    program("partial steps", |_| one(PARTIAL_RMS, By::Steps)),
    same("partial loop", "partial steps", |_| one(PARTIAL_RMS, By::TwoSweeps)),
    same("partial kernel", "partial steps", |_| one(PARTIAL_RMS, By::Kernel)),
    program("affine loop", |_| one(Norm::Affine, By::TwoSweeps)),
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

const FORWARD_LAYERS: &[Program] = &[
    program("layer kernel", |s| layer(s, Some((Norm::Layer, By::Kernel)))),
    same("layer libtorch", "layer kernel", |s| layer(s, Some((Norm::Layer, By::Libtorch)))),
    program("rms kernel", |s| layer(s, Some((Norm::Rms, By::Kernel)))),
    program("no norm", |s| layer(s, None)),
];

fn one(which: Norm, by: By) -> Vec<Part> {
    vec![norm("norm", 0, which, by, true)]
}

fn layer(shape: Shape, which: Option<(Norm, By)>) -> Vec<Part> {
    post_norm(0, shape.width, 8, |name| which.map(|(which, by)| norm(name, 0, which, by, true)))
}

const fn kernel(pairs: &'static [Pair]) -> Comparison {
    let (level, pass, quantity) = (Level::Kernel, Pass::Inference, Quantity::Time);
    Comparison { level, pass, quantity, shapes: ROWS, programs: NORMS, pairs }
}

const fn training(pairs: &'static [Pair]) -> Comparison {
    let (level, pass, quantity) = (Level::Block, Pass::Training, Quantity::Time);
    Comparison { level, pass, quantity, shapes: BASE, programs: LAYERS, pairs }
}

const fn inference(pairs: &'static [Pair]) -> Comparison {
    let (level, pass, quantity) = (Level::Block, Pass::Inference, Quantity::Time);
    Comparison { level, pass, quantity, shapes: BASE, programs: FORWARD_LAYERS, pairs }
}
