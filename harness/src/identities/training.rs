//! Both sides of an identity, trained.

use std::collections::BTreeMap;

use isonorm_kernels::abi::Dtype;
use isonorm_oracles::dd::Dd;
use isonorm_oracles::formula::{Builder, Graph, Op, Reduce};
use isonorm_oracles::identities::{Identity, Kind, Optimizer, Scheme, Training};
use isonorm_oracles::interpret::exact::exact;
use isonorm_oracles::interpret::gradient::{Wanted, gradient};
use isonorm_oracles::interpret::torch::torch;
use isonorm_reports::record::{self, Number};
use tch::{Device, Kind as ElementKind, Tensor};

use super::instance::{Instance, Shape};
use super::truth::worse;
use crate::generate::Random;

/// Learning rates: large enough that a step shows in every digit.
const SGD_RATE: f64 = 0.0625;
const ADAM_RATE: f64 = 0.0078125;
/// Adam's factors of the averages, and what is added to the root (Kingma, Ba 2014, algorithm 1).
const BETA: [f64; 2] = [0.9, 0.999];
const ADAM_EPS: f64 = 1e-8;
/// What both sides may be apart after the steps, each of which amplifies the last digits; and what they must be apart where the
/// statement is that they differ.
const EQUAL: f64 = 1e-20;
const DIFFERENT: f64 = 1e-10;

/// The arithmetic of a training run.
#[derive(Clone, Copy, PartialEq)]
enum In {
    DoubleDouble,
    F64,
}

/// Trains both sides for so many steps on a squared error and compares the functions that they are then.
///
/// # Errors
/// If libtorch could not compute a step.
pub fn check(
    identity: &'static Identity,
    training: &'static Training,
    shape: Shape,
    steps: usize,
    random: Random,
) -> Result<record::Training, String> {
    let instance = Instance::new(identity, shape, random);
    let discrepancy = apart(&instance, training, steps, In::DoubleDouble)?;
    let f64_discrepancy = apart(&instance, training, steps, In::F64)?;
    let confirmed = if training.holds { discrepancy <= EQUAL } else { discrepancy > DIFFERENT };
    Ok(record::Training {
        scheme: match training.scheme {
            Scheme::ThroughMap => "the map differentiated too".to_owned(),
            Scheme::Own(1.0) => "each side with its own parameters".to_owned(),
            Scheme::Own(rate) => {
                format!("each side with its own parameters, the right one's learning rate times {rate}")
            }
            Scheme::Projected => "each side with its own parameters, mapped again after each step".to_owned(),
        },
        optimizer: match training.optimizer {
            Optimizer::Sgd => "gradient descent".to_owned(),
            Optimizer::Adam => "Adam".to_owned(),
        },
        steps: steps as u32,
        holds: training.holds,
        why: training.why.to_owned(),
        discrepancy: Number(discrepancy),
        f64_discrepancy: Number(f64_discrepancy),
        confirmed,
    })
}

fn apart(instance: &Instance, training: &Training, steps: usize, arithmetic: In) -> Result<f64, String> {
    let (identity, depth) = (instance.identity, instance.shape.depth);
    let start: BTreeMap<String, Vec<Dd>> = instance
        .inputs
        .iter()
        .zip(&instance.values)
        .map(|(input, values)| (input.name.clone(), values.iter().map(|&value| value.into()).collect()))
        .collect();
    let trained: Vec<&str> =
        instance.inputs.iter().filter(|input| input.kind == Kind::Param).map(|input| input.name.as_str()).collect();
    let run = |graph: Graph, start: BTreeMap<String, Vec<Dd>>, rate: f64, after: Option<&Graph>| {
        let mut network = Network::new(graph, start, &trained, instance, arithmetic);
        for step in 1..=steps {
            network.step(training.optimizer, rate, step)?;
            if let Some(map) = after {
                let mapped = network.evaluate(map, &network.values)?;
                network.values.extend(map.outputs.iter().map(|output| output.name.clone()).zip(mapped));
            }
        }
        network.output()
    };
    let map = identity.map_graph(depth, None);
    let left = run(identity.left_graph(depth, None), start.clone(), 1.0, None)?;
    let right = match training.scheme {
        Scheme::ThroughMap => {
            let [_, through_map] = identity.sides(depth, None);
            run(through_map, start, 1.0, None)?
        }
        Scheme::Own(_) | Scheme::Projected => {
            let mapped = evaluate(&map, &start, instance, arithmetic)?;
            let mut own = start;
            own.extend(map.outputs.iter().map(|output| output.name.clone()).zip(mapped));
            let rate = if let Scheme::Own(rate) = training.scheme { rate } else { 1.0 };
            let after = (training.scheme == Scheme::Projected).then_some(&map);
            run(identity.right_graph(depth, None), own, rate, after)?
        }
    };
    let scale = left.iter().map(|value| value.abs().hi).fold(0.0, f64::max);
    let largest = left.iter().zip(&right).map(|(&left, &right)| (left - right).abs().hi).fold(0.0, worse);
    Ok(largest / scale)
}

/// A side in training.
struct Network<'a> {
    instance: &'a Instance,
    arithmetic: In,
    forward: Graph,
    /// Its outputs are the gradients of the trained parameters.
    backward: Graph,
    trained: Vec<String>,
    values: BTreeMap<String, Vec<Dd>>,
    /// Adam's averages of the gradients and of their squares.
    averages: Vec<[Vec<Dd>; 2]>,
}

impl<'a> Network<'a> {
    /// The loss is the mean squared distance of the first output from random targets.
    fn new(
        forward: Graph,
        mut values: BTreeMap<String, Vec<Dd>>,
        trained: &[&str],
        instance: &'a Instance,
        arithmetic: In,
    ) -> Network<'a> {
        let output = forward.outputs[0].node;
        let axes = forward.node(output).axes;
        let builder = Builder::from_graph(Graph { outputs: Vec::new(), ..forward.clone() });
        let target = builder.input("target", axes);
        let squares = (builder.expr(output) - target).square();
        let loss = builder.push(Op::Reduce(Reduce::Mean, squares.id(), axes));
        builder.output("loss", loss, loss.axes(), Dtype::F64);
        let trained: Vec<String> =
            trained.iter().filter(|name| forward.input(name).is_some()).map(|name| (*name).to_owned()).collect();
        let wanted: Vec<Wanted> =
            trained.iter().map(|name| Wanted { input: name.clone(), dtype: Dtype::F64 }).collect();
        let backward = gradient(&builder.finish(), &["loss"], &wanted);
        let random = Random::new(2).named("target");
        let targets = (0..instance.sizes.count(axes) as u64).map(|place| random.normal(2 * place).into()).collect();
        values.insert("target".to_owned(), targets);
        values.insert("dloss".to_owned(), vec![Dd::from(1.0)]);
        Network { instance, arithmetic, forward, backward, trained, values, averages: Vec::new() }
    }

    fn evaluate(&self, graph: &Graph, values: &BTreeMap<String, Vec<Dd>>) -> Result<Vec<Vec<Dd>>, String> {
        evaluate(graph, values, self.instance, self.arithmetic)
    }

    fn output(&self) -> Result<Vec<Dd>, String> {
        Ok(self.evaluate(&self.forward, &self.values)?.swap_remove(0))
    }

    /// One step; `rate` is a factor of the usual learning rate.
    fn step(&mut self, optimizer: Optimizer, rate: f64, number: usize) -> Result<(), String> {
        let gradients = self.evaluate(&self.backward, &self.values)?;
        if self.averages.is_empty() {
            self.averages = gradients.iter().map(|g| [vec![Dd::ZERO; g.len()], vec![Dd::ZERO; g.len()]]).collect();
        }
        for ((name, gradient), [first, second]) in self.trained.iter().zip(&gradients).zip(&mut self.averages) {
            let parameter = self.values.get_mut(name).ok_or_else(|| format!("there is no parameter `{name}`"))?;
            for (place, (value, &gradient)) in parameter.iter_mut().zip(gradient).enumerate() {
                let step = match optimizer {
                    Optimizer::Sgd => gradient * Dd::from(SGD_RATE * rate),
                    Optimizer::Adam => {
                        let average = |old: Dd, new: Dd, beta: f64| old * beta.into() + new * Dd::from(1.0 - beta);
                        first[place] = average(first[place], gradient, BETA[0]);
                        second[place] = average(second[place], gradient * gradient, BETA[1]);
                        let [first, second] = [(first[place], BETA[0]), (second[place], BETA[1])]
                            .map(|(average, beta)| average / Dd::from(1.0 - beta.powi(number as i32)));
                        first / (second.sqrt() + ADAM_EPS.into()) * Dd::from(ADAM_RATE * rate)
                    }
                };
                *value = *value - step;
                if self.arithmetic == In::F64 {
                    *value = value.hi.into();
                }
            }
        }
        Ok(())
    }
}

fn evaluate(
    graph: &Graph,
    values: &BTreeMap<String, Vec<Dd>>,
    instance: &Instance,
    arithmetic: In,
) -> Result<Vec<Vec<Dd>>, String> {
    const NONE: &[Dd] = &[];
    let inputs: Vec<&[Dd]> =
        graph.inputs.iter().map(|input| values.get(&input.name).map_or(NONE, Vec::as_slice)).collect();
    if arithmetic == In::DoubleDouble {
        let found = exact(graph, &instance.sizes, &inputs);
        return Ok(graph.outputs.iter().map(|output| found.nodes[output.node.index()].clone()).collect());
    }
    let tensors: Vec<Tensor> = inputs
        .iter()
        .map(|values| Tensor::from_slice(&values.iter().map(|value| value.hi).collect::<Vec<f64>>()))
        .collect();
    let outputs =
        torch(graph, &instance.sizes, &tensors, Dtype::F64, Device::Cpu).map_err(|error| error.to_string())?;
    let read = |tensor: &Tensor| -> Result<Vec<Dd>, tch::TchError> {
        let values: Vec<f64> = Vec::try_from(&tensor.f_to_kind(ElementKind::Double)?.f_contiguous()?.f_view(-1)?)?;
        Ok(values.into_iter().map(Dd::from).collect())
    };
    outputs.iter().map(|output| read(output).map_err(|error| error.to_string())).collect()
}
