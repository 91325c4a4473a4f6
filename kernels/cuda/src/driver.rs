//! A GPU, through the driver: memory, modules, launches.
//!
//! The driver is opened when it is asked for; without one there is an error and no panic. All work of a [`Gpu`] is queued on one
//! stream, in its order.

use std::ffi::c_void;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaEvent, CudaFunction, CudaSlice, CudaStream, DevicePtr, DriverError, sys};
use cudarc::nvrtc::Ptx;

use crate::compile::Compiled;
use crate::launch::Extent;

/// Bytes of dynamic shared memory that a launch gets without being asked for as an exception.
const USUAL_SHARED: u32 = 48 << 10;
/// Blocks of a cluster that every GPU takes.
const USUAL_CLUSTER: u32 = 8;

/// Why a GPU does not do something.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GpuError {
    /// There is no driver.
    #[error(
        "there is no CUDA driver (libcuda.so.1) on this machine: run this where there is a GPU, or give --device ptx, which \
         executes the same kernels on the processor"
    )]
    NoDriver,
    /// There is a driver, and it has no GPU.
    #[error("the CUDA driver has no GPU ({0}): see what `nvidia-smi` says, or give --device ptx")]
    NoGpu(String),
    /// The driver refuses something, or a kernel went wrong.
    #[error("{doing}: {reason}")]
    Driver {
        /// What was being done.
        doing: &'static str,
        /// What the driver says.
        reason: String,
    },
}

/// The first GPU of the machine, and a stream for its work.
#[derive(Clone)]
pub struct Gpu {
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    /// Its name, as the driver has it.
    pub name: String,
    /// Multiprocessors.
    pub sms: u32,
    /// The architecture, such as `sm_90`.
    pub arch: String,
    /// Bytes of the second-level cache.
    pub l2: u64,
    /// The newest version of CUDA that the driver knows.
    pub cuda: String,
}

/// A kernel that is loaded.
#[derive(Clone)]
pub struct Function(CudaFunction);

/// A point in a stream whose time is kept.
pub struct Event(CudaEvent);

/// Memory of the GPU.
pub struct Memory(CudaSlice<u8>);

impl Gpu {
    /// Opens it.
    ///
    /// # Errors
    /// If there is no driver or no GPU: what to do instead.
    pub fn open() -> Result<Gpu, GpuError> {
        // SAFETY: a library of this name is the driver, whose constructors any program may run.
        if !unsafe { sys::is_culib_present() } {
            return Err(GpuError::NoDriver);
        }
        // The bindings panic on a driver that lacks a function.
        let opened = panic::catch_unwind(AssertUnwindSafe(|| CudaContext::new(0)));
        let context = match opened {
            Ok(Ok(context)) => context,
            Ok(Err(error)) => return Err(GpuError::NoGpu(error.to_string())),
            Err(_) => return Err(GpuError::NoGpu("it is older than CUDA 13.0".to_owned())),
        };
        let ask = |error| driver("asking for the GPU's properties", error);
        let name = context.name().map_err(ask)?;
        let sms = context.attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT).map_err(ask)?;
        let (major, minor) = context.compute_capability().map_err(ask)?;
        let l2 = context.attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE).map_err(ask)?;
        let mut version = 0;
        // SAFETY: the place is there for the answer.
        unsafe { sys::cuDriverGetVersion(&mut version) }.result().map_err(ask)?;
        // SAFETY: the memory of a `Gpu` is used by work on its own stream only, and `download` waits for it: there is nothing
        // that events would have to keep in order.
        unsafe { context.disable_event_tracking() };
        let stream = context.new_stream().map_err(|error| driver("making a stream", error))?;
        Ok(Gpu {
            context,
            stream,
            name,
            sms: sms.unsigned_abs(),
            arch: format!("sm_{major}{minor}"),
            l2: u64::from(l2.unsigned_abs()),
            // 13020 is 13.2.
            cuda: format!("{}.{}", version / 1000, version % 1000 / 10),
        })
    }

    /// The same GPU, with its work on the default stream. libtorch queues its own there, so that one clock is right for both.
    pub fn on_default_stream(&self) -> Gpu {
        Gpu { stream: self.context.default_stream(), ..self.clone() }
    }

    /// Loads what was compiled; the driver makes machine code of the very PTX that the executor runs.
    ///
    /// # Errors
    /// If the driver refuses the PTX, or has no such kernel in it.
    pub fn load(&self, compiled: &Compiled) -> Result<Function, GpuError> {
        let module =
            self.context.load_module(Ptx::from_src(&compiled.ptx)).map_err(|error| driver("loading the PTX", error))?;
        let function = module.load_function(&compiled.name).map_err(|error| driver("finding the kernel", error))?;
        Ok(Function(function))
    }

    /// Memory with these bytes in it.
    ///
    /// # Errors
    /// If there is too little.
    pub fn upload(&self, bytes: &[u8]) -> Result<Memory, GpuError> {
        // No allocation of nothing.
        let bytes = if bytes.is_empty() { &[0] } else { bytes };
        Ok(Memory(self.stream.clone_htod(bytes).map_err(|error| driver("copying to the GPU", error))?))
    }

    /// Memory that holds zeros.
    ///
    /// # Errors
    /// If there is too little.
    pub fn zeros(&self, bytes: usize) -> Result<Memory, GpuError> {
        // No allocation of nothing.
        Ok(Memory(self.stream.alloc_zeros(bytes.max(1)).map_err(|error| driver("allocating", error))?))
    }

    /// Memory that nobody has written to yet.
    ///
    /// # Errors
    /// If there is too little.
    pub fn untouched(&self, bytes: usize) -> Result<Memory, GpuError> {
        // SAFETY: any bits are bytes, and what reads them is on the GPU.
        Ok(Memory(unsafe { self.stream.alloc(bytes.max(1)) }.map_err(|error| driver("allocating", error))?))
    }

    /// Queues zeros for all of some memory.
    ///
    /// # Errors
    /// What the driver says.
    pub fn clear(&self, room: &mut Memory) -> Result<(), GpuError> {
        self.stream.memset_zeros(&mut room.0).map_err(|error| driver("writing zeros", error))
    }

    /// Queues a copy between memories of the same size.
    ///
    /// # Errors
    /// What the driver says.
    ///
    /// # Panics
    /// If there is less room than there is to be copied.
    pub fn copy(&self, from: &Memory, to: &mut Memory) -> Result<(), GpuError> {
        self.stream.memcpy_dtod(&from.0, &mut to.0).map_err(|error| driver("copying", error))
    }

    /// Bytes that are free.
    ///
    /// # Errors
    /// What the driver says.
    pub fn free(&self) -> Result<u64, GpuError> {
        let (free, _) = self.context.mem_get_info().map_err(|error| driver("asking for free memory", error))?;
        Ok(free as u64)
    }

    /// Makes an event, for [`Gpu::record`].
    ///
    /// # Errors
    /// What the driver says.
    pub fn event(&self) -> Result<Event, GpuError> {
        let timed = Some(sys::CUevent_flags::CU_EVENT_DEFAULT);
        Ok(Event(self.context.new_event(timed).map_err(|error| driver("making an event", error))?))
    }

    /// Queues an event: it notes when the stream gets there.
    ///
    /// # Errors
    /// What the driver says.
    pub fn record(&self, event: &Event) -> Result<(), GpuError> {
        event.0.record(&self.stream).map_err(|error| driver("recording an event", error))
    }

    /// Waits until the stream has done everything.
    ///
    /// # Errors
    /// If a kernel went wrong.
    pub fn finish(&self) -> Result<(), GpuError> {
        self.stream.synchronize().map_err(|error| driver("a kernel", error))
    }

    /// Waits until the whole GPU has done everything, on whatever stream.
    ///
    /// # Errors
    /// If a kernel went wrong.
    pub fn idle(&self) -> Result<(), GpuError> {
        self.context.synchronize().map_err(|error| driver("a kernel", error))
    }

    /// What is in some memory once everything queued before is done.
    ///
    /// # Errors
    /// If a kernel that was queued before went wrong: the GPU takes no more work of this process then.
    pub fn download(&self, room: &Memory) -> Result<Vec<u8>, GpuError> {
        let bytes = self.stream.clone_dtoh(&room.0).map_err(|error| driver("a kernel, or copying back", error))?;
        self.stream.synchronize().map_err(|error| driver("a kernel", error))?;
        Ok(bytes)
    }

    /// Where some memory lies.
    pub fn address(&self, room: &Memory) -> u64 {
        room.0.device_ptr(&self.stream).0
    }

    /// Queues a launch with these arguments, the bytes of each.
    ///
    /// # Errors
    /// If the driver refuses it: too many threads, say.
    pub fn launch<'a>(
        &self,
        function: &Function,
        extent: Extent,
        arguments: impl Iterator<Item = &'a mut [u8]>,
    ) -> Result<(), GpuError> {
        use sys::CUfunction_attribute_enum as Attribute;
        let attribute = |attribute, value: u32| {
            let value = i32::try_from(value).unwrap_or(i32::MAX);
            function.0.set_attribute(attribute, value).map_err(|error| driver("preparing a launch", error))
        };
        if extent.shared > USUAL_SHARED {
            attribute(Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, extent.shared)?;
        }
        let [x, y, z] = extent.cluster;
        let clustered = x * y * z;
        if clustered > USUAL_CLUSTER {
            attribute(Attribute::CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED, 1)?;
        }
        let mut cluster = sys::CUlaunchAttribute {
            id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION,
            pad: [0; 4],
            value: sys::CUlaunchAttributeValue {
                clusterDim: sys::CUlaunchAttributeValue_union__bindgen_ty_1 { x, y, z },
            },
        };
        let config = sys::CUlaunchConfig {
            gridDimX: extent.grid[0],
            gridDimY: extent.grid[1],
            gridDimZ: extent.grid[2],
            blockDimX: extent.block[0],
            blockDimY: extent.block[1],
            blockDimZ: extent.block[2],
            sharedMemBytes: extent.shared,
            hStream: self.stream.cu_stream(),
            attrs: &mut cluster,
            numAttrs: u32::from(clustered > 1),
        };
        let mut parameters: Vec<*mut c_void> = arguments.map(|bytes| bytes.as_mut_ptr().cast()).collect();
        self.context.bind_to_thread().map_err(|error| driver("choosing the GPU", error))?;
        // SAFETY: the function belongs to this context, which is bound; there are as many parameters as it has, of its sizes
        // (the caller compared them with the PTX), and the driver copies them before it returns. What the kernel does with
        // the GPU's memory is what is on trial; it cannot reach this process's.
        let status = unsafe {
            sys::cuLaunchKernelEx(&config, function.0.cu_function(), parameters.as_mut_ptr(), std::ptr::null_mut())
        };
        status.result().map_err(|error| driver("launching", error))
    }
}

impl Event {
    /// Seconds from this event to a later one, when the stream has passed both.
    ///
    /// # Errors
    /// If a kernel went wrong before.
    pub fn seconds_to(&self, later: &Event) -> Result<f64, GpuError> {
        let milliseconds = self.0.elapsed_ms(&later.0).map_err(|error| driver("reading events", error))?;
        Ok(f64::from(milliseconds) / 1e3)
    }
}

fn driver(doing: &'static str, error: DriverError) -> GpuError {
    GpuError::Driver { doing, reason: error.to_string() }
}
