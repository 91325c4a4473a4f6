//! Kernels of a manifest on a GPU.
//!
//! A call is the launches that the manifest plans for it, queued on one stream, and behind them a copy of all memory, which
//! waits for nothing but the stream. Tensors lie in one allocation with canaries around them. A kernel that makes the GPU
//! fault ends all work of this process there: the finding stands, and what was not asked yet is not run.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use isonorm_cuda::driver::{Function, Gpu, GpuError, Memory};
use isonorm_cuda::launch::{Given, Plan};
use isonorm_kernels::abi::{DtypeSet, KernelInfo};

use super::Executed;
use super::modules::{Built, arguments, extent};
use crate::run::conduct;
use crate::run::examine::{self, Calls, Poison, Room, Scene, Slot, Spacing};
use crate::run::{Contender, Crash, Device, Origin, Outcome, Request, RunError, Runner, TensorArg};

/// Allocations of a GPU are aligned so.
const ALIGNMENT: usize = 256;
const SPACING: Spacing = Spacing { margin: 4096, zone: ALIGNMENT, line: ALIGNMENT };

/// A kernel of a manifest, on the GPU.
pub struct OnGpu {
    kernel: Executed,
    gpu: Arc<Gpu>,
}

impl OnGpu {
    /// The same kernel that the executor runs.
    pub fn new(kernel: Executed, gpu: Arc<Gpu>) -> Self {
        OnGpu { kernel, gpu }
    }
}

impl Contender for OnGpu {
    fn info(&self) -> &KernelInfo {
        self.kernel.info()
    }

    fn origin(&self) -> &Origin {
        self.kernel.origin()
    }

    fn device(&self) -> Device {
        Device::Cuda
    }

    fn prepare(&self, dtypes: &[DtypeSet]) -> Result<(), RunError> {
        self.kernel.prepare(dtypes)
    }

    fn open(&self) -> Result<Box<dyn Runner>, RunError> {
        let (kernel, gpu) = (self.kernel.clone(), Arc::clone(&self.gpu));
        Ok(Box::new(GpuRunner { kernel, gpu, loaded: HashMap::new(), scenes: Default::default() }))
    }
}

struct GpuRunner {
    kernel: Executed,
    gpu: Arc<Gpu>,
    /// By the entry in the PTX, and the PTX.
    loaded: HashMap<(String, String), Function>,
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
        let plan = self.kernel.plan(request)?;
        let built = self.kernel.build(&plan).map_err(Outcome::NotRun)?;
        let offset = self.kernel.info().layouts.offset;
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
                self.launch(request, &plan, &built, scene, filled)?;
                let Block { bytes, slots } = &self.scenes[scene];
                kept = Scene { bytes, slots, poison: filled }.outputs(request);
            }
            let block = &mut self.scenes[scene];
            examine::set_scene(&mut block.bytes, &block.slots, &request.contents(), filled);
            let took = self.launch(request, &plan, &built, scene, filled)?;
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
    fn launch(
        &mut self,
        request: &Request,
        plan: &Plan,
        built: &[Arc<Built>],
        scene: usize,
        poison: Poison,
    ) -> Result<f64, Outcome> {
        let lost = |error: GpuError| Outcome::NotRun(error.to_string());
        let gpu = &self.gpu;
        let block = &mut self.scenes[scene];
        let memory = gpu.upload(&block.bytes).map_err(lost)?;
        let scratch: Vec<(&str, Memory)> = plan
            .scratch
            .iter()
            .map(|(name, bytes)| Ok((name.as_str(), gpu.upload(&vec![poison.around; *bytes as usize])?)))
            .collect::<Result<_, GpuError>>()
            .map_err(lost)?;
        let tensors: Vec<&str> = request.inputs.iter().chain(&request.outputs).map(|tensor| &*tensor.name).collect();
        let bytes = |given: &Given| match given {
            Given::Tensor(name, _) => {
                let place = tensors.iter().position(|own| own == name);
                let at = place.map_or(0, |place| gpu.address(&memory) + block.slots[place].data.start as u64);
                at.to_le_bytes().to_vec()
            }
            Given::Scratch(name, _) => {
                let buffer = scratch.iter().find(|(own, _)| own == name);
                buffer.map_or(0, |(_, memory)| gpu.address(memory)).to_le_bytes().to_vec()
            }
            Given::Null => 0u64.to_le_bytes().to_vec(),
            Given::Scalar(_, bytes) => bytes.clone(),
        };
        let started = Instant::now();
        for (step, built) in plan.steps.iter().zip(built) {
            let compiled = &built.compiled;
            let extent = extent(compiled, step)?;
            let mut arguments: Vec<Vec<u8>> = arguments(compiled, step).map(bytes).collect();
            let function = match self.loaded.entry((compiled.name.clone(), compiled.ptx.clone())) {
                std::collections::hash_map::Entry::Occupied(loaded) => loaded.into_mut(),
                std::collections::hash_map::Entry::Vacant(vacant) => vacant.insert(gpu.load(compiled).map_err(lost)?),
            };
            let failed = |error: GpuError| Outcome::Failed(format!("`{}`: {error}", step.entry));
            gpu.launch(function, extent, &mut arguments).map_err(failed)?;
        }
        block.bytes = gpu.download(&memory).map_err(|error| Outcome::Crashed(Crash::new(error.to_string())))?;
        Ok(started.elapsed().as_secs_f64())
    }
}
