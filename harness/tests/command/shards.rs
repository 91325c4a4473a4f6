//! A campaign cut in parts over many machines is the campaign.

use std::path::Path;
use std::process::Command;

use isonorm_reports::gate::Snapshot;
use isonorm_reports::summary::Summary;

use super::{example, isonorm, text};

/// All that records say about kernels, to the bit.
pub(super) fn content(folder: &Path) -> (String, String) {
    let summary = Summary::read(&[folder.to_owned()]).expect("records");
    assert!(summary.problems.is_empty(), "{:?}", summary.problems);
    let kernels = summary.kernels.into_iter().map(|mut kernel| {
        kernel.runs.clear();
        format!("{kernel:?}\n")
    });
    let mut baseline = Snapshot::of(&[folder.to_owned()]).expect("a snapshot");
    baseline.taken.clear();
    (kernels.collect(), baseline.text().expect("JSON"))
}

fn exit(output: &std::process::Output) -> (Option<i32>, String) {
    (output.status.code(), format!("{}{}", text(&output.stdout), text(&output.stderr)))
}

/// A good kernel, and one with findings, which are shrunk wherever they are first met.
#[test]
fn shards_together_are_the_whole_campaign() {
    let folder = tempfile::tempdir().expect("a folder");
    let faulty = example(folder.path(), "(float)isonorm_real(call, \"eps\", 1e-5)", "0.0f").display().to_string();
    let good = ["--op", "rms_norm", "--direction", "forward", "--seed", "5"];
    for (name, select, code) in [("good", &good[..], 0), ("faulty", &["--plugin", &faulty][..], 1)] {
        let path = |part: &str| folder.path().join(name).join(part);
        let run = |out: &str, shard: &str, index: &str| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_isonorm"));
            command.args(["certify", "--cases", "203", "--shard", shard, "--out"]).arg(path(out)).args(select);
            let output = command.env("JOB_COMPLETION_INDEX", index).output().expect("the command starts");
            exit(&output)
        };
        let (found, said) = run("whole", "1/1", "9");
        assert_eq!(found, Some(code), "{said}");
        for index in ["3", "0", "2", "1"] {
            let (_, said) = run("parts", "auto/4", index);
            assert!(said.contains("as JOB_COMPLETION_INDEX says"), "{said}");
        }
        let (whole, parts) = (content(&path("whole")), content(&path("parts")));
        assert!(whole == parts, "{}\n{}", whole.0, parts.0);
        let baseline = folder.path().join("merged.json").display().to_string();
        let parts = path("parts").display().to_string();
        let output = isonorm(&["gate", "--baseline", &baseline, "--update", "--candidate", &parts]);
        assert_eq!(exit(&output).0, Some(0), "{:?}", exit(&output));
    }
}

#[test]
fn missing_and_duplicate_shards_are_noticed_and_a_lost_one_is_run_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("parts").display().to_string();
    let run = |shard: &str| {
        let select = ["--op", "crms_norm", "--direction", "forward", "--dtype", "f32"];
        let output = isonorm(&[&["certify", "--cases", "20", "--shard", shard, "--out", &out], &select[..]].concat());
        assert_eq!(output.status.code(), Some(0), "{:?}", exit(&output));
    };
    let report = || exit(&isonorm(&["report", &out, "--out", &folder.path().join("report").display().to_string()]));
    ["1/3", "3/3"].into_iter().for_each(run);
    let (code, said) = report();
    assert!(code == Some(2) && said.contains("missing: 2"), "{said}");

    // It was killed half-way: what it wrote stays, and it is run again alone.
    let whole = std::fs::read_to_string(folder.path().join("parts/records-1-of-3.jsonl")).expect("records");
    let half = &whole[..whole.len() / 2].replace("\"index\":1", "\"index\":2");
    std::fs::write(folder.path().join("parts/records-2-of-3.jsonl"), half).expect("written");
    assert_eq!(report().0, Some(2));
    run("2/3");
    assert!(folder.path().join("parts/records-2-of-3.2.jsonl").exists(), "nothing is replaced");
    let (code, said) = report();
    assert_eq!(code, Some(0), "{said}");

    // Twice all of it is more than is needed, and something to look into.
    run("2/3");
    let (code, said) = report();
    assert!(code == Some(2) && said.contains("shard 2 of 3 with seed 1 is there more than once"), "{said}");
}
