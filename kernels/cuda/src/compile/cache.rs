//! Compiled kernels on disk.

use std::env;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::{CompileError, Compiled};

/// What nobody wanted for so long is removed: sources change, and what was made of the old ones stays behind.
const UNWANTED: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How exactly it is noted when something was wanted.
const NOTED: Duration = Duration::from_secs(24 * 60 * 60);

/// A folder of compiled kernels, by a hash of everything that decides them.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: Option<PathBuf>,
}

impl Cache {
    /// The user's: `$XDG_CACHE_HOME/isonorm`, else `~/.cache/isonorm`, without what nobody wanted for a month.
    pub fn of_user() -> Cache {
        let folder = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let base = folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home.join(".cache")));
        let cache = Cache { folder: base.map(|base| base.join("isonorm").join("ptx")) };
        cache.tidy();
        cache
    }

    /// In a folder of one's own.
    pub fn in_folder(folder: PathBuf) -> Cache {
        Cache { folder: Some(folder) }
    }

    /// Nothing is kept.
    pub fn none() -> Cache {
        Cache { folder: None }
    }

    /// Removes what nobody wanted for long. What cannot be removed stays.
    fn tidy(&self) {
        let files = self.folder.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
        for file in files.map(|entry| entry.path()).filter(|path| is_older(path, UNWANTED)) {
            let _ = fs::remove_file(file);
        }
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
            if is_older(&path, NOTED) {
                let _ = File::options().append(true).open(&path).and_then(|file| file.set_modified(SystemTime::now()));
            }
            return Ok(kept);
        }
        let made = make()?;
        if let Ok(bytes) = serde_json::to_vec(&made) {
            let keep = || -> io::Result<()> {
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

/// Whether a file was last modified so long ago; one that is not there was not.
fn is_older(path: &Path, than: Duration) -> bool {
    let modified = fs::metadata(path).and_then(|data| data.modified()).ok();
    modified.and_then(|modified| modified.elapsed().ok()).is_some_and(|age| age > than)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aged(path: &Path, days: u64) {
        let then = SystemTime::now() - Duration::from_secs(days * 24 * 60 * 60);
        let file = File::options().append(true).create(true).open(path).expect("a file");
        file.set_modified(then).expect("a time");
    }

    #[test]
    fn what_is_wanted_stays_and_what_is_not_goes() {
        let folder = tempfile::tempdir().expect("a folder");
        let (old, wanted) = (folder.path().join("old.json"), folder.path().join("wanted.json"));
        aged(&old, 31);
        let cache = Cache::in_folder(folder.path().to_owned());
        let compiled = Compiled { name: "k".to_owned(), ..Compiled::default() };
        assert_eq!(cache.get("wanted", || Ok(compiled.clone())).expect("made").name, "k");
        aged(&wanted, 29);
        cache.tidy();
        assert!(!old.exists() && wanted.exists());
        // Wanted again: it counts from now on.
        assert_eq!(cache.get("wanted", || panic!("it is kept")).expect("kept").name, "k");
        assert!(!is_older(&wanted, NOTED));
    }
}
