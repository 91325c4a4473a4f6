//! From a source to PTX.

mod cache;
mod locate;
mod nvrtc;
mod triton;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::launch::Step;

pub use cache::Cache;
pub use locate::{Nvrtc, locate};
pub use triton::{Triton, triton};

/// What a source is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// CUDA C++, compiled by NVRTC.
    Cuda,
    /// PTX: taken as it is.
    Ptx,
    /// Triton, in Python.
    Triton,
}

impl Language {
    /// The language of a file, by its name.
    pub fn of(file: &Path) -> Option<Language> {
        match file.extension()?.to_str()? {
            "cu" => Some(Language::Cuda),
            "ptx" => Some(Language::Ptx),
            "py" => Some(Language::Triton),
            _ => None,
        }
    }
}

/// What kernels are compiled from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The file's name.
    pub name: String,
    /// The file, where there is one.
    pub path: Option<PathBuf>,
    /// What it is written in.
    pub language: Language,
    /// The file.
    pub text: String,
    /// Further files, with the names that it includes them by.
    pub include: Vec<(String, String)>,
    /// Options for the compiler.
    pub options: Vec<String>,
    /// The architecture, such as `sm_90`.
    pub arch: String,
}

/// The PTX of one launch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compiled {
    /// The module.
    pub ptx: String,
    /// The kernel's name in it.
    pub name: String,
    /// Threads of a block, where the compiler decides them.
    pub block: Option<[u32; 3]>,
    /// Blocks of a cluster, where the compiler decides them.
    pub cluster: Option<[u32; 3]>,
    /// Bytes of dynamic shared memory, where the compiler decides them.
    pub shared: Option<u32>,
    /// The places of the arguments that are left, where the compiler makes constants of others.
    pub arguments: Option<Vec<usize>>,
    /// Null pointers that the compiler wants behind the arguments.
    pub nulls: usize,
}

/// What a kernel takes of a multiprocessor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resources {
    /// Registers of a thread.
    pub registers: u32,
    /// Bytes of a thread's own memory.
    pub stack: u32,
    /// Bytes that a thread stores to it, or loads, because registers do not suffice: the more of the two.
    pub spills: u32,
}

impl Resources {
    /// What a report of the assembler says.
    fn of(report: &str) -> Option<Self> {
        let words: Vec<&str> = report.split_whitespace().collect();
        let before = |after: &[&str]| {
            let found = words.windows(after.len() + 1).filter(|words| words[1..] == *after);
            found.filter_map(|words| words[0].parse::<u32>().ok()).max()
        };
        Some(Resources {
            registers: before(&["registers,"]).or_else(|| before(&["registers"]))?,
            stack: before(&["bytes", "stack", "frame,"])?,
            spills: before(&["bytes", "spill", "stores,"])?.max(before(&["bytes", "spill", "loads"])?),
        })
    }
}

/// Why there is no PTX.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CompileError {
    /// There is no NVRTC.
    #[error(
        "there is no NVRTC, which compiles CUDA C++ to PTX ({0}): run `cargo isonorm`, which fetches it, or `pip install \
         nvidia-cuda-nvrtc==13.0.88 nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85` and set ISONORM_NVRTC to the \
         folder nvidia/cu13 that it makes"
    )]
    NoNvrtc(String),
    /// NVRTC itself fails.
    #[error("NVRTC fails in {call}: {reason}")]
    Nvrtc {
        /// The call.
        call: &'static str,
        /// What it says.
        reason: String,
    },
    /// The compiler refuses the source.
    #[error("{file} does not compile for `{entry}`:\n{log}")]
    Refused {
        /// The source.
        file: String,
        /// What was asked for.
        entry: String,
        /// What the compiler says.
        log: String,
    },
    /// There is no compiler for the language here.
    #[error("{0}")]
    Unavailable(String),
}

impl Source {
    /// The architecture as a number: 90 for `sm_90` and `sm_90a`; 0 for another name.
    pub fn arch_number(&self) -> u32 {
        let number = self.arch.strip_prefix("sm_").map(|number| number.trim_end_matches(char::is_alphabetic));
        number.and_then(|number| number.parse().ok()).unwrap_or_default()
    }

    /// The PTX of what a launch runs: from the cache if it is there. `aligned` says whether the tensors start at multiples of 16
    /// bytes, which compilers that look at arguments may use.
    ///
    /// # Errors
    /// If there is no compiler, or it refuses the source: with its log.
    pub fn compile(&self, step: &Step, aligned: bool, cache: &Cache) -> Result<Compiled, CompileError> {
        match self.language {
            Language::Ptx => Ok(Compiled::new(self.text.clone(), step.entry.clone())),
            Language::Cuda => {
                let nvrtc = locate()?;
                let key = self.key(&nvrtc.version, &step.entry);
                cache.get(&key, || nvrtc::compile(nvrtc, self, &step.entry))
            }
            // Triton has a cache of its own, which also knows what the file imports.
            Language::Triton => triton()?.compile(self, step, aligned),
        }
    }

    /// What the assembler makes of instantiations for the source's architecture, in order.
    ///
    /// # Errors
    /// If the source is no CUDA C++, or there is no NVRTC, or it refuses the source or says nothing of registers.
    pub fn resources(&self, entries: &[&str]) -> Result<Vec<Resources>, CompileError> {
        if self.language != Language::Cuda {
            return Err(CompileError::Unavailable(format!("{} is no CUDA C++, which alone is assembled", self.name)));
        }
        let (names, report) = nvrtc::report(locate()?, self, entries)?;
        // `ptxas info : Compiling entry function 'NAME' for 'sm_90'`, and then what that takes.
        let parts: Vec<(&str, &str)> =
            report.split("Compiling entry function '").skip(1).filter_map(|part| part.split_once('\'')).collect();
        let of = |(entry, name): (&&str, &String)| {
            let part = parts.iter().find(|(own, _)| own == name);
            part.and_then(|(_, part)| Resources::of(part)).ok_or_else(|| CompileError::Refused {
                file: self.name.clone(),
                entry: (*entry).to_owned(),
                log: report.clone(),
            })
        };
        entries.iter().zip(&names).map(of).collect()
    }

    /// What decides the PTX.
    fn key(&self, compiler: &str, instance: &str) -> String {
        let mut digest = Sha256::new();
        let mut add = |text: &str| {
            // With its length, so that two texts are not taken for one.
            digest.update((text.len() as u64).to_le_bytes());
            digest.update(text);
        };
        for text in [env!("CARGO_PKG_VERSION"), compiler, &self.arch, instance, &self.name, &self.text] {
            add(text);
        }
        self.options.iter().for_each(|option| add(option));
        add("");
        self.include.iter().for_each(|(name, text)| [name, text].into_iter().for_each(|text| add(text)));
        crate::library::hexadecimal(&digest.finalize())
    }
}

impl Compiled {
    /// A kernel of which the launch decides everything.
    pub fn new(ptx: String, name: String) -> Self {
        Compiled { ptx, name, block: None, cluster: None, shared: None, arguments: None, nulls: 0 }
    }
}
