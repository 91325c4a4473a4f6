//! A Transformer with RMSNorm does not see a rotation of its residual stream.

use super::block::{AXES, affine, inputs, readers, transformer, writers};
use super::{Deviation, Identity, Input, Kind, Scope, THROUGH_MAP, Values, input};
use crate::formula::Expr;
use crate::operators::Paper;

/// Two reflections, of which the product is a rotation, along the stream.
fn rotated<'b>(s: &Scope<'b>, along_stream: Expr<'b>) -> Expr<'b> {
    let reflect = |of: Expr<'b>, mirror: &str| {
        let mirror = s.get(mirror);
        let factor = if s.is("a matrix that is not orthogonal") { 1.5 } else { 2.0 };
        of - mirror * (of.dot(mirror, "d") * factor / mirror.square().sum("d"))
    };
    reflect(reflect(along_stream, "first_mirror"), "second_mirror")
}

pub(super) static IDENTITY: Identity = Identity {
    name: "rotated_transformer",
    summary: "a whole RMSNorm Transformer computes the same with its residual stream rotated",
    condition: "the rotation is orthogonal, the norms have no weight of their own, and everything that writes or reads the \
        stream is rotated",
    map_in_words: "gain and bias of each norm go into what reads it; then everything along the stream is rotated",
    axes: &AXES,
    depth: (1, 4),
    inputs: |depth| {
        let mirror = |name: &str| input(name, "d", Kind::Fixed, Values::Normal(0.0, 1.0));
        let more: [Input; 2] = [mirror("first_mirror"), mirror("second_mirror")];
        inputs(depth).into_iter().chain(more).collect()
    },
    eps: 1e-5,
    left: |s| {
        transformer(s, "d", |x, norm, layer| {
            s.rms_norm(x, "d") * affine(s, "gain", norm, layer) + affine(s, "bias", norm, layer)
        })
    },
    map: |s| {
        let mut made: Vec<_> =
            writers(s.depth()).into_iter().map(|name| (name.clone(), rotated(s, s.get(&name)))).collect();
        for (matrix, bias, norm, layer) in readers(s.depth()) {
            let (gain, shift) = (affine(s, "gain", norm, layer), affine(s, "bias", norm, layer));
            let skipped = s.is("the unembedding not rotated") && matrix == "unembedding";
            let turned = |of| if skipped { of } else { rotated(s, of) };
            let w = s.get(&matrix);
            made.push((matrix, if s.is("the gain after the rotation") { turned(w) * gain } else { turned(w * gain) }));
            made.push((bias.clone(), s.get(&bias) + w.dot(shift, "d")));
        }
        made
    },
    right: |s| {
        let layer_norm = s.is("LayerNorm");
        transformer(s, "d", |x, _, _| if layer_norm { s.layer_norm(x, "d") } else { s.rms_norm(x, "d") })
    },
    deviations: &[
        Deviation::condition("a matrix that is not orthogonal"),
        Deviation::condition("LayerNorm"),
        Deviation::planted("the unembedding not rotated"),
        Deviation::planted("the gain after the rotation"),
    ],
    training: THROUGH_MAP,
    papers: &[
        Paper {
            title: "SliceGPT: Compress Large Language Models by Deleting Rows and Columns",
            reference: "arXiv:2401.15024, theorem 1",
        },
        Paper {
            title: "RSQ: Learning from Important Tokens Leads to Better Quantized LLMs",
            reference: "arXiv:2503.01820",
        },
    ],
};
