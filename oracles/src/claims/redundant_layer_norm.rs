//! Squeezeformer: of two LayerNorms in a row, one is enough.

use super::blocks::{attention, mlp, norm};
use super::{
    By, Claim, Comparison, Fold, Level, Metric, Norm, Part, Pass, Quantity, Shape, Stated, beside, decides, program,
    same, shape,
};
use crate::operators::Paper;

pub(super) static CLAIM: Claim = Claim {
    name: "redundant_layer_norm",
    sentence: "a LayerNorm at the end of a sub-layer and one at the beginning of the next can be one LayerNorm and a scale that folds \
               into the next matrix, which takes less time",
    paper: Paper {
        title: "Squeezeformer: An Efficient Transformer for Automatic Speech Recognition",
        reference: "arXiv:2206.00888",
    },
    hardware: "no figure for this change alone",
    stated: Stated { text: "less (no figure)", low: 0.0, high: 1.0 },
    metric: Metric::TimeSaved,
    scaling: "attention and an MLP (without the convolutions) on 100 frames, widths 144, 256 and 512",
    untestable: None,
    comparisons: &[Comparison {
        level: Level::Block,
        pass: Pass::Inference,
        quantity: Quantity::Time,
        shapes: &[shape(1, 100, 144), shape(1, 100, 256), shape(1, 100, 512)],
        programs: &[
            program("twice libtorch", |s| layer(s, By::Libtorch, Second::Norm)),
            same("twice steps", "twice libtorch", |s| layer(s, By::Steps, Second::Norm)),
            same("twice kernel", "twice libtorch", |s| layer(s, By::Kernel, Second::Norm)),
            program("once and scale, libtorch", |s| layer(s, By::Libtorch, Second::Scale)),
            same("once, folded, libtorch", "once and scale, libtorch", |s| layer(s, By::Libtorch, Second::Folded)),
            same("once, folded, steps", "once and scale, libtorch", |s| layer(s, By::Steps, Second::Folded)),
            same("once, folded, kernel", "once and scale, libtorch", |s| layer(s, By::Kernel, Second::Folded)),
        ],
        pairs: &[
            decides("folded, libtorch's LayerNorm", "once, folded, libtorch", "twice libtorch"),
            beside("not folded, libtorch's LayerNorm", "once and scale, libtorch", "twice libtorch"),
            beside("folded, step by step", "once, folded, steps", "twice steps"),
            beside("folded, built-in kernel", "once, folded, kernel", "twice kernel"),
        ],
    }],
};

/// What stands in the place of the second norm.
#[derive(Clone, Copy, PartialEq)]
enum Second {
    Norm,
    Scale,
    Folded,
}

/// Sub-layers that end with a norm, and begin with one, or with a scale.
fn layer(shape: Shape, by: By, second: Second) -> Vec<Part> {
    let d = shape.width;
    let read = |name: &str| if second == Second::Folded { Fold::Affine(format!("{name}.0")) } else { Fold::None };
    let begin = |name: &str| match second {
        Second::Norm => Some(norm(name, 1, Norm::Layer, by, true)),
        Second::Scale => Some(norm(name, 0, Norm::Affine, by, true)),
        Second::Folded => None,
    };
    let sub = |before: &str, parts: Vec<Part>| Part::Residual(begin(before).into_iter().chain(parts).collect());
    let end = |name: &str| norm(name, 0, Norm::Layer, by, true);
    vec![
        sub("begin1", attention(0, d, 4, read("begin1"), Fold::None)),
        end("end1"),
        sub("begin2", mlp(0, d, 4 * d, read("begin2"), Fold::None)),
        end("end2"),
    ]
}
