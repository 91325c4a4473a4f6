//! What the workspace needs beside itself, and how it comes to lie at `target/NAME`.
//!
//! `target/NAME` is a symbolic link to the copy in use: the user's own, one that the machine has, or one unpacked beside
//! it. So it is exchanged in one step and never seen half done. In order of preference:
//!
//! 1. the folder in the part's environment variable;
//! 2. what `target/NAME` already leads to, if it is sound;
//! 3. a copy that the machine has;
//! 4. one made of the package registry's wheels (see [`crate::wheels`]).

use std::fmt;
use std::fmt::Write as _;
use std::fs::{self, File, TryLockError};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::error::{At, Error};
use crate::machine::{Machine, PYTHONS};
use crate::wheels::Wheels;
use crate::workspace::Workspace;

/// Sizes of the libraries that were unpacked, one `SIZE NAME` a line, to notice a damaged copy.
const MANIFEST: &str = "isonorm-manifest";

/// Something that is needed and can be had from wheels.
pub struct Part {
    /// Its name in messages, and the link's below `target`.
    pub name: &'static str,
    pub version: &'static str,
    /// The folder that the wheels are unpacked into, beside the link to it.
    pub unpacked: &'static str,
    /// The environment variable that names the user's own copy.
    pub variable: &'static str,
    /// Whether a folder is complete and of the right version.
    pub check: fn(&Path) -> Result<(), Fault>,
    /// What has to be there before a copy is put in place.
    pub require: fn(&Machine) -> Result<(), Error>,
    /// Folders on this machine that may hold a copy, best first.
    pub elsewhere: fn(&Machine) -> Vec<PathBuf>,
    /// The wheels for a platform.
    pub wheels: fn(&str) -> Option<&'static Wheels>,
    /// What is left to do once the wheels are unpacked.
    pub finish: fn(&Path) -> Result<(), Error>,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.version)
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a folder is not the copy that is needed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("it has no {0}")]
    Missing(String),
    #[error("it is version {found}, and {needed} is needed")]
    Version { found: String, needed: &'static str },
    #[error("{0} is damaged")]
    Damaged(String),
}

impl Part {
    /// Puts the part in place and says where it is to be found (the value of its environment variable).
    pub fn ensure(&'static self, workspace: &Workspace, machine: &Machine) -> Result<PathBuf, Error> {
        let place = Place::new(self, workspace)?;
        let own = machine.variable(self.variable).filter(|path| **path != *place.link);
        let found = match own {
            Some(path) => {
                let path = std::path::absolute(path).at("resolve", path)?;
                self.check(&path).map_err(|fault| Error::Own { part: self, path: path.clone(), fault })?;
                if !leads_to(&place.link, &path) {
                    (self.require)(machine)?;
                    link(&place.link, &path)?;
                }
                path
            }
            None => {
                place.provide(machine)?;
                place.link.clone()
            }
        };
        place.serve_other_target(&workspace.target)?;
        Ok(found)
    }

    fn check(&self, folder: &Path) -> Result<(), Fault> {
        (self.check)(folder)?;
        let manifest = fs::read_to_string(folder.join(MANIFEST)).unwrap_or_default();
        for line in manifest.lines() {
            let (size, name) = line.split_once(' ').unwrap_or((line, MANIFEST));
            let found = require_file(folder, name)?;
            if size.parse() != Ok(found) {
                return Err(Fault::Damaged(name.to_owned()));
            }
        }
        Ok(())
    }
}

/// The size of a file that must be there.
pub fn require_file(folder: &Path, name: &str) -> Result<u64, Fault> {
    match fs::metadata(folder.join(name)) {
        Ok(found) if found.is_file() => Ok(found.len()),
        _ => Err(Fault::Missing(name.to_owned())),
    }
}

/// What Pythons print after the word `isonorm` when they run a line of code.
pub fn ask_pythons(machine: &Machine, code: &str) -> Vec<String> {
    let outputs = PYTHONS.iter().filter_map(|python| machine.command(python).args(["-c", code]).output().ok());
    let texts: Vec<String> = outputs.filter_map(|output| String::from_utf8(output.stdout).ok()).collect();
    texts
        .iter()
        .flat_map(|text| text.lines())
        .filter_map(|line| line.strip_prefix("isonorm "))
        .map(str::to_owned)
        .collect()
}

/// `target/` of the workspace, and where a part lies there.
struct Place {
    part: &'static Part,
    folder: PathBuf,
    link: PathBuf,
}

impl Place {
    fn new(part: &'static Part, workspace: &Workspace) -> Result<Self, Error> {
        let folder = workspace.root.join("target");
        fs::create_dir_all(&folder).at("create", &folder)?;
        Ok(Place { part, link: folder.join(part.name), folder })
    }

    fn provide(&self, machine: &Machine) -> Result<(), Error> {
        let part = self.part;
        if part.check(&self.link).is_ok() {
            return Ok(());
        }
        let _lock = self.lock()?;
        // Another process may have done it meanwhile.
        match part.check(&self.link) {
            Ok(()) => return Ok(()),
            Err(fault) if self.link.is_symlink() || self.link.exists() => {
                eprintln!("isonorm: {} is replaced: {fault}", self.link.display());
            }
            Err(_) => {}
        }
        // A relative link, so that the workspace can be moved.
        let unpacked = Path::new(part.unpacked);
        if part.check(&self.folder.join(unpacked)).is_ok() {
            return link(&self.link, unpacked);
        }
        // Better to say so before a long download.
        (part.require)(machine)?;
        for folder in (part.elsewhere)(machine) {
            match part.check(&folder) {
                Ok(()) => {
                    eprintln!("isonorm: using the {} of {}", part.name, folder.display());
                    return link(&self.link, &folder);
                }
                Err(fault) => eprintln!("isonorm: the {} of {} is not used: {fault}", part.name, folder.display()),
            }
        }
        let wheels = (part.wheels)(&machine.platform)
            .ok_or_else(|| Error::UnsupportedPlatform { part, platform: machine.platform.clone() })?;
        machine.require_space(part, &self.folder, wheels.bytes)?;
        let python = machine.require_pip(part)?;
        let place = self.link.display();
        eprintln!("isonorm: getting {part} from the package registry into {place}; this happens once");
        self.unpack(machine, python, wheels)?;
        link(&self.link, unpacked)
    }

    /// Held while the part is put in place, and released when the file is closed, however the process ends.
    fn lock(&self) -> Result<File, Error> {
        let path = self.folder.join(format!(".{}.lock", self.part.name));
        let lock = File::create(&path).at("create", &path)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                eprintln!("isonorm: waiting for another process that puts {} in place", self.part.name);
                lock.lock().at("lock", path)?;
            }
            Err(TryLockError::Error(error)) => return Err(error).at("lock", path),
        }
        Ok(lock)
    }

    /// Makes a copy of wheels, and moves it into place only when it is complete.
    fn unpack(&self, machine: &Machine, python: &str, wheels: &Wheels) -> Result<(), Error> {
        // One that was interrupted leaves its folder behind; the lock says that nobody uses it.
        let part = self.part;
        let scratch = self.folder.join(format!(".{}-unfinished", part.name));
        remove(&scratch)?;
        fs::create_dir_all(&scratch).at("create", &scratch)?;
        let fresh = scratch.join(part.name);
        let result = wheels
            .fetch(part, machine, python, &scratch)
            .and_then(|()| (part.finish)(&fresh))
            .and_then(|()| seal(&fresh))
            .and_then(|()| part.check(&fresh).map_err(|fault| Error::BadWheel { part, fault }))
            .and_then(|()| {
                let home = self.folder.join(part.unpacked);
                remove(&home)?;
                fs::rename(&fresh, &home).at("create", home)
            });
        remove(&scratch)?;
        result
    }

    /// Programs look for a part beside the folder they were built in, so another target folder needs a link too.
    fn serve_other_target(&self, target: &Path) -> Result<(), Error> {
        if target == self.folder {
            return Ok(());
        }
        fs::create_dir_all(target).at("create", target)?;
        link(&target.join(self.part.name), &self.link)
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

/// Writes the manifest.
fn seal(copy: &Path) -> Result<(), Error> {
    let folder = copy.join("lib");
    let mut manifest = String::new();
    for entry in fs::read_dir(&folder).at("list", &folder)? {
        let entry = entry.at("list", &folder)?;
        let size = entry.metadata().at("read", entry.path())?.len();
        let _ = writeln!(manifest, "{size} lib/{}", entry.file_name().to_string_lossy());
    }
    let path = copy.join(MANIFEST);
    fs::write(&path, manifest).at("write", path)
}
