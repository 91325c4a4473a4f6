//! Kernels for a GPU, run by the PTX executor: what a compiler made of the source, thread by thread.
//!
//! Each call of a request is the launches that the manifest plans for it, on tensors in the executor's own memory. In the
//! second call blocks and warps run in the opposite order, and tensors lie at other addresses of the same alignment.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use isonorm_cuda::Library;
use isonorm_cuda::compile::{Cache, Compiled, Language, Source};
use isonorm_cuda::launch::{Call, Given, Plan, PlanError, Step};
use isonorm_cuda::manifest;
use isonorm_kernels::abi::{Direction, Dtype, DtypeSet, KernelInfo, Value};
use isonorm_oracles::Problem;
use isonorm_oracles::operators::{self, AxisKind, Operator, Role, TensorSpec};
use isonorm_ptx::{Argument, Buffer, Launch, LaunchError, Memory, Module, Options, Order, Rights};

use super::conduct;
use super::examine::{self, Calls, Poison, Room, Scene, Slot};
use super::{Conduct, Contender, Device, Difference, Origin, Outcome, Request, RunError, Runner, TensorArg, Work};
use crate::campaign::UnknownOperator;
use crate::case::{Case, outline};
use crate::generate::{Offer, Sizes};

/// Multiprocessors that the executor says it has.
const SMS: u32 = 132;
/// Bytes that allocations of a GPU are aligned to.
const ALIGNMENT: u64 = 256;
/// Instructions of a warp that no kernel needs, and more of them for each element of the tensors. One warp that does a whole
/// call by itself needs some tens for each.
const PATIENCE: (u64, u64) = (100_000, 400);
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

/// A launch, compiled and parsed.
pub(super) struct Built {
    pub(super) compiled: Compiled,
    module: Module,
}

/// What was built of a source so far, by launches that want the same.
struct Modules {
    source: Source,
    cache: Cache,
    built: Mutex<HashMap<String, Arc<Once>>>,
}

type Once = OnceLock<Result<Arc<Built>, String>>;

impl Executed {
    /// The kernels of a library.
    ///
    /// # Errors
    /// If one of them claims an operator that is not known.
    pub fn of(library: Library, cache: Cache) -> Result<Vec<Executed>, UnknownOperator> {
        let modules = Arc::new(Modules { source: library.source, cache, built: Mutex::default() });
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
    pub(super) fn plan(&self, request: &Request) -> Result<Plan, Outcome> {
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
    pub(super) fn build(&self, plan: &Plan) -> Result<Vec<Arc<Built>>, String> {
        let aligned = !self.info.layouts.offset;
        plan.steps.iter().map(|step| self.modules.build(step, aligned)).collect()
    }
}

impl Modules {
    /// What a launch runs; built once, whoever asks first.
    fn build(&self, step: &Step, aligned: bool) -> Result<Arc<Built>, String> {
        // Triton looks at whether a number is 1 or a multiple of 16.
        let looked_at = |given: &Given| match (self.source.language, given.integer()) {
            (Language::Triton, Some(value)) => format!("{} {} {}", given.kind(), value == 1, value % 16 == 0),
            _ => given.kind(),
        };
        let kinds: Vec<String> = step.arguments.iter().map(looked_at).collect();
        let Step { entry, constants, num_warps, num_stages, .. } = step;
        let key = format!("{entry} {kinds:?} {constants:?} {num_warps:?} {num_stages:?} {aligned}");
        let once = Arc::clone(self.built.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default());
        once.get_or_init(|| {
            let compiled = self.source.compile(step, aligned, &self.cache).map_err(|error| error.to_string())?;
            let module = Module::parse(&compiled.ptx)
                .map_err(|error| format!("the PTX of `{}` has what the executor does not know: {error}", step.entry))?;
            fits(&module, &compiled, step)?;
            Ok(Arc::new(Built { compiled, module }))
        })
        .clone()
    }
}

/// Whether the arguments of a launch are those that the compiled kernel takes.
fn fits(module: &Module, compiled: &Compiled, step: &Step) -> Result<(), String> {
    let Some(sizes) = module.parameters(&compiled.name) else {
        let known: Vec<&str> = module.kernels().collect();
        return Err(format!("the PTX has no kernel `{}`; it has {}", compiled.name, known.join(", ")));
    };
    let (entry, left) = (&step.entry, left(compiled, step));
    let wanted = sizes.len().saturating_sub(compiled.nulls);
    if left.len() != wanted {
        return Err(format!("`arguments` has {} of them, and `{entry}` takes {wanted}", left.len()));
    }
    match left.iter().zip(&sizes).position(|((_, given), size)| given.size() != *size) {
        None => Ok(()),
        Some(wrong) => {
            let (place, given) = left[wrong];
            let (kind, bytes, size) = (given.kind(), given.size(), sizes[wrong]);
            let place = place + 1;
            Err(format!(
                "argument {place} of `{entry}` is {kind}, of {bytes} bytes, and the kernel's parameter has {size}"
            ))
        }
    }
}

/// The arguments that the compiled kernel still takes, with their places in the manifest.
pub(super) fn left<'a>(compiled: &Compiled, step: &'a Step) -> Vec<(usize, &'a Given)> {
    let kept = |place: &usize| compiled.arguments.as_ref().is_none_or(|kept| kept.contains(place));
    step.arguments.iter().enumerate().filter(|(place, _)| kept(place)).collect()
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
            for problem in
                SIZES.iter().filter_map(|size| typical(self.operator, self.info.direction, dtypes, *size, &offer))
            {
                match self.plan(&outline(&Case::plain(problem, 0))) {
                    // Another size may be served.
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

/// A small problem with rows, channels or groups of this size.
fn typical(
    operator: &'static Operator,
    direction: Direction,
    dtypes: DtypeSet,
    size: usize,
    offer: &Offer,
) -> Option<Problem> {
    let mut problem = Problem { dtypes, ..operator.typical(direction)? };
    for axis in operator.axes.iter().filter(|axis| axis.kind == AxisKind::Reduced) {
        problem.dims.get_mut(axis.name)?.last_mut().map(|last| *last = size)?;
    }
    offer.resize(&mut problem.dims, |sizes| sizes[0]);
    problem.validate().is_ok().then_some(problem)
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

/// The memory of one call after it.
#[derive(Default)]
struct Left {
    bytes: Vec<u8>,
    slots: Vec<Slot>,
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
        let started = Instant::now();
        let (mut seconds, mut work) = (0.0, None);
        for scene in 0..2 {
            let execution = Execution { request, plan: &plan, built: &built, scene, poison: poison[scene] };
            let done;
            (self.scenes[scene], done) = execution.run(self.contender.info.layouts.offset, &mut conduct)?;
            if scene == 0 {
                (seconds, work) = (started.elapsed().as_secs_f64(), Some(done));
            }
            if conduct.iter().any(Conduct::is_fatal) {
                self.scenes[1] =
                    Left { bytes: self.scenes[scene].bytes.clone(), slots: self.scenes[scene].slots.clone() };
                break;
            }
        }
        let mut place = 0;
        let scenes = self.scenes.each_ref().map(|left| {
            place += 1;
            Scene { bytes: &left.bytes, slots: &left.slots, poison: poison[place - 1] }
        });
        Ok(Calls { scenes, prelude: Vec::new(), conduct, seconds, work })
    }
}

/// One call.
struct Execution<'a> {
    request: &'a Request,
    plan: &'a Plan,
    built: &'a [Arc<Built>],
    /// 0 or 1.
    scene: usize,
    poison: Poison,
}

impl Execution<'_> {
    fn run(&self, any_alignment: bool, conduct: &mut Vec<Conduct>) -> Result<(Left, Work), Outcome> {
        let request = self.request;
        let mut memory = Memory::new();
        let tensors: Vec<&TensorArg> = request.inputs.iter().chain(&request.outputs).collect();
        let mut buffers: Vec<Option<Buffer>> = vec![None; tensors.len()];
        let mut order: Vec<usize> = (0..tensors.len()).collect();
        if self.scene == 1 {
            order.reverse();
        }
        for place in order {
            let tensor = tensors[place];
            if tensor.alias.is_some() {
                continue;
            }
            let input = place < request.inputs.len();
            let poisoned;
            let (contents, rights) = match input {
                true if request.is_overwritten(place) => (&tensor.data, Rights::ReadWrite),
                true => (&tensor.data, Rights::Read),
                false => {
                    poisoned = vec![self.poison.inside; tensor.bytes()];
                    (&poisoned, Rights::Write)
                }
            };
            let odd = if any_alignment { tensor.dtype.size() as u64 * (1 + place as u64 % 3) } else { 0 };
            let offset = odd + ALIGNMENT * self.scene as u64 * (1 + place as u64 % 3);
            buffers[place] = Some(memory.add_at(&tensor.name, contents, rights, offset));
        }
        for (place, tensor) in tensors.iter().enumerate() {
            buffers[place] = tensor.alias.map_or(buffers[place], |input| buffers[input]);
        }
        let scratch: Vec<(&str, Buffer)> = self
            .plan
            .scratch
            .iter()
            .map(|(name, bytes)| {
                let contents = vec![self.poison.around; *bytes as usize];
                (name.as_str(), memory.add(&format!("scratch.{name}"), &contents, Rights::Scratch))
            })
            .collect();
        let address = |memory: &Memory, given: &Given| match given {
            Given::Tensor(name, _) => {
                let place = tensors.iter().position(|tensor| tensor.name == *name);
                place.and_then(|place| buffers[place]).map_or_else(Argument::null, |b| Argument::pointer(memory, b))
            }
            Given::Scratch(name, _) => {
                let buffer = scratch.iter().find(|(own, _)| own == name).map(|(_, buffer)| *buffer);
                buffer.map_or_else(Argument::null, |buffer| Argument::pointer(memory, buffer))
            }
            Given::Null => Argument::null(),
            Given::Scalar(_, bytes) => Argument::bytes(bytes),
        };
        let named = |(name, bytes): &(String, u64)| (format!("scratch.{name}"), *bytes);
        let mut work = Work { scratch: self.plan.scratch.iter().map(named).collect(), ..Work::default() };
        let elements: u64 = tensors.iter().map(|tensor| tensor.span as u64).sum();
        for (number, (step, built)) in self.plan.steps.iter().zip(self.built).enumerate() {
            let compiled = &built.compiled;
            let Some(block) = step.block.or(compiled.block) else {
                return Err(Outcome::NotRun(format!(
                    "`{}` has no `block`, and its compiler does not say one",
                    step.entry
                )));
            };
            let mut params: Vec<Argument> =
                left(compiled, step).into_iter().map(|(_, given)| address(&memory, given)).collect();
            params.extend((0..compiled.nulls).map(|_| Argument::null()));
            let options = Options {
                orders: vec![if self.scene == 0 { Order::Forward } else { Order::Reverse }],
                threads: 1,
                instruction_limit: PATIENCE.0 + PATIENCE.1 * elements,
                more_follows: number + 1 < self.plan.steps.len(),
                ..Options::default()
            };
            let launch = Launch {
                kernel: compiled.name.clone(),
                grid: step.grid,
                block,
                cluster: step.cluster.or(compiled.cluster).unwrap_or([1; 3]),
                shared: step.shared.or(compiled.shared).unwrap_or(0),
                params,
                options,
            };
            let outcome = built.module.run(&launch, &mut memory).map_err(|error| match error {
                // A GPU refuses such a launch too.
                LaunchError::Extents { message, .. } => Outcome::Failed(format!("`{}`: {message}", step.entry)),
                other => Outcome::NotRun(other.to_string()),
            })?;
            work.launches += 1;
            work.counters.merge(outcome.counters);
            conduct.extend(outcome.findings.into_iter().map(|mut finding| {
                finding.kernel = step.entry.clone();
                Conduct::Executed(Box::new(finding))
            }));
            if conduct.iter().any(Conduct::is_fatal) {
                break;
            }
        }
        if conduct.iter().any(Conduct::is_fatal) {
            // What else is missing then is a consequence.
            conduct.retain(|item| item.property() != "writes_everything");
        }
        let mut left = Left::default();
        for buffer in buffers {
            let bytes = buffer.map(|buffer| memory.bytes(buffer)).unwrap_or_default();
            let here = left.bytes.len()..left.bytes.len() + bytes.len();
            left.bytes.extend(bytes);
            left.slots.push(Slot { region: here.clone(), data: here });
        }
        Ok((left, work))
    }
}
