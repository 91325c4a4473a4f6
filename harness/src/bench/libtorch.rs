//! libtorch as a contender.
//!
//! Forward: the operator's native form ([`Operator::native`](isonorm_oracles::operators::Operator::native)) called
//! functionally, without gradients, on tensors that were made once: `layer_norm`, `rms_norm` (on the CPU a chain of
//! separate operators), `batch_norm` (training updates its running statistics in place), `group_norm`, `instance_norm`;
//! `add` followed by the norm for the fused residual ones; the lines of `torch.nn.functional.normalize`.
//!
//! Backward: libtorch's autograd through that same call, whose graph is kept, so that the forward half is outside of the
//! timing and its saved statistics are there for free. Autograd wants to start from gradients; what `tch` lets one start from
//! are ones, which it makes anew for every call. Making them is timed apart, in the same rounds, and its median is taken off
//! libtorch's time.

use isonorm_kernels::abi::Direction;
use isonorm_oracles::Problem;
use isonorm_oracles::interpret::torch::kind;
use isonorm_oracles::native::{Forward, Given};
use tch::{Device, Tensor};

use super::Timed;
use super::kernel::tile_inputs;
use super::memory::Memory;
use super::workload::Workload;
use crate::case::{Materialised, outline};
use crate::run::TensorArg;

/// libtorch's operator with the tensors of a workload.
pub struct Libtorch<'a> {
    given: Given<'a>,
    forward: Forward,
    backward: Option<Graph>,
    _memory: Vec<Memory>,
}

/// What autograd runs through.
struct Graph {
    roots: Vec<Tensor>,
    leaves: Vec<Tensor>,
}

/// Whether libtorch has the operator in the form that a workload asks for.
pub fn offers(workload: &Workload) -> bool {
    let small = workload.sample().problem;
    let zeros = |spec: isonorm_oracles::Tensor| {
        let shape: Vec<i64> = spec.shape.iter().map(|&size| size as i64).collect();
        (spec.name, Tensor::zeros(shape, (kind(spec.dtype), Device::Cpu)))
    };
    let tensors = small.inputs().into_iter().map(zeros).collect();
    small.operator.native.is_some_and(|forward| tch::no_grad(|| forward(&Given::new(&small, tensors))).is_ok())
}

impl<'a> Libtorch<'a> {
    /// Prepares the operator of a workload whose tensors, on this device, hold the values of `sample` over and over; `Ok(None)`
    /// if libtorch has no such operator, or not in this form.
    ///
    /// # Errors
    /// If there is not enough memory, or libtorch refuses.
    pub fn new(workload: &'a Workload, sample: &Materialised, device: Device) -> Result<Option<Libtorch<'a>>, String> {
        let problem = &workload.case.problem;
        let Some(forward) = problem.operator.native else { return Ok(None) };
        let request = outline(&workload.case);
        let memory = tile_inputs(&request.inputs, sample)?;
        let mut tensors = Vec::new();
        for (arg, memory) in request.inputs.iter().zip(&memory) {
            // A copy on another device lies alike; on this one there is none.
            let tensor = tensor(arg, memory, problem)?.f_to_device(device).map_err(|error| error.to_string())?;
            tensors.push((arg.name.clone(), tensor));
        }
        let tracked = problem.direction == Direction::Backward;
        let mut leaves = Vec::new();
        if tracked {
            let wanted = problem.outputs();
            for (name, tensor) in &mut tensors {
                if wanted.iter().any(|output| output.name.strip_prefix('d') == Some(name)) {
                    *tensor = tensor.set_requires_grad(true);
                    leaves.push(tensor.shallow_clone());
                }
            }
        }
        let given = Given::new(problem, tensors).in_place();
        let first = if tracked { tch::with_grad(|| forward(&given)) } else { tch::no_grad(|| forward(&given)) };
        let results = match first {
            Ok(results) => results,
            Err(isonorm_oracles::native::Declined::Refused(why)) => return Err(format!("libtorch refuses: {why}")),
            Err(_) => return Ok(None),
        };
        let backward = tracked.then_some(Graph { roots: results, leaves });
        Ok(Some(Libtorch { given, forward, backward, _memory: memory }))
    }
}

impl Timed for Libtorch<'_> {
    fn call(&mut self) -> Result<(), String> {
        match &self.backward {
            None => {
                let outputs = tch::no_grad(|| (self.forward)(&self.given)).map_err(|error| error.to_string())?;
                drop(std::hint::black_box(outputs));
            }
            Some(Graph { roots, leaves }) => {
                let gradients =
                    Tensor::f_run_backward(roots, leaves, true, false).map_err(|error| error.to_string())?;
                drop(std::hint::black_box(gradients));
            }
        }
        Ok(())
    }

    fn has_surcharge(&self) -> bool {
        self.backward.is_some()
    }

    fn surcharge(&mut self) -> Result<(), String> {
        let Some(graph) = &self.backward else { return Ok(()) };
        let ones: Result<Vec<Tensor>, _> = graph.roots.iter().map(|root| tch::no_grad(|| root.f_ones_like())).collect();
        drop(std::hint::black_box(ones.map_err(|error| error.to_string())?));
        Ok(())
    }
}

/// The tensor of this memory, in the type that libtorch's operator takes it in.
fn tensor(arg: &TensorArg, memory: &Memory, problem: &Problem) -> Result<Tensor, String> {
    let signed = |list: &[usize]| -> Vec<i64> { list.iter().map(|&number| number as i64).collect() };
    let (shape, strides) = (signed(&arg.shape), signed(&arg.strides));
    // SAFETY: the memory has the span that shape and strides reach, is initialised, and outlives the tensor: both are
    // parts of one `Libtorch`, or the tensor is replaced here by a converted copy.
    let tensor = unsafe { Tensor::f_from_blob(memory.start(), &shape, &strides, kind(arg.dtype), Device::Cpu) };
    let say = |error: tch::TchError| error.to_string();
    let tensor = tensor.map_err(say)?;
    // Beside running statistics libtorch wants parameters of their type. The conversion is no part of the operator.
    let param = problem.operator.inputs.iter().any(|input| input.name == arg.name && input.optional);
    if param && problem.has("running_mean") {
        return tensor.f_totype(kind(problem.dtypes.data.statistics())).map_err(say);
    }
    Ok(tensor)
}
