//! Pre-RMSNorm and Pre-CRMSNorm Transformers against Pre-LN ones.

use super::blocks::{attention, linear, mlp, norm};
use super::{
    By, Claim, Comparison, Fold, Level, Metric, Norm, Pair, Part, Pass, Program, Quantity, Shape, Stated, beside,
    decides, program, same, shape,
};
use crate::operators::Paper;

const PAPER: Paper = Paper {
    title: "Pre-RMSNorm and Pre-CRMSNorm Transformers: Equivalent and Efficient Pre-LN Transformers",
    reference: "arXiv:2305.14858",
};
const SCALING: &str = "Vision Transformers of the widths Ti, S and B on one image (197 tokens): two layers instead of 12, a final norm \
                       and a head. Norms have no weights, as in the paper's code; the verdict is about norms step by step, with kernels beside";

/// One image in the widths of ViT-Ti, S and B.
const IMAGE: &[Shape] = &[shape(1, 197, 192), shape(1, 197, 384), shape(1, 197, 768)];
const SMALL_IMAGE: &[Shape] = &[shape(1, 197, 192), shape(1, 197, 384)];

pub(super) static INFERENCE: Claim = Claim {
    name: "pre_rms_norm",
    sentence: "a Pre-RMSNorm Transformer computes the same as the Pre-LN one in up to 10 % less time",
    paper: PAPER,
    hardware: "16 threads of an AMD EPYC 7742, PyTorch 2.0 (the paper's CPU row: 0.9012); an A100 (0.97 to 0.99)",
    stated: Stated { text: "1 % to 10 %; 9.9 % on a CPU", low: 0.01, high: 0.10 },
    metric: Metric::TimeSaved,
    scaling: SCALING,
    untestable: None,
    comparisons: &[comparison(
        Pass::Inference,
        IMAGE,
        &[PRE_LN, PRE_LN_LIBTORCH, PRE_LN_KERNEL, PRE_RMS, PRE_RMS_KERNEL, NO_NORM],
        &[
            decides("inference, step by step", "pre-rms steps", "pre-ln steps").limited_by("no norm"),
            beside("inference, against libtorch's LayerNorm", "pre-rms kernel", "pre-ln libtorch")
                .limited_by("no norm"),
            beside("inference, built-in kernels", "pre-rms kernel", "pre-ln kernel").limited_by("no norm"),
        ],
    )],
};

pub(super) static COMPRESSED: Claim = Claim {
    name: "pre_crms_norm",
    sentence: "a Pre-CRMSNorm Transformer, whose stream is one entry shorter, computes the same as the Pre-LN one in up to 10 % less time",
    paper: PAPER,
    hardware: "16 threads of an AMD EPYC 7742, PyTorch 2.0 (the paper's CPU row: 0.8857); an A100 (0.98 to 1.00)",
    stated: Stated { text: "1 % to 10 %; 11.4 % on a CPU", low: 0.01, high: 0.1143 },
    metric: Metric::TimeSaved,
    scaling: SCALING,
    untestable: None,
    comparisons: &[comparison(
        Pass::Inference,
        IMAGE,
        &[PRE_LN, PRE_LN_KERNEL, PRE_CRMS, PRE_CRMS_KERNEL, NO_NORM],
        &[
            decides("inference, step by step", "pre-crms steps", "pre-ln steps").limited_by("no norm"),
            beside("inference, built-in kernels", "pre-crms kernel", "pre-ln kernel").limited_by("no norm"),
        ],
    )],
};

pub(super) static TRAINING: Claim = Claim {
    name: "pre_rms_norm_training",
    sentence: "training a Pre-RMSNorm Transformer takes 1 to 2.3 % less time than the Pre-LN one, its centring included",
    paper: PAPER,
    hardware: "four A100, data parallel, DeiT training of ViT-Ti to G",
    stated: Stated { text: "0.9 % to 2.3 %", low: 0.009, high: 0.023 },
    metric: Metric::TimeSaved,
    scaling: SCALING,
    untestable: None,
    comparisons: &[comparison(
        Pass::Training,
        SMALL_IMAGE,
        &[PRE_LN, PRE_LN_LIBTORCH, PRE_RMS, PRE_CRMS, NO_NORM],
        &[
            decides("training, step by step", "pre-rms steps", "pre-ln steps").limited_by("no norm"),
            beside("training, Pre-CRMSNorm, step by step", "pre-crms steps", "pre-ln steps").limited_by("no norm"),
            beside("training, against libtorch's LayerNorm", "pre-rms steps", "pre-ln libtorch").limited_by("no norm"),
        ],
    )],
};

const PRE_LN: Program = program("pre-ln steps", |s| transformer(s, Side::Layer(By::Steps)));
const PRE_LN_LIBTORCH: Program = same("pre-ln libtorch", "pre-ln steps", |s| transformer(s, Side::Layer(By::Libtorch)));
const PRE_LN_KERNEL: Program = same("pre-ln kernel", "pre-ln steps", |s| transformer(s, Side::Layer(By::Kernel)));
const PRE_RMS: Program = same("pre-rms steps", "pre-ln steps", |s| transformer(s, Side::Rms(By::Steps)));
const PRE_RMS_KERNEL: Program = same("pre-rms kernel", "pre-ln steps", |s| transformer(s, Side::Rms(By::Kernel)));
const PRE_CRMS: Program = same("pre-crms steps", "pre-ln steps", |s| transformer(s, Side::Compressed(By::Steps)));
const PRE_CRMS_KERNEL: Program =
    same("pre-crms kernel", "pre-ln steps", |s| transformer(s, Side::Compressed(By::Kernel)));
const NO_NORM: Program = program("no norm", |s| transformer(s, Side::None));

const fn comparison(
    pass: Pass,
    shapes: &'static [Shape],
    programs: &'static [Program],
    pairs: &'static [Pair],
) -> Comparison {
    Comparison { level: Level::Block, pass, quantity: Quantity::Time, shapes, programs, pairs }
}

/// Layers of each program.
const LAYERS: usize = 2;
/// Outputs of the head.
const CLASSES: usize = 16;

/// Which norm, and in which way.
#[derive(Clone, Copy)]
enum Side {
    Layer(By),
    Rms(By),
    Compressed(By),
    None,
}

/// Pre-normalized layers, a norm and a head; matrices are made so that all sides are the same function.
fn transformer(shape: Shape, side: Side) -> Vec<Part> {
    let d = shape.width;
    let (before, read, write) = match side {
        Side::Rms(_) => (Some(Part::Centre), Fold::None, Fold::Centred),
        Side::Compressed(_) => (Some(Part::CentreAndDrop), Fold::WithoutLast, Fold::CentredAndDropped),
        Side::Layer(_) | Side::None => (None, Fold::None, Fold::None),
    };
    let norm = |name: &str, layer: usize| match side {
        Side::Layer(by) => Some(norm(name, layer, Norm::Layer, by, false)),
        Side::Rms(by) => Some(norm(name, layer, Norm::Rms, by, false)),
        Side::Compressed(by) => Some(norm(name, layer, Norm::CompressedRms, by, false)),
        Side::None => None,
    };
    let mut parts = vec![Part::Before(before.into_iter().collect())];
    for layer in 0..LAYERS {
        let attention = attention(layer, d, d / 64, read.clone(), write.clone());
        let mlp = mlp(layer, d, 4 * d, read.clone(), write.clone());
        parts.push(Part::Residual(norm("norm1", layer).into_iter().chain(attention).collect()));
        parts.push(Part::Residual(norm("norm2", layer).into_iter().chain(mlp).collect()));
    }
    parts.extend(norm("final", LAYERS));
    parts.push(linear("head", LAYERS, (d, CLASSES), read));
    parts
}
