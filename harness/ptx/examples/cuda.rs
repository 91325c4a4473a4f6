//! The interface of NVIDIA's driver in front of the executor: a `libcuda.so` that needs no GPU.
//!
//! A program that opens the driver, and finds this one first, runs its kernels on the executor. That is how everything around
//! a GPU (which arguments a launch gets, where tensors lie, what is copied when, what a fault ends) is tested where there is
//! none; it says nothing about a GPU, and times mean nothing. As a GPU does, it notices an access that leaves all memory, and
//! one that is misaligned, with the next call that waits; races and what else the executor finds it keeps to itself.
//!
//! ```console
//! $ cargo build --release -p isonorm-ptx --example cuda
//! $ LD_LIBRARY_PATH=target/release/examples:$LD_LIBRARY_PATH isonorm certify --device cuda
//! ```

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use cudarc::driver::sys::{CUdevice_attribute as Attribute, CUlaunchAttributeID, CUlaunchConfig, CUresult as Status};
use isonorm_ptx::{Argument, Kind, Launch, LaunchError, Memory, Module, Options, Rights};

/// What the device calls itself, so that nobody takes it for a GPU.
const NAME: &[u8] = b"PTX executor, no GPU\0";
const SMS: c_int = 132;
const L2: c_int = 1 << 20;
/// More than any kernel needs that ends: a GPU waits for ever.
const PATIENCE: u64 = 1 << 24;

struct Driver {
    /// What was allocated, by its place in memory; none where it was freed.
    buffers: Vec<Option<Vec<u8>>>,
    modules: Vec<Module>,
    /// Kernels: the place of their module, and their names.
    functions: Vec<(usize, String)>,
    /// When events were recorded.
    events: Vec<Instant>,
    /// Once a kernel went wrong, everything ends so.
    fault: Option<Status>,
}

static DRIVER: Mutex<Driver> = Mutex::new(Driver {
    buffers: Vec::new(),
    modules: Vec::new(),
    functions: Vec::new(),
    events: Vec::new(),
    fault: None,
});

fn driver() -> MutexGuard<'static, Driver> {
    DRIVER.lock().unwrap_or_else(PoisonError::into_inner)
}

fn status(result: Result<(), Status>) -> Status {
    result.err().unwrap_or(Status::CUDA_SUCCESS)
}

/// Writes a result to where the caller wants it.
///
/// # Safety
/// The place is the caller's to write to.
unsafe fn give<T>(place: *mut T, value: T) -> Status {
    // SAFETY: as the driver's interface demands of its caller.
    unsafe { place.write(value) };
    Status::CUDA_SUCCESS
}

/// Handles are places, counted from 1: a null handle is none.
fn handle(place: usize) -> *mut c_void {
    std::ptr::without_provenance_mut(place + 1)
}

fn place(handle: *mut c_void) -> Result<usize, Status> {
    handle.addr().checked_sub(1).ok_or(Status::CUDA_ERROR_INVALID_HANDLE)
}

impl Driver {
    /// All memory, as the executor has it.
    fn memory(&self) -> Memory {
        let mut memory = Memory::new();
        for buffer in &self.buffers {
            memory.add("memory", buffer.as_deref().unwrap_or_default(), Rights::ReadWrite);
        }
        memory
    }

    /// Where a buffer begins.
    fn address(place: usize) -> u64 {
        let mut memory = Memory::new();
        let last = (0..=place).map(|_| memory.add("memory", &[], Rights::ReadWrite)).last();
        last.map_or(0, |last| memory.address(last))
    }

    fn allocate(&mut self, bytes: usize) -> u64 {
        let free = self.buffers.iter().position(Option::is_none).unwrap_or(self.buffers.len());
        if free == self.buffers.len() {
            self.buffers.push(None);
        }
        // A GPU's memory holds whatever was there before.
        self.buffers[free] = Some(vec![0xa5; bytes]);
        Driver::address(free)
    }

    fn find(&self, address: u64) -> Result<(usize, usize), Status> {
        let starts = (0..self.buffers.len()).map(|place| (place, Driver::address(place)));
        let (place, start) =
            starts.take_while(|(_, start)| *start <= address).last().ok_or(Status::CUDA_ERROR_INVALID_VALUE)?;
        Ok((place, (address - start) as usize))
    }

    /// These bytes, if they were allocated.
    fn bytes(&mut self, address: u64, count: usize) -> Result<&mut [u8], Status> {
        self.fault.map_or(Ok(()), Err)?;
        let (place, offset) = self.find(address)?;
        let buffer = self.buffers[place].as_mut().ok_or(Status::CUDA_ERROR_INVALID_VALUE)?;
        buffer.get_mut(offset..).and_then(|rest| rest.get_mut(..count)).ok_or(Status::CUDA_ERROR_INVALID_VALUE)
    }

    fn launch(&mut self, launch: &Launch, module: usize) -> Result<(), Status> {
        self.fault.map_or(Ok(()), Err)?;
        let mut memory = self.memory();
        let outcome = self.modules[module].run(launch, &mut memory).map_err(|error| match error {
            LaunchError::Arguments { .. } | LaunchError::Extents { .. } => Status::CUDA_ERROR_INVALID_VALUE,
            _ => Status::CUDA_ERROR_NOT_FOUND,
        })?;
        for finding in outcome.findings {
            self.fault = self.fault.or(match finding.kind {
                Kind::OutOfBounds => Some(Status::CUDA_ERROR_ILLEGAL_ADDRESS),
                Kind::Misaligned => Some(Status::CUDA_ERROR_MISALIGNED_ADDRESS),
                Kind::InstructionLimit | Kind::Deadlock => Some(Status::CUDA_ERROR_LAUNCH_TIMEOUT),
                Kind::Trap => Some(Status::CUDA_ERROR_LAUNCH_FAILED),
                _ => None,
            });
        }
        // The same order as in `memory`.
        let mut again = Memory::new();
        for buffer in &mut self.buffers {
            let handle = again.add("memory", &[], Rights::ReadWrite);
            if let Some(bytes) = buffer {
                *bytes = memory.bytes(handle);
            }
        }
        Ok(())
    }
}

macro_rules! does_nothing {
    ($($name:ident($($argument:ty),*);)*) => {$(
        #[unsafe(no_mangle)]
        extern "C" fn $name($(_: $argument),*) -> Status {
            Status::CUDA_SUCCESS
        }
    )*};
}

does_nothing! {
    cuInit(c_uint);
    cuDevicePrimaryCtxRelease_v2(c_int);
    cuCtxSetCurrent(*mut c_void);
    cuStreamDestroy_v2(*mut c_void);
    cuStreamWaitEvent(*mut c_void, *mut c_void, c_uint);
    cuEventDestroy_v2(*mut c_void);
    cuModuleUnload(*mut c_void);
    cuFuncSetAttribute(*mut c_void, c_int, c_int);
}

macro_rules! waits {
    ($($name:ident($($argument:ty),*);)*) => {$(
        #[unsafe(no_mangle)]
        extern "C" fn $name($(_: $argument),*) -> Status {
            status(driver().fault.map_or(Ok(()), Err))
        }
    )*};
}

waits! {
    cuCtxSynchronize();
    cuStreamSynchronize(*mut c_void);
    cuEventSynchronize(*mut c_void);
    cuEventQuery(*mut c_void);
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGet(device: *mut c_int, ordinal: c_int) -> Status {
    if ordinal != 0 {
        return Status::CUDA_ERROR_INVALID_DEVICE;
    }
    // SAFETY: the caller's place for it.
    unsafe { give(device, 0) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGetName(name: *mut c_char, length: c_int, _device: c_int) -> Status {
    let count = NAME.len().min(usize::try_from(length).unwrap_or(0));
    // SAFETY: the caller's room has `length` bytes.
    unsafe { std::ptr::copy_nonoverlapping(NAME.as_ptr().cast(), name, count) };
    Status::CUDA_SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGetAttribute(value: *mut c_int, attribute: Attribute, _device: c_int) -> Status {
    let known = match attribute {
        Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR => 9,
        Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR => 0,
        Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT => SMS,
        Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE => L2,
        // Pools among them: memory is allocated and freed at once.
        _ => 0,
    };
    // SAFETY: the caller's place for it.
    unsafe { give(value, known) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDriverGetVersion(version: *mut c_int) -> Status {
    // SAFETY: the caller's place for it.
    unsafe { give(version, 13000) }
}

/// The driver's own sentence says no more than the name.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuGetErrorName(status: Status, name: *mut *const c_char) -> Status {
    let known = match status {
        Status::CUDA_ERROR_ILLEGAL_ADDRESS => c"CUDA_ERROR_ILLEGAL_ADDRESS",
        Status::CUDA_ERROR_MISALIGNED_ADDRESS => c"CUDA_ERROR_MISALIGNED_ADDRESS",
        Status::CUDA_ERROR_LAUNCH_TIMEOUT => c"CUDA_ERROR_LAUNCH_TIMEOUT",
        Status::CUDA_ERROR_LAUNCH_FAILED => c"CUDA_ERROR_LAUNCH_FAILED",
        _ => c"an error of the stand-in for the driver",
    };
    // SAFETY: the caller's place for it.
    unsafe { give(name, known.as_ptr()) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuGetErrorString(status: Status, text: *mut *const c_char) -> Status {
    // SAFETY: the same place.
    unsafe { cuGetErrorName(status, text) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDevicePrimaryCtxRetain(context: *mut *mut c_void, _device: c_int) -> Status {
    // SAFETY: the caller's place for it.
    unsafe { give(context, handle(0)) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuCtxGetCurrent(context: *mut *mut c_void) -> Status {
    // SAFETY: the caller's place for it.
    unsafe { give(context, handle(0)) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> Status {
    // SAFETY: the caller's places for them.
    unsafe {
        give(free, 1 << 32);
        give(total, 1 << 32)
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuStreamCreate(stream: *mut *mut c_void, _flags: c_uint) -> Status {
    // SAFETY: the caller's place for it.
    unsafe { give(stream, handle(0)) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuEventCreate(event: *mut *mut c_void, _flags: c_uint) -> Status {
    let mut driver = driver();
    driver.events.push(Instant::now());
    // SAFETY: the caller's place for it.
    unsafe { give(event, handle(driver.events.len() - 1)) }
}

#[unsafe(no_mangle)]
extern "C" fn cuEventRecord(event: *mut c_void, _stream: *mut c_void) -> Status {
    let mut driver = driver();
    status(place(event).and_then(|place| {
        *driver.events.get_mut(place).ok_or(Status::CUDA_ERROR_INVALID_HANDLE)? = Instant::now();
        Ok(())
    }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuEventElapsedTime_v2(milliseconds: *mut f32, start: *mut c_void, end: *mut c_void) -> Status {
    let driver = driver();
    let when = |event| place(event).ok().and_then(|place| driver.events.get(place));
    let (Some(start), Some(end)) = (when(start), when(end)) else { return Status::CUDA_ERROR_INVALID_HANDLE };
    // SAFETY: the caller's place for it.
    unsafe { give(milliseconds, end.duration_since(*start).as_secs_f32() * 1e3) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemAlloc_v2(address: *mut u64, bytes: usize) -> Status {
    if bytes == 0 {
        return Status::CUDA_ERROR_INVALID_VALUE;
    }
    // SAFETY: the caller's place for it.
    unsafe { give(address, driver().allocate(bytes)) }
}

#[unsafe(no_mangle)]
extern "C" fn cuMemFree_v2(address: u64) -> Status {
    let mut driver = driver();
    status(driver.find(address).and_then(|(place, offset)| match driver.buffers[place].take() {
        Some(_) if offset == 0 => Ok(()),
        _ => Err(Status::CUDA_ERROR_INVALID_VALUE),
    }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemcpyHtoDAsync_v2(to: u64, from: *const c_void, bytes: usize, _stream: *mut c_void) -> Status {
    // SAFETY: the caller's memory, of so many bytes.
    let from = unsafe { std::slice::from_raw_parts(from.cast::<u8>(), bytes) };
    status(driver().bytes(to, bytes).map(|to| to.copy_from_slice(from)))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemcpyDtoHAsync_v2(to: *mut c_void, from: u64, bytes: usize, _stream: *mut c_void) -> Status {
    // SAFETY: the caller's memory, of so many bytes.
    let copy = |from: &mut [u8]| unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to.cast(), bytes) };
    status(driver().bytes(from, bytes).map(copy))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, _stream: *mut c_void) -> Status {
    let mut driver = driver();
    let from = driver.bytes(from, bytes).map(|from| from.to_vec());
    status(from.and_then(|from| driver.bytes(to, bytes).map(|to| to.copy_from_slice(&from))))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemsetD8Async(to: u64, value: u8, bytes: usize, _stream: *mut c_void) -> Status {
    status(driver().bytes(to, bytes).map(|to| to.fill(value)))
}

/// Takes PTX only: what the executor can read.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuModuleLoadData(module: *mut *mut c_void, image: *const c_void) -> Status {
    // SAFETY: text that ends with a zero, as the interface says of PTX.
    let text = unsafe { CStr::from_ptr(image.cast()) }.to_string_lossy();
    let Ok(parsed) = Module::parse(&text) else { return Status::CUDA_ERROR_INVALID_PTX };
    let mut driver = driver();
    driver.modules.push(parsed);
    // SAFETY: the caller's place for it.
    unsafe { give(module, handle(driver.modules.len() - 1)) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuModuleGetFunction(
    function: *mut *mut c_void,
    module: *mut c_void,
    name: *const c_char,
) -> Status {
    // SAFETY: text that ends with a zero, as the interface says.
    let name = unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned();
    let mut driver = driver();
    let Some(module) = place(module).ok().filter(|&place| place < driver.modules.len()) else {
        return Status::CUDA_ERROR_INVALID_HANDLE;
    };
    if driver.modules[module].parameters(&name).is_none() {
        return Status::CUDA_ERROR_NOT_FOUND;
    }
    driver.functions.push((module, name));
    // SAFETY: the caller's place for it.
    unsafe { give(function, handle(driver.functions.len() - 1)) }
}

/// Runs a launch whose parameters are the caller's.
///
/// # Safety
/// There is a pointer for each parameter of the kernel, to as many bytes as it has.
unsafe fn run(function: *mut c_void, launch: Launch, parameters: *mut *mut c_void) -> Status {
    let mut driver = driver();
    let Some((module, kernel)) = place(function).ok().and_then(|place| driver.functions.get(place).cloned()) else {
        return Status::CUDA_ERROR_INVALID_HANDLE;
    };
    let sizes = driver.modules[module].parameters(&kernel).unwrap_or_default();
    let argument = |(place, &size): (usize, &u64)| {
        // SAFETY: as the caller promises.
        let bytes = unsafe { std::slice::from_raw_parts((*parameters.add(place)).cast::<u8>(), size as usize) };
        Argument::bytes(bytes)
    };
    let params = sizes.iter().enumerate().map(argument).collect();
    let options = Options { instruction_limit: PATIENCE, ..Options::default() };
    status(driver.launch(&Launch { kernel, params, options, ..launch }, module))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuLaunchKernel(
    function: *mut c_void,
    grid_x: c_uint,
    grid_y: c_uint,
    grid_z: c_uint,
    block_x: c_uint,
    block_y: c_uint,
    block_z: c_uint,
    shared: c_uint,
    _stream: *mut c_void,
    parameters: *mut *mut c_void,
    _extra: *mut *mut c_void,
) -> Status {
    let (grid, block) = ([grid_x, grid_y, grid_z], [block_x, block_y, block_z]);
    // SAFETY: as the interface says.
    unsafe { run(function, Launch { grid, block, shared, ..Launch::default() }, parameters) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuLaunchKernelEx(
    config: *const CUlaunchConfig,
    function: *mut c_void,
    parameters: *mut *mut c_void,
    _extra: *mut *mut c_void,
) -> Status {
    // SAFETY: the caller's.
    let config = unsafe { &*config };
    let mut cluster = [1; 3];
    for number in 0..config.numAttrs as usize {
        // SAFETY: the interface says that there are so many.
        let attribute = unsafe { &*config.attrs.add(number) };
        if attribute.id == CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION {
            // SAFETY: of this attribute the value is one.
            let size = unsafe { attribute.value.clusterDim };
            cluster = [size.x, size.y, size.z];
        }
    }
    let launch = Launch {
        grid: [config.gridDimX, config.gridDimY, config.gridDimZ],
        block: [config.blockDimX, config.blockDimY, config.blockDimZ],
        cluster,
        shared: config.sharedMemBytes,
        ..Launch::default()
    };
    // SAFETY: as the interface says.
    unsafe { run(function, launch, parameters) }
}
