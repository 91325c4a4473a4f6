//! A manifest with its sources: from files, or built in.

use std::path::{Path, PathBuf};
use std::{fs, io};

use sha2::{Digest, Sha256};

use crate::compile::{Language, Source};
use crate::manifest::{Kernel, Manifest, ManifestError};

/// Kernels and the source that they are compiled from.
#[derive(Clone, Debug)]
pub struct Library {
    /// The manifest's file; none for what is built in.
    pub path: Option<PathBuf>,
    /// The manifest's name, for messages.
    pub name: String,
    /// SHA-256 of the manifest and its sources, in hexadecimal.
    pub sha256: String,
    /// What is compiled.
    pub source: Source,
    /// The kernels.
    pub kernels: Vec<Kernel>,
}

/// Why there are no kernels.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LibraryError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}; check the path and its permissions", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A source without a manifest.
    #[error(
        "there is no {}, which says what the kernels of {} compute and how they are launched: write one, such as\n{}",
        manifest.display(),
        file.display(),
        example(file)
    )]
    NoManifest {
        /// Where it should be.
        manifest: PathBuf,
        /// The source.
        file: PathBuf,
    },
    /// The manifest is about another source.
    #[error("{} is about {named}, not about {}: give the manifest itself, or name that file in it", manifest.display(), file.display())]
    OtherSource {
        /// The manifest.
        manifest: PathBuf,
        /// The source that was asked for.
        file: PathBuf,
        /// The source that the manifest names.
        named: String,
    },
    /// A file of another kind.
    #[error("{name} is no source of kernels: it can be a .cu, a .ptx or a .py file, or a manifest, .toml")]
    Kind {
        /// The file.
        name: String,
    },
    /// The manifest cannot be read.
    #[error("{name}: {error}")]
    Manifest {
        /// The manifest.
        name: String,
        /// What is wrong with it.
        error: ManifestError,
    },
}

/// A manifest to start from.
fn example(source: &Path) -> String {
    let file = source.file_name().unwrap_or_default().display();
    let entry = match Language::of(source) {
        Some(Language::Cuda) => "entry = \"rms_norm<{{ data }}>\"   # a C++ name; {{ data }} is float, __half, ...\n  ",
        _ => "entry = \"rms_norm\"\n  ",
    };
    format!(
        "\n  source = \"{file}\"\n\n  [[kernel]]\n  name = \"mine.rms_norm\"\n  op = \"rms_norm\"   # `isonorm explain rms_norm` \
         names its tensors, sizes and attributes\n  direction = \"forward\"\n  dtypes = [\"f32\"]\n\n  [[kernel.launch]]\n  when = \
         \"r > 0\"\n  {entry}arguments = [\"x\", \"weight\", \"y\", \"r: i32\", \"d: i32\", \"eps: f32\"]\n  grid = [\"r\"]\n  block = \
         [\"256\"]\n"
    )
}

macro_rules! files {
    ($($name:literal),*) => {
        &[$(($name, include_str!(concat!("../", $name)))),*]
    };
}

/// The manifests that are built in, and what they name.
static BUILT_IN: &[(&str, &str)] =
    files!["channels.cu", "channels.cuh", "channels.toml", "norm.cuh", "rows.cu", "rows.cuh", "rows.toml"];

impl Library {
    /// Reads a manifest, or a source with the manifest beside it that has the same stem, and everything that it names.
    ///
    /// # Errors
    /// If a file is missing or wrong: which, and what to do about it.
    pub fn open(path: &Path) -> Result<Library, LibraryError> {
        let manifest = path.with_extension("toml");
        let given = if path == manifest { None } else { Some(path) };
        if let Some(source) = given {
            let name = source.display().to_string();
            Language::of(source).ok_or(LibraryError::Kind { name })?;
            read(source)?;
            if !manifest.exists() {
                return Err(LibraryError::NoManifest { manifest, file: source.to_owned() });
            }
        }
        let folder = manifest.parent().unwrap_or(Path::new("")).to_owned();
        let library =
            Library::new(&manifest.display().to_string(), &read(&manifest)?, |name| read(&folder.join(name)))?;
        let named = library.source.name.clone();
        match given {
            Some(source) if source.file_name() != Path::new(&named).file_name() => {
                let file = source.to_owned();
                Err(LibraryError::OtherSource { manifest, file, named })
            }
            _ => {
                let source = Source { path: Some(folder.join(named)), ..library.source };
                Ok(Library { path: Some(manifest), source, ..library })
            }
        }
    }

    /// The kernels that come with isonorm.
    ///
    /// # Errors
    /// If a manifest is wrong; a test shows that none is.
    pub fn built_in() -> Result<Vec<Library>, LibraryError> {
        let find = |name: &str| {
            let found = BUILT_IN.iter().find(|(own, _)| *own == name).map(|(_, text)| (*text).to_owned());
            let path = PathBuf::from(name);
            found.ok_or_else(|| LibraryError::Unreadable { path, source: io::ErrorKind::NotFound.into() })
        };
        let manifests = BUILT_IN.iter().filter(|(name, _)| name.ends_with(".toml"));
        manifests.map(|(name, text)| Library::new(name, text, find)).collect()
    }

    /// A library from a manifest's text and what finds the files that it names.
    ///
    /// # Errors
    /// If the manifest is wrong, or a file is not found.
    pub fn new(
        name: &str,
        text: &str,
        file: impl Fn(&str) -> Result<String, LibraryError>,
    ) -> Result<Library, LibraryError> {
        let wrong = |error| LibraryError::Manifest { name: name.to_owned(), error };
        let Manifest { source, include, options, arch, kernels } = Manifest::parse(text).map_err(wrong)?;
        let language = Language::of(Path::new(&source)).ok_or(LibraryError::Kind { name: source.clone() })?;
        let mut digest = Sha256::new();
        digest.update(text);
        let mut fetch = |name: &str| {
            let text = file(name)?;
            digest.update(&text);
            Ok(text)
        };
        let text = fetch(&source)?;
        let include = include.into_iter().map(|name| Ok((name.clone(), fetch(&name)?)));
        let include = include.collect::<Result<_, LibraryError>>()?;
        let arch = arch.unwrap_or_else(|| "sm_90".to_owned());
        Ok(Library {
            path: None,
            name: name.to_owned(),
            sha256: hexadecimal(&digest.finalize()),
            source: Source { name: source, path: None, language, text, include, options, arch },
            kernels,
        })
    }
}

pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read(path: &Path) -> Result<String, LibraryError> {
    fs::read_to_string(path).map_err(|source| LibraryError::Unreadable { path: path.to_owned(), source })
}
