//! Running kernels: a request goes in, an [`Outcome`] comes out, whoever wrote the kernel.
//!
//! A kernel is called at least twice for each request (see `examine`): outputs are poisoned with two different
//! patterns, and every buffer lies differently, so that what is not written, what is written outside and what
//! is read outside shows. Built-in kernels run in this process between canary zones ([`InProcess`]); a
//! stranger's library runs in a child process between guard pages ([`Plugin`]).

mod conduct;
mod examine;
mod executed;
mod float_environment;
mod in_process;
mod memory;
mod plugin;
mod process;
mod request;
mod sandbox;
mod wire;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use isonorm_kernels::abi::{DtypeSet, KernelInfo, raw};
use isonorm_ptx::Counters;

use crate::generate::Sizes;

pub use conduct::{Conduct, Difference, Place};
pub use executed::{Executed, OnGpu, Ready};
pub use in_process::InProcess;
pub(crate) use plugin::worker;
pub use plugin::{Limits, Plugin};
pub use request::{Request, TensorArg};

/// A request without its tensors' memory, as the worker program reads it.
pub(crate) fn call_text(request: &Request) -> serde_json::Result<String> {
    serde_json::to_string(&wire::Batch::new(request, 0, Vec::new()))
}

/// A kernel on trial: something that can be asked what it offers, and opened.
pub trait Contender: Send + Sync {
    /// What it says of itself.
    fn info(&self) -> &KernelInfo;

    /// Where it comes from.
    fn origin(&self) -> &Origin;

    /// The only sizes that it takes of some axes.
    fn sizes(&self) -> Sizes {
        Sizes::new()
    }

    /// What it runs on.
    fn device(&self) -> Device {
        Device::Cpu
    }

    /// Itself, if it is a kernel on a GPU.
    fn on_gpu(&self) -> Option<&OnGpu> {
        None
    }

    /// Does what takes time and can fail before it is asked about these element types.
    ///
    /// # Errors
    /// If it cannot be asked, with what to do about it.
    fn prepare(&self, _dtypes: &[DtypeSet]) -> Result<(), RunError> {
        Ok(())
    }

    /// Makes it ready to run. Every thread opens its own runner.
    ///
    /// # Errors
    /// If it cannot be made ready, with what to do about it.
    fn open(&self) -> Result<Box<dyn Runner>, RunError>;
}

/// A kernel that is ready to run.
pub trait Runner: Send {
    /// The properties of conduct that its answers show, the kernel's or their lack.
    fn shows(&self) -> &'static [&'static str] {
        &conduct::ON_CPU
    }

    /// Runs one request. A kernel that crashes or hangs is an outcome, and the next request is served as usual.
    fn run(&mut self, request: &Request) -> Outcome;
}

/// What a kernel runs on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Device {
    /// This machine's processor.
    #[default]
    Cpu,
    /// The PTX executor: what a compiler made for a GPU, run thread by thread on the processor.
    Ptx,
    /// The first GPU of this machine.
    Cuda,
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Device::Cpu => "cpu",
            Device::Ptx => "ptx",
            Device::Cuda => "cuda",
        })
    }
}

/// Where a kernel comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Part of this program.
    BuiltIn,
    /// A shared library.
    File {
        /// Where it lies.
        path: PathBuf,
        /// SHA-256 of its bytes, in hexadecimal.
        sha256: String,
        /// The name it gives itself.
        library: String,
        /// The version it gives itself.
        version: String,
    },
    /// A manifest and the sources that it names.
    Manifest {
        /// Where it lies.
        path: PathBuf,
        /// SHA-256 of their bytes, in hexadecimal.
        sha256: String,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::BuiltIn => f.write_str("built in"),
            Origin::File { path, library, version, .. } => write!(f, "{library} {version} ({})", path.display()),
            Origin::Manifest { path, .. } => write!(f, "{}", path.display()),
        }
    }
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The kernel says it is done.
    Answered(Answer),
    /// The kernel does not serve such a call, and says why. Never held against it.
    Declined(String),
    /// The kernel says that it failed, and why.
    Failed(String),
    /// The kernel ended in another way than by returning.
    Crashed(Crash),
    /// The kernel did not return within this time.
    Hung(Duration),
    /// The question could not be put: nothing is known about the kernel.
    NotRun(String),
}

/// A kernel's answer and how it conducted itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The outputs' memory after the first call: [`TensorArg::span`] elements each.
    pub outputs: Vec<Vec<u8>>,
    /// Everything it did besides, or left undone; empty for a well-behaved kernel.
    pub conduct: Vec<Conduct>,
    /// How long the first call took.
    pub seconds: f64,
    /// What its launches did, where an executor counted it.
    pub work: Option<Box<Work>>,
}

/// What the launches of a call did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// How many launches there were.
    pub launches: u64,
    /// All of them together. Buffers have the tensors' names; an output in place has its input's.
    pub counters: Counters,
    /// Bytes of the scratch buffers, by the names that they have in the counters.
    pub scratch: Vec<(String, u64)>,
}

/// A kernel that did not return.
#[derive(Clone, Debug, PartialEq)]
pub struct Crash {
    /// What happened, as a sentence.
    pub description: String,
    /// The stray access to a tensor behind it, if there was one.
    pub access: Option<StrayAccess>,
}

impl Crash {
    pub(crate) fn new(description: impl Into<String>) -> Self {
        Crash { description: description.into(), access: None }
    }
}

impl fmt::Display for Crash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.description)
    }
}

/// An access that a guard page or a read-only page stopped.
#[derive(Clone, Debug, PartialEq)]
pub struct StrayAccess {
    /// The tensor.
    pub tensor: String,
    /// Whether it was a write, if the processor says so.
    pub write: Option<bool>,
    /// Where.
    pub place: Place,
}

impl fmt::Display for StrayAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self.write {
            Some(true) => "wrote to",
            Some(false) => "read",
            None => "touched",
        };
        match self.place {
            Place::Inside(element) => write!(f, "{verb} input `{}`, element {element} of its memory", self.tensor),
            place => write!(f, "{verb} memory {place} of `{}`", self.tensor),
        }
    }
}

/// Why a kernel cannot be made ready.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}; check the path and its permissions", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is something else.
    #[error("{} is not a shared library; make one with `cc -O2 -shared -fPIC -I kernels/include`", path.display())]
    NotALibrary {
        /// The file.
        path: PathBuf,
    },
    /// `dlopen` refuses the file.
    #[error(
        "cannot load {}: {reason}; check with `ldd` that everything it needs is found, and set LD_LIBRARY_PATH if not",
        path.display()
    )]
    NotLoaded {
        /// The file.
        path: PathBuf,
        /// What the dynamic linker says.
        reason: String,
    },
    /// The library ends its process before it is asked anything.
    #[error("{} ends its process while it is loaded: {crash}; check its constructors and its descriptor", path.display())]
    LoadCrashed {
        /// The file.
        path: PathBuf,
        /// What happened.
        crash: Crash,
    },
    /// The library does not finish loading.
    #[error("{} is not loaded after {limit:?}; check its constructors", path.display())]
    LoadHung {
        /// The file.
        path: PathBuf,
        /// How long was waited.
        limit: Duration,
    },
    /// The library offers nothing.
    #[error(
        "{} does not export `{symbol}`; define `const isonorm_library *{symbol}(void)`, in C++ as extern \"C\", \
         as in kernels/include/isonorm.h",
        path.display(),
        symbol = raw::LIBRARY_SYMBOL
    )]
    NoSymbol {
        /// The file.
        path: PathBuf,
    },
    /// The library was compiled against another interface.
    #[error(
        "{} speaks version {found} of the kernel interface, this program version {}; compile it again with this \
         version's isonorm.h",
        path.display(),
        raw::ABI_VERSION
    )]
    AbiVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// The library's descriptor says something that it cannot say.
    #[error("the descriptor of {} is wrong: {what}; kernels/include/isonorm.h says what each field can be", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The file is not the one that was examined.
    #[error("{} has changed meanwhile; start again", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// A kernel for a device cannot be compiled, or its manifest does not fit it.
    #[error("{kernel}: {reason}")]
    NotBuilt {
        /// The kernel.
        kernel: String,
        /// Why, with the compiler's log.
        reason: String,
    },
    /// The installation lacks a program.
    #[error("{} is missing; `cargo build --release --package isonorm-harness --bins` makes it", program.display())]
    NoWorker {
        /// Where it should be.
        program: PathBuf,
    },
    /// The system does not let us make a sandbox.
    #[error(
        "cannot make a sandbox for the kernel: {source}; it needs Linux, shared memory and permission to start processes"
    )]
    Sandbox {
        /// What the system says.
        source: io::Error,
    },
}
