//! Parts of Transformers that several claims are about.

use super::{Act, By, Fold, Mix, Norm, Part};

/// A norm of a layer.
pub(super) fn norm(name: &str, layer: usize, norm: Norm, by: By, affine: bool) -> Part {
    Part::Norm { name: format!("{name}.{layer}"), norm, by, affine }
}

/// A linear layer.
pub(super) fn linear(name: &str, layer: usize, sizes: (usize, usize), fold: Fold) -> Part {
    Part::Linear { name: format!("{name}.{layer}"), sizes, fold }
}

/// Attention from one width to the same: `read` and `write` say how its matrices are made.
pub(super) fn attention(layer: usize, width: usize, heads: usize, read: Fold, write: Fold) -> Vec<Part> {
    vec![
        linear("qkv", layer, (width, 3 * width), read),
        Part::Attention { name: format!("attention.{layer}"), heads, mix: Mix::Values },
        linear("out", layer, (width, width), write),
    ]
}

/// An MLP of so many hidden units.
pub(super) fn mlp(layer: usize, width: usize, hidden: usize, read: Fold, write: Fold) -> Vec<Part> {
    vec![
        linear("up", layer, (width, hidden), read),
        Part::Act(Act::Gelu),
        linear("down", layer, (hidden, width), write),
    ]
}

/// A layer as in the first Transformers: each sub-layer's sum is normalized.
pub(super) fn post_norm(layer: usize, width: usize, heads: usize, norm: impl Fn(&str) -> Option<Part>) -> Vec<Part> {
    let attention = Part::Residual(attention(layer, width, heads, Fold::None, Fold::None));
    let mlp = Part::Residual(mlp(layer, width, 4 * width, Fold::None, Fold::None));
    [Some(attention), norm("norm1"), Some(mlp), norm("norm2")].into_iter().flatten().collect()
}
