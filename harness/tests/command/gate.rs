//! The gate as a pipeline calls it: a change of a kernel is caught, no change is not.

use std::path::{Path, PathBuf};
use std::process::Output;

use super::{example, isonorm, json, text};

/// Nothing is timed: what is asked is the same every time.
const UNTIMED: &str = "[on]\nspeed = \"off\"\n";
/// Everything is timed as shortly as possible, and nothing of it decides.
const TIMED: &str =
    "[on]\nspeed = \"report\"\n[speed]\nprocesses = 3\nplacements = 1\nmilliseconds = 1\nshapes = [\"2x64\"]\n";

const SUM: &str = "float sum = 0;\n    for (int64_t i = 0; i < d; i++) sum += in[i] * in[i];";
/// A sum of the same squares that loses next to nothing.
const ACCURATE: &str = "double sum = 0;\n    for (int64_t i = 0; i < d; i++) sum += (double)in[i] * in[i];";

struct Pipeline {
    folder: tempfile::TempDir,
}

impl Pipeline {
    fn new() -> Pipeline {
        Pipeline { folder: tempfile::tempdir().expect("a folder") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The example with a change, in a folder of its own.
    fn library(&self, name: &str, from: &str, to: &str) -> PathBuf {
        let folder = self.path(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        example(&folder, from, to)
    }

    fn gate(&self, library: &Path, policy: &str, more: &[&str]) -> Output {
        let file = self.path("policy.toml");
        std::fs::write(&file, policy).expect("written");
        let paths =
            [&self.path("baseline.json"), library, &file, &self.path("out")].map(|path| path.display().to_string());
        let [baseline, library, policy, out] = &paths;
        let fixed = ["gate", "--baseline", baseline, "--plugin", library, "--policy", policy, "--out", out];
        isonorm(&[&fixed[..], more].concat())
    }
}

/// A wrong tail, and a sum that loses several times as much within the bound, with several seeds: 50 with `ISONORM_NIGHTLY=1`.
#[test]
fn planted_changes_are_caught_and_no_change_is_not() {
    let pipeline = Pipeline::new();
    let honest = pipeline.library("honest", SUM, ACCURATE);
    let wrong = ACCURATE.replace("i < d;", "i < d - (d > 8 && d % 8 == 1);");
    let tail = pipeline.library("tail", SUM, &wrong);
    // As the example does it: where sums are exact they stay so, and elsewhere errors grow with the length of the row.
    let inaccurate = pipeline.library("inaccurate", "", "");
    let seeds = if std::env::var_os("ISONORM_NIGHTLY").is_some_and(|value| value == "1") { 50 } else { 2 };
    for seed in 1..=seeds {
        let more = ["--cases", "500", "--seed", &seed.to_string()];
        let output = pipeline.gate(&honest, UNTIMED, &[&more[..], &["--update"]].concat());
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        // Cases and seed are those of the baseline.
        for (library, kinds, code) in
            [(&honest, &[][..], 0), (&tail, &["correctness"], 1), (&inaccurate, &["accuracy"], 1)]
        {
            let output = pipeline.gate(library, UNTIMED, &["--format", "json"]);
            let document = json(&output);
            assert_eq!(output.status.code(), Some(code), "seed {seed}: {document:#}");
            let regressions = document["regressions"].as_array().expect("a list");
            let found = |kind: &&str| regressions.iter().any(|regression| regression["kind"] == **kind);
            assert!(kinds.iter().all(found) && regressions.is_empty() == kinds.is_empty(), "{document:#}");
            assert_eq!(document["verdict"], if code == 0 { "pass" } else { "fail" });
            if kinds == ["accuracy"] {
                assert!(regressions.iter().all(|regression| regression["kind"] == "accuracy"), "{document:#}");
                let case = regressions[0]["case"].as_str().expect("the case that shows it");
                assert!(regressions[0]["evidence"].as_str().is_some_and(|said| said.contains(case)), "{document:#}");
            }
        }
    }
    for file in ["gate.html", "gate.md", "gate.json", "gate.xml", "gate.sarif", "gate.intoto.json"] {
        assert!(pipeline.path("out").join(file).exists(), "{file} is missing");
    }
    let statement = std::fs::read_to_string(pipeline.path("out/gate.intoto.json")).expect("the statement");
    assert!(statement.contains("librms_norm.so"), "{statement}");
}

#[test]
fn a_gate_times_kernels_and_answers_in_the_job_summary() {
    let pipeline = Pipeline::new();
    let honest = pipeline.library("honest", "", "");
    let output = pipeline.gate(&honest, TIMED, &["--cases", "50", "--update"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let baseline = std::fs::read_to_string(pipeline.path("baseline.json")).expect("a baseline");
    assert!(baseline.contains("rms_norm f32 2x64 t1 vs copy"), "{baseline}");
    // The records of a campaign that ran before, which stay, and times of now, which are in place of those of then.
    let kept = pipeline.path("out/candidate/campaign").display().to_string();
    for records in [&kept, &pipeline.path("out/candidate").display().to_string()] {
        let output = pipeline.gate(&honest, TIMED, &["--candidate", records, "--speed", "--format", "json"]);
        let document = json(&output);
        let timed = document["speed"].as_array().map(Vec::len);
        assert_eq!(
            (output.status.code(), timed),
            (Some(0), Some(1)),
            "{records}: {document:#}{}",
            text(&output.stderr)
        );
        assert!(Path::new(&kept).join("records.jsonl").exists(), "the records that were given are gone");
    }
    // An update from the same records says that nothing but times has changed.
    let output = pipeline.gate(&honest, UNTIMED, &["--candidate", &kept, "--update"]);
    assert_eq!(text(&output.stdout), "nothing has changed\n", "{}", text(&output.stderr));
}

#[test]
fn what_cannot_be_asked_is_said() {
    let pipeline = Pipeline::new();
    let honest = pipeline.library("honest", "", "");
    let refused = |policy: &str, more: &[&str], mention: &str| {
        let output = pipeline.gate(&honest, policy, more);
        let said = text(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains(mention), "{more:?}: {said}");
    };
    refused(UNTIMED, &[], "make one with --update");
    std::fs::write(pipeline.path("baseline.json"), "{\"baseline\": 99}").expect("written");
    refused(UNTIMED, &[], "format version 99");
    std::fs::remove_file(pipeline.path("baseline.json")).expect("removed");
    refused("[speed]\nshapes = [\"12xx4\"]\n", &["--update"], "12xx4");
    refused("[speed]\nshape = 1\n", &["--update"], "unknown field `shape`");
    let output = pipeline.gate(&honest, UNTIMED, &["--cases", "20", "--update"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    refused(UNTIMED, &["--cases", "30"], "ask the same");
    refused(UNTIMED, &["--job-summary"], "GITHUB_STEP_SUMMARY");
    let waiver = "[[waiver]]\nname = \"k\"\nreason = \"old\"\nexpires = 2020-01-01\n";
    refused(&format!("{UNTIMED}{waiver}"), &[], "not everything was asked");
}
