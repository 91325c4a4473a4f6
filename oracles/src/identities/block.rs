//! A Transformer of pre-normalized blocks, which several identities are about.

use super::{AxisRange, Input, Kind, Scope, Size, Values, bias, gain, input};
use crate::formula::Expr;

/// Tokens, vocabulary, stream, heads, hidden units, classes.
pub(super) const AXES: [AxisRange; 8] = [
    AxisRange { name: "t", meaning: "tokens", size: Size::Between(1, 6) },
    AxisRange { name: "s", meaning: "tokens, as those attended to", size: Size::Follows(|of| of("t")) },
    AxisRange { name: "v", meaning: "vocabulary", size: Size::Between(3, 8) },
    AxisRange { name: "d", meaning: "residual stream", size: Size::Width(8, 64) },
    AxisRange { name: "h", meaning: "heads", size: Size::Between(1, 4) },
    AxisRange { name: "e", meaning: "entries of a head", size: Size::Follows(|of| (of("d") / of("h")).max(1)) },
    AxisRange { name: "f", meaning: "hidden units", size: Size::Follows(|of| 2 * of("d")) },
    AxisRange { name: "o", meaning: "classes", size: Size::Between(2, 6) },
];

/// What writes to the residual stream in each block.
pub(super) const WRITERS: [&str; 4] = ["wo", "bo", "w2", "c2"];
/// What reads a norm in each block: the matrix, its bias, and which norm.
pub(super) const READERS: [(&str, &str, &str); 4] =
    [("wq", "bq", "attention"), ("wk", "bk", "attention"), ("wv", "bv", "attention"), ("w1", "c1", "mlp")];

/// A matrix as networks are initialised with: products are smaller than what they are made of.
fn weight(name: &str, axes: &'static str, fan: &'static str) -> Input {
    input(name, axes, Kind::Param, Values::Fan(fan, 0.25))
}

/// The parameter of a layer.
pub(super) fn of(name: &str, layer: usize) -> String {
    format!("{name}.{layer}")
}

/// Every input of a Transformer whose norms have a gain and a bias.
pub(super) fn inputs(depth: usize) -> Vec<Input> {
    let mut all = vec![
        input("tokens", "t v", Kind::Fixed, Values::OneHot),
        input("embedding", "v d", Kind::Param, Values::Normal(0.3, 1.0)),
        input("position", "t d", Kind::Param, Values::Normal(0.1, 0.5)),
    ];
    for layer in 0..depth {
        let name = |name: &str| of(name, layer);
        for norm in ["attention", "mlp"] {
            all.push(gain(&name(&format!("{norm}_gain")), "d"));
            all.push(bias(&name(&format!("{norm}_bias")), "d"));
        }
        for (matrix, vector) in [("wq", "bq"), ("wk", "bk"), ("wv", "bv")] {
            all.push(weight(&name(matrix), "d h e", "d"));
            all.push(bias(&name(vector), "h e"));
        }
        all.push(weight(&name("wo"), "d h e", "h e"));
        all.push(bias(&name("bo"), "d"));
        all.push(weight(&name("w1"), "d f", "d"));
        all.push(bias(&name("c1"), "f"));
        all.push(weight(&name("w2"), "d f", "f"));
        all.push(bias(&name("c2"), "d"));
    }
    all.extend([gain("final_gain", "d"), bias("final_bias", "d")]);
    all.extend([weight("unembedding", "d o", "d"), bias("logit_bias", "o")]);
    all
}

/// The logits. `norm` gets the stream, the name of a norm and the layer, if it is in one; the entries of the stream lie
/// along `stream`.
pub(super) fn transformer<'b>(
    s: &Scope<'b>,
    stream: &str,
    norm: impl Fn(Expr<'b>, &str, Option<usize>) -> Expr<'b>,
) -> Expr<'b> {
    let mut x = s.get("tokens").dot(s.get("embedding"), "v") + s.get("position");
    for layer in 0..s.depth() {
        let get = |name: &str| s.get(&of(name, layer));
        let read = norm(x, "attention", Some(layer));
        let [q, k, v] =
            ["q", "k", "v"].map(|name| read.dot(get(&format!("w{name}")), stream) + get(&format!("b{name}")));
        let [k, v] = [k, v].map(|over_tokens| over_tokens.head("t", "s"));
        let attention = (q.dot(k, "e") * s.builder().count("e").rsqrt()).softmax("s");
        x = x + (attention.dot(v, "s").dot(get("wo"), "h e") + get("bo"));
        let hidden = (norm(x, "mlp", Some(layer)).dot(get("w1"), stream) + get("c1")).gelu();
        x = x + (hidden.dot(get("w2"), "f") + get("c2"));
    }
    norm(x, "final", None).dot(s.get("unembedding"), stream) + s.get("logit_bias")
}

/// The gain or bias of a norm.
pub(super) fn affine<'b>(s: &Scope<'b>, what: &str, norm: &str, layer: Option<usize>) -> Expr<'b> {
    let name = format!("{norm}_{what}");
    s.get(&layer.map_or(name.clone(), |layer| of(&name, layer)))
}

/// Every matrix that reads a norm, with its bias, the norm, and the layer if it is in one.
pub(super) fn readers(depth: usize) -> Vec<(String, String, &'static str, Option<usize>)> {
    let in_layer =
        |layer: usize| READERS.map(|(matrix, bias, norm)| (of(matrix, layer), of(bias, layer), norm, Some(layer)));
    let last = ("unembedding".to_owned(), "logit_bias".to_owned(), "final", None);
    (0..depth).flat_map(in_layer).chain([last]).collect()
}

/// Everything that is written to the stream.
pub(super) fn writers(depth: usize) -> Vec<String> {
    let in_layer = |layer: usize| WRITERS.map(|name| of(name, layer));
    ["embedding", "position"].map(str::to_owned).into_iter().chain((0..depth).flat_map(in_layer)).collect()
}
