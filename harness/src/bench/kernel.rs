//! A kernel as something that can be timed: called directly, in this process, on tensors that stay where they are.

use std::ffi::c_int;
use std::mem::ManuallyDrop;
use std::path::Path;
use std::sync::Arc;

use isonorm_kernels::abi::{Call, Kernel, KernelInfo, OwnedCall, raw};
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

use super::Timed;
use super::memory::Memory;
use crate::case::{Materialised, outline};
use crate::run::{Contender, Origin, TensorArg};

use super::workload::Workload;

type KernelFn = unsafe extern "C" fn(*const raw::Call) -> c_int;

/// A kernel in this process.
#[derive(Clone)]
pub enum Callable {
    /// One of ours.
    BuiltIn(Arc<dyn Kernel>),
    /// A function of a loaded library. The library is never unloaded: its kernels may keep threads.
    Foreign(KernelFn),
}

impl Callable {
    /// The kernel of a contender. A library is loaded into this process, whose kernel was judged in a process of its own
    /// before ([`super::check`]).
    ///
    /// # Errors
    /// Why it cannot be called from here.
    pub fn of(contender: &dyn Contender) -> Result<Callable, String> {
        let info = contender.info();
        match contender.origin() {
            Origin::BuiltIn => isonorm_kernels::builtin()
                .into_iter()
                .find(|kernel| kernel.info().name == info.name)
                .map(Callable::BuiltIn)
                .ok_or_else(|| format!("{} is not built in", info.name)),
            Origin::File { path, .. } => load(path, info),
            Origin::Manifest { .. } => Err(format!("{} is a kernel for a GPU: it cannot be timed here", info.name)),
        }
    }

    fn call(&self, call: &raw::Call) -> Result<(), String> {
        match self {
            Callable::BuiltIn(kernel) => {
                // SAFETY: `call` is a copy of one that `OwnedCall` made, with the memory of living tensors.
                kernel.run(&unsafe { Call::from_raw(call) }).map_err(|refusal| refusal.to_string())
            }
            Callable::Foreign(kernel) => {
                // SAFETY: as above; the library says that this is a kernel, and it has answered such calls correctly.
                match unsafe { kernel(call) } {
                    raw::OK => Ok(()),
                    status => Err(format!("the kernel returned status {status}")),
                }
            }
        }
    }
}

fn load(path: &Path, info: &KernelInfo) -> Result<Callable, String> {
    let say = |error: libloading::Error| format!("cannot load {}: {error}", path.display());
    // SAFETY: its constructors have run in a process of their own, and its kernel was judged there.
    let library = ManuallyDrop::new(unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) }.map_err(say)?);
    // SAFETY: the symbol of this name is of this type, and what it describes was read and checked when it was judged.
    let kernels = unsafe {
        let describe = library.get::<raw::LibraryFn>(raw::LIBRARY_SYMBOL.as_bytes()).map_err(say)?;
        let found = describe().as_ref().ok_or_else(|| format!("{} describes nothing", path.display()))?;
        std::slice::from_raw_parts(found.kernels, found.kernel_count)
    };
    let named = |kernel: &&raw::Kernel| {
        // SAFETY: as above.
        unsafe { std::ffi::CStr::from_ptr(kernel.name) }.to_bytes() == info.name.as_bytes()
    };
    let run = kernels.iter().find(named).and_then(|kernel| kernel.run);
    run.map(Callable::Foreign).ok_or_else(|| format!("{} has no kernel {}", path.display(), info.name))
}

/// A kernel with the tensors of a workload.
pub struct KernelCall {
    kernel: Callable,
    call: OwnedCall,
    _inputs: Vec<Memory>,
    outputs: Outputs,
}

/// Whose business the outputs' memory is.
enum Outputs {
    /// There already, and touched.
    Kept(Vec<Memory>),
    /// Allocated for each call and freed after it: how many bytes each has, and the arguments to be filled in.
    Fresh(Vec<usize>, Vec<raw::Argument>),
}

impl KernelCall {
    /// Prepares the call of a workload whose tensors hold the values of `sample` over and over. With `fresh_outputs` the
    /// allocation of the outputs is part of each call.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn new(
        kernel: Callable,
        workload: &Workload,
        sample: &Materialised,
        fresh_outputs: bool,
    ) -> Result<KernelCall, String> {
        let request = outline(&workload.case);
        let inputs = tile_inputs(&request.inputs, sample)?;
        let bytes: Vec<usize> = request.outputs.iter().map(TensorArg::bytes).collect();
        let outputs: Option<Vec<Memory>> = bytes.iter().map(|&bytes| Memory::tiled(bytes, &[])).collect();
        let outputs = outputs.ok_or_else(no_room)?;
        let arguments = |tensors: &[TensorArg], memory: &[Memory]| {
            tensors.iter().zip(memory).map(|(tensor, memory)| tensor.argument(memory.start())).collect()
        };
        let call = OwnedCall::new(
            &request.operator,
            request.direction,
            &request.attributes,
            arguments(&request.inputs, &inputs),
            arguments(&request.outputs, &outputs),
            request.threads,
        );
        let outputs = if fresh_outputs {
            let raw = call.raw();
            // SAFETY: the call has `output_count` of them.
            let arguments = unsafe { std::slice::from_raw_parts(raw.outputs, raw.output_count) };
            Outputs::Fresh(bytes, arguments.to_vec())
        } else {
            Outputs::Kept(outputs)
        };
        Ok(KernelCall { kernel, call, _inputs: inputs, outputs })
    }

    /// What the last call wrote, if the outputs are kept.
    pub fn outputs(&self) -> Vec<&[u8]> {
        match &self.outputs {
            // SAFETY: kept outputs were tiled.
            Outputs::Kept(memory) => memory.iter().map(|memory| unsafe { memory.bytes() }).collect(),
            Outputs::Fresh(..) => Vec::new(),
        }
    }
}

impl Timed for KernelCall {
    fn call(&mut self) -> Result<(), String> {
        match &mut self.outputs {
            Outputs::Kept(_) => self.kernel.call(self.call.raw()),
            Outputs::Fresh(bytes, arguments) => {
                let mut memory = Vec::with_capacity(bytes.len());
                for (&bytes, argument) in bytes.iter().zip(&mut *arguments) {
                    let fresh = Memory::untouched(bytes).ok_or_else(no_room)?;
                    argument.tensor.data = fresh.start().cast();
                    memory.push(fresh);
                }
                self.kernel.call(&raw::Call { outputs: arguments.as_ptr(), ..*self.call.raw() })
            }
        }
    }
}

/// Inputs of this size with the values of the sample over and over.
///
/// # Errors
/// If there is not enough memory.
pub(super) fn tile_inputs(inputs: &[TensorArg], sample: &Materialised) -> Result<Vec<Memory>, String> {
    let tiles = inputs.iter().zip(&sample.request.inputs);
    let memory: Option<Vec<Memory>> = tiles.map(|(input, tile)| Memory::tiled(input.bytes(), &tile.data)).collect();
    memory.ok_or_else(no_room)
}

pub(super) fn no_room() -> String {
    "there is not enough memory for its tensors".to_owned()
}
