//! FlashNorm against RMSNorm and a linear layer.

use super::blocks::{linear, norm};
use super::{
    By, Claim, Comparison, Fold, Level, Metric, Norm, Part, Pass, Quantity, Shape, Stated, beside, decides, program,
    same, shape,
};
use crate::operators::Paper;

pub(super) static CLAIM: Claim = Claim {
    name: "flash_norm",
    sentence: "with its weight folded into the matrix and its division behind the product, RMSNorm with a linear layer takes 12 to \
               36 % less time",
    paper: Paper { title: "FlashNorm: Fast Normalization for Transformers", reference: "arXiv:2407.09577" },
    hardware: "T4 (two streams: 12 % to 36 % from 1024 tokens on, 0 % below) and A100 (a fused kernel: 36 % down to -65 %)",
    stated: Stated { text: "12.1 % to 35.5 % where it gains", low: 0.121, high: 0.355 },
    metric: Metric::TimeSaved,
    scaling: "a matrix as SmolLM2-135M has (576 to 960), 1, 64 and 256 tokens; no streams here: the division comes after the product",
    untestable: None,
    comparisons: &[Comparison {
        level: Level::Block,
        pass: Pass::Inference,
        quantity: Quantity::Time,
        shapes: &[shape(1, 1, 576), shape(1, 64, 576), shape(1, 256, 576)],
        programs: &[
            program("rms steps", |s| layer(s, Some((By::Steps, true)))),
            same("rms libtorch", "rms steps", |s| layer(s, Some((By::Libtorch, true)))),
            same("rms kernel", "rms steps", |s| layer(s, Some((By::Kernel, true)))),
            same("rms steps, folded", "rms steps", |s| layer(s, Some((By::Steps, false)))),
            same("rms kernel, folded", "rms steps", |s| layer(s, Some((By::Kernel, false)))),
            same("flash", "rms steps", |s| {
                let (name, norm) = ("read.0".to_owned(), "norm.0".to_owned());
                vec![Part::DeferredLinear { name, sizes: (s.width, outputs(s)), norm }]
            }),
            program("no norm", |s| layer(s, None)),
        ],
        pairs: &[
            decides("folded and deferred, step by step", "flash", "rms steps").limited_by("no norm"),
            beside("folded, step by step", "rms steps, folded", "rms steps").limited_by("no norm"),
            beside("folded and deferred, against the built-in kernel", "flash", "rms kernel").limited_by("no norm"),
            beside("folded, built-in kernel", "rms kernel, folded", "rms kernel").limited_by("no norm"),
        ],
    }],
};

fn outputs(shape: Shape) -> usize {
    shape.width * 5 / 3
}

/// RMSNorm in some way, with its weight or with the weight in the matrix, then the matrix.
fn layer(shape: Shape, rms: Option<(By, bool)>) -> Vec<Part> {
    let folded = if matches!(rms, Some((_, false))) { Fold::Weight("norm.0".to_owned()) } else { Fold::None };
    let norm = rms.map(|(by, affine)| norm("norm", 0, Norm::Rms, by, affine));
    norm.into_iter().chain([linear("read", 0, (shape.width, outputs(shape)), folded)]).collect()
}
