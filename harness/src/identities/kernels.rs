//! Built-in kernels in the place of a formula's operators.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use isonorm_kernels::abi::{Direction, Dtype, DtypeSet};
use isonorm_oracles::Problem;
use isonorm_oracles::formula::{Application, Axis, AxisSet};
use isonorm_oracles::interpret::Sizes;
use isonorm_oracles::interpret::torch::{from_bytes, to_bytes};
use isonorm_oracles::operators::{self, TensorSpec};
use tch::Tensor;

use crate::run::{Contender, InProcess, Outcome, Request, Runner, TensorArg};

/// The forward kernels, ready to run, and which of them have.
#[derive(Default)]
pub struct Kernels {
    runners: BTreeMap<String, RefCell<Box<dyn Runner>>>,
    used: RefCell<BTreeSet<&'static str>>,
}

impl Kernels {
    /// All built-in ones.
    ///
    /// # Errors
    /// If one cannot be made ready.
    pub fn new() -> Result<Kernels, String> {
        let forward =
            isonorm_kernels::builtin().into_iter().filter(|kernel| kernel.info().direction == Direction::Forward);
        let opened = forward.map(|kernel| {
            let operator = kernel.info().operator.clone();
            let runner = InProcess::new(Arc::clone(&kernel)).open().map_err(|error| error.to_string())?;
            Ok((operator, RefCell::new(runner)))
        });
        Ok(Kernels { runners: opened.collect::<Result<_, String>>()?, used: RefCell::default() })
    }

    /// The operators that were computed so far.
    pub fn used(&self) -> Vec<String> {
        self.used.borrow().iter().map(|name| (*name).to_owned()).collect()
    }

    /// Computes an application; tensors have one dimension for each axis of the formula.
    ///
    /// # Errors
    /// If there is no kernel, or if it does not answer, or misbehaves.
    pub fn compute(
        &self,
        application: &Application,
        sizes: &Sizes,
        inputs: &[&Tensor],
        dtype: Dtype,
    ) -> Result<Tensor, String> {
        let operator = operators::find(application.operator).ok_or("there is no such operator")?;
        let axes_of = |name: &str| {
            let found = application.axes.iter().find(|(own, _)| *own == name);
            found.map_or(AxisSet::NONE, |(_, axes)| *axes)
        };
        let mut problem = Problem {
            operator,
            direction: Direction::Forward,
            dtypes: DtypeSet::uniform(dtype),
            dims: operator.axes.iter().map(|axis| (axis.name, vec![sizes.count(axes_of(axis.name))])).collect(),
            attributes: operator.default_attributes(),
            given: operator
                .inputs
                .iter()
                .filter(|input| input.optional && application.inputs.iter().any(|(name, _)| *name == input.name))
                .map(|input| input.name)
                .collect(),
        };
        problem.attributes.extend(application.attributes.iter().cloned());
        problem.validate().map_err(|error| error.to_string())?;

        // The axes of a tensor in the operator's order, then all others, which have size 1 in it.
        let order = |spec: &TensorSpec| -> Vec<Axis> {
            spec.axes().into_iter().flat_map(|axis| axes_of(axis).iter().collect::<Vec<_>>()).collect()
        };
        let permutation = |axes: &[Axis]| -> Vec<i64> {
            let rest = (0..sizes.0.len()).filter(|&axis| axes.iter().all(|own| own.index() != axis));
            axes.iter().map(|axis| axis.index()).chain(rest).map(|axis| axis as i64).collect()
        };
        let mut arguments = Vec::new();
        for tensor in problem.inputs() {
            let place = application.inputs.iter().position(|(name, _)| *name == tensor.name);
            let given = inputs[place.ok_or_else(|| format!("it has no input `{}`", tensor.name))?];
            let spec = operator.inputs.iter().find(|spec| spec.name == tensor.name).ok_or("no such input")?;
            let axes = order(spec);
            let mut whole = given.size();
            axes.iter().for_each(|axis| whole[axis.index()] = sizes.of(*axis) as i64);
            let laid_out = given.f_expand(&whole, false).and_then(|all| all.f_permute(permutation(&axes)));
            let bytes = laid_out.and_then(|all| to_bytes(tensor.dtype, &all.f_contiguous()?));
            arguments.push(argument(&tensor, bytes.map_err(|error| error.to_string())?));
        }
        let outputs = problem.outputs();
        let request = Request {
            operator: operator.name.to_owned(),
            direction: Direction::Forward,
            sizes: problem.named_sizes(),
            attributes: problem.call_attributes(),
            inputs: arguments,
            outputs: outputs.iter().map(|tensor| argument(tensor, Vec::new())).collect(),
            threads: 1,
            prelude: None,
        };
        let runner = self.runners.get(operator.name).ok_or("there is no built-in kernel")?;
        let answer = match runner.borrow_mut().run(&request) {
            Outcome::Answered(answer) if answer.conduct.is_empty() => answer,
            Outcome::Answered(answer) => return Err(format!("the kernel misbehaved: {:?}", answer.conduct)),
            other => return Err(format!("the kernel did not answer: {other:?}")),
        };
        self.used.borrow_mut().insert(operator.name);
        let axes = order(&operator.outputs[0]);
        let permuted = permutation(&axes);
        let mut back = vec![0; permuted.len()];
        permuted.iter().enumerate().for_each(|(place, &axis)| back[axis as usize] = place as i64);
        let mut shape: Vec<usize> = axes.iter().map(|axis| sizes.of(*axis)).collect();
        shape.resize(sizes.0.len(), 1);
        let result = from_bytes(dtype, &shape, &answer.outputs[0]).and_then(|result| result.f_permute(back));
        result.map_err(|error| error.to_string())
    }
}

fn argument(tensor: &isonorm_oracles::Tensor, data: Vec<u8>) -> TensorArg {
    let mut strides = vec![1; tensor.shape.len()];
    for axis in (1..strides.len()).rev() {
        strides[axis - 1] = strides[axis] * tensor.shape[axis];
    }
    let (name, shape) = (tensor.name.clone(), tensor.shape.clone());
    TensorArg { name, dtype: tensor.dtype, shape, strides, span: tensor.len(), data, alias: None }
}
