//! Which kernels a command is about: options that several verbs share.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use isonorm_cuda::Library;
use isonorm_cuda::compile::Cache;
use isonorm_cuda::driver::Gpu;
use isonorm_cuda::manifest::Kernel;
use isonorm_kernels::abi::{Direction, DtypeSet};
use isonorm_oracles::operators;

use super::Error;
use crate::campaign::{Entry, UnknownOperator};
use crate::machine;
use crate::run::{Contender, Device, Executed, InProcess, Limits, OnGpu, Plugin, RunError};

/// Which kernels.
#[derive(Clone, Debug, Args)]
pub(super) struct Selection {
    /// Only kernels of these operators.
    #[arg(long, value_name = "O,..", value_delimiter = ',')]
    op: Vec<String>,
    /// Only kernels of these names.
    #[arg(long, value_name = "K,..", value_delimiter = ',')]
    kernel: Vec<String>,
    /// Only this half of the operators.
    #[arg(long)]
    direction: Option<Half>,
    /// Only these element types: f32, f64, bf16, f16, or pairs such as bf16:f32 (data and parameters).
    #[arg(long, value_name = "D,..", value_delimiter = ',')]
    dtype: Vec<DtypeSet>,
    /// The kernels of this library instead of the built-in ones; may be repeated.
    #[arg(long, value_name = "F.so")]
    plugin: Vec<PathBuf>,
    /// Where the kernels run: the built-in ones on the processor, or those for CUDA on the PTX executor or a GPU.
    #[arg(long, value_enum)]
    device: Option<Device>,
    /// The kernels of this CUDA source instead of the built-in ones, executed on the PTX executor: a manifest, or the source beside
    /// it (F.cu or F.ptx, and F.toml); may be repeated.
    #[arg(long, value_name = "F", conflicts_with = "plugin")]
    cuda: Vec<PathBuf>,
    /// The Triton function KERNEL of this file, described by the manifest F.toml beside it; F.py alone means all of the
    /// manifest's kernels. Compiled by the Triton of ISONORM_PYTHON, or of python3; may be repeated.
    #[arg(long, value_name = "F.py:KERNEL", conflicts_with = "plugin")]
    triton: Vec<String>,
    /// The architecture that CUDA sources are compiled for, such as sm_80; the manifest's, or sm_90, unless told.
    #[arg(long, value_name = "SM", value_parser = arch)]
    arch: Option<String>,
    /// Seconds after which a call of a library's kernel counts as hung.
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    call_limit: f64,
    /// Memory that a library's kernel may use, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 4096)]
    memory_limit: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Half {
    Forward,
    Backward,
}

impl Selection {
    /// The kernels, each with the part of its offer that is asked for.
    pub(super) fn entries(&self, threads: usize) -> Result<Vec<Entry>, Error> {
        for name in &self.op {
            operators::find(name).ok_or_else(|| UnknownOperator::new(name))?;
        }
        let mut entries = Vec::new();
        for contender in self.contenders()? {
            entries.push(Entry::new(contender, threads)?);
        }
        let known: Vec<String> = entries.iter().map(|entry| entry.name.clone()).collect();
        if let Some(name) = self.kernel.iter().find(|name| !known.contains(name)) {
            let nearest = known.iter().min_by_key(|other| strsim::damerau_levenshtein(other, name));
            let nearest = nearest.map_or_else(String::new, |nearest| format!("; did you mean `{nearest}`?"));
            return Err(Error::Usage(format!("there is no kernel `{name}`{nearest} `isonorm list kernels` shows all")));
        }
        entries.retain(|entry| {
            let direction = entry.contender.info().direction;
            let half = match self.direction {
                None => true,
                Some(Half::Forward) => direction == Direction::Forward,
                Some(Half::Backward) => direction == Direction::Backward,
            };
            let named = |list: &[String], name: &str| list.is_empty() || list.iter().any(|other| other == name);
            half && named(&self.op, entry.operator.name) && named(&self.kernel, &entry.name)
        });
        if entries.is_empty() {
            return Err(Error::Usage("no kernel matches: `isonorm list kernels` shows what there is".to_owned()));
        }
        self.narrow(entries)
    }

    /// Leaves the element types asked for.
    fn narrow(&self, entries: Vec<Entry>) -> Result<Vec<Entry>, Error> {
        if self.dtype.is_empty() {
            return Ok(entries);
        }
        let offers: Vec<String> = entries
            .iter()
            .map(|entry| {
                let dtypes: Vec<String> = entry.offer.dtypes.iter().map(DtypeSet::to_string).collect();
                format!("{} offers {}", entry.name, dtypes.join(", "))
            })
            .collect();
        let narrowed: Vec<Entry> = entries
            .into_iter()
            .filter_map(|mut entry| {
                entry.offer.dtypes.retain(|dtypes| self.dtype.contains(dtypes));
                (!entry.offer.dtypes.is_empty()).then_some(entry)
            })
            .collect();
        if narrowed.is_empty() {
            return Err(Error::Usage(format!("no kernel offers that dtype: {}", offers.join("; "))));
        }
        Ok(narrowed)
    }

    fn contenders(&self) -> Result<Vec<Arc<dyn Contender>>, Error> {
        let device = self.device();
        if device != Device::Cpu && !self.plugin.is_empty() {
            return Err(Error::Usage(format!(
                "a shared library's kernels run on the CPU: leave out --device {device}"
            )));
        }
        if device == Device::Cpu && !(self.cuda.is_empty() && self.triton.is_empty()) {
            return Err(Error::Usage(
                "CUDA kernels cannot run on the CPU itself: leave out --device, or give ptx or cuda".to_owned(),
            ));
        }
        if !(self.cuda.is_empty() && self.triton.is_empty()) {
            let cuda = self.cuda.iter().map(|path| Ok(Library::open(path)?));
            let libraries =
                cuda.chain(self.triton.iter().map(|what| triton(what))).collect::<Result<Vec<_>, Error>>()?;
            return of_manifests(libraries, device, self.arch.as_deref());
        }
        if self.plugin.is_empty() {
            return builtin_for(device, self.arch.as_deref());
        }
        if !(self.call_limit > 0.0 && self.call_limit < 1e6) {
            return Err(Error::Usage(format!("--call-limit is {}: give seconds above 0", self.call_limit)));
        }
        let limits = Limits { time: Duration::from_secs_f64(self.call_limit), memory: self.memory_limit << 20 };
        let mut contenders = Vec::new();
        for path in &self.plugin {
            contenders.extend(Plugin::open(path, limits)?.contenders());
        }
        Ok(contenders)
    }

    /// What the kernels run on.
    pub(super) fn device(&self) -> Device {
        self.device.unwrap_or(if self.cuda.is_empty() && self.triton.is_empty() { Device::Cpu } else { Device::Ptx })
    }

    /// What to add to a replay line so that it finds the same kernels.
    pub(super) fn replay(&self) -> String {
        self.sources().into_iter().map(|word| format!(" {word}")).collect()
    }

    /// Whether element types were asked for.
    pub(super) fn asks_for_dtypes(&self) -> bool {
        !self.dtype.is_empty()
    }

    /// What a verb was asked, for records.
    pub(super) fn text(&self, verb: &str) -> String {
        [vec![verb.to_owned()], self.words()].concat().join(" ")
    }

    /// The arguments that select the same kernels again.
    pub(super) fn words(&self) -> Vec<String> {
        let dtypes: Vec<String> = self.dtype.iter().map(DtypeSet::to_string).collect();
        let half = self.direction.map(|half| vec![format!("{half:?}").to_lowercase()]).unwrap_or_default();
        let lists = [("--op", &self.op), ("--kernel", &self.kernel), ("--direction", &half), ("--dtype", &dtypes)];
        let lists = lists.into_iter().filter(|(_, items)| !items.is_empty());
        let lists = lists.flat_map(|(name, items)| [name.to_owned(), items.join(",")]);
        lists.chain(self.sources()).collect()
    }

    /// The arguments that say where kernels come from.
    fn sources(&self) -> Vec<String> {
        let device = self.device.iter().flat_map(|device| ["--device".to_owned(), device.to_string()]);
        let arch = self.arch.iter().flat_map(|arch| ["--arch".to_owned(), arch.clone()]);
        let files = [("--plugin", &self.plugin), ("--cuda", &self.cuda)];
        let files = files.into_iter().flat_map(|(option, paths)| paths.iter().map(move |path| (option, path)));
        let triton = self.triton.iter().flat_map(|what| ["--triton".to_owned(), what.clone()]);
        device
            .chain(arch)
            .chain(files.flat_map(|(option, path)| [option.to_owned(), path.display().to_string()]))
            .chain(triton)
            .collect()
    }

    /// Adds what a policy selects to what the command line does not.
    pub(super) fn or(
        mut self,
        operators: &[String],
        kernels: &[String],
        dtypes: &[String],
    ) -> Result<Selection, Error> {
        for (own, other) in [(&mut self.op, operators), (&mut self.kernel, kernels)] {
            if own.is_empty() {
                *own = other.to_vec();
            }
        }
        if self.dtype.is_empty() {
            let parsed: Result<Vec<DtypeSet>, _> = dtypes.iter().map(|dtype| dtype.parse()).collect();
            self.dtype = parsed.map_err(|error| Error::Usage(format!("in the policy: {error}")))?;
        }
        Ok(self)
    }

    /// The same library, narrowed to these kernels and element types.
    pub(super) fn only(&self, kernels: Vec<String>, dtypes: Vec<DtypeSet>) -> Selection {
        Selection { op: Vec::new(), kernel: kernels, direction: None, dtype: dtypes, ..self.clone() }
    }
}

/// An architecture: `sm_90`, `sm_90a`.
fn arch(text: &str) -> Result<String, String> {
    let digits = text.strip_prefix("sm_").map(|number| number.trim_end_matches(['a', 'f']));
    match digits {
        Some(digits) if digits.parse::<u32>().is_ok() => Ok(text.to_owned()),
        _ => Err("give an architecture such as sm_80 or sm_90".to_owned()),
    }
}

/// The kernels of a manifest that launch a Triton function: `F.py:KERNEL`, or all of them: `F.py`.
fn triton(what: &str) -> Result<Library, Error> {
    let (file, function) = match what.rsplit_once(':') {
        Some((file, function)) if !function.contains('/') => (file, Some(function)),
        _ => (what, None),
    };
    if !file.ends_with(".py") {
        return Err(Error::Usage(format!("--triton is {what}: give a Python file and a function in it, F.py:KERNEL")));
    }
    let mut library = Library::open(Path::new(file))?;
    let Some(function) = function else { return Ok(library) };
    let launches = |kernel: &Kernel| kernel.launches.iter().any(|launch| launch.entry.text == function);
    let known: BTreeSet<&str> =
        library.kernels.iter().flat_map(|kernel| &kernel.launches).map(|launch| &*launch.entry.text).collect();
    if !known.contains(function) {
        let known = known.into_iter().collect::<Vec<_>>().join(", ");
        return Err(Error::Usage(format!("{} launches no `{function}`; it launches {known}", library.name)));
    }
    library.kernels.retain(launches);
    Ok(library)
}

/// The kernels that come with isonorm, for a device.
pub(super) fn builtin(device: Device) -> Result<Vec<Arc<dyn Contender>>, Error> {
    builtin_for(device, None)
}

fn builtin_for(device: Device, arch: Option<&str>) -> Result<Vec<Arc<dyn Contender>>, Error> {
    match device {
        Device::Ptx | Device::Cuda => of_manifests(Library::built_in()?, device, arch),
        Device::Cpu => {
            let kernels = isonorm_kernels::builtin().into_iter();
            Ok(kernels.map(|kernel| Arc::new(InProcess::new(kernel)) as Arc<dyn Contender>).collect())
        }
    }
}

/// The kernels of manifests, on the executor or on the GPU, compiled for an architecture if one is asked for.
fn of_manifests(libraries: Vec<Library>, device: Device, arch: Option<&str>) -> Result<Vec<Arc<dyn Contender>>, Error> {
    let gpu = if device == Device::Cuda { Some(Arc::new(Gpu::open()?)) } else { None };
    let arch = arch.or(gpu.as_ref().map(|gpu| &*gpu.arch));
    let mut contenders: Vec<Arc<dyn Contender>> = Vec::new();
    for mut library in libraries {
        if let Some(arch) = arch {
            library.source.arch = arch.to_owned();
        }
        for kernel in Executed::of(library, Cache::of_user())? {
            contenders.push(match &gpu {
                Some(gpu) => Arc::new(OnGpu::new(kernel.on(gpu.sms), Arc::clone(gpu))),
                None => Arc::new(kernel),
            });
        }
    }
    Ok(contenders)
}

/// Compiles what has to be compiled, on all cores, and says how far it is where that takes long.
pub(super) fn prepare(entries: &[Entry]) -> Result<(), Error> {
    const QUIET: Duration = Duration::from_secs(5);
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let failed: Mutex<Option<RunError>> = Mutex::default();
    let work = || {
        while let Some(entry) = entries.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(error) = entry.contender.prepare(&entry.offer.dtypes) {
                failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                next.store(entries.len(), Ordering::Relaxed);
            }
            done.fetch_add(1, Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..machine::cores().min(entries.len())).map(|_| scope.spawn(work)).collect();
        let mut told = Instant::now();
        while !workers.iter().all(ScopedJoinHandle::is_finished) {
            std::thread::sleep(Duration::from_millis(2));
            if told.elapsed() > QUIET {
                eprintln!("compiling: {} of {} kernels are ready", done.load(Ordering::Relaxed), entries.len());
                told = Instant::now();
            }
        }
    });
    failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), |error| Err(error.into()))
}
