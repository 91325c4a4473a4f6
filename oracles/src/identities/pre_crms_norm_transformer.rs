//! A Pre-LN Transformer is a Pre-CRMSNorm Transformer with one entry less in its stream.

use super::block::{AXES as BLOCK, affine, inputs, readers, transformer, writers};
use super::pre_rms_norm_transformer::PAPER;
use super::{AxisRange, Deviation, Identity, Size, THROUGH_MAP};
use crate::apply;

pub(super) static IDENTITY: Identity = Identity {
    name: "pre_crms_norm_transformer",
    summary: "a whole Pre-LN Transformer computes the same with CRMSNorm and a stream that is one entry shorter",
    condition: "everything that is written to the residual stream has mean 0, so that one entry follows from the others",
    map_in_words: "what is written to the stream loses its mean and then an entry (here the first, in the paper the last); \
        gain and bias of each norm go into what reads it, and from each row of a matrix that reads the stream the row of \
        the lost entry is taken away",
    axes: &[
        BLOCK[0],
        BLOCK[1],
        BLOCK[2],
        BLOCK[3],
        AxisRange { name: "c", meaning: "residual stream without one entry", size: Size::Follows(|of| of("d") - 1) },
        AxisRange { name: "u", meaning: "that entry", size: Size::Follows(|_| 1) },
        BLOCK[4],
        BLOCK[5],
        BLOCK[6],
        BLOCK[7],
    ],
    depth: (1, 4),
    inputs,
    eps: 1e-5,
    left: |s| {
        transformer(s, "d", |x, norm, layer| {
            s.layer_norm(x, "d") * affine(s, "gain", norm, layer) + affine(s, "bias", norm, layer)
        })
    },
    map: |s| {
        let mut made = Vec::new();
        for name in writers(s.depth()) {
            let written = s.get(&name);
            let kept = s.is("a stream with a mean") || (s.is("position not centred") && name == "position");
            let centred = if kept { written } else { written - written.mean("d") };
            made.push((name, centred.tail("d", "c", 1)));
        }
        for (matrix, bias, norm, layer) in readers(s.depth()) {
            let gained = s.get(&matrix) * affine(s, "gain", norm, layer);
            let lost = gained.head("d", "u").sum("u");
            let rest = gained.tail("d", "c", 1);
            made.push((matrix.clone(), if s.is("the lost row not taken away") { rest } else { rest - lost }));
            if !s.is("the bias of the norm forgotten") {
                let shift = s.get(&matrix).dot(affine(s, "bias", norm, layer), "d");
                made.push((bias.clone(), s.get(&bias) + shift));
            }
        }
        made
    },
    right: |s| {
        transformer(s, "c", |x, _, _| {
            let operator = if s.is("RMSNorm of what is left") { "rms_norm" } else { "crms_norm" };
            apply(s.builder(), operator, 1e-5, &[("d", "c")], &[("x", x)])
        })
    },
    deviations: &[
        Deviation::condition("a stream with a mean"),
        Deviation::planted("position not centred"),
        Deviation::planted("the lost row not taken away"),
        Deviation::planted("the bias of the norm forgotten"),
        Deviation::planted("RMSNorm of what is left"),
    ],
    training: THROUGH_MAP,
    papers: &[PAPER],
};
