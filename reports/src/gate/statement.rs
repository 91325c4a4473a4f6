//! A gate as an in-toto statement with the predicate `test-result` v0.1, which can be signed.

use serde_json::{Value, json};

use super::{Consequence, Gate, Kind, Verdict};

/// A file that was tested, or that decided how.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Artifact {
    /// Its name.
    pub name: String,
    /// SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
}

/// The statement: what was tested, with which baseline and policy, and what came of it.
pub fn statement(gate: &Gate, tested: &[Artifact], configuration: &[Artifact]) -> Value {
    let describe = |artifacts: &[Artifact]| -> Vec<Value> {
        let one = |artifact: &Artifact| json!({ "name": artifact.name, "digest": { "sha256": artifact.sha256 } });
        artifacts.iter().map(one).collect()
    };
    let named = |fails: bool| -> Vec<String> {
        let regressions = gate.regressions.iter();
        let chosen = regressions.filter(|regression| (regression.consequence == Consequence::Fails) == fails);
        chosen.map(|regression| format!("{}: {}", regression.kind, regression.name)).collect()
    };
    let undecided = gate.undecided.iter().map(|undecided| format!("{}: {}", undecided.kind, undecided.name));
    let warned: Vec<String> = named(false).into_iter().chain(undecided).collect();
    let failed = named(true);
    let clean = |kind: &Kind| !warned.iter().chain(&failed).any(|test| test.starts_with(&format!("{kind}: ")));
    let passed: Vec<String> = gate.kinds().iter().filter(|kind| clean(kind)).map(Kind::to_string).collect();
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": describe(tested),
        "predicateType": "https://in-toto.io/attestation/test-result/v0.1",
        "predicate": {
            "result": match gate.verdict {
                Verdict::Pass if warned.is_empty() => "PASSED",
                Verdict::Pass | Verdict::Undecided => "WARNED",
                Verdict::Fail => "FAILED",
            },
            "configuration": describe(configuration),
            "passedTests": passed,
            "warnedTests": warned,
            "failedTests": failed,
        },
    })
}
