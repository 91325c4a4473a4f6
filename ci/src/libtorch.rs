//! Puts a libtorch at `target/libtorch`, where `.cargo/config.toml` and the programs' run path expect it.
//!
//! `target/libtorch` is a symbolic link to the libtorch in use: the user's own, a Python environment's, or one unpacked
//! beside it. So it is exchanged in one step and never seen half done. In order of preference:
//!
//! 1. the folder in the environment variable `LIBTORCH`;
//! 2. what `target/libtorch` already leads to, if it is sound;
//! 3. the PyTorch of the Python on the path, if it is of the right version;
//! 4. the CPU part from the package registry's wheel (see [`crate::wheels`]).

use std::env::consts::DLL_SUFFIX;
use std::fmt::Write as _;
use std::fs::{self, File, TryLockError};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::error::{At, Error};
use crate::machine::{Machine, PYTHONS};
use crate::wheels::Wheels;
use crate::workspace::Workspace;

/// The one version that the `tch` in `Cargo.toml` binds.
pub const VERSION: &str = "2.11.0";

/// The libtorch made of wheels, beside the link to it: a relative link, so that the workspace can be moved.
const UNPACKED: &str = "libtorch-2.11.0-cpu";

/// Sizes of the libraries that were unpacked, one `SIZE NAME` a line, to notice a damaged copy.
const MANIFEST: &str = "isonorm-manifest";

/// Why a folder is not the libtorch that is needed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("it has no {0}")]
    Missing(String),
    #[error("it is version {0}, and {VERSION} is needed")]
    Version(String),
    #[error("{0} is damaged")]
    Damaged(String),
}

/// Puts libtorch in place and says where builds are to find it (the value of `LIBTORCH`).
pub fn ensure(workspace: &Workspace, machine: &Machine, wheels: Option<&Wheels>) -> Result<PathBuf, Error> {
    let place = Place::new(workspace)?;
    let default = workspace.libtorch();
    let own = machine.libtorch.as_ref().filter(|path| **path != default);
    let libtorch = match own {
        Some(path) => {
            let path = std::path::absolute(path).at("resolve", path)?;
            check(&path).map_err(|fault| Error::UserLibtorch { path: path.clone(), fault })?;
            if !leads_to(&place.link, &path) {
                machine.require_compiler()?;
                place.lead_to(&path)?;
            }
            path
        }
        None => {
            place.provide(machine, wheels)?;
            default.clone()
        }
    };
    place.serve_other_target(&workspace.target)?;
    Ok(libtorch)
}

/// `target/` of the workspace and what lies there.
struct Place {
    folder: PathBuf,
    link: PathBuf,
}

impl Place {
    fn new(workspace: &Workspace) -> Result<Self, Error> {
        let link = workspace.libtorch();
        let folder = link.parent().unwrap_or(&workspace.root).to_owned();
        fs::create_dir_all(&folder).at("create", &folder)?;
        Ok(Place { folder, link })
    }

    fn provide(&self, machine: &Machine, wheels: Option<&Wheels>) -> Result<(), Error> {
        if check(&self.link).is_ok() {
            return Ok(());
        }
        let _lock = self.lock()?;
        // Another process may have done it meanwhile.
        match check(&self.link) {
            Ok(()) => return Ok(()),
            Err(fault) if self.link.is_symlink() || self.link.exists() => {
                eprintln!("isonorm: {} is replaced: {fault}", self.link.display());
            }
            Err(_) => {}
        }
        if check(&self.folder.join(UNPACKED)).is_ok() {
            return self.lead_to(Path::new(UNPACKED));
        }
        // torch-sys needs it in a moment: better to say so before a long download.
        machine.require_compiler()?;
        if let Some(torch) = python_torch(machine) {
            eprintln!("isonorm: using the libtorch of {}", torch.display());
            return self.lead_to(&torch);
        }
        let wheels = wheels.ok_or_else(|| Error::UnsupportedPlatform { platform: machine.platform.clone() })?;
        machine.require_space(&self.folder, wheels.bytes)?;
        let python = machine.require_pip()?;
        eprintln!(
            "isonorm: getting libtorch {VERSION} (its CPU part) from the package registry into {}; this happens once",
            self.link.display()
        );
        self.unpack(machine, python, wheels)?;
        self.lead_to(Path::new(UNPACKED))
    }

    /// Held while libtorch is put in place, and released when the file is closed, however the process ends.
    fn lock(&self) -> Result<File, Error> {
        let path = self.folder.join(".libtorch.lock");
        let lock = File::create(&path).at("create", &path)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                eprintln!("isonorm: waiting for another process that puts libtorch in place");
                lock.lock().at("lock", path)?;
            }
            Err(TryLockError::Error(error)) => return Err(error).at("lock", path),
        }
        Ok(lock)
    }

    /// Makes a libtorch of wheels, and moves it into place only when it is complete.
    fn unpack(&self, machine: &Machine, python: &str, wheels: &Wheels) -> Result<(), Error> {
        // One that was interrupted leaves its folder behind; the lock says that nobody uses it.
        let scratch = self.folder.join(".libtorch-unfinished");
        remove(&scratch)?;
        fs::create_dir_all(&scratch).at("create", &scratch)?;
        let fresh = scratch.join("libtorch");
        let result = wheels
            .fetch(machine, python, &scratch, &fresh)
            .and_then(|()| seal(&fresh))
            .and_then(|()| check(&fresh).map_err(Error::BadWheel))
            .and_then(|()| {
                let home = self.folder.join(UNPACKED);
                remove(&home)?;
                fs::rename(&fresh, &home).at("create", home)
            });
        remove(&scratch)?;
        result
    }

    /// Makes `target/libtorch` lead to a folder.
    fn lead_to(&self, folder: &Path) -> Result<(), Error> {
        link(&self.link, folder)
    }

    /// Programs look for libtorch beside the folder they were built in, so another target folder needs a link too.
    fn serve_other_target(&self, target: &Path) -> Result<(), Error> {
        if target == self.folder {
            return Ok(());
        }
        fs::create_dir_all(target).at("create", target)?;
        link(&target.join("libtorch"), &self.link)
    }
}

fn leads_to(from: &Path, to: &Path) -> bool {
    fs::read_link(from).is_ok_and(|now| now == to)
}

/// Makes `from` a symbolic link to `to`, in one step.
fn link(from: &Path, to: &Path) -> Result<(), Error> {
    if leads_to(from, to) {
        return Ok(());
    }
    if from.is_dir() && !from.is_symlink() {
        remove(from)?;
    }
    let fresh = from.with_extension(format!("new-{}", std::process::id()));
    remove(&fresh)?;
    symlink(to, &fresh).at("create", &fresh)?;
    fs::rename(&fresh, from).at("create", from)
}

fn remove(path: &Path) -> Result<(), Error> {
    let result = match fs::symlink_metadata(path) {
        Err(_) => Ok(()),
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
    };
    result.at("remove", path)
}

/// Writes the manifest and the version, which torch-sys checks too.
fn seal(libtorch: &Path) -> Result<(), Error> {
    let folder = libtorch.join("lib");
    let mut manifest = String::new();
    for entry in fs::read_dir(&folder).at("list", &folder)? {
        let entry = entry.at("list", &folder)?;
        let size = entry.metadata().at("read", entry.path())?.len();
        let _ = writeln!(manifest, "{size} lib/{}", entry.file_name().to_string_lossy());
    }
    for (name, text) in [(MANIFEST, manifest.as_str()), ("build-version", VERSION)] {
        let path = libtorch.join(name);
        fs::write(&path, text).at("write", path)?;
    }
    Ok(())
}

/// Whether a folder is a complete libtorch of the right version.
fn check(libtorch: &Path) -> Result<(), Fault> {
    for library in ["c10", "torch_cpu", "torch"] {
        require(libtorch, &format!("lib/lib{library}{DLL_SUFFIX}"))?;
    }
    require(libtorch, "include/torch/csrc/api/include/torch/torch.h")?;
    if let Some(version) = version(libtorch)
        && version != VERSION
    {
        return Err(Fault::Version(version));
    }
    let manifest = fs::read_to_string(libtorch.join(MANIFEST)).unwrap_or_default();
    for line in manifest.lines() {
        let (size, name) = line.split_once(' ').unwrap_or((line, MANIFEST));
        let found = require(libtorch, name)?;
        if size.parse() != Ok(found) {
            return Err(Fault::Damaged(name.to_owned()));
        }
    }
    Ok(())
}

/// The size of a file that must be there.
fn require(libtorch: &Path, name: &str) -> Result<u64, Fault> {
    match fs::metadata(libtorch.join(name)) {
        Ok(found) if found.is_file() => Ok(found.len()),
        _ => Err(Fault::Missing(name.to_owned())),
    }
}

/// The version a folder states, as libtorch's own downloads or as PyTorch's Python package do, without a suffix such as
/// `+cpu`. A folder that states none is taken at its word.
fn version(libtorch: &Path) -> Option<String> {
    let number = |text: &str| text.trim().split('+').next().map(str::to_owned);
    if let Ok(text) = fs::read_to_string(libtorch.join("build-version")) {
        return number(&text);
    }
    let text = fs::read_to_string(libtorch.join("version.py")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("__version__ = "))?;
    number(line.trim_matches(['\'', '"']))
}

/// The PyTorch of the active Python, if it is one to build against. Importing it proves that its libraries load.
fn python_torch(machine: &Machine) -> Option<PathBuf> {
    const QUESTION: &str = "import torch, os; \
        print('isonorm', int(torch._C._GLIBCXX_USE_CXX11_ABI), os.path.dirname(torch.__file__))";
    PYTHONS.iter().find_map(|python| {
        let output = machine.command(python).args(["-c", QUESTION]).output().ok()?;
        let words = String::from_utf8(output.stdout).ok()?;
        let folder = words.lines().find_map(|line| line.strip_prefix("isonorm 1 "))?;
        let folder = PathBuf::from(folder);
        match check(&folder) {
            Ok(()) => Some(folder),
            Err(fault) => {
                eprintln!("isonorm: the libtorch of {} is not used: {fault}", folder.display());
                None
            }
        }
    })
}
