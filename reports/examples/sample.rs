//! Makes reports from made-up records, to look at: `cargo run -p isonorm-reports --example sample -- FOLDER`. The folder
//! gets one about a campaign, one about a benchmark, and one about both.

#[path = "../tests/common/benches.rs"]
mod benches;
#[path = "../tests/common/mod.rs"]
mod common;

use std::path::PathBuf;

use isonorm_reports::record::Writer;
use isonorm_reports::summary::Summary;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = PathBuf::from(std::env::args_os().nth(1).ok_or("name the folder to write to")?);
    let (campaign, benchmark) = (common::records(), benches::records());
    let both = campaign.iter().chain(&benchmark).cloned().collect();
    for (name, all) in [("campaign", campaign), ("benchmark", benchmark), ("both", both)] {
        let folder = folder.join(name);
        let records = folder.join("records.jsonl");
        let mut writer = Writer::create(&records)?;
        for record in all {
            writer.write(record)?;
        }
        let summary = Summary::read(&[records])?;
        println!("{}", isonorm_reports::bench::text(&summary.benches));
        for file in isonorm_reports::write_all(&folder, &summary)? {
            println!("{}", file.display());
        }
    }
    Ok(())
}
