//! PRepBN, a BatchNorm that is merged after training, against RMSNorm and LayerNorm.

use super::blocks::{attention, linear, norm};
use super::{
    Act, By, Claim, Comparison, Fold, Level, Metric, Norm, Part, Pass, Program, Quantity, Shape, Stated, beside,
    decides, program, same, shape,
};
use crate::operators::Paper;

const PAPER: Paper = Paper {
    title: "SLAB: Efficient Transformers with Simplified Linear Attention and Progressive Re-parameterized Batch Normalization",
    reference: "arXiv:2405.11582",
};
const SCALING: &str = "one layer with a SwiGLU MLP of the widths of DeiT-T (192) and LLaMA-350M (1024), 64 tokens; the merged norm is a \
                       scale and a shift for each entry, whatever they were made of";
const TOKENS: &[Shape] = &[shape(1, 64, 192), shape(1, 64, 1024)];

const PROGRAMS: &[Program] = &[
    program("rms steps", |s| layer(s, Side::Norm(Norm::Rms, By::Steps))),
    same("rms libtorch", "rms steps", |s| layer(s, Side::Norm(Norm::Rms, By::Libtorch))),
    same("rms kernel", "rms steps", |s| layer(s, Side::Norm(Norm::Rms, By::Kernel))),
    program("layer libtorch", |s| layer(s, Side::Norm(Norm::Layer, By::Libtorch))),
    program("merged steps", |s| layer(s, Side::Norm(Norm::Affine, By::Steps))),
    same("merged kernel", "merged steps", |s| layer(s, Side::Norm(Norm::Affine, By::Kernel))),
    same("folded", "merged steps", |s| layer(s, Side::Folded)),
    program("no norm", |s| layer(s, Side::None)),
];

pub(super) static THROUGHPUT: Claim = Claim {
    name: "rep_batch_norm",
    sentence: "LLaMA with the merged norm in place of RMSNorm has 14.5 % more throughput",
    paper: PAPER,
    hardware: "not stated (LLaMA-350M, 44.0 to 50.4, a table of the authors' repository)",
    stated: Stated { text: "14.5 %", low: 0.14, high: 0.15 },
    metric: Metric::Throughput,
    scaling: SCALING,
    untestable: None,
    comparisons: &[Comparison {
        level: Level::Block,
        pass: Pass::Inference,
        quantity: Quantity::Time,
        shapes: TOKENS,
        programs: PROGRAMS,
        pairs: &[
            decides("folded, against RMSNorm step by step", "folded", "rms steps").limited_by("no norm"),
            beside("merged, not folded, step by step", "merged steps", "rms steps").limited_by("no norm"),
            beside("folded, against the built-in RMSNorm", "folded", "rms kernel").limited_by("no norm"),
            beside("folded, against libtorch's LayerNorm", "folded", "layer libtorch").limited_by("no norm"),
        ],
    }],
};

pub(super) static MERGED: Claim = Claim {
    name: "rep_batch_norm_folded",
    sentence: "folded into the next matrix, the merged norm costs nothing",
    paper: PAPER,
    hardware: "follows from the fold",
    stated: Stated { text: "nothing", low: 0.0, high: 0.0 },
    metric: Metric::NoCost(0.02),
    scaling: SCALING,
    untestable: None,
    comparisons: &[Comparison {
        level: Level::Block,
        pass: Pass::Inference,
        quantity: Quantity::Time,
        shapes: &[shape(1, 64, 192)],
        programs: PROGRAMS,
        pairs: &[
            decides("folded, against no norm", "folded", "no norm").limited_by("merged steps"),
            beside("kernel, against no norm", "merged kernel", "no norm").limited_by("merged steps"),
        ],
    }],
};

/// Which norm.
#[derive(Clone, Copy)]
enum Side {
    Norm(Norm, By),
    Folded,
    None,
}

fn layer(shape: Shape, side: Side) -> Vec<Part> {
    let d = shape.width;
    let read = |name: &str| if matches!(side, Side::Folded) { Fold::Affine(format!("{name}.0")) } else { Fold::None };
    let norm = |name: &str| match side {
        Side::Norm(which, by) => Some(norm(name, 0, which, by, true)),
        Side::Folded | Side::None => None,
    };
    let mlp =
        [linear("up", 0, (d, 8 * d), read("norm2")), Part::Act(Act::SwiGlu), linear("down", 0, (4 * d, d), Fold::None)];
    vec![
        Part::Residual(norm("norm1").into_iter().chain(attention(0, d, d / 64, read("norm1"), Fold::None)).collect()),
        Part::Residual(norm("norm2").into_iter().chain(mlp).collect()),
    ]
}
