//! Puts a gate's answer into a folder.

use std::path::{Path, PathBuf};

use super::{Artifact, Gate, Policy, Snapshot, document, junit, markdown, sarif, statement};
use crate::{Error, html};

/// What an answer is told with besides the gate itself.
pub struct Context<'a> {
    /// What the gate was strict about.
    pub policy: &'a Policy,
    /// Older baselines, the oldest first.
    pub history: &'a [Snapshot],
    /// The baseline's file, relative to the root of the sources.
    pub baseline: &'a str,
    /// What was tested.
    pub tested: &'a [Artifact],
    /// What decided how: the baseline and the policy.
    pub configuration: &'a [Artifact],
}

/// Writes `gate.html`, `gate.md`, `gate.json`, `gate.xml` (JUnit), `gate.sarif` and `gate.intoto.json` into a folder, which is
/// made if it is not there, and says which files these are.
///
/// # Errors
/// [`Error::Write`] if a file cannot be written, and what the parts of the answer return.
pub fn write_all(folder: &Path, gate: &Gate, context: &Context) -> Result<Vec<PathBuf>, Error> {
    let json = |value: &serde_json::Value| serde_json::to_string_pretty(value).map(|text| text + "\n");
    let files = [
        ("gate.html", html::gate_page(gate, context.history)?),
        ("gate.md", markdown(gate)),
        ("gate.json", json(&serde_json::to_value(document(gate))?)?),
        ("gate.xml", junit(gate)?),
        ("gate.sarif", json(&sarif(gate, context.policy, context.baseline))?),
        ("gate.intoto.json", json(&statement(gate, context.tested, context.configuration))?),
    ];
    let put = |(name, text): (&str, String)| {
        let path = folder.join(name);
        crate::write(&path, &text).map_err(|source| Error::Write { path: path.clone(), source })?;
        Ok(path)
    };
    files.into_iter().map(put).collect()
}
