//! Problems of every kind, data for them, and the one comparison that all checks use.
#![allow(dead_code, missing_docs)] // Every test file uses a part of it.

use std::collections::{BTreeMap, BTreeSet};

use isonorm_kernels::abi::{Direction, Dtype, DtypeSet, Value};
use isonorm_oracles::dd::Dd;
use isonorm_oracles::formula::Graph;
use isonorm_oracles::interpret::bound::{Arithmetic, OutputBound, bound};
use isonorm_oracles::interpret::{exact, torch};
use isonorm_oracles::operators::{Attribute, Operator};
use isonorm_oracles::storage::{Format, decode, encode};
use isonorm_oracles::{Problem, Tensor};

/// Problems of an operator: all sizes with the default attributes, and all attributes, one varied at a time, with two of
/// the sizes; each with every subset of the optional inputs.
pub fn problems(operator: &'static Operator, direction: Direction, dtypes: DtypeSet) -> Vec<Problem> {
    let optional: Vec<&'static str> =
        operator.inputs.iter().filter(|input| input.optional).map(|input| input.name).collect();
    let (all_dims, all_attributes) = (dims(operator), attributes(operator));
    // A size of several rows and entries, and one of a single value.
    let second = |axis: &str| sizes(axis)[1].to_vec();
    let single = operator.axes.iter().map(|axis| (axis.name, second(axis.name))).collect();
    let main = [all_dims[0].clone(), single];
    let defaults: Vec<_> = all_attributes.iter().filter(|attributes| is_default(operator, attributes)).collect();
    let pairs = all_dims.iter().flat_map(|dims| defaults.iter().map(move |attributes| (dims, *attributes)));
    let pairs =
        pairs.chain(main.iter().flat_map(|dims| all_attributes.iter().map(move |attributes| (dims, attributes))));
    let mut all: Vec<Problem> = Vec::new();
    for (dims, attributes) in pairs {
        for subset in 0..1u32 << optional.len() {
            let chosen = optional.iter().enumerate().filter(|(bit, _)| subset >> bit & 1 == 1);
            let given: BTreeSet<&'static str> = chosen.map(|(_, name)| *name).collect();
            let (dims, attributes) = (dims.clone(), attributes.clone());
            let problem = Problem { operator, direction, dtypes, dims, attributes, given };
            if problem.validate().is_ok() && !all.contains(&problem) {
                all.push(problem);
            }
        }
    }
    assert!(!all.is_empty(), "{} has no problems", operator.name);
    all
}

fn is_default(operator: &Operator, attributes: &BTreeMap<&'static str, Value>) -> bool {
    let default = |name: &str| operator.attributes.iter().find(|a| a.name == name).map(|a| a.domain.default());
    attributes.iter().all(|(name, value)| default(name).as_ref() == Some(value))
}

fn sizes(axis: &str) -> &'static [&'static [usize]] {
    match axis {
        "r" => &[&[3], &[], &[2, 2], &[0]],
        "d" => &[&[5], &[1], &[2], &[37], &[2, 3], &[0]],
        "n" => &[&[3], &[1], &[0]],
        "c" => &[&[4], &[1]],
        "g" => &[&[2], &[1]],
        "k" => &[&[3], &[1]],
        "s" => &[&[7], &[], &[1], &[2, 3], &[0]],
        other => panic!("no sizes for axis `{other}`"),
    }
}

fn dims(operator: &Operator) -> Vec<BTreeMap<&'static str, Vec<usize>>> {
    let mut all = vec![BTreeMap::new()];
    for axis in operator.axes {
        let sizes = sizes(axis.name).iter().filter(|sizes| axis.ranks.contains(&sizes.len()));
        all = sizes
            .flat_map(|sizes| {
                all.iter().map(|dims| {
                    let mut dims: BTreeMap<_, _> = dims.clone();
                    dims.insert(axis.name, sizes.to_vec());
                    dims
                })
            })
            .collect();
    }
    all
}

fn attributes(operator: &Operator) -> Vec<BTreeMap<&'static str, Value>> {
    let default = operator.default_attributes();
    let mut all = vec![default.clone()];
    for Attribute { name, domain, .. } in operator.attributes {
        for sample in domain.samples() {
            let mut attributes = default.clone();
            attributes.insert(*name, sample);
            if !all.contains(&attributes) {
                all.push(attributes);
            }
        }
    }
    // Optional attributes are alternatives to each other: each beside every value of the others.
    let optional: Vec<&Attribute> = operator.attributes.iter().filter(|attribute| attribute.optional).collect();
    let without = all.clone();
    for attribute in optional {
        for base in
            without.iter().filter(|base| !operator.attributes.iter().any(|a| a.optional && base.contains_key(a.name)))
        {
            let mut attributes = base.clone();
            attributes.insert(attribute.name, attribute.domain.default());
            if !all.contains(&attributes) {
                all.push(attributes);
            }
        }
    }
    all
}

/// Numbers from a seed (SplitMix64).
pub struct Numbers(pub u64);

impl Numbers {
    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Even over an interval.
    pub fn uniform(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * (self.bits() >> 11) as f64 * 2f64.powi(-53)
    }
}

/// The values of every input, each a number of its storage type.
pub type Values = Vec<Vec<f64>>;

/// Inputs without anything special, away from ties and zeros.
pub fn plain(problem: &Problem, seed: u64) -> Values {
    fill(problem, seed, |numbers, tensor| match tensor.name.as_str() {
        "running_var" => numbers.uniform(0.25, 4.0),
        "x" => numbers.uniform(-2.0, 3.0),
        _ => numbers.uniform(-2.0, 2.0),
    })
}

/// Inputs from a rule, rounded to their types.
pub fn fill(problem: &Problem, seed: u64, mut rule: impl FnMut(&mut Numbers, &Tensor) -> f64) -> Values {
    let mut numbers = Numbers(seed);
    let tensors = problem.inputs();
    let values = tensors.iter().map(|tensor| {
        let format = Format::of(tensor.dtype);
        (0..tensor.len()).map(|_| format.round(rule(&mut numbers, tensor))).collect()
    });
    values.collect()
}

/// Values as a kernel gets them.
pub fn bytes(problem: &Problem, values: &Values) -> Vec<Vec<u8>> {
    let tensors = problem.inputs();
    let all = tensors.iter().zip(values).map(|(tensor, values)| {
        let mut bytes = Vec::new();
        values.iter().for_each(|&value| encode(tensor.dtype, value, &mut bytes));
        bytes
    });
    all.collect()
}

/// A problem with inputs: what is true, and how far an answer may be from it.
pub struct Truth {
    pub problem: Problem,
    pub graph: Graph,
    pub inputs: Values,
    pub values: exact::Values,
    pub bounds: Vec<OutputBound>,
}

impl Truth {
    /// Of a problem's own graph.
    pub fn new(problem: &Problem, inputs: Values, arithmetic: Arithmetic) -> Truth {
        Truth::of_graph(problem, problem.graph(), inputs, arithmetic)
    }

    /// Of another graph with the same inputs and outputs.
    pub fn of_graph(problem: &Problem, graph: Graph, inputs: Values, arithmetic: Arithmetic) -> Truth {
        let slices: Vec<&[f64]> = inputs.iter().map(Vec::as_slice).collect();
        let values = exact::exact(&graph, &problem.sizes(), &slices);
        let bounds = bound(&graph, &values, arithmetic);
        Truth { problem: problem.clone(), graph, inputs, values, bounds }
    }

    /// The true values of an output.
    pub fn output(&self, index: usize) -> &[Dd] {
        &self.values.nodes[self.graph.outputs[index].node.index()]
    }

    /// The largest distance of an answer from the truth, as a multiple of the bound: at most 1.
    ///
    /// `rounded` says whether the answer was rounded to the storage types.
    pub fn judge(&self, answer: &Values, rounded: bool) -> Result<f64, String> {
        let mut worst = 0.0f64;
        assert_eq!(answer.len(), self.graph.outputs.len(), "outputs");
        for (index, (output, got)) in self.graph.outputs.iter().zip(answer).enumerate() {
            let format = Format::of(if rounded { output.dtype } else { Dtype::F64 });
            let (truth, bound) = (self.output(index), &self.bounds[index]);
            assert_eq!(got.len(), truth.len(), "elements of {}", output.name);
            assert_eq!(bound.errors.len(), truth.len(), "bounds of {}", output.name);
            for (element, (&got, (&truth, &error))) in got.iter().zip(truth.iter().zip(&bound.errors)).enumerate() {
                let sign = got.is_sign_negative() == truth.hi.is_sign_negative();
                let sign = sign || !bound.zero_sign || truth.hi != 0.0 || error != 0.0;
                match off(truth, error, got, format).filter(|_| sign) {
                    Some(ratio) => worst = worst.max(ratio),
                    None => {
                        return Err(format!(
                            "{}[{element}] is {got:e}, not {:e} ± {error:e}\n{}",
                            output.name,
                            truth.hi,
                            self.describe()
                        ));
                    }
                }
            }
        }
        Ok(worst)
    }

    /// All that one needs to see it again.
    pub fn describe(&self) -> String {
        let Problem { operator, direction, dtypes, dims, attributes, given } = &self.problem;
        let mut text = format!("{} {} {dtypes} {dims:?} {attributes:?} {given:?}", operator.name, direction.name());
        for (input, values) in self.graph.inputs.iter().zip(&self.inputs) {
            let shown: Vec<f64> = values.iter().copied().take(12).collect();
            text += &format!("\n  {} = {shown:?}", input.name);
        }
        text
    }
}

/// How far an answer is off as a multiple of what it may be; none if that is too far or of another class.
fn off(truth: Dd, error: f64, got: f64, format: Format) -> Option<f64> {
    if error == f64::INFINITY || (truth.hi.is_nan() && got.is_nan()) {
        return Some(0.0);
    }
    let [low, high] = [-error, error].map(|error| format.round_dd(truth + Dd::from(error)));
    if !(low <= got && got <= high) {
        return None;
    }
    if got == format.round_dd(truth) {
        return Some(0.0);
    }
    Some((Dd::from(got) - truth).abs().hi / (error + format.ulp(truth.hi) / 2.0))
}

/// Reads an answer.
pub fn read(problem: &Problem, bytes: &[Vec<u8>]) -> Values {
    problem.outputs().iter().zip(bytes).map(|(output, bytes)| decode(output.dtype, bytes)).collect()
}

/// The answer of the torch interpreter, in a precision; rounded to the storage types if that is the precision of the
/// arithmetic on them.
pub fn torch_answer(problem: &Problem, graph: &Graph, inputs: &Values, precision: Dtype) -> Values {
    let tensors: Vec<tch::Tensor> = problem
        .inputs()
        .iter()
        .zip(bytes(problem, inputs))
        .map(|(tensor, bytes)| torch::from_bytes(tensor.dtype, &tensor.shape, &bytes).expect("bytes fit the shape"))
        .collect();
    let answer = torch::torch(graph, &problem.sizes(), &tensors, precision, tch::Device::Cpu).expect("libtorch can");
    let round = |dtype: Dtype| if precision == Dtype::F64 { Dtype::F64 } else { dtype };
    let values = graph.outputs.iter().zip(&answer).map(|(output, tensor)| {
        let dtype = round(output.dtype);
        decode(dtype, &torch::to_bytes(dtype, tensor).expect("libtorch copies"))
    });
    values.collect()
}

/// What libtorch 2.11 does otherwise, and where.
pub type Difference = (&'static str, fn(&Truth) -> bool);
/// What libtorch 2.11 does otherwise on purpose or by mistake. Every entry must still be met.
pub const DIFFERENCES: [Difference; 5] = [
    (
        "batch_norm and instance_norm take 1/√0 to be 0: eps = 0 and a constant channel give the bias, not NaN",
        |truth| (of(truth, "batch_norm") || of(truth, "instance_norm")) && constant(truth),
    ),
    ("group_norm without positions gives dweight = NaN instead of an empty sum", |truth| {
        of(truth, "group_norm") && values(&truth.problem) == 0 && truth.problem.has("weight")
    }),
    ("group_norm with eps = 0 and a constant group gives ∞ or NaN as the rounding of a difference falls", |truth| {
        of(truth, "group_norm") && constant(truth) && truth.problem.has("weight")
    }),
    ("instance_norm without samples makes the running statistics NaN", |truth| {
        of(truth, "instance_norm") && truth.problem.size("n") == 0 && truth.problem.has("running_var")
    }),
    ("instance_norm averages a copy of the running statistics per sample: unchanged ones are rounded too", |truth| {
        let still = || matches!(truth.problem.attributes["momentum"], Value::Real(0.0));
        of(truth, "instance_norm") && truth.problem.has("running_var") && (truth.problem.size("s") == 0 || still())
    }),
];

fn of(truth: &Truth, operator: &str) -> bool {
    truth.problem.operator.name == operator
}

/// Whether the variance is 0 and eps too.
fn constant(truth: &Truth) -> bool {
    let x = truth.graph.inputs.iter().position(|input| input.name == "x").map(|place| &truth.inputs[place]);
    let alike = x.is_some_and(|x| x.windows(2).all(|pair| pair[0] == pair[1]));
    truth.problem.real("eps") == 0.0 && (alike || values(&truth.problem) == 1)
}

/// How many values a statistic is made of.
fn values(problem: &Problem) -> usize {
    let axes = match problem.operator.name {
        "batch_norm" => ["n", "s"].as_slice(),
        "group_norm" => &["k", "s"],
        _ => &["s"],
    };
    axes.iter().map(|axis| problem.size(axis)).product()
}
