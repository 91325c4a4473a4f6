//! Where NVRTC is.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::{env, fs};

use super::{CompileError, nvrtc};

/// NVRTC, opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nvrtc {
    /// Its version, such as `13.0`.
    pub version: String,
    /// Folders of headers.
    pub include: Vec<PathBuf>,
    /// Where it was found, for people.
    pub found: String,
}

/// NVRTC from `ISONORM_NVRTC`, from what `cargo isonorm` fetched, from a Python environment, or from the system; opened once.
///
/// # Errors
/// If there is none: where it was looked for, and what to do.
pub fn locate() -> Result<&'static Nvrtc, CompileError> {
    static FOUND: OnceLock<Result<Nvrtc, CompileError>> = OnceLock::new();
    FOUND.get_or_init(look).as_ref().map_err(Clone::clone)
}

fn look() -> Result<Nvrtc, CompileError> {
    if let Some(folder) = env::var_os("ISONORM_NVRTC").map(PathBuf::from) {
        let Some(library) = library(&folder) else {
            let what = format!("ISONORM_NVRTC is {}, where no lib/libnvrtc.so.13 is", folder.display());
            return Err(CompileError::NoNvrtc(what));
        };
        return open(&folder, Some(&library));
    }
    let folders = fetched().into_iter().chain(environments());
    // Asking Python takes a moment: only if nothing else was found.
    let mut folders = folders.chain(std::iter::once_with(of_python).flatten());
    if let Some((folder, library)) = folders.find_map(|folder| library(&folder).map(|library| (folder, library))) {
        return open(&folder, Some(&library));
    }
    open(Path::new("/usr/local/cuda"), None)
}

/// The library in a folder with `lib` and `include`, or with both together.
fn library(folder: &Path) -> Option<PathBuf> {
    let names = ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"];
    let folders = [folder.join("lib"), folder.join("lib64"), folder.to_owned()];
    folders.iter().flat_map(|folder| names.map(|name| folder.join(name))).find(|path| path.exists())
}

fn open(folder: &Path, library: Option<&Path>) -> Result<Nvrtc, CompileError> {
    let include =
        [folder.join("include"), folder.join("include/cccl")].into_iter().filter(|path| path.is_dir()).collect();
    let found = library.map_or_else(|| "the system's".to_owned(), |library| library.display().to_string());
    let version = nvrtc::open(library)?;
    Ok(Nvrtc { version, include, found })
}

/// What `cargo isonorm` puts beside the programs that it builds: `target/nvrtc`.
fn fetched() -> Option<PathBuf> {
    Some(env::current_exe().ok()?.parent()?.parent()?.join("nvrtc"))
}

/// The folders of active Python environments.
fn environments() -> Vec<PathBuf> {
    let active = ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(env::var_os);
    let pythons = active.filter_map(|folder| fs::read_dir(PathBuf::from(folder).join("lib")).ok()).flatten().flatten();
    pythons.map(|python| python.path().join("site-packages/nvidia/cu13")).collect()
}

/// The folder of the Python that a user would start.
fn of_python() -> Option<PathBuf> {
    let python = env::var_os("ISONORM_PYTHON").unwrap_or_else(|| "python3".into());
    let ask = ["-c", "import sysconfig; print(sysconfig.get_path('purelib'))"];
    let output = Command::new(python).args(ask).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    Some(Path::new(String::from_utf8(output.stdout).ok()?.trim()).join("nvidia/cu13"))
}
