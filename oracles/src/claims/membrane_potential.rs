//! BatchNorm before firing, folded into the threshold.

use super::{Claim, Comparison, Fire, Level, Metric, Part, Pass, Quantity, Stated, decides, program, same, shape};
use crate::operators::Paper;

pub(super) static CLAIM: Claim = Claim {
    name: "membrane_potential",
    sentence: "BatchNorm of the potential before firing, folded into the threshold, costs nothing at inference",
    paper: Paper {
        title: "Membrane Potential Batch Normalization for Spiking Neural Networks",
        reference: "arXiv:2308.08359",
    },
    hardware: "follows from the fold",
    stated: Stated { text: "nothing", low: 0.0, high: 0.0 },
    metric: Metric::NoCost(0.02),
    scaling: "four steps in time of leaky neurons with a hard reset, 256 positions of 64 and 256 channels, one tensor operation for each \
              step of the update; weights of the norm are positive",
    untestable: None,
    comparisons: &[Comparison {
        level: Level::Kernel,
        pass: Pass::Inference,
        quantity: Quantity::Time,
        shapes: &[shape(4, 256, 64), shape(4, 256, 256)],
        programs: &[
            program("normalized", |_| neurons(Fire::Normalized)),
            same("folded", "normalized", |_| neurons(Fire::Folded)),
            program("plain", |_| neurons(Fire::Plain)),
        ],
        pairs: &[decides("a threshold for each channel, against one", "folded", "plain").limited_by("normalized")],
    }],
};

fn neurons(when: Fire) -> Vec<Part> {
    vec![Part::Fire { name: "neurons".to_owned(), when }]
}
