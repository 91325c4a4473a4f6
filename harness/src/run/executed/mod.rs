//! Kernels for a GPU, run by the PTX executor: what a compiler made of the source, thread by thread.
//!
//! Each call of a request is the launches that the manifest plans for it, on tensors in the executor's own memory. In the
//! second call blocks and warps run in the opposite order, and tensors lie at other addresses of the same alignment.

mod execution;
mod hardware;
mod modules;

use std::sync::Arc;
use std::time::Instant;

use isonorm_cuda::Library;
use isonorm_cuda::compile::Cache;
use isonorm_cuda::launch::{Call, Plan, PlanError};
use isonorm_cuda::manifest;
use isonorm_kernels::abi::{Direction, Dtype, DtypeSet, KernelInfo, Value};
use isonorm_oracles::Problem;
use isonorm_oracles::operators::{self, AxisKind, Operator, Role, TensorSpec};

use self::execution::{Execution, Left};
pub use self::hardware::{OnGpu, Ready};
use self::modules::{Built, Modules};
use super::conduct;
use super::examine::{self, Calls, Poison, Room, Scene};
use super::{Conduct, Contender, Device, Difference, Origin, Outcome, Request, RunError, Runner, TensorArg};
use crate::campaign::UnknownOperator;
use crate::case::{Case, outline};
use crate::generate::{Offer, Sizes};

/// Multiprocessors that the executor says it has.
const SMS: u32 = 132;
/// Sizes of a reduced axis that a kernel is compiled for to see whether it compiles.
const SIZES: [usize; 4] = [4, 64, 1024, 1];

/// A kernel of a manifest.
#[derive(Clone)]
pub struct Executed {
    info: KernelInfo,
    origin: Origin,
    operator: &'static Operator,
    kernel: Arc<manifest::Kernel>,
    modules: Arc<Modules>,
    /// Multiprocessors of the device.
    sms: u32,
}

impl Executed {
    /// The kernels of a library.
    ///
    /// # Errors
    /// If one of them claims an operator that is not known.
    pub fn of(library: Library, cache: Cache) -> Result<Vec<Executed>, UnknownOperator> {
        let modules = Arc::new(Modules::new(library.source, cache));
        let origin = match library.path {
            None => Origin::BuiltIn,
            Some(path) => Origin::Manifest { path, sha256: library.sha256 },
        };
        let contender = |kernel: manifest::Kernel| {
            let info = kernel.info.clone();
            let unknown = || UnknownOperator::new(&info.operator);
            let operator = operators::find(&info.operator).ok_or_else(unknown)?;
            let (origin, modules) = (origin.clone(), Arc::clone(&modules));
            Ok(Executed { info, origin, operator, kernel: Arc::new(kernel), modules, sms: SMS })
        };
        library.kernels.into_iter().map(contender).collect()
    }

    /// The same kernel for a device with so many multiprocessors.
    pub fn on(self, sms: u32) -> Executed {
        Executed { sms, ..self }
    }

    /// The launches of a call.
    fn plan(&self, request: &Request) -> Result<Plan, Outcome> {
        let channels_last = channels_last(request).map_err(Outcome::Declined)?;
        if channels_last && !self.info.layouts.channels_last {
            return Err(Outcome::Declined("tensors with channels last are not taken".to_owned()));
        }
        let call = Call {
            sizes: request.sizes.clone(),
            attributes: self.attributes(request),
            dtypes: self.dtypes(request),
            tensors: self.tensors(request),
            channels_last,
            sms: self.sms,
            arch: self.modules.source.arch_number(),
        };
        self.kernel.plan(&call).map_err(|error| match error {
            PlanError::Declined(reason) => Outcome::Declined(reason),
            other => Outcome::NotRun(other.to_string()),
        })
    }

    /// The element types of data and parameters. Where there is no parameter, the first that is offered with such data.
    fn dtypes(&self, request: &Request) -> DtypeSet {
        let is_param = |name: &str| {
            let named = |spec: &&TensorSpec| spec.name == name || name.strip_prefix('d') == Some(spec.name);
            self.operator.inputs.iter().find(named).is_some_and(|spec| spec.role == Role::Param)
        };
        let tensors = || request.inputs.iter().chain(&request.outputs);
        let param = tensors().find(|tensor| is_param(&tensor.name)).map(|tensor| tensor.dtype);
        let data = tensors().next().map_or(self.info.dtypes[0].data, |tensor| tensor.dtype);
        let fits = |dtypes: &&DtypeSet| dtypes.data == data && param.is_none_or(|param| dtypes.param == param);
        let offered = self.info.dtypes.iter().find(fits).copied();
        offered.unwrap_or(DtypeSet { data, param: param.unwrap_or(data) })
    }

    /// Every attribute of the operator.
    fn attributes(&self, request: &Request) -> Vec<(String, Option<Value>)> {
        let given = |name: &str| request.attributes.iter().find(|(own, _)| own == name).map(|(_, value)| value.clone());
        let chosen = self.operator.attributes.iter().map(|attribute| attribute.name);
        let names = chosen.chain(self.operator.derived_attributes.iter().map(|attribute| attribute.name));
        names.map(|name| (name.to_owned(), given(name))).collect()
    }

    /// Every tensor of this half of the operator.
    fn tensors(&self, request: &Request) -> Vec<(String, Option<Dtype>)> {
        let (inputs, outputs) = (self.operator.inputs.iter(), self.operator.outputs.iter());
        let names: Vec<String> = match self.info.direction {
            Direction::Forward => inputs.chain(outputs).map(|spec| spec.name.to_owned()).collect(),
            Direction::Backward => {
                let given = outputs.filter(|spec| spec.differentiable).map(|spec| format!("d{}", spec.name));
                let kept = self.operator.inputs.iter().filter(|spec| spec.in_backward).map(|spec| spec.name.to_owned());
                let wanted = inputs.filter(|spec| spec.differentiable).map(|spec| format!("d{}", spec.name));
                given.chain(kept).chain(wanted).collect()
            }
        };
        let there = |name: &str| request.inputs.iter().chain(&request.outputs).find(|tensor| tensor.name == name);
        names.into_iter().map(|name| (name.clone(), there(&name).map(|tensor| tensor.dtype))).collect()
    }

    /// What the launches of a plan run.
    fn build(&self, plan: &Plan) -> Result<Vec<Arc<Built>>, String> {
        let aligned = !self.info.layouts.offset;
        plan.steps.iter().map(|step| self.modules.build(step, aligned)).collect()
    }
}

impl Contender for Executed {
    fn info(&self) -> &KernelInfo {
        &self.info
    }

    fn origin(&self) -> &Origin {
        &self.origin
    }

    fn sizes(&self) -> Sizes {
        let axes = self.operator.axes.iter();
        axes.filter_map(|axis| {
            let (_, sizes) = self.kernel.sizes.iter().find(|(name, _)| name == axis.name)?;
            Some((axis.name, sizes.clone()))
        })
        .collect()
    }

    fn device(&self) -> Device {
        Device::Ptx
    }

    fn prepare(&self, dtypes: &[DtypeSet]) -> Result<(), RunError> {
        let refused = |reason: String| RunError::NotBuilt { kernel: self.info.name.clone(), reason };
        let axes: Vec<&str> = self.operator.axes.iter().map(|axis| axis.name).collect();
        if let Some((name, _)) = self.kernel.sizes.iter().find(|(name, _)| !axes.contains(&name.as_str())) {
            let (operator, axes) = (&self.info.operator, axes.join(", "));
            return Err(refused(format!("`sizes` names `{name}`; the axes of {operator} are {axes}")));
        }
        let offer = Offer { sizes: self.sizes(), ..Offer::of(&self.info, 1) };
        for &dtypes in dtypes {
            for problem in typical(self.operator, self.info.direction, dtypes, &offer) {
                match self.plan(&outline(&Case::plain(problem, 0))) {
                    // Another one may be served.
                    Err(Outcome::Declined(_)) => continue,
                    Err(Outcome::NotRun(reason)) => return Err(refused(reason)),
                    Err(other) => return Err(refused(format!("{other:?}"))),
                    Ok(plan) => {
                        self.build(&plan).map_err(refused)?;
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    fn open(&self) -> Result<Box<dyn Runner>, RunError> {
        Ok(Box::new(ExecutedRunner { contender: self.clone(), scenes: Default::default() }))
    }
}

/// Small problems with rows, channels or groups of several sizes, with all that is optional and with nothing of it.
fn typical(
    operator: &'static Operator,
    direction: Direction,
    dtypes: DtypeSet,
    offer: &Offer,
) -> impl Iterator<Item = Problem> {
    SIZES.iter().flat_map(|size| [(size, true), (size, false)]).filter_map(move |(size, optional)| {
        let mut problem = Problem { dtypes, ..operator.typical(direction)? };
        for axis in operator.axes.iter().filter(|axis| axis.kind == AxisKind::Reduced) {
            problem.dims.get_mut(axis.name)?.last_mut().map(|last| *last = *size)?;
        }
        offer.resize(&mut problem.dims, |sizes| sizes[0]);
        if !optional {
            problem.given.clear();
        }
        problem.validate().is_ok().then_some(problem)
    })
}

/// Whether the tensors have their channels last, all that can.
///
/// # Errors
/// If some do and others do not, or they lie in yet another way.
fn channels_last(request: &Request) -> Result<bool, String> {
    let tensors = || request.inputs.iter().chain(&request.outputs).filter(|tensor| !tensor.is_empty());
    if tensors().all(TensorArg::is_dense) {
        return Ok(false);
    }
    let last = |tensor: &TensorArg| {
        let rank = tensor.shape.len();
        // From the innermost dimension outwards: channels, positions from the last on, samples.
        let order = std::iter::once(1).chain((2..rank).rev()).chain([0]);
        let mut expected = 1;
        rank >= 3
            && order.into_iter().all(|axis| {
                let fits = tensor.shape[axis] == 1 || tensor.strides[axis] == expected;
                expected *= tensor.shape[axis];
                fits
            })
    };
    match tensors().find(|tensor| !(last(tensor) || (tensor.shape.len() < 3 && tensor.is_dense()))) {
        None => Ok(true),
        Some(tensor) => Err(format!("`{}` has strides that no manifest can name", tensor.name)),
    }
}

struct ExecutedRunner {
    contender: Executed,
    scenes: [Left; 2],
}

impl Runner for ExecutedRunner {
    fn shows(&self) -> &'static [&'static str] {
        &conduct::ON_PTX
    }

    fn run(&mut self, request: &Request) -> Outcome {
        examine::trial(self, request)
    }
}

impl Room for ExecutedRunner {
    /// Addresses are aligned alike in both calls: what differs is the order of blocks.
    fn follows_call(difference: Difference) -> Conduct {
        Conduct::OrderDependent(difference)
    }

    /// There is no prelude: nothing of a kernel outlives its call in the executor.
    fn call(&mut self, request: &Request, poison: [Poison; 2], _prelude: bool) -> Result<Calls<'_>, Outcome> {
        let plan = self.contender.plan(request)?;
        let built = self.contender.build(&plan).map_err(Outcome::NotRun)?;
        let mut conduct = Vec::new();
        let any_alignment = self.contender.info.layouts.offset;
        let mut execution =
            Execution { request, plan: &plan, built: &built, any_alignment, second: false, poison: poison[0] };
        let started = Instant::now();
        let (first, work) = execution.run(&mut conduct)?;
        let seconds = started.elapsed().as_secs_f64();
        (execution.second, execution.poison) = (true, poison[1]);
        let stuck = conduct.iter().any(Conduct::is_fatal);
        let second = if stuck { first.clone() } else { execution.run(&mut conduct)?.0 };
        self.scenes = [first, second];
        let [first, second] = &self.scenes;
        let scenes = [first.scene(poison[0]), second.scene(poison[1])];
        Ok(Calls { scenes, prelude: Vec::new(), conduct, seconds, work: Some(Box::new(work)) })
    }
}

impl Left {
    fn scene(&self, poison: Poison) -> Scene<'_> {
        Scene { bytes: &self.bytes, slots: &self.slots, poison }
    }
}
