//! Puts all reports into a folder.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::certificate::Certificate;
use crate::summary::Summary;
use crate::{Error, bench, claims, html, identities, junit, plot};

/// Writes `report.html`, `junit.xml`, `certificates/KERNEL.json` and `.md`, `figures/NAME.svg` and, if speed was measured,
/// `benches.json` and `benches.md`, `identities.json` if identities were checked and `claims.json` if claims were measured, into
/// a folder, which is made if it is not there, and says which files these are. Each file appears complete or not at all.
///
/// # Errors
/// [`Error::Write`] if a file cannot be written, and what the parts of the report return.
pub fn write_all(folder: &Path, summary: &Summary) -> Result<Vec<PathBuf>, Error> {
    let mut written = Vec::new();
    let mut put = |name: String, text: String| -> Result<(), Error> {
        let path = folder.join(name);
        write(&path, &text).map_err(|source| Error::Write { path: path.clone(), source })?;
        written.push(path);
        Ok(())
    };
    put("report.html".to_owned(), html::page(summary)?)?;
    put("junit.xml".to_owned(), junit::junit(summary)?)?;
    if !summary.benches.is_empty() {
        put("benches.md".to_owned(), bench::markdown(&summary.benches))?;
        put("benches.json".to_owned(), serde_json::to_string_pretty(&bench::document(&summary.benches))? + "\n")?;
    }
    if !summary.identities.is_empty() {
        put(
            "identities.json".to_owned(),
            serde_json::to_string_pretty(&identities::document(&summary.identities))? + "\n",
        )?;
    }
    if !summary.claims.is_empty() {
        let text = serde_json::to_string_pretty(&claims::document(&summary.claims))? + "\n";
        put("claims.json".to_owned(), text)?;
    }
    let mut taken = BTreeSet::new();
    for kernel in &summary.kernels {
        let certificate = Certificate::new(summary, kernel);
        let name = file_name(&kernel.kernel.name, &mut taken);
        put(format!("certificates/{name}.json"), certificate.json()?)?;
        put(format!("certificates/{name}.md"), certificate.markdown()?)?;
    }
    let mut taken = BTreeSet::new();
    let figures = [
        plot::figures(summary)?,
        plot::bench_figures(&summary.benches)?,
        plot::identity_figures(&summary.identities)?,
        plot::network_figures(&summary.experiments)?,
        plot::claim_figures(&summary.claims)?,
    ];
    for figure in figures.into_iter().flatten() {
        put(format!("figures/{}.svg", file_name(&figure.name, &mut taken)), figure.file())?;
    }
    Ok(written)
}

/// Writes a file, and the folders it lies in, so that it appears complete or not at all.
///
/// # Errors
/// What the operating system says.
pub fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut builder = tempfile::Builder::new();
    // Temporary files are private; a report is as open as the user's other files.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.tempfile_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.persist(path)?;
    Ok(())
}

/// A name that any file system takes, and that is not taken yet: strangers name their kernels as they like.
fn file_name(name: &str, taken: &mut BTreeSet<String>) -> String {
    let tame = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    let tame: String = name.chars().map(tame).take(100).collect();
    let tame = if tame.is_empty() || tame.starts_with('.') { format!("_{tame}") } else { tame };
    // Some file systems do not tell upper from lower case.
    let free = |name: &String| !taken.contains(&name.to_ascii_lowercase());
    let numbered = std::iter::once(tame.clone()).chain((2u64..).map(|n| format!("{tame}-{n}")));
    let chosen = numbered.into_iter().find(free).unwrap_or(tame);
    taken.insert(chosen.to_ascii_lowercase());
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_kernel_gets_a_file_of_its_own() {
        let mut taken = BTreeSet::new();
        let mut name = |name: &str| file_name(name, &mut taken);
        assert_eq!(name("isonorm.rms_norm"), "isonorm.rms_norm");
        assert_eq!(name("../../etc/passwd"), "_.._.._etc_passwd");
        assert_eq!(name("a b"), "a_b");
        assert_eq!(name("A/b"), "A_b-2");
        assert_eq!(name(""), "_");
        assert_eq!(name(&"x".repeat(300)).len(), 100);
    }
}
