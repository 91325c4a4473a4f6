//! Makes a report from made-up records, to look at: `cargo run -p isonorm-reports --example sample -- FOLDER`.

#[path = "../tests/common/mod.rs"]
mod common;

use std::path::PathBuf;

use isonorm_reports::record::Writer;
use isonorm_reports::summary::Summary;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = PathBuf::from(std::env::args_os().nth(1).ok_or("name the folder to write to")?);
    let records = folder.join("records.jsonl");
    let mut writer = Writer::create(&records)?;
    for record in common::records() {
        writer.write(record)?;
    }
    for file in isonorm_reports::write_all(&folder, &Summary::read(&[records])?)? {
        println!("{}", file.display());
    }
    Ok(())
}
