//! What a gate's answer is told with: older baselines, and digests of what was tested and of what decided how.

use std::path::{Path, PathBuf};
use std::process::Command;

use isonorm_reports::gate::{Artifact, Snapshot};
use isonorm_reports::record;
use sha2::{Digest, Sha256};

use super::super::Error;

/// Up to so many older versions of a baseline, the oldest first, as git keeps them. Where git keeps none, or is not there, there
/// is no history.
pub(super) fn history(baseline: &Path, most: usize) -> Vec<Snapshot> {
    let folder = baseline.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Some(name) = baseline.file_name().and_then(|name| name.to_str()) else { return Vec::new() };
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(folder).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let most = most.to_string();
    let commits = git(&["log", "--max-count", &most, "--format=%H", "--", name]).unwrap_or_default();
    let mut versions: Vec<Snapshot> = commits
        .lines()
        .filter_map(|commit| git(&["show", &format!("{commit}:./{name}")]))
        // What an older isonorm wrote in another format is no reason to say nothing.
        .filter_map(|text| Snapshot::parse(&text).ok())
        .collect();
    versions.reverse();
    // The newest is the baseline itself.
    if let (Some(newest), Ok(own)) = (versions.last(), Snapshot::read(baseline))
        && *newest == own
    {
        versions.pop();
    }
    versions
}

/// What was tested: the libraries that the records name; else the records themselves, or this program, whose kernels are part
/// of it.
pub(super) fn tested(after: &Snapshot, candidate: &[PathBuf]) -> Result<Vec<Artifact>, Error> {
    if !after.libraries.is_empty() {
        let library = |(name, sha256): (&String, &String)| Artifact { name: name.clone(), sha256: sha256.clone() };
        return Ok(after.libraries.iter().map(library).collect());
    }
    if candidate.is_empty() {
        return std::env::current_exe().map_or_else(|_| Ok(Vec::new()), |program| Ok(vec![artifact(&program)?]));
    }
    let mut artifacts = Vec::new();
    for path in candidate {
        for file in record::files(path)? {
            artifacts.push(artifact(&file)?);
        }
    }
    Ok(artifacts)
}

/// A file with its digest.
pub(super) fn artifact(path: &Path) -> Result<Artifact, Error> {
    let bytes = std::fs::read(path).map_err(|source| isonorm_reports::Error::Read { path: path.to_owned(), source })?;
    let sha256 = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    Ok(Artifact { name, sha256 })
}
