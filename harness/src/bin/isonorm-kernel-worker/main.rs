//! The process that a stranger's library runs in: the other side of `isonorm_harness::run`. `isonorm` starts it.
//!
//! It is started with a socket as standard input and the shared file as standard output, shuts itself in, loads
//! the library, says what the library offers, and makes calls until the socket closes.
//!
//! As `isonorm-kernel-worker --calls N KERNEL [LIBRARY]` it only makes some calls, for `isonorm bench --instructions`.
//!
//! It is a program of its own, and shares source files with the harness instead of linking it, so that it starts
//! in a millisecond and libtorch is not within a kernel's reach.
#![expect(dead_code, reason = "the shared files have functions that only the harness calls")]

mod counted;
#[path = "../../run/float_environment.rs"]
mod float_environment;
mod guarded;
#[path = "../../run/memory.rs"]
mod memory;
#[path = "../../run/request.rs"]
mod request;
#[path = "../../run/wire.rs"]
mod wire;

use std::collections::HashMap;
use std::error::Error as _;
use std::ffi::{CStr, OsString, c_char, c_int, c_void};
use std::fs;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::mem;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::process::exit;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use isonorm_kernels::abi::{Direction, OwnedCall, UnknownDtype, Value, raw};
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigHandler, Signal};
use nix::unistd;

use float_environment::FloatEnvironment;
use memory::{Board, BoardMapping, duplicate};
use request::{Request, TensorArg};
use wire::{Attribute, Batch, Greeting, KernelText, LibraryText, Location, Reply, Returned, TensorText};

/// Bytes that a library may write to a file, its messages included.
const FILE_LIMIT: u64 = 1 << 20;
/// How long threads may take to end after a call before they count as running in the background.
const GRACE: Duration = Duration::from_millis(50);
/// More kernels than a library can mean.
const KERNELS: usize = 4096;

/// Its arguments: the parent's process id, the limit of memory in bytes, the library.
fn main() -> ! {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let text = |at: usize| arguments.get(at)?.to_str();
    let number = |at: usize| text(at)?.parse::<u64>().ok();
    if let (Some("--calls"), Some(calls), Some(name)) = (text(0), number(1), text(2)) {
        let Err(error) = counted::run(calls, name, arguments.get(3)) else { exit(0) };
        eprintln!("isonorm-kernel-worker: {error}");
        exit(2);
    }
    let (Some(parent), Some(memory), Some(path)) = (number(0), number(1), arguments.get(2)) else {
        eprintln!("isonorm-kernel-worker is started by isonorm: use `isonorm certify --plugin F.so`");
        exit(2);
    };
    let mut worker = match Worker::set_up(parent, memory) {
        Ok(worker) => worker,
        Err(error) => {
            eprintln!("isonorm-kernel-worker is started by isonorm, and found: {error}");
            exit(2);
        }
    };
    let (greeting, kernels) = match load(path) {
        Ok((text, kernels)) => (Greeting::Library(text), kernels),
        Err(greeting) => (greeting, Vec::new()),
    };
    match worker.say(&greeting).and_then(|()| worker.serve(&kernels)) {
        Ok(()) => exit(0),
        Err(error) => {
            eprintln!("isonorm-kernel-worker: {error}");
            exit(2);
        }
    }
}

struct Worker {
    socket: BufReader<UnixStream>,
    file: OwnedFd,
    board: BoardMapping,
    regions: HashMap<usize, *mut u8>,
    /// Standard output and standard error, which the parent reads when this process ends.
    log: fs::File,
}

type KernelFn = unsafe extern "C" fn(*const raw::Call) -> c_int;

impl Worker {
    /// Takes over the two descriptors and gives up everything that a kernel needs not.
    fn set_up(parent: u64, memory: u64) -> io::Result<Self> {
        // A campaign that is killed must not leave a hanging kernel behind.
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        if unistd::getppid().as_raw() as u64 != parent {
            return Err(io::Error::other("its parent has ended"));
        }
        let socket = UnixStream::from(duplicate(&io::stdin())?);
        let file = duplicate(&io::stdout())?;
        let log = fs::File::from(duplicate(&io::stderr())?);
        close_others(&[socket.as_raw_fd(), file.as_raw_fd(), log.as_raw_fd()])?;
        unistd::dup2_stdin(fs::File::open("/dev/null")?)?;
        unistd::dup2_stdout(&log)?;
        // No core dumps, whatever is made of them, and no way to more rights. The memory limit is one of data:
        // shared tensors and guard pages take addresses, but they are not the kernel's memory.
        prctl::set_dumpable(false)?;
        prctl::set_no_new_privs()?;
        setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
        setrlimit(Resource::RLIMIT_FSIZE, FILE_LIMIT, FILE_LIMIT)?;
        setrlimit(Resource::RLIMIT_DATA, memory, memory)?;
        let board = BoardMapping::new(file.as_fd())?;
        report_faults(&board)?;
        Ok(Worker { socket: BufReader::new(socket), file, board, regions: HashMap::new(), log })
    }

    fn say(&mut self, message: &impl serde::Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        self.socket.get_mut().write_all(&line)
    }

    /// Makes calls until the parent closes the socket.
    fn serve(&mut self, kernels: &[KernelFn]) -> io::Result<()> {
        let mut line = String::new();
        while self.socket.read_line(&mut line)? > 0 {
            // What was printed in earlier calls is of no interest any more.
            self.log.seek(SeekFrom::Start(0))?;
            let reply = self.make_calls(&serde_json::from_str(&line)?, kernels)?;
            self.say(&reply)?;
            line.clear();
        }
        Ok(())
    }

    fn make_calls(&mut self, batch: &Batch, kernels: &[KernelFn]) -> io::Result<Reply> {
        let kernel = kernels.get(batch.kernel).ok_or_else(|| io::Error::other("no such kernel"))?;
        let request = request(batch).map_err(io::Error::other)?;
        for location in batch.calls.iter().flatten() {
            self.map(location)?;
        }
        let mut reply = Reply { calls: Vec::new() };
        for locations in &batch.calls {
            let data: Vec<*mut u8> =
                locations.iter().map(|location| self.regions[&location.region].wrapping_add(location.start)).collect();
            let (inputs, outputs) = data.split_at(request.inputs.len());
            let call = OwnedCall::new(
                &request.operator,
                request.direction,
                &request.attributes,
                request.inputs.iter().zip(inputs).map(|(tensor, &data)| tensor.argument(data)).collect(),
                request.outputs.iter().zip(outputs).map(|(tensor, &data)| tensor.argument(data)).collect(),
                request.threads,
            );
            let snapshot = || -> Vec<Vec<u8>> {
                request.outputs.iter().zip(outputs).map(|(tensor, &data)| copy(data, tensor.bytes())).collect()
            };
            let returned = self.call_once(*kernel, &call, request.threads, snapshot)?;
            let done = returned.status == raw::OK;
            reply.calls.push(returned);
            if !done {
                break;
            }
        }
        Ok(reply)
    }

    /// Maps a region between guard pages when it is first used.
    fn map(&mut self, location: &Location) -> io::Result<()> {
        if !self.regions.contains_key(&location.region) {
            let start = guarded::map(self.file.as_fd(), location.offset, location.length, location.writable)?;
            let slot = self.board.regions.get(location.region).ok_or_else(|| io::Error::other("no such region"))?;
            slot.store(start.addr() as u64, Ordering::SeqCst);
            self.regions.insert(location.region, start);
        }
        Ok(())
    }

    fn call_once(
        &self,
        kernel: KernelFn,
        call: &OwnedCall,
        allowed: usize,
        snapshot: impl Fn() -> Vec<Vec<u8>>,
    ) -> io::Result<Returned> {
        // A pool of threads is kept from the first call on; who may use one thread may not start others.
        let allowed = threads()? + if allowed == 1 { 0 } else { allowed };
        self.board.calls.fetch_add(1, Ordering::SeqCst);
        let started = Instant::now();
        let (status, float_change) = FloatEnvironment::around(|| {
            // SAFETY: the library says that this is a kernel. What it does to this process is the reason for
            // this process.
            unsafe { kernel(call.raw()) }
        });
        let seconds = started.elapsed().as_secs_f64();
        let mut extra = threads()?.saturating_sub(allowed);
        let mut wrote_later = false;
        if extra > 0 {
            let (returned, outputs) = (Instant::now(), snapshot());
            let mut left = extra;
            while left > 0 && returned.elapsed() < GRACE {
                thread::sleep(Duration::from_micros(100));
                left = threads()?.saturating_sub(allowed);
            }
            wrote_later = snapshot() != outputs;
            if left == 0 && !wrote_later {
                extra = 0;
            }
        }
        let message = if status == raw::OK { String::new() } else { call.message() };
        Ok(Returned { status, message, seconds, float_change, threads: extra, wrote_later })
    }
}

/// The request that was made into this batch, without the tensors' memory.
fn request(batch: &Batch) -> Result<Request, String> {
    let tensors = |list: &[TensorText]| list.iter().map(argument).collect::<Result<_, _>>();
    let attribute = |(name, value): &(String, Attribute)| {
        let value = match value {
            Attribute::Real(bits) => Value::Real(f64::from_bits(*bits)),
            Attribute::Integer(integer) => Value::Integer(*integer),
            Attribute::Text(text) => Value::Text(text.clone()),
        };
        (name.clone(), value)
    };
    Ok(Request {
        operator: batch.operator.clone(),
        direction: batch.direction.parse::<Direction>().map_err(|error| error.to_string())?,
        // A library reads its sizes off the tensors.
        sizes: Vec::new(),
        attributes: batch.attributes.iter().map(attribute).collect(),
        inputs: tensors(&batch.inputs)?,
        outputs: tensors(&batch.outputs)?,
        threads: batch.threads,
        prelude: None,
    })
}

fn argument(tensor: &TensorText) -> Result<TensorArg, String> {
    Ok(TensorArg {
        name: tensor.name.clone(),
        dtype: tensor.dtype.parse().map_err(|error: UnknownDtype| error.to_string())?,
        shape: tensor.shape.clone(),
        strides: tensor.strides.clone(),
        span: tensor.span,
        data: Vec::new(),
        alias: None,
    })
}

fn copy(data: *const u8, bytes: usize) -> Vec<u8> {
    let mut copy = vec![0; bytes];
    // SAFETY: a tensor's memory lies in its region, which is mapped readable; a fresh vector does not overlap it.
    unsafe { data.copy_to_nonoverlapping(copy.as_mut_ptr(), bytes) };
    copy
}

/// How many threads this process has: its task folder has one link for each, and two of its own.
fn threads() -> io::Result<usize> {
    Ok(fs::metadata("/proc/self/task")?.nlink().saturating_sub(2) as usize)
}

/// Closes every descriptor above standard error but these.
fn close_others(kept: &[c_int]) -> io::Result<()> {
    let mut kept = kept.to_vec();
    kept.sort_unstable();
    let mut first = 3;
    for end in kept.into_iter().chain([c_int::MAX]) {
        if first < end {
            // SAFETY: nothing in this process uses a descriptor that it was not started with on purpose.
            let status = unsafe { libc::syscall(libc::SYS_close_range, first, end - 1, 0) };
            if status != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        first = end.saturating_add(1);
    }
    Ok(())
}

/// Where [`on_fault`] writes.
static BOARD: AtomicPtr<Board> = AtomicPtr::new(ptr::null_mut());

/// Has memory faults reported on the board before they end the process.
fn report_faults(board: &BoardMapping) -> io::Result<()> {
    BOARD.store(ptr::from_ref::<Board>(board).cast_mut(), Ordering::SeqCst);
    let stack = Vec::leak(vec![0u8; 64 << 10]);
    let stack = libc::stack_t { ss_sp: stack.as_mut_ptr().cast(), ss_flags: 0, ss_size: stack.len() };
    // SAFETY: the stack is leaked, so it lasts as long as the process.
    let mut status = unsafe { libc::sigaltstack(&raw const stack, ptr::null_mut()) };
    for signal in [libc::SIGSEGV, libc::SIGBUS] {
        // SAFETY: all zeros is a valid `sigaction`.
        let mut action: libc::sigaction = unsafe { mem::zeroed() };
        action.sa_sigaction = on_fault as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESETHAND;
        // SAFETY: the handler has the signature that `SA_SIGINFO` asks for and calls only async-signal-safe functions.
        status |= unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) };
    }
    // A library that prints without end gets errors instead of a signal.
    // SAFETY: ignoring a signal installs no handler.
    unsafe { nix::sys::signal::signal(Signal::SIGXFSZ, SigHandler::SigIgn)? };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

extern "C" fn on_fault(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the system passes a valid `siginfo_t` and `ucontext_t`, and the board is mapped while this process lives.
    unsafe {
        let board = &*BOARD.load(Ordering::SeqCst);
        board.address.store((*info).si_addr().addr() as u64, Ordering::SeqCst);
        board.code.store((*info).si_code as u64, Ordering::SeqCst);
        let registers = &(*context.cast::<libc::ucontext_t>()).uc_mcontext;
        #[cfg(target_arch = "x86_64")]
        {
            let write = registers.gregs[libc::REG_ERR as usize] & 2 != 0;
            board.access.store(1 + u64::from(write), Ordering::SeqCst);
            board.stack.store(registers.gregs[libc::REG_RSP as usize] as u64, Ordering::SeqCst);
        }
        #[cfg(target_arch = "aarch64")]
        board.stack.store(registers.sp, Ordering::SeqCst);
        board.signal.store(signal as u64, Ordering::SeqCst);
        // The handler is gone (`SA_RESETHAND`), so this ends the process as soon as it returns.
        libc::raise(signal);
    }
}

/// Loads a library and reads its descriptor.
fn load(path: &OsString) -> Result<(LibraryText, Vec<KernelFn>), Greeting> {
    // SAFETY: loading runs the library's constructors. What they do to this process is the reason for this process.
    let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) }
        // The error itself says only that it was `dlopen`.
        .map_err(|error| Greeting::NotLoaded(error.source().map_or(error.to_string(), ToString::to_string)))?;
    // Kernels may keep threads that must not lose their code.
    let library = mem::ManuallyDrop::new(library);
    // SAFETY: the symbol of this name is of this type.
    let describe = unsafe { library.get::<raw::LibraryFn>(raw::LIBRARY_SYMBOL.as_bytes()) };
    let describe = describe.map_err(|_| Greeting::NoSymbol)?;
    // SAFETY: as above; a pointer that leads nowhere ends this process and is reported.
    let found = unsafe { describe().as_ref() };
    let found = found.ok_or_else(|| Greeting::Malformed(format!("`{}` returned NULL", raw::LIBRARY_SYMBOL)))?;
    if found.abi_version != raw::ABI_VERSION {
        return Err(Greeting::AbiVersion(found.abi_version));
    }
    if found.kernel_count == 0 || found.kernels.is_null() {
        return Err(Greeting::Malformed("it lists no kernel".to_owned()));
    }
    if found.kernel_count > KERNELS {
        return Err(Greeting::Malformed(format!("it says that it has {} kernels", found.kernel_count)));
    }
    // SAFETY: as above.
    let kernels = unsafe { std::slice::from_raw_parts(found.kernels, found.kernel_count) };
    let mut texts = Vec::new();
    let mut functions = Vec::new();
    for (position, kernel) in kernels.iter().enumerate() {
        let of = format!("kernel {position}");
        texts.push(KernelText {
            name: required(kernel.name, &of, "name")?,
            operator: required(kernel.op, &of, "op")?,
            direction: required(kernel.direction, &of, "direction")?,
            dtypes: required(kernel.dtypes, &of, "dtypes")?,
            layouts: required(kernel.layouts, &of, "layouts")?,
            precision: optional(kernel.precision, &of, "precision")?,
            reduction: optional(kernel.reduction, &of, "reduction")?,
            rsqrt: optional(kernel.rsqrt, &of, "rsqrt")?,
            thread_safe: kernel.thread_safe != 0,
        });
        functions.push(kernel.run.ok_or_else(|| null(&of, "run"))?);
    }
    let name = required(found.name, "the library", "name")?;
    let version = required(found.version, "the library", "version")?;
    Ok((LibraryText { name, version, kernels: texts }, functions))
}

fn required(text: *const c_char, of: &str, field: &str) -> Result<String, Greeting> {
    optional(text, of, field)?.ok_or_else(|| null(of, field))
}

fn null(of: &str, field: &str) -> Greeting {
    Greeting::Malformed(format!("`{field}` of {of} is NULL"))
}

fn optional(text: *const c_char, of: &str, field: &str) -> Result<Option<String>, Greeting> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: the interface asks for NUL-terminated text; another pointer ends this process and is reported.
    let text = unsafe { CStr::from_ptr(text) }.to_str();
    let text = text.map_err(|_| Greeting::Malformed(format!("`{field}` of {of} is not UTF-8")))?;
    Ok(Some(text.to_owned()))
}
