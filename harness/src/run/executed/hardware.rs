//! Kernels of a manifest on a GPU.
//!
//! A call is the launches that the manifest plans for it, queued on one stream, and behind them a copy of all memory, which
//! waits for nothing but the stream. Tensors lie in one allocation with canaries around them. A kernel that makes the GPU
//! fault ends all work of this process there, as the driver has it: the finding stands, and what was not asked yet is not run.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use isonorm_cuda::driver::{Function, Gpu, GpuError, Memory};
use isonorm_cuda::launch::{Extent, Given, Step};
use isonorm_kernels::abi::{DtypeSet, KernelInfo};

use super::Executed;
use super::modules::{Built, arguments, extent};
use crate::generate::Sizes;
use crate::run::conduct;
use crate::run::examine::{self, Calls, Poison, Room, Scene, Slot, Spacing};
use crate::run::{Contender, Crash, Device, Origin, Outcome, Request, RunError, Runner, TensorArg};

/// Allocations of a GPU are aligned so.
const ALIGNMENT: usize = 256;
const SPACING: Spacing = Spacing { margin: 4096, zone: ALIGNMENT, line: ALIGNMENT };

/// Whether a kernel has made the GPU fault, in whatever thread.
static FAULTED: AtomicBool = AtomicBool::new(false);

/// A kernel of a manifest, on the GPU.
#[derive(Clone)]
pub struct OnGpu {
    kernel: Executed,
    gpu: Arc<Gpu>,
    loaded: Arc<Loaded>,
}

/// What was loaded on the GPU so far, by the address of what was built, which stays as long as the kernel.
type Loaded = Mutex<HashMap<usize, Function>>;

impl OnGpu {
    /// The same kernel that the executor runs.
    pub fn new(kernel: Executed, gpu: Arc<Gpu>) -> Self {
        OnGpu { kernel, gpu, loaded: Arc::default() }
    }

    /// The GPU.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Prepares a call whose tensors, inputs and then outputs, lie at these addresses; scratch buffers hold `fill`.
    ///
    /// # Errors
    /// The outcome of the call, if it comes to none.
    pub fn ready(
        &self,
        gpu: &Gpu,
        request: &Request,
        fill: u8,
        address: impl Fn(usize) -> u64,
    ) -> Result<Ready, Outcome> {
        let lost = |error: GpuError| Outcome::NotRun(error.to_string());
        let plan = self.kernel.plan(request)?;
        let built = self.kernel.build(&plan).map_err(Outcome::NotRun)?;
        let scratch: Vec<Memory> = plan
            .scratch
            .iter()
            .map(|(_, bytes)| gpu.upload(&vec![fill; *bytes as usize]))
            .collect::<Result<_, GpuError>>()
            .map_err(lost)?;
        let tensors: Vec<&str> = request.inputs.iter().chain(&request.outputs).map(|tensor| &*tensor.name).collect();
        let argument = |given: &Given| match given {
            Given::Tensor(name, _) => match tensors.iter().position(|own| own == name) {
                Some(place) => Argument { bytes: address(place).to_le_bytes().to_vec(), tensor: Some(place) },
                None => 0u64.to_le_bytes().to_vec().into(),
            },
            Given::Scratch(name, _) => {
                let place = plan.scratch.iter().position(|(own, _)| own == name);
                place.map_or(0, |place| gpu.address(&scratch[place])).to_le_bytes().to_vec().into()
            }
            Given::Null => 0u64.to_le_bytes().to_vec().into(),
            Given::Scalar(_, bytes) => bytes.clone().into(),
        };
        let launch = |(step, built): (&Step, &Arc<Built>)| {
            let compiled = &built.compiled;
            let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
            let function = match loaded.entry(Arc::as_ptr(built).addr()) {
                Entry::Occupied(loaded) => loaded.get().clone(),
                Entry::Vacant(vacant) => vacant.insert(gpu.load(compiled).map_err(lost)?).clone(),
            };
            let arguments: Vec<Argument> = arguments(compiled, step).map(argument).collect();
            Ok(ReadyLaunch { entry: step.entry.clone(), function, extent: extent(compiled, step)?, arguments })
        };
        let launches = plan.steps.iter().zip(&built).map(launch).collect::<Result<_, Outcome>>()?;
        Ok(Ready { launches, _scratch: scratch })
    }
}

/// A call that only has to be queued.
pub struct Ready {
    launches: Vec<ReadyLaunch>,
    _scratch: Vec<Memory>,
}

struct ReadyLaunch {
    entry: String,
    function: Function,
    extent: Extent,
    arguments: Vec<Argument>,
}

/// An argument: its bytes, and the place of the tensor whose address they are.
struct Argument {
    bytes: Vec<u8>,
    tensor: Option<usize>,
}

impl From<Vec<u8>> for Argument {
    fn from(bytes: Vec<u8>) -> Self {
        Argument { bytes, tensor: None }
    }
}

impl Ready {
    /// From now on tensors, inputs and then outputs, lie at these addresses.
    pub fn place(&mut self, address: impl Fn(usize) -> u64) {
        for argument in self.launches.iter_mut().flat_map(|launch| &mut launch.arguments) {
            if let Some(tensor) = argument.tensor {
                argument.bytes.copy_from_slice(&address(tensor).to_le_bytes());
            }
        }
    }

    /// Queues the launches.
    ///
    /// # Errors
    /// What the driver refuses.
    pub fn queue(&mut self, gpu: &Gpu) -> Result<(), String> {
        for ReadyLaunch { entry, function, extent, arguments } in &mut self.launches {
            let arguments = arguments.iter_mut().map(|argument| &mut *argument.bytes);
            gpu.launch(function, *extent, arguments).map_err(|error| format!("`{entry}`: {error}"))?;
        }
        Ok(())
    }
}

impl Contender for OnGpu {
    fn info(&self) -> &KernelInfo {
        self.kernel.info()
    }

    fn origin(&self) -> &Origin {
        self.kernel.origin()
    }

    fn sizes(&self) -> Sizes {
        self.kernel.sizes()
    }

    fn device(&self) -> Device {
        Device::Cuda
    }

    fn on_gpu(&self) -> Option<&OnGpu> {
        Some(self)
    }

    fn prepare(&self, dtypes: &[DtypeSet]) -> Result<(), RunError> {
        self.kernel.prepare(dtypes)
    }

    fn open(&self) -> Result<Box<dyn Runner>, RunError> {
        Ok(Box::new(GpuRunner { on: self.clone(), scenes: Default::default() }))
    }
}

struct GpuRunner {
    on: OnGpu,
    scenes: [Block; 2],
}

/// The memory of one call.
#[derive(Default)]
struct Block {
    bytes: Vec<u8>,
    slots: Vec<Slot>,
}

impl Runner for GpuRunner {
    fn shows(&self) -> &'static [&'static str] {
        conduct::ON_GPU
    }

    fn run(&mut self, request: &Request) -> Outcome {
        examine::trial(self, request)
    }
}

impl Room for GpuRunner {
    fn call(&mut self, request: &Request, poison: [Poison; 2], prelude: bool) -> Result<Calls<'_>, Outcome> {
        let offset = self.on.kernel.info().layouts.offset;
        let mut kept = Vec::new();
        let mut seconds = 0.0;
        for (scene, &filled) in poison.iter().enumerate() {
            let block = &mut self.scenes[scene];
            let step = |tensor: &TensorArg| if offset { tensor.dtype.size() } else { ALIGNMENT };
            let size = examine::lay_out(request, scene, SPACING, step, &mut block.slots);
            block.bytes.resize(size, 0);
            if let Some(other) = request.prelude.as_ref().filter(|_| prelude && scene == 0) {
                let other: Vec<&[u8]> = other.iter().map(Vec::as_slice).collect();
                examine::set_scene(&mut block.bytes, &block.slots, &other, filled);
                self.launch(request, scene, filled)?;
                let Block { bytes, slots } = &self.scenes[scene];
                kept = Scene { bytes, slots, poison: filled }.outputs(request);
            }
            let block = &mut self.scenes[scene];
            examine::set_scene(&mut block.bytes, &block.slots, &request.contents(), filled);
            let took = self.launch(request, scene, filled)?;
            seconds = if scene == 0 { took } else { seconds };
        }
        let [first, second] = &self.scenes;
        let scenes = [(first, poison[0]), (second, poison[1])].map(|(Block { bytes, slots }, poison)| Scene {
            bytes,
            slots,
            poison,
        });
        Ok(Calls { scenes, prelude: kept, conduct: Vec::new(), seconds, work: None })
    }
}

impl GpuRunner {
    /// Copies the memory of a call to the GPU, queues its launches, and behind them a copy back. Answers the seconds from the
    /// first launch until the copy is there.
    fn launch(&mut self, request: &Request, scene: usize, poison: Poison) -> Result<f64, Outcome> {
        let gpu = &self.on.gpu;
        let block = &mut self.scenes[scene];
        if FAULTED.load(Ordering::Relaxed) {
            let what = "an earlier call made the GPU fault, and the driver takes no more work of this process";
            return Err(Outcome::NotRun(format!("{what}: mend that, or choose other kernels with --kernel")));
        }
        let memory = gpu.upload(&block.bytes).map_err(|error| Outcome::NotRun(error.to_string()))?;
        let address = |place: usize| gpu.address(&memory) + block.slots[place].data.start as u64;
        let mut ready = self.on.ready(gpu, request, poison.around, address)?;
        let started = Instant::now();
        ready.queue(gpu).map_err(Outcome::Failed)?;
        block.bytes = gpu.download(&memory).map_err(|error| {
            FAULTED.store(true, Ordering::Relaxed);
            Outcome::Crashed(Crash::new(error.to_string()))
        })?;
        Ok(started.elapsed().as_secs_f64())
    }
}
