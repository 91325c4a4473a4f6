//! A Pre-LN Transformer is a Pre-RMSNorm Transformer whose stream is written to without a mean.

use super::block::{AXES, affine, inputs, transformer, writers};
use super::{Deviation, EQUAL_GRADIENTS, Identity, Optimizer, Scheme, Training};
use crate::operators::Paper;

pub(super) static IDENTITY: Identity = Identity {
    name: "pre_rms_norm_transformer",
    summary: "a whole Pre-LN Transformer computes the same with RMSNorm in place of LayerNorm",
    condition: "everything that is written to the residual stream has mean 0: embeddings, positions, the output \
        projections of attention and MLP, and their biases",
    map_in_words: "from everything that is written to the stream its mean over the stream is taken away",
    axes: &AXES,
    depth: (1, 4),
    inputs,
    eps: 1e-5,
    left: |s| {
        transformer(s, "d", |x, norm, layer| {
            s.layer_norm(x, "d") * affine(s, "gain", norm, layer) + affine(s, "bias", norm, layer)
        })
    },
    map: |s| {
        let left_alone = |name: &str| {
            (s.is("an embedding with a mean") && name == "embedding")
                || (s.is("biases not centred") && (name.starts_with("bo") || name.starts_with("c2")))
                || (s.is("output matrices not centred") && (name.starts_with("wo") || name.starts_with("w2")))
        };
        let writers = writers(s.depth()).into_iter().filter(|name| !left_alone(name));
        let centred = writers.map(|name| {
            let written = s.get(&name);
            let matrix = s.is("the mean over the inputs of a matrix") && name.starts_with("w2");
            (name, written - written.mean(if matrix { "f" } else { "d" }))
        });
        centred.collect()
    },
    right: |s| {
        transformer(s, "d", |x, norm, layer| {
            s.rms_norm(x, "d") * affine(s, "gain", norm, layer) + affine(s, "bias", norm, layer)
        })
    },
    deviations: &[
        Deviation::condition("an embedding with a mean"),
        Deviation::planted("biases not centred"),
        Deviation::planted("output matrices not centred"),
        Deviation::planted("the mean over the inputs of a matrix"),
    ],
    training: &[
        Training { scheme: Scheme::ThroughMap, optimizer: Optimizer::Sgd, holds: true, why: EQUAL_GRADIENTS },
        Training { scheme: Scheme::ThroughMap, optimizer: Optimizer::Adam, holds: true, why: EQUAL_GRADIENTS },
        Training {
            scheme: Scheme::Projected,
            optimizer: Optimizer::Sgd,
            holds: true,
            why: "centring is linear and a step of gradient descent too: they can be exchanged",
        },
        Training {
            scheme: Scheme::Projected,
            optimizer: Optimizer::Adam,
            holds: false,
            why: "Adam scales every entry of a gradient by itself, so that centring after the step is not centring before it",
        },
        Training {
            scheme: Scheme::Own(1.0),
            optimizer: Optimizer::Sgd,
            holds: false,
            why: "the gradient of a stream that may have a mean has one: after a step the condition no longer holds",
        },
    ],
    papers: &[PAPER],
};

pub(super) const PAPER: Paper = Paper {
    title: "Pre-RMSNorm and Pre-CRMSNorm Transformers: Equivalent and Efficient Pre-LN Transformers",
    reference: "arXiv:2305.14858",
};
