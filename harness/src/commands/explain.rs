//! `explain`: what an operator is.

use std::sync::Arc;

use clap::Args;
use isonorm_kernels::abi::Direction;
use isonorm_oracles::interpret::cost::cost;
use isonorm_oracles::interpret::text::text;
use isonorm_oracles::operators::{self, Dim, Operator, Role, TensorSpec};
use serde::Serialize;

use super::kernels::builtin;
use super::{Answer, Error, Format, print_json, print_text};
use crate::campaign::UnknownOperator;
use crate::run::{Contender, Device};

/// Explain an operator: formula, tensors, attributes, gradient, bound, special values, papers, kernels.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Its name.
    operator: String,
    /// How the answer is printed.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

#[derive(Debug, Serialize)]
struct Explanation {
    name: &'static str,
    summary: &'static str,
    forward: String,
    backward: String,
    axes: Vec<[String; 2]>,
    attributes: Vec<[String; 3]>,
    inputs: Vec<String>,
    outputs: Vec<String>,
    relations: Vec<String>,
    special_values: &'static str,
    cost: String,
    papers: Vec<[&'static str; 2]>,
    kernels: Vec<String>,
}

/// What the bound is, in a paragraph; the same for all operators.
const BOUND: &str = "Every element may be as far from the true value as an evaluation of the formula in the kernel's \
    precision can be: any order of summation, with or without fused multiply-add, running moments, products expanded over \
    sums. Where every step is exact the answer must be the rounded truth, to the bit. Nothing is tuned.";

pub(super) fn run(arguments: Arguments) -> Result<Answer, Error> {
    let operator = operators::find(&arguments.operator).ok_or_else(|| UnknownOperator::new(&arguments.operator))?;
    let kernels = [builtin(Device::Cpu)?, builtin(Device::Ptx)?].concat();
    let explanation = explanation(operator, &kernels);
    match arguments.format {
        Format::Json => print_json(&explanation)?,
        Format::Text => print_text(&explanation.text())?,
    }
    Ok(Answer::Well)
}

fn explanation(operator: &'static Operator, kernels: &[Arc<dyn Contender>]) -> Explanation {
    let problem = |direction| operator.typical(direction);
    let formula = |direction| problem(direction).map_or_else(String::new, |problem| text(&problem.graph()));
    let axes = operator.axes.iter().map(|axis| {
        let (low, high) = (axis.ranks.start(), axis.ranks.end());
        let dimensions = if low == high { format!("{low}") } else { format!("{low} to {high}") };
        [axis.name.to_owned(), format!("{} ({dimensions} dimensions)", axis.meaning)]
    });
    let derived = operator.derived_axes.iter().map(|axis| [axis.name.to_owned(), axis.meaning.to_owned()]);
    let chosen = operator.attributes.iter().map(|attribute| {
        let optional = if attribute.optional { "optional" } else { "required" };
        [attribute.name.to_owned(), attribute.meaning.to_owned(), format!("{}, {optional}", attribute.domain.allowed())]
    });
    let following = operator.derived_attributes.iter().map(|attribute| {
        [attribute.name.to_owned(), attribute.meaning.to_owned(), "it follows from the sizes".to_owned()]
    });
    let cost = problem(Direction::Forward).map(|problem| cost(&problem)).map_or_else(String::new, |cost| {
        let elements = problem(Direction::Forward).map_or(1, |problem| problem.inputs()[0].len()).max(1) as f64;
        let bytes = (cost.bytes_read + cost.bytes_written) as f64 / elements;
        format!(
            "forward, f32: {bytes:.2} bytes and {:.2} operations per element of x",
            cost.operations as f64 / elements
        )
    });
    Explanation {
        name: operator.name,
        summary: operator.summary,
        forward: formula(Direction::Forward),
        backward: formula(Direction::Backward),
        axes: axes.chain(derived).collect(),
        attributes: chosen.chain(following).collect(),
        inputs: operator.inputs.iter().map(tensor).collect(),
        outputs: operator.outputs.iter().map(tensor).collect(),
        relations: operator.relations.iter().map(|relation| relation.to_string()).collect(),
        special_values: operator.special_values,
        cost,
        papers: operator.papers.iter().map(|paper| [paper.title, paper.reference]).collect(),
        kernels: kernels
            .iter()
            .map(|kernel| kernel.info())
            .filter(|info| info.operator == operator.name)
            .map(|info| info.name.clone())
            .collect(),
    }
}

fn tensor(spec: &TensorSpec) -> String {
    let dims: Vec<String> = spec
        .dims
        .iter()
        .map(|dim| match dim {
            Dim::Axis(axis) => (*axis).to_owned(),
            Dim::Merged(axes) => axes.join("·"),
        })
        .collect();
    let role = match spec.role {
        Role::Data => "data",
        Role::Param => "parameter",
        Role::State => "state, f32 (f64 for f64)",
    };
    let optional = if spec.optional { ", optional" } else { "" };
    format!("{}[{}] ({role}{optional})", spec.name, dims.join(", "))
}

impl Explanation {
    fn text(&self) -> String {
        use std::fmt::Write;
        let mut out = format!("{}: {}\n", self.name, self.summary);
        let mut part = |title: &str, lines: Vec<String>| {
            if lines.is_empty() {
                return;
            }
            let _ = writeln!(out, "\n{title}");
            for line in lines.iter().flat_map(|line| line.lines()) {
                let _ = writeln!(out, "  {line}");
            }
        };
        part("forward", vec![self.forward.clone()]);
        part("backward", vec![self.backward.clone()]);
        part("axes", self.axes.iter().map(|[name, meaning]| format!("{name}: {meaning}")).collect());
        part(
            "attributes",
            self.attributes.iter().map(|[name, meaning, allowed]| format!("{name}: {meaning}; {allowed}")).collect(),
        );
        part("inputs", self.inputs.clone());
        part("outputs", self.outputs.clone());
        part("relations", self.relations.clone());
        part("special values", vec![self.special_values.to_owned()]);
        part("bound", vec![BOUND.to_owned()]);
        part("cost", vec![self.cost.clone()]);
        part("papers", self.papers.iter().map(|[title, reference]| format!("{title} ({reference})")).collect());
        part("kernels", self.kernels.clone());
        out
    }
}
