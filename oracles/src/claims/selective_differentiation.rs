//! Keeping for the backward half only what the gradients that are wanted need.

use super::{Claim, Comparison, Level, Metric, Part, Pass, Quantity, Stated, beside, decides, program, same, shape};
use crate::operators::Paper;

pub(super) static CLAIM: Claim = Claim {
    name: "selective_differentiation",
    sentence: "of ten BatchNorms with fixed statistics of which one is learned, a framework keeps the input of every one from that one on; \
               keeping only what is needed takes 53 % less memory",
    paper: Paper {
        title: "Lowering PyTorch's Memory Consumption for Selective Differentiation",
        reference: "arXiv:2404.12406",
    },
    hardware: "memory of a CPU process, PyTorch: 4795 and 2237 MiB (189 of them before there are data)",
    stated: Stated { text: "53.3 % of all memory, 55.5 % of what is added", low: 0.533, high: 0.556 },
    metric: Metric::BytesSaved,
    scaling: "ten layers on 16x8x256x256 (32 MiB) in place of 256x8x256x256; bytes at the peak of a process less those before there are \
              data, as in the paper from the system's own count. A frozen layer that spares is a constant scale and shift",
    untestable: None,
    comparisons: &[Comparison {
        level: Level::Block,
        pass: Pass::Kept,
        quantity: Quantity::PeakMemory,
        shapes: &[shape(16, 256 * 256, 8)],
        programs: &[
            program("framework", |_| chain(Statistics::Fixed, Some(3), false)),
            same("sparing", "framework", |_| chain(Statistics::Fixed, Some(3), true)),
            program("framework, nothing learned", |_| chain(Statistics::Fixed, None, false)),
            program("framework, batch statistics", |_| chain(Statistics::Batch, Some(3), false)),
            same("sparing, batch statistics", "framework, batch statistics", |_| {
                chain(Statistics::Batch, Some(3), true)
            }),
        ],
        pairs: &[
            decides("the fourth layer learned", "sparing", "framework").limited_by("framework, nothing learned"),
            beside("with batch statistics", "sparing, batch statistics", "framework, batch statistics"),
        ],
    }],
};

/// Of what the statistics are.
#[derive(Clone, Copy, PartialEq)]
enum Statistics {
    Fixed,
    Batch,
}

fn chain(statistics: Statistics, learned: Option<usize>, sparing: bool) -> Vec<Part> {
    let layer = |place: usize| Part::BatchNorm {
        name: format!("norm.{place}"),
        batch: statistics == Statistics::Batch,
        learned: learned == Some(place),
        sparing,
    };
    std::iter::once(Part::Before(vec![Part::AsImages])).chain((0..10).map(layer)).collect()
}
