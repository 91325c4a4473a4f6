//! Libraries of kernels that strangers wrote.

use std::collections::HashSet;
use std::env;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use isonorm_kernels::abi::{Dtype, DtypeSet, KernelInfo, ParseDescriptorError};
use sha2::{Digest, Sha256};

use super::process::Process;
use super::sandbox::SandboxRunner;
use super::wire::{Greeting, KernelText, LibraryText};
use super::{Contender, Origin, RunError, Runner};

/// The program that a library is loaded by.
const WORKER: &str = "isonorm-kernel-worker";

/// What a stranger's kernel may use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Time of one call.
    pub time: Duration,
    /// Bytes of memory of its own: heap, stacks and data, without the tensors.
    pub memory: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { time: Duration::from_secs(10), memory: 4 << 30 }
    }
}

/// A library of kernels. It is never loaded into this process.
#[derive(Clone, Debug)]
pub struct Plugin {
    source: Arc<Source>,
    origin: Origin,
    kernels: Vec<KernelInfo>,
}

#[derive(Debug)]
struct Source {
    path: PathBuf,
    worker: PathBuf,
    limits: Limits,
    /// Of the file when it was hashed: device, inode, length, time of change.
    stamp: [i128; 4],
}

impl Plugin {
    /// Asks a library what it offers.
    ///
    /// # Errors
    /// A sentence that says what is wrong with the file, its descriptor or this installation, and what to do.
    pub fn open(path: &Path, limits: Limits) -> Result<Self, RunError> {
        let unreadable = |source| RunError::Unreadable { path: path.to_owned(), source };
        // An absolute path: `dlopen` would look for a bare name elsewhere.
        let path = fs::canonicalize(path).map_err(unreadable)?;
        let mut file = File::open(&path).map_err(unreadable)?;
        let stamp = stamp(&path).map_err(unreadable)?;
        let sha256 = examine_file(&mut file).map_err(unreadable)?;
        let sha256 = sha256.ok_or_else(|| RunError::NotALibrary { path: path.clone() })?;
        let source = Arc::new(Source { path, worker: worker()?, limits, stamp });
        let (_, library) = source.start()?;
        let malformed = |what| RunError::Malformed { path: source.path.clone(), what };
        let kernels: Vec<KernelInfo> =
            library.kernels.iter().map(parse).collect::<Result<_, _>>().map_err(malformed)?;
        let mut names = HashSet::new();
        if let Some(twice) = kernels.iter().find(|kernel| !names.insert(&kernel.name)) {
            return Err(malformed(format!("two kernels are called `{}`", twice.name)));
        }
        let LibraryText { name, version, .. } = library;
        let origin = Origin::File { path: source.path.clone(), sha256, library: name, version };
        Ok(Plugin { source, origin, kernels })
    }

    /// What it offers.
    pub fn kernels(&self) -> &[KernelInfo] {
        &self.kernels
    }

    /// Its kernels, ready to be put on trial.
    pub fn contenders(&self) -> Vec<Arc<dyn Contender>> {
        let contender = |(position, info): (usize, &KernelInfo)| -> Arc<dyn Contender> {
            let (source, origin) = (Arc::clone(&self.source), self.origin.clone());
            Arc::new(PluginKernel { source, origin, position, info: info.clone() })
        };
        self.kernels.iter().enumerate().map(contender).collect()
    }
}

struct PluginKernel {
    source: Arc<Source>,
    origin: Origin,
    position: usize,
    info: KernelInfo,
}

impl Contender for PluginKernel {
    fn info(&self) -> &KernelInfo {
        &self.info
    }

    fn origin(&self) -> &Origin {
        &self.origin
    }

    fn open(&self) -> Result<Box<dyn Runner>, RunError> {
        let source = Arc::clone(&self.source);
        let start = Box::new(move || Ok(source.start()?.0));
        Ok(Box::new(SandboxRunner::new(start, self.position, self.info.layouts.offset)?))
    }
}

impl Source {
    /// Starts a process that has the library loaded.
    fn start(&self) -> Result<(Process, LibraryText), RunError> {
        let path = || self.path.clone();
        if stamp(&self.path).map_err(|source| RunError::Unreadable { path: path(), source })? != self.stamp {
            return Err(RunError::Changed { path: path() });
        }
        let (process, greeting) = Process::start(&self.worker, &self.path, self.limits)?;
        match greeting {
            Greeting::Library(library) => Ok((process, library)),
            Greeting::NotLoaded(reason) => Err(RunError::NotLoaded { path: path(), reason }),
            Greeting::NoSymbol => Err(RunError::NoSymbol { path: path() }),
            Greeting::AbiVersion(found) => Err(RunError::AbiVersion { path: path(), found }),
            Greeting::Malformed(what) => Err(RunError::Malformed { path: path(), what }),
        }
    }
}

fn stamp(path: &Path) -> io::Result<[i128; 4]> {
    let data = fs::metadata(path)?;
    let changed = i128::from(data.mtime()) * 1_000_000_000 + i128::from(data.mtime_nsec());
    Ok([data.dev().into(), data.ino().into(), data.len().into(), changed])
}

/// The file's SHA-256 in hexadecimal; `None` if it is not an ELF file.
fn examine_file(file: &mut File) -> io::Result<Option<String>> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    let mut begin = true;
    loop {
        let count = file.read(&mut buffer)?;
        if begin && !buffer[..count].starts_with(b"\x7fELF") {
            return Ok(None);
        }
        if count == 0 {
            break;
        }
        begin = false;
        hasher.update(&buffer[..count]);
    }
    Ok(Some(hasher.finalize().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })))
}

/// The worker program: beside this one, or beside the folder of this one, where cargo puts tests and examples.
pub(crate) fn worker() -> Result<PathBuf, RunError> {
    let this = env::current_exe().map_err(|source| RunError::Sandbox { source })?;
    let name = format!("{WORKER}{}", env::consts::EXE_SUFFIX);
    let found = this.ancestors().skip(1).take(2).map(|folder| folder.join(&name)).find(|path| path.is_file());
    found.ok_or_else(|| RunError::NoWorker { program: this.parent().unwrap_or(&this).join(name) })
}

/// Reads a kernel's descriptor.
fn parse(text: &KernelText) -> Result<KernelInfo, String> {
    let name = text.name.clone();
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    if name.is_empty() || !name.chars().all(allowed) {
        return Err(format!("the name `{}` has to be letters, digits, `_`, `-` or `.`", name.escape_debug()));
    }
    let of = |field: &str, error: &dyn std::fmt::Display| format!("`{field}` of kernel `{name}`: {error}");
    let described = |field: &'static str| move |error: ParseDescriptorError| (field, error);
    let parsed = || -> Result<KernelInfo, (&'static str, ParseDescriptorError)> {
        let parts = text.dtypes.split(',').map(str::trim);
        Ok(KernelInfo {
            name: name.clone(),
            operator: text.operator.clone(),
            direction: text.direction.parse().map_err(described("direction"))?,
            dtypes: parts.map(str::parse::<DtypeSet>).collect::<Result<_, _>>().map_err(described("dtypes"))?,
            layouts: text.layouts.parse().map_err(described("layouts"))?,
            precision: None,
            reduction: text.reduction.as_deref().unwrap_or("any").parse().map_err(described("reduction"))?,
            rsqrt: text.rsqrt.as_deref().unwrap_or("exact").parse().map_err(described("rsqrt"))?,
            thread_safe: text.thread_safe,
        })
    };
    let mut info = parsed().map_err(|(field, error)| of(field, &error))?;
    info.precision = match text.precision.as_deref() {
        None => None,
        Some("f32") => Some(Dtype::F32),
        Some("f64") => Some(Dtype::F64),
        Some(other) => return Err(of("precision", &format!("it says `{other}`; it can be f32 or f64"))),
    };
    Ok(info)
}
