//! FlashNorm: RMSNorm's weight in the matrix after it, its division behind the product.

use super::{AxisRange, Deviation, Identity, Size, THROUGH_MAP, bias, data, gain, weight};
use crate::operators::Paper;

const PAPER: Paper = Paper { title: "FlashNorm: Fast Normalization for Transformers", reference: "arXiv:2407.09577" };

const AXES: &[AxisRange] = &[
    AxisRange { name: "t", meaning: "tokens", size: Size::Between(1, 8) },
    AxisRange { name: "d", meaning: "inputs", size: Size::Width(2, 256) },
    AxisRange { name: "o", meaning: "outputs", size: Size::Between(2, 16) },
];

pub(super) static DEFERRED: Identity = Identity {
    name: "flash_norm",
    summary: "RMSNorm with a weight, then a linear layer: the product first, and one division for each row behind it",
    condition: "nothing but a linear layer reads the norm; its bias is added after the division",
    map_in_words: "the matrix times the weight of the norm for each input",
    axes: AXES,
    depth: (1, 1),
    inputs: |_| vec![data("x", "t d"), gain("g", "d"), weight("w", "d o", "d"), bias("c", "o")],
    eps: 1e-6,
    left: |s| {
        let read = s.rms_norm(s.get("x"), "d") * s.get("g");
        (if s.is("a ReLU in between") { read.relu() } else { read }).dot(s.get("w"), "d") + s.get("c")
    },
    map: |s| if s.is("the weight not folded") { vec![] } else { vec![("w".to_owned(), s.get("w") * s.get("g"))] },
    right: |s| {
        let x = s.get("x");
        let squares =
            if s.is("the sum of squares for their mean") { x.square().sum("d") } else { x.square().mean("d") };
        let scale = if s.is("ε outside of the root") {
            s.number(1.0) / (squares.sqrt() + s.eps())
        } else {
            (squares + s.eps()).rsqrt()
        };
        let product = x.dot(s.get("w"), "d");
        if s.is("the bias before the division") { (product + s.get("c")) * scale } else { product * scale + s.get("c") }
    },
    deviations: &[
        Deviation::condition("a ReLU in between"),
        Deviation::planted("the weight not folded"),
        Deviation::planted("the bias before the division"),
        Deviation::planted("ε outside of the root"),
        Deviation::planted("the sum of squares for their mean"),
    ],
    training: THROUGH_MAP,
    papers: &[PAPER],
};

pub(super) static CANCELLED: Identity = Identity {
    name: "flash_norm_cancelled",
    summary: "of two RMSNorms with a linear layer in between, the first cancels",
    condition: "the second norm has no weight before the matrix and its ε is that of the pair, ε · (mean square of x + ε)",
    map_in_words: "the matrix times the weight of the first norm for each input",
    axes: AXES,
    depth: (1, 1),
    inputs: |_| vec![data("x", "t d"), gain("g", "d"), weight("w", "d o", "d"), bias("c", "o")],
    eps: 1e-3,
    left: |s| {
        let first = (s.rms_norm(s.get("x"), "d") * s.get("g")).dot(s.get("w"), "d");
        s.rms_norm(if s.is("a bias in between") { first + s.get("c") } else { first }, "o")
    },
    map: |s| vec![("w".to_owned(), s.get("w") * s.get("g"))],
    right: |s| {
        let product = s.get("x").dot(s.get("w"), "d");
        let eps = if s.is("the ε of the second norm alone") {
            s.eps()
        } else {
            s.eps() * (s.get("x").square().mean("d") + s.eps())
        };
        product * (product.square().mean("o") + eps).rsqrt()
    },
    deviations: &[Deviation::condition("a bias in between"), Deviation::planted("the ε of the second norm alone")],
    training: THROUGH_MAP,
    papers: &[PAPER],
};
