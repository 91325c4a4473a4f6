use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, LineWriter, Write};
use std::path::{Path, PathBuf};

use super::{Campaign, Record, SCHEMA_VERSION};
use crate::Error;
use crate::error::BadLine;

/// Writes records, one per line. Each line reaches the file as soon as it is complete, so that a campaign that is cut
/// off keeps what it wrote.
pub struct Writer {
    path: PathBuf,
    file: LineWriter<File>,
}

impl Writer {
    /// Creates the file, and the folders it lies in; replaces one of that name.
    ///
    /// # Errors
    /// [`Error::Write`] if that is not possible.
    pub fn create(path: &Path) -> Result<Writer, Error> {
        let error = |source| Error::Write { path: path.to_owned(), source };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(error)?;
        }
        Ok(Writer { path: path.to_owned(), file: LineWriter::new(File::create(path).map_err(error)?) })
    }

    /// Creates a file of this name, or of this name with a number if there is one already, in one step: of several programs on
    /// several machines that share the folder each gets a file of its own, and none is ever replaced.
    ///
    /// # Errors
    /// [`Error::Write`] if that is not possible.
    pub fn create_beside(path: &Path) -> Result<Writer, Error> {
        let error = |source| Error::Write { path: path.to_owned(), source };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(error)?;
        }
        let numbered = |number: u32| match path.extension() {
            _ if number == 1 => path.to_owned(),
            Some(extension) => path.with_extension(format!("{number}.{}", extension.display())),
            None => path.with_extension(number.to_string()),
        };
        for path in (1..=u32::MAX).map(numbered) {
            match File::create_new(&path) {
                Ok(file) => return Ok(Writer { path, file: LineWriter::new(file) }),
                Err(taken) if taken.kind() == ErrorKind::AlreadyExists => {}
                Err(source) => return Err(error(source)),
            }
        }
        Err(error(ErrorKind::AlreadyExists.into()))
    }

    /// Where it writes.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes one record.
    ///
    /// # Errors
    /// [`Error::Write`] if the file cannot be written, for instance because the disk is full.
    pub fn write(&mut self, record: impl Into<Record>) -> Result<(), Error> {
        let mut line = serde_json::to_vec(&record.into())?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(|source| Error::Write { path: self.path.clone(), source })
    }
}

/// The files of records that a path stands for: itself, or all `*.jsonl` in the folder and the folders in it, in
/// alphabetical order.
///
/// # Errors
/// [`Error::Read`] if the path cannot be read, [`Error::NoRecords`] if the folder holds none.
pub fn files(path: &Path) -> Result<Vec<PathBuf>, Error> {
    let error = |source| Error::Read { path: path.to_owned(), source };
    if !std::fs::metadata(path).map_err(error)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        let error = |source| Error::Read { path: folder.clone(), source };
        for entry in std::fs::read_dir(&folder).map_err(error)? {
            let entry = entry.map_err(error)?;
            // Symbolic links to folders are not followed: they may form a circle.
            if entry.file_type().map_err(error)?.is_dir() {
                folders.push(entry.path());
            } else if entry.path().extension().is_some_and(|e| e == "jsonl") {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    if found.is_empty() { Err(Error::NoRecords { path: path.to_owned() }) } else { Ok(found) }
}

/// Reads a file of records, all of it or nothing.
///
/// # Errors
/// [`Error::Read`] if it cannot be read, [`Error::SchemaVersion`] if another version of isonorm wrote it,
/// [`Error::NoCampaign`] if it does not open with a campaign record, [`Error::Line`] if a line is not a record.
pub fn read(path: &Path) -> Result<Vec<Record>, Error> {
    let (records, bad) = read_lossy(path)?;
    match bad.into_iter().next() {
        None => Ok(records),
        Some(bad) => Err(bad.into()),
    }
}

/// Reads what is good in a file of records, and says which lines are not.
///
/// # Errors
/// As for [`read`], except that lines that are not records are returned beside the records.
pub fn read_lossy(path: &Path) -> Result<(Vec<Record>, Vec<BadLine>), Error> {
    let error = |source| Error::Read { path: path.to_owned(), source };
    let mut file = BufReader::new(File::open(path).map_err(error)?);
    let (mut records, mut bad, mut text) = (Vec::new(), Vec::new(), Vec::new());
    for line in 1.. {
        text.clear();
        if file.read_until(b'\n', &mut text).map_err(error)? == 0 {
            break;
        }
        if text.trim_ascii().is_empty() {
            continue;
        }
        let record = serde_json::from_slice::<Record>(&text);
        let schema = match &record {
            Ok(Record::Campaign(Campaign { schema, .. })) => Some(u64::from(*schema)),
            Ok(_) => None,
            Err(_) => foreign_schema(&text),
        };
        match schema {
            Some(found) if found != u64::from(SCHEMA_VERSION) => {
                return Err(Error::SchemaVersion { path: path.to_owned(), line, found });
            }
            None if records.is_empty() => {
                return Err(Error::NoCampaign { path: path.to_owned(), line });
            }
            _ => {}
        }
        match record {
            Ok(record) => records.push(record),
            Err(source) => {
                let cut = !text.ends_with(b"\n");
                bad.push(BadLine { path: path.to_owned(), line, good: records.len(), cut, source });
            }
        }
    }
    Ok((records, bad))
}

/// The schema version in a campaign record that cannot be read otherwise: a later version may have other fields.
fn foreign_schema(text: &[u8]) -> Option<u64> {
    let value: serde_json::Value = serde_json::from_slice(text).ok()?;
    (value.get("record")? == "campaign").then(|| value.get("schema")?.as_u64())?
}
