//! Compiled kernels on disk.

use std::io::Write;
use std::path::PathBuf;
use std::{env, fs};

use super::{CompileError, Compiled};

/// A folder of compiled kernels, by a hash of everything that decides them.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: Option<PathBuf>,
}

impl Cache {
    /// The user's: `$XDG_CACHE_HOME/isonorm`, else `~/.cache/isonorm`.
    pub fn of_user() -> Cache {
        let folder = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let base = folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home.join(".cache")));
        Cache { folder: base.map(|base| base.join("isonorm").join("ptx")) }
    }

    /// In a folder of one's own.
    pub fn in_folder(folder: PathBuf) -> Cache {
        Cache { folder: Some(folder) }
    }

    /// Nothing is kept.
    pub fn none() -> Cache {
        Cache { folder: None }
    }

    /// What is kept under a key; what `make` makes otherwise, which is kept. A cache that cannot be read or written costs
    /// time and nothing else.
    pub(super) fn get(
        &self,
        key: &str,
        make: impl FnOnce() -> Result<Compiled, CompileError>,
    ) -> Result<Compiled, CompileError> {
        let Some(folder) = &self.folder else { return make() };
        let path = folder.join(format!("{key}.json"));
        let kept = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        if let Some(kept) = kept {
            return Ok(kept);
        }
        let made = make()?;
        if let Ok(bytes) = serde_json::to_vec(&made) {
            let keep = || -> std::io::Result<()> {
                fs::create_dir_all(folder)?;
                // Whole or not at all: others may read and write the same file.
                let mut file = tempfile::NamedTempFile::new_in(folder)?;
                file.write_all(&bytes)?;
                file.persist(&path)?;
                Ok(())
            };
            let _ = keep();
        }
        Ok(made)
    }
}
