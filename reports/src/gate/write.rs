//! Puts a gate's answer into a folder.

use std::path::{Path, PathBuf};

use super::{Gate, document, markdown};
use crate::Error;

/// Writes `gate.json` and `gate.md` into a folder, which is made if it is not there, and says which files these are.
///
/// # Errors
/// [`Error::Write`] if a file cannot be written.
pub fn write_all(folder: &Path, gate: &Gate) -> Result<Vec<PathBuf>, Error> {
    let files = [("gate.md", markdown(gate)), ("gate.json", serde_json::to_string_pretty(&document(gate))? + "\n")];
    let put = |(name, text): (&str, String)| {
        let path = folder.join(name);
        crate::write(&path, &text).map_err(|source| Error::Write { path: path.clone(), source })?;
        Ok(path)
    };
    files.into_iter().map(put).collect()
}
