//! What the bootstrap asks of the machine it runs on. Tests plant faults here.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::{At, Error};
use crate::part::Part;

pub struct Machine {
    /// Operating system, architecture and C library, such as `linux-x86_64-gnu`.
    pub platform: String,
    /// Where programs are looked for.
    pub path: OsString,
    /// Environment variables that name folders. `LIBTORCH` is also set, to its default, by `.cargo/config.toml`.
    pub variables: BTreeMap<&'static str, PathBuf>,
    /// The C++ compiler as torch-sys will call it, with any leading wrapper.
    pub compiler: String,
    /// Bytes that an unprivileged user can still write in a folder.
    pub free_space: fn(&Path) -> Result<u64, Error>,
}

impl Machine {
    pub fn here() -> Self {
        let c_library = if cfg!(target_env = "gnu") { "gnu" } else { "other" };
        Machine {
            platform: format!("{}-{}-{c_library}", env::consts::OS, env::consts::ARCH),
            path: env::var_os("PATH").unwrap_or_default(),
            variables: ["LIBTORCH", "ISONORM_NVRTC", "CUDA_HOME", "CUDA_PATH"]
                .into_iter()
                .filter_map(|name| Some((name, env::var_os(name).filter(|value| !value.is_empty())?.into())))
                .collect(),
            compiler: env::var("CXX").unwrap_or_else(|_| "c++".to_owned()),
            free_space,
        }
    }

    /// The folder that an environment variable names.
    pub fn variable(&self, name: &str) -> Option<&Path> {
        self.variables.get(name).map(PathBuf::as_path)
    }

    /// A command that is looked for on this machine's path.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env("PATH", &self.path).stdin(Stdio::null());
        command
    }

    /// Whether a command can be started and succeeds; its output is thrown away.
    pub fn runs(&self, program: &str, arguments: &[&str]) -> bool {
        self.command(program)
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }

    pub fn require_compiler(&self) -> Result<(), Error> {
        let mut words: Vec<&str> = self.compiler.split_whitespace().collect();
        words.push("--version");
        if self.runs(words[0], &words[1..]) {
            return Ok(());
        }
        Err(Error::NoCompiler { program: self.compiler.clone() })
    }

    pub fn require_space(&self, part: &'static Part, folder: &Path, needed: u64) -> Result<(), Error> {
        let free = (self.free_space)(folder)?;
        if free >= needed {
            return Ok(());
        }
        Err(Error::LittleDisk { part, folder: folder.to_owned(), needed, free })
    }

    /// A Python that has pip.
    pub fn require_pip(&self, part: &'static Part) -> Result<&'static str, Error> {
        let mut without_pip = None;
        for python in PYTHONS {
            if self.runs(python, &["-m", "pip", "--version"]) {
                return Ok(python);
            }
            if self.runs(python, &["--version"]) {
                without_pip.get_or_insert(python);
            }
        }
        Err(match without_pip {
            Some(python) => Error::NoPip { part, python: python.to_owned() },
            None => Error::NoPython { part },
        })
    }
}

/// The names a Python goes by; in an active environment the first is that environment's.
pub const PYTHONS: [&str; 2] = ["python3", "python"];

fn free_space(folder: &Path) -> Result<u64, Error> {
    let system =
        nix::sys::statvfs::statvfs(folder).map_err(std::io::Error::from).at("ask for the free space of", folder)?;
    // The types differ between platforms.
    #[allow(clippy::useless_conversion, clippy::unnecessary_cast)]
    Ok(u64::from(system.blocks_available()) * system.fragment_size() as u64)
}
