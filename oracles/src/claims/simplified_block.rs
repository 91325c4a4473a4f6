//! Transformer blocks without skips, values, projections and norm.

use super::blocks::{attention, mlp, norm};
use super::{
    By, Claim, Comparison, Fold, Level, Metric, Norm, Part, Pass, Quantity, Shape, Stated, beside, decides, program,
    same, shape,
};
use crate::operators::Paper;

/// LayerNorm of a name.
fn layer_norm(name: &str, by: By) -> Part {
    norm(name, 0, Norm::Layer, by, true)
}

pub(super) static CLAIM: Claim = Claim {
    name: "simplified_block",
    sentence: "a Transformer block without skips, values and projections trains 15 % faster, and 20 % without norm too",
    paper: Paper { title: "Simplifying Transformer Blocks", reference: "arXiv:2311.01906" },
    hardware: "RTX 2080 Ti, steps of BERT training",
    stated: Stated { text: "15 % to 20 %", low: 0.15, high: 0.2 },
    metric: Metric::Throughput,
    scaling: "one block on 128 tokens of width 384 and 768; no causal mask",
    untestable: None,
    comparisons: &[Comparison {
        level: Level::Block,
        pass: Pass::Training,
        quantity: Quantity::Time,
        shapes: &[shape(1, 128, 384), shape(1, 128, 768)],
        programs: &[
            program("pre-ln libtorch", |s| pre_ln(s, By::Libtorch)),
            same("pre-ln steps", "pre-ln libtorch", |s| pre_ln(s, By::Steps)),
            program("parallel libtorch", |s| {
                vec![Part::Residual(vec![layer_norm("norm1", By::Libtorch), Part::Sum(vec![attend(s), feed(s)])])]
            }),
            program("simplified libtorch", |s| vec![layer_norm("norm1", By::Libtorch), simplified(s)]),
            same("simplified steps", "simplified libtorch", |s| vec![layer_norm("norm1", By::Steps), simplified(s)]),
            program("simplified, no norm", |s| vec![simplified(s)]),
        ],
        pairs: &[
            decides("simplified, libtorch's LayerNorm", "simplified libtorch", "pre-ln libtorch"),
            decides("simplified and no norm, libtorch's LayerNorm", "simplified, no norm", "pre-ln libtorch"),
            beside("simplified and no norm, step by step", "simplified, no norm", "pre-ln steps"),
            beside("parallel, libtorch's LayerNorm", "parallel libtorch", "pre-ln libtorch"),
            beside("what the norm alone takes, libtorch's", "simplified, no norm", "simplified libtorch"),
            beside("what the norm alone takes, step by step", "simplified, no norm", "simplified steps"),
        ],
    }],
};

fn attend(shape: Shape) -> Vec<Part> {
    attention(0, shape.width, shape.width / 64, Fold::None, Fold::None)
}

fn feed(shape: Shape) -> Vec<Part> {
    mlp(0, shape.width, 4 * shape.width, Fold::None, Fold::None)
}

fn pre_ln(shape: Shape, by: By) -> Vec<Part> {
    [("norm1", attend(shape)), ("norm2", feed(shape))]
        .map(|(name, parts)| Part::Residual(std::iter::once(layer_norm(name, by)).chain(parts).collect()))
        .to_vec()
}

/// Both sub-layers side by side, attention without values and projection.
fn simplified(shape: Shape) -> Part {
    let attention = Part::ShapedAttention { name: "shaped.0".to_owned(), heads: shape.width / 64 };
    Part::Sum(vec![vec![attention], feed(shape)])
}
