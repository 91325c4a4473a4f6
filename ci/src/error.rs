//! Why the question could not be asked. Every message says what is wrong and what to do.

use std::io;
use std::path::PathBuf;

use crate::part::{Fault, Part};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "{}={} cannot be used: {fault}. Point {} to the folder of a {part} (with lib/ and include/ in it), or unset it \
         and isonorm gets one by itself", part.variable, path.display(), part.variable
    )]
    Own { part: &'static Part, path: PathBuf, fault: Fault },

    #[error(
        "isonorm can get {} only for Linux on x86_64 and aarch64 with glibc, and this is {platform}. Get {part} yourself \
         and set {} to its folder", part.name, part.variable
    )]
    UnsupportedPlatform { part: &'static Part, platform: String },

    #[error(
        "there is no C++ compiler: `{program} --version` does not run. Install one (the package g++ or clang) or name \
         it in the environment variable CXX"
    )]
    NoCompiler { program: String },

    #[error(
        "there is no python3 on PATH, and isonorm needs it to get {}. Install Python 3 with pip, or set {} to the folder \
         of a {part}", part.name, part.variable
    )]
    NoPython { part: &'static Part },

    #[error(
        "`{python} -m pip` does not run, and isonorm needs it to get {}. Install pip (the package python3-pip, or \
         `{python} -m ensurepip`), or set {} to the folder of a {part}", part.name, part.variable
    )]
    NoPip { part: &'static Part, python: String },

    #[error(
        "too little disk: getting {} takes {} MB in {} for a moment, and {} MB are free. Make room, or set \
         CARGO_TARGET_DIR and {} to places that have it",
        part.name, needed / 1_000_000, folder.display(), free / 1_000_000, part.variable
    )]
    LittleDisk { part: &'static Part, folder: PathBuf, needed: u64, free: u64 },

    #[error(
        "the package registry cannot be reached (pip's own words are above). Check the network and any proxy or mirror \
         in pip's configuration, or set {} to the folder of a {part}", part.variable
    )]
    NoNetwork { part: &'static Part },

    #[error(
        "a downloaded file is not the one isonorm knows: its SHA-256 checksum differs (pip's own words are above). \
         Nothing of it was used. Try again; if it stays so, do not trust the mirror in pip's configuration"
    )]
    BadChecksum,

    #[error("pip could not download {}; its own words are above", part.name)]
    Pip { part: &'static Part },

    #[error("the downloaded {} is not complete: {fault}. Please report this", part.name)]
    BadWheel { part: &'static Part, fault: Fault },

    #[error("the build failed; cargo's own words are above")]
    Build,

    #[error("`{program}` gave an answer that isonorm does not understand: {reason}")]
    Answer { program: &'static str, reason: String },

    #[error("could not {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },

    #[error("could not read the downloaded {}: {source}", path.display())]
    Unzip { path: PathBuf, source: zip::result::ZipError },
}

/// Gives an I/O error its place: `fs::rename(a, b).at("rename", a)?`.
pub trait At<T> {
    fn at(self, action: &'static str, path: impl Into<PathBuf>) -> Result<T, Error>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, action: &'static str, path: impl Into<PathBuf>) -> Result<T, Error> {
        self.map_err(|source| Error::Io { action, path: path.into(), source })
    }
}
