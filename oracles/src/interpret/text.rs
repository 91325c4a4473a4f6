//! The formula as people read it.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::formula::{Application, AxisSet, Binary, Graph, NodeId, Op, Reduce, Unary, Window};

/// The formula of a graph, one line for each named or repeated intermediate and for each output.
///
/// Axes in brackets are those that a function runs over; everything else is element by element, with broadcasting.
pub fn text(graph: &Graph) -> String {
    let lines = lines(graph);
    let width = lines.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    lines.iter().fold(String::new(), |mut text, (name, formula)| {
        let _ = writeln!(text, "{name:width$} = {formula}");
        text
    })
}

/// The lines of [`text`]: names and formulas.
pub fn lines(graph: &Graph) -> Vec<(String, String)> {
    let mut writer = Writer { graph, names: BTreeMap::new() };
    for (id, node) in nodes(graph) {
        if matches!(node.op, Op::Input(_) | Op::Constant(_))
            && let Some(name) = &node.name
        {
            writer.names.insert(id, name.clone());
        }
    }
    let mut lines = Vec::new();
    let mut used = BTreeMap::new();
    for (id, name) in steps(graph) {
        // Parts that are there more than once give their steps the same names.
        let count = used.entry(name.clone()).and_modify(|count| *count += 1).or_insert(1);
        let name = if *count > 1 { format!("{name}_{count}") } else { name };
        let formula = writer.formula(id, Level::Sum);
        lines.push((name.clone(), formula));
        writer.names.insert(id, name);
    }
    for output in &graph.outputs {
        lines.push((output.name.clone(), writer.formula(output.node, Level::Sum)));
    }
    lines
}

/// The intermediates that deserve a line: named by the definition, or used more than once. In order, with their names.
pub fn steps(graph: &Graph) -> Vec<(NodeId, String)> {
    let live = graph.live_with_applications();
    let mut uses = vec![0; graph.nodes.len()];
    for (id, node) in nodes(graph).filter(|(id, _)| live[id.index()]) {
        let operands = match graph.application(id) {
            Some(application) => application.inputs.iter().map(|(_, input)| *input).collect(),
            None => node.op.operands(),
        };
        for operand in operands {
            uses[operand.index()] += 1;
        }
    }
    let mut unnamed = 0;
    nodes(graph)
        .filter(|(id, _)| live[id.index()])
        .filter_map(|(id, node)| {
            if node.op.operands().is_empty() || graph.outputs.iter().any(|output| output.node == id) {
                return None;
            }
            match &node.name {
                Some(name) => Some((id, name.clone())),
                // Repeating and negating are not worth a name.
                None if uses[id.index()] > 1
                    && !matches!(node.op, Op::Repeat(..) | Op::Detach(_) | Op::Unary(Unary::Neg, _)) =>
                {
                    unnamed += 1;
                    Some((id, format!("t{unnamed}")))
                }
                None => None,
            }
        })
        .collect()
}

fn nodes(graph: &Graph) -> impl Iterator<Item = (NodeId, &crate::formula::Node)> {
    graph.nodes.iter().enumerate().map(|(index, node)| (NodeId(index as u32), node))
}

/// How tightly the surrounding expression binds.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
enum Level {
    Sum,
    Product,
    Factor,
}

struct Writer<'g> {
    graph: &'g Graph,
    names: BTreeMap<NodeId, String>,
}

impl Writer<'_> {
    fn formula(&self, id: NodeId, level: Level) -> String {
        if let Some(name) = self.names.get(&id) {
            return name.clone();
        }
        if let Some(application) = self.graph.application(id) {
            return self.application(application);
        }
        let paren = |own: Level, text: String| if own < level { format!("({text})") } else { text };
        match self.graph.node(id).op {
            Op::Input(index) => self.graph.inputs[index].name.clone(),
            Op::Constant(value) => paren(if value < 0.0 { Level::Sum } else { Level::Factor }, format!("{value}")),
            Op::Count(axes) => format!("count[{}]", self.axes(axes)),
            Op::Unary(Unary::Neg, a) => paren(Level::Sum, format!("-{}", self.formula(a, Level::Product))),
            Op::Unary(Unary::Square, a) => format!("{}²", self.formula(a, Level::Factor)),
            Op::Unary(Unary::Sqrt, a) => format!("sqrt({})", self.formula(a, Level::Sum)),
            Op::Unary(Unary::Rsqrt, a) => format!("rsqrt({})", self.formula(a, Level::Sum)),
            Op::Unary(Unary::Exp, a) => format!("exp({})", self.formula(a, Level::Sum)),
            Op::Unary(Unary::Log, a) => format!("log({})", self.formula(a, Level::Sum)),
            Op::Unary(Unary::Tanh, a) => format!("tanh({})", self.formula(a, Level::Sum)),
            Op::Unary(Unary::Erf, a) => format!("erf({})", self.formula(a, Level::Sum)),
            Op::Binary(binary, a, b) => {
                let infix = |own: Level, right: Level, sign: &str| {
                    paren(own, format!("{} {sign} {}", self.formula(a, own), self.formula(b, right)))
                };
                match binary {
                    Binary::Add => infix(Level::Sum, Level::Sum, "+"),
                    Binary::Sub => infix(Level::Sum, Level::Product, "-"),
                    Binary::Mul => infix(Level::Product, Level::Product, "·"),
                    Binary::Div => infix(Level::Product, Level::Factor, "/"),
                    Binary::Max => format!("max({}, {})", self.formula(a, Level::Sum), self.formula(b, Level::Sum)),
                }
            }
            Op::Select { left, right, then, otherwise } => {
                let [left, right, then, otherwise] =
                    [left, right, then, otherwise].map(|id| self.formula(id, Level::Sum));
                format!("where({left} ≥ {right}, {then}, {otherwise})")
            }
            Op::Reduce(reduce, a, axes) => {
                let name = match reduce {
                    Reduce::Sum => "sum",
                    Reduce::Mean | Reduce::Moment => "mean",
                    Reduce::Max => "max",
                };
                format!("{name}[{}]({})", self.axes(axes), self.formula(a, Level::Sum))
            }
            Op::Contract(a, b, axes) => format!(
                "sum[{}]({} · {})",
                self.axes(axes),
                self.formula(a, Level::Product),
                self.formula(b, Level::Factor)
            ),
            Op::Window(a, window) => format!("{}({})", self.window("window", window), self.formula(a, Level::Sum)),
            Op::Overlap(a, window) => format!("{}({})", self.window("overlap", window), self.formula(a, Level::Sum)),
            Op::Repeat(a, _) | Op::Detach(a) => self.formula(a, level),
            Op::Cast(a, dtype) => format!("round[{dtype}]({})", self.formula(a, Level::Sum)),
        }
    }

    fn application(&self, application: &Application) -> String {
        let Application { operator, axes, inputs, .. } = application;
        // The first axes are those of rows or samples, which go without saying.
        let over: Vec<String> = axes.iter().skip(1).map(|(_, axes)| self.axes(*axes)).collect();
        let inputs = inputs.iter().enumerate().map(|(place, (name, id))| {
            let value = self.formula(*id, Level::Sum);
            if place == 0 { value } else { format!("{name}={value}") }
        });
        format!("{operator}[{}]({})", over.join(","), inputs.collect::<Vec<_>>().join(", "))
    }

    /// A window along one entry is that part of an axis: `head[k of d]`. Otherwise: `window[c from l by k, stride 2, before 1]`.
    fn window(&self, name: &str, window: Window) -> String {
        let Window { from, to, tap, stride, before } = window;
        let [from, to] = [from, to].map(|axis| self.axes(AxisSet::of(axis)));
        let Some(tap) = tap else {
            let first = if before == 0 { String::new() } else { format!(" from {}", -before) };
            let name = if name == "window" { "head" } else { "pad" };
            return format!("{name}[{to} of {from}{first}]");
        };
        let tap = self.axes(AxisSet::of(tap));
        format!("{name}[{to} of {from} by {tap}, stride {stride}, before {before}]")
    }

    fn axes(&self, axes: AxisSet) -> String {
        let names: Vec<&str> = axes.iter().map(|axis| self.graph.axes[axis.0 as usize]).collect();
        names.join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formula::Builder;
    use isonorm_kernels::abi::Dtype;

    #[test]
    fn reads_like_the_paper_and_keeps_its_parentheses() {
        let b = Builder::new(vec!["r", "d"]);
        let x = b.input("x", b.axis_set("r d"));
        let (mean, var) = x.moments("d");
        let y = (x - mean) * (var + b.attribute("eps", 1e-5)).rsqrt();
        b.output("y", y - (mean - var), b.axis_set("r d"), Dtype::F32);
        assert_eq!(
            text(&b.finish()),
            "mean = mean[d](x)\n\
             t1   = x - mean\n\
             var  = mean[d](t1²)\n\
             y    = t1 · rsqrt(var + eps) - (mean - var)\n"
        );
    }
}
