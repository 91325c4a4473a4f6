//! I-BERT: LayerNorm in whole numbers.

use super::blocks::norm;
use super::{By, Claim, Comparison, Level, Metric, Norm, Part, Pass, Quantity, Stated, beside, program, same, shape};
use crate::operators::Paper;

pub(super) static CLAIM: Claim = Claim {
    name: "integer_layer_norm",
    sentence: "BERT in whole numbers of 8 bits, LayerNorm, softmax and GELU included, infers 2.4 to 4 times as fast as in f32",
    paper: Paper { title: "I-BERT: Integer-only BERT Quantization", reference: "arXiv:2101.01321" },
    hardware: "T4, INT8 against FP32: base 2.42 to 3.39 times, large 3.19 to 4.00 times",
    stated: Stated { text: "2.42 to 4.00 times", low: 1.42, high: 3.0 },
    metric: Metric::Throughput,
    scaling: "LayerNorm alone, on 128 rows of 768 and 1024: in whole numbers against f32, and against what it replaces, from whole numbers \
              to f32 and back",
    untestable: Some("the paper's figure is that of whole networks, whose matrix products of 8 bits are not here"),
    comparisons: &[Comparison {
        level: Level::Kernel,
        pass: Pass::Inference,
        quantity: Quantity::Time,
        shapes: &[shape(1, 128, 768), shape(1, 128, 1024)],
        programs: &[
            program("f32 libtorch", |_| in_f32(By::Libtorch)),
            same("f32 3 sweeps", "f32 libtorch", |_| in_f32(By::ThreeSweeps)),
            same("f32 kernel", "f32 libtorch", |_| in_f32(By::Kernel)),
            same("there and back, libtorch", "f32 libtorch", |_| {
                vec![levels(), Part::FromLevels, layer_norm(By::Libtorch), Part::ToUnits]
            }),
            same("whole numbers", "f32 libtorch", |_| {
                vec![levels(), Part::IntegerLayerNorm { name: "norm.0".to_owned() }]
            }),
        ],
        pairs: &[
            beside("against libtorch's in f32", "whole numbers", "f32 libtorch"),
            beside("against three sweeps in f32", "whole numbers", "f32 3 sweeps"),
            beside("against the built-in kernel in f32", "whole numbers", "f32 kernel"),
            beside("against f32 and back", "whole numbers", "there and back, libtorch"),
        ],
    }],
};

fn levels() -> Part {
    Part::Before(vec![Part::ToLevels])
}

fn layer_norm(by: By) -> Part {
    norm("norm", 0, Norm::Layer, by, false)
}

fn in_f32(by: By) -> Vec<Part> {
    vec![Part::Before(vec![Part::ToLevels, Part::FromLevels]), layer_norm(by)]
}
