//! FPTQ's equalization of activations is a part of the norm before them.

use super::{AxisRange, Deviation, Identity, Kind, Size, THROUGH_MAP, Values, bias, data, gain, input, weight};
use crate::operators::Paper;

pub(super) static IDENTITY: Identity = Identity {
    name: "activation_equalization",
    summary: "dividing activations by log₂(2 + largest) and the rest is a part of the norm before and of the matrices after",
    condition: "every matrix that reads the norm is scaled by the same factors",
    map_in_words: "s = largest / log₂(2 + largest); gain and bias of the norm over s, both matrices times s",
    axes: &[
        AxisRange { name: "t", meaning: "tokens", size: Size::Between(1, 8) },
        AxisRange { name: "d", meaning: "channels", size: Size::Width(2, 256) },
        AxisRange { name: "o", meaning: "outputs", size: Size::Between(2, 16) },
    ],
    depth: (1, 1),
    inputs: |_| {
        vec![
            data("x", "t d"),
            gain("g", "d"),
            bias("b", "d"),
            weight("up", "d o", "d"),
            weight("gate", "d o", "d"),
            input("largest", "d", Kind::Fixed, Values::Uniform(0.5, 60.0)),
        ]
    },
    eps: 1e-5,
    left: |s| {
        let read = s.layer_norm(s.get("x"), "d") * s.get("g") + s.get("b");
        read.dot(s.get("up"), "d") * read.dot(s.get("gate"), "d").relu()
    },
    map: |s| {
        let largest = s.get("largest");
        let factor = largest * std::f64::consts::LN_2 / (largest + 2.0).log();
        let gate = if s.is("one matrix not scaled") { s.get("gate") } else { s.get("gate") * factor };
        let b = if s.is("the bias not divided") { s.get("b") } else { s.get("b") / factor };
        vec![
            ("g".to_owned(), s.get("g") / factor),
            ("b".to_owned(), b),
            ("up".to_owned(), s.get("up") * factor),
            ("gate".to_owned(), gate),
        ]
    },
    right: |s| {
        let read = s.layer_norm(s.get("x"), "d") * s.get("g") + s.get("b");
        read.dot(s.get("up"), "d") * read.dot(s.get("gate"), "d").relu()
    },
    deviations: &[Deviation::condition("one matrix not scaled"), Deviation::planted("the bias not divided")],
    training: THROUGH_MAP,
    papers: &[Paper {
        title: "FPTQ: Fine-grained Post-Training Quantization for Large Language Models",
        reference: "arXiv:2308.15987",
    }],
};
