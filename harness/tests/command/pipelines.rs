//! The templates for pipelines: they parse, and every shell step in them is run, in a repository made for it.
//!
//! What a service would do between the steps (checkouts, caches, artifacts) is done by the folder that all steps share. `cargo
//! isonorm` is the program of this build, and the `gh` that comments writes down what it was asked.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_norway::Value;

use super::{isonorm, text};

const CASES: &str = "16";
const POLICY: &str = "[ask]\noperators = [\"crms_norm\"]\n[on]\nspeed = \"report\"\n[speed]\nprocesses = 3\nplacements = 1\n\
                      milliseconds = 1\nshapes = [\"2x64\"]\n";

struct Repository {
    folder: tempfile::TempDir,
}

impl Repository {
    /// A repository with a policy, a baseline on its main branch, and programs on the path.
    fn new() -> Repository {
        let repository = Repository { folder: tempfile::tempdir().expect("a folder") };
        let root = repository.root();
        for folder in ["ci", "bin"] {
            std::fs::create_dir_all(root.join(folder)).expect("a folder");
        }
        std::fs::write(root.join("ci/policy.toml"), POLICY).expect("written");
        let program = env!("CARGO_BIN_EXE_isonorm");
        repository.program("isonorm", &format!("exec {program} \"$@\" --op crms_norm"));
        // The steps ask for every kernel; here one operator stands for all.
        repository.program("cargo", "shift; if [ \"$1\" = gate ]; then exec PROGRAM \"$@\"; fi; exec isonorm \"$@\"");
        let cargo = std::fs::read_to_string(root.join("bin/cargo")).expect("written").replace("PROGRAM", program);
        std::fs::write(root.join("bin/cargo"), cargo).expect("written");
        repository.program("gh", "echo \"$@\" >> gh.log");
        let (baseline, policy) = (repository.file("ci/baseline.json"), repository.file("ci/policy.toml"));
        let out = repository.file("first");
        let update = ["--update", "--cases", CASES, "--out", &out];
        let output = isonorm(&[&["gate", "--baseline", &baseline, "--policy", &policy], &update[..]].concat());
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        repository.step(
            "git init --quiet --initial-branch main && git add ci && \
             git -c user.name=test -c user.email=test@example.org commit --quiet --message baseline && \
             git remote add origin . && git update-ref refs/remotes/origin/main HEAD",
            &[],
        );
        repository
    }

    fn root(&self) -> &Path {
        self.folder.path()
    }

    fn file(&self, name: &str) -> String {
        self.root().join(name).display().to_string()
    }

    fn program(&self, name: &str, script: &str) {
        let path = self.root().join("bin").join(name);
        std::fs::write(&path, format!("#!/bin/bash\n{script}\n")).expect("written");
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(path, permissions).expect("executable");
    }

    /// Runs a step as the services do: a shell that stops at the first failure.
    fn step(&self, script: &str, variables: &[(&str, &str)]) {
        let path = std::env::var("PATH").unwrap_or_default();
        let output = Command::new("bash")
            .args(["-e", "-c", script])
            .current_dir(self.root())
            .env("PATH", format!("{}:{path}", self.root().join("bin").display()))
            .env("CASES", CASES)
            .env("GITHUB_STEP_SUMMARY", self.root().join("summary.md"))
            .envs(variables.iter().copied())
            .output()
            .expect("bash starts");
        let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{script}\n{said}");
    }

    fn has(&self, file: &str, mention: &str) {
        let found = std::fs::read_to_string(self.root().join(file)).unwrap_or_default();
        assert!(found.contains(mention), "{file} does not mention {mention:?}: {found}");
    }
}

fn template(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ci").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_norway::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn string(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value:?} is no text"))
}

/// What GitHub puts in place of expressions.
fn filled(script: &str, shard: &str) -> String {
    let filled = script.replace("${{ matrix.shard }}", shard).replace("${{ github.event.number }}", "7");
    assert!(!filled.contains("${{"), "an expression that this test does not know: {filled}");
    filled
}

#[test]
fn the_steps_for_github_actions_run() {
    let repository = Repository::new();
    let workflow = template("workflows/github.yml");
    let shards = workflow["jobs"]["campaign"]["strategy"]["matrix"]["shard"].as_sequence().expect("a matrix");
    let of = workflow["env"]["SHARDS"].as_u64().expect("a number");
    assert_eq!(of, shards.len() as u64, "as many shards as the matrix has");
    let mut ran = 0;
    for (job, places) in [("campaign", shards.len() as u64), ("gate", 1)] {
        for place in 1..=places {
            for step in workflow["jobs"][job]["steps"].as_sequence().expect("steps") {
                match (step.get("run"), step.get("uses")) {
                    (Some(script), None) => {
                        let script = filled(string(script), &place.to_string());
                        repository.step(&script, &[("SHARDS", &of.to_string())]);
                        ran += 1;
                    }
                    (None, Some(action)) => assert!(string(action).contains("@v"), "{action:?} has no version"),
                    _ => panic!("{step:?} is neither a script nor an action"),
                }
            }
        }
    }
    assert_eq!(ran, shards.len() + 3);
    repository.has("summary.md", "isonorm gate: nothing");
    repository.has("gh.log", "pr comment 7");
    repository.has("gh.log", "--body-file isonorm-out/gate.md");
    assert!(repository.root().join("isonorm-out/gate.sarif").exists());
}

#[test]
fn the_steps_for_gitlab_run() {
    let repository = Repository::new();
    let pipeline = template("workflows/gitlab.yml");
    let of = pipeline["campaign"]["parallel"].as_u64().expect("a number");
    let stages: Vec<&str> = pipeline["stages"].as_sequence().expect("stages").iter().map(string).collect();
    assert_eq!(stages, ["campaign", "gate"]);
    for (job, places) in [("campaign", of), ("gate", 1)] {
        assert_eq!((string(&pipeline[job]["stage"]), string(&pipeline[job]["extends"])), (job, ".isonorm"));
        for place in 1..=places {
            for line in pipeline[job]["script"].as_sequence().expect("a script") {
                let variables = [
                    ("CI_NODE_INDEX", &*place.to_string()),
                    ("CI_NODE_TOTAL", &of.to_string()),
                    ("CI_DEFAULT_BRANCH", "main"),
                ];
                repository.step(string(line), &variables);
            }
        }
    }
    let junit = string(&pipeline["gate"]["artifacts"]["reports"]["junit"]);
    repository.has(junit, "testsuites");
}

#[test]
fn the_parts_of_a_kubernetes_job_are_the_campaign() {
    let repository = Repository::new();
    let job = template("kubernetes/campaign.yaml");
    assert_eq!(string(&job["spec"]["completionMode"]), "Indexed");
    let of = job["spec"]["completions"].as_u64().expect("a number");
    let container = &job["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(
        container["command"].as_sequence().expect("a shell").iter().map(string).collect::<Vec<_>>(),
        ["sh", "-c"]
    );
    let script = string(&container["args"][0]).replace("/records", "records");
    assert!(script.contains(&format!("auto/{of}")), "as many shards as completions: {script}");
    for index in 0..of {
        repository.step(&script, &[("JOB_COMPLETION_INDEX", &index.to_string())]);
    }
    let (records, out): (PathBuf, PathBuf) = (repository.root().join("records"), repository.root().join("report"));
    let output = isonorm(&["report", &records.display().to_string(), "--out", &out.display().to_string()]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}
