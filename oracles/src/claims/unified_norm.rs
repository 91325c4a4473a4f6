//! Unified Normalization, whose statistics are fixed in inference, against LayerNorm in a Transformer.

use super::blocks::{attention, mlp, norm};
use super::{
    By, Claim, Comparison, Fold, Level, Metric, Norm, Part, Pass, Program, Quantity, Shape, Stated, beside, decides,
    program, same, shape,
};
use crate::operators::Paper;

const PAPER: Paper = Paper {
    title: "Unified Normalization for Accelerating and Stabilizing Transformers",
    reference: "arXiv:2208.01313",
};
const SCALING: &str = "one layer as in the first two stages of Swin-T: 64 windows of 49 tokens of width 96, 16 of width 192; attention \
                       within windows, no shift and no position bias";
const WINDOWS: &[Shape] = &[shape(64, 49, 96), shape(16, 49, 192)];

const PROGRAMS: &[Program] = &[
    program("layer libtorch", |s| layer(s, Some((Norm::Layer, By::Libtorch)))),
    same("layer steps", "layer libtorch", |s| layer(s, Some((Norm::Layer, By::Steps)))),
    same("layer kernel", "layer libtorch", |s| layer(s, Some((Norm::Layer, By::Kernel)))),
    program("affine steps", |s| layer(s, Some((Norm::Affine, By::Steps)))),
    same("affine kernel", "affine steps", |s| layer(s, Some((Norm::Affine, By::Kernel)))),
    same("folded", "affine steps", folded),
];

pub(super) static THROUGHPUT: Claim = Claim {
    name: "unified_norm",
    sentence: "Transformers with Unified Normalization, folded into the next matrix, infer 31 % faster than with LayerNorm",
    paper: PAPER,
    hardware: "a GPU that is not named; Swin-T by public notes",
    stated: Stated { text: "about 31 %", low: 0.305, high: 0.315 },
    metric: Metric::Throughput,
    scaling: SCALING,
    untestable: None,
    comparisons: &[Comparison {
        level: Level::Block,
        pass: Pass::Inference,
        quantity: Quantity::Time,
        shapes: WINDOWS,
        programs: PROGRAMS,
        pairs: &[
            decides("folded, against libtorch's LayerNorm", "folded", "layer libtorch").limited_by("folded"),
            beside("folded, step by step", "folded", "layer steps").limited_by("folded"),
            beside("folded, against the built-in kernel", "folded", "layer kernel").limited_by("folded"),
            beside("not folded, against libtorch's LayerNorm", "affine steps", "layer libtorch").limited_by("folded"),
        ],
    }],
};

pub(super) static MEMORY: Claim = Claim {
    name: "unified_norm_memory",
    sentence: "Transformers with Unified Normalization, folded into the next matrix, need 18 % less memory than with LayerNorm",
    paper: PAPER,
    hardware: "a GPU that is not named",
    stated: Stated { text: "nearly 18 %", low: 0.17, high: 0.18 },
    metric: Metric::BytesSaved,
    scaling: SCALING,
    untestable: None,
    comparisons: &[Comparison {
        level: Level::Block,
        pass: Pass::Inference,
        quantity: Quantity::PeakMemory,
        shapes: WINDOWS,
        programs: &[
            program("layer libtorch", |s| layer(s, Some((Norm::Layer, By::Libtorch)))),
            same("layer steps", "layer libtorch", |s| layer(s, Some((Norm::Layer, By::Steps)))),
            program("folded", folded),
        ],
        pairs: &[
            decides("folded, against libtorch's LayerNorm", "folded", "layer libtorch"),
            beside("folded, step by step", "folded", "layer steps"),
        ],
    }],
};

fn layer(shape: Shape, which: Option<(Norm, By)>) -> Vec<Part> {
    let read = |name: &str| if which.is_none() { Fold::Affine(format!("{name}.0")) } else { Fold::None };
    let norm = |name: &str| which.map(|(which, by)| norm(name, 0, which, by, true));
    let d = shape.width;
    let attention = attention(0, d, d / 32, read("norm1"), Fold::None);
    let mlp = mlp(0, d, 4 * d, read("norm2"), Fold::None);
    vec![
        Part::Residual(norm("norm1").into_iter().chain(attention).collect()),
        Part::Residual(norm("norm2").into_iter().chain(mlp).collect()),
    ]
}

fn folded(shape: Shape) -> Vec<Part> {
    layer(shape, None)
}
