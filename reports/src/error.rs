use std::path::PathBuf;

use crate::record::SCHEMA_VERSION;

/// What can go wrong when records are read or reports are written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file or folder cannot be written.
    #[error("cannot write {}: {source}; choose an output folder that can be written", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A folder holds no records.
    #[error("no records (*.jsonl) in {}: give the output folder of a campaign", path.display())]
    NoRecords {
        /// The folder.
        path: PathBuf,
    },
    /// The records were written with a schema version that this program does not know.
    #[error(
        "{}, line {line}: written with record schema version {found}, and this isonorm reads version {SCHEMA_VERSION}: \
         use the isonorm that wrote it, or a newer one",
        path.display()
    )]
    SchemaVersion {
        /// The file.
        path: PathBuf,
        /// Its line, counted from 1.
        line: usize,
        /// The version found there.
        found: u64,
    },
    /// A file of records does not open with a campaign record.
    #[error(
        "{}, line {line}: no campaign record comes before it, so it is not known who wrote it: give a file that \
         isonorm wrote, from its first line on",
        path.display()
    )]
    NoCampaign {
        /// The file.
        path: PathBuf,
        /// Its line, counted from 1.
        line: usize,
    },
    /// A line is not a record.
    #[error("{0}")]
    Line(#[from] BadLine),
    /// Something cannot be written as JSON.
    #[error("cannot write JSON")]
    Json(#[from] serde_json::Error),
    /// Something cannot be written as JUnit XML.
    #[error("cannot write JUnit XML")]
    Junit(#[from] quick_junit::SerializeError),
    /// A template cannot be filled.
    #[error("cannot fill a template")]
    Template(#[from] minijinja::Error),
    /// A figure cannot be drawn.
    #[error("cannot draw the figure {figure}: {reason}")]
    Plot {
        /// Its name.
        figure: String,
        /// What the plotting library said.
        reason: String,
    },
}

/// A line that is not a record.
#[derive(Debug, thiserror::Error)]
#[error(
    "{}, line {line}: {} ({source}); the {good} records before it are good: delete the line to use the rest, or run \
     the campaign again",
    path.display(),
    if *cut { "the record is cut off" } else { "not a record" }
)]
pub struct BadLine {
    /// The file.
    pub path: PathBuf,
    /// Its line, counted from 1.
    pub line: usize,
    /// How many records before it were read.
    pub good: usize,
    /// Whether the file ends inside the line.
    pub cut: bool,
    /// What is wrong with it.
    pub source: serde_json::Error,
}
