//! A gate as SARIF 2.1.0 (OASIS), which code scanning shows beside the source.

use serde_json::{Value, json};

use super::{Consequence, Gate, Kind, Policy, Regression};

/// The answer. Results point at the source file that the policy names for a kernel, and at `baseline` where it names none.
pub fn sarif(gate: &Gate, policy: &Policy, baseline: &str) -> Value {
    let rule = |kind: Kind| {
        let description = match kind {
            Kind::Correctness => "A kernel fails a case that it passed, or has a finding that it did not have.",
            Kind::Accuracy => "A kernel's errors, as multiples of the bound, have grown.",
            Kind::Speed => "A kernel has become slower, beside a yardstick measured in the same run.",
            Kind::Traffic => {
                "A kernel's launches move more memory or need more instructions, counted by the PTX executor."
            }
        };
        json!({ "id": kind.to_string(), "shortDescription": { "text": description } })
    };
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "isonorm",
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": Kind::ALL.map(rule),
            } },
            "results": gate.regressions.iter().map(|regression| result(regression, policy, baseline)).collect::<Vec<_>>(),
        }],
    })
}

fn result(regression: &Regression, policy: &Policy, baseline: &str) -> Value {
    let kernel = regression.name.split(' ').next().unwrap_or_default();
    let source = policy.source.iter().find(|source| source.matches(kernel));
    let file = source.map_or(baseline, |source| &source.file);
    let mut result = json!({
        "ruleId": regression.kind.to_string(),
        "level": if regression.consequence == Consequence::Fails { "error" } else { "note" },
        "message": { "text": format!("{}: {}", regression.name, regression.evidence) },
        "locations": [{
            "physicalLocation": {
                "artifactLocation": { "uri": file },
                "region": { "startLine": source.and_then(|source| source.line).unwrap_or(1) },
            },
            "logicalLocations": [{ "fullyQualifiedName": kernel, "kind": "function" }],
        }],
        // The same regression in the next run is the same alert.
        "partialFingerprints": { "regression/v1": format!("{} {}", regression.kind, regression.name) },
    });
    if let Consequence::Waived(reason) = &regression.consequence {
        result["suppressions"] = json!([{ "kind": "external", "justification": reason }]);
    }
    result
}
