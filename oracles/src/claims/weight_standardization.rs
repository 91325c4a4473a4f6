//! NFNets: standardized weights in place of BatchNorm.

use super::{Act, Claim, Comparison, Level, Metric, Part, Pass, Quantity, Stated, decides, program, shape};
use crate::operators::Paper;

pub(super) static CLAIM: Claim = Claim {
    name: "weight_standardization",
    sentence: "a training step of the network with standardized weights takes 14 to 39 % less time than with BatchNorm",
    paper: Paper {
        title: "High-Performance Large-Scale Image Recognition Without Normalization",
        reference: "arXiv:2102.06171",
    },
    hardware: "TPUv3, NFNet-F0 to F3",
    stated: Stated { text: "14 % to 39 %", low: 0.138, high: 0.386 },
    metric: Metric::TimeSaved,
    scaling: "two convolutions of 3x3 with ReLU on 28x28, 8 images of 64 channels and 2 of 128",
    untestable: None,
    comparisons: &[Comparison {
        level: Level::Block,
        pass: Pass::Training,
        quantity: Quantity::Time,
        shapes: &[shape(8, 28 * 28, 64), shape(2, 28 * 28, 128)],
        programs: &[
            program("batch norm", |_| network(true, false)),
            program("standardized", |_| network(false, true)),
            program("no norm", |_| network(false, false)),
        ],
        pairs: &[decides("libtorch's BatchNorm", "standardized", "batch norm").limited_by("no norm")],
    }],
};

fn network(batch_norm: bool, standardized: bool) -> Vec<Part> {
    let mut parts = vec![Part::Before(vec![Part::AsImages])];
    for layer in 0..2 {
        parts.push(Part::Convolution { name: format!("convolution.{layer}"), standardized });
        if batch_norm {
            parts.push(Part::BatchNorm { name: format!("norm.{layer}"), batch: true, learned: true, sparing: false });
        }
        parts.push(Part::Act(Act::Relu));
    }
    parts
}
